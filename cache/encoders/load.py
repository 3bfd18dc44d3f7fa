"""The door to encoders in memory. Names, directories and recipe fields: `cache.encoders.files`."""

from cache.encoders.audio_encoder import AudioEncoder, ComputeDtype, load_audio_encoder
from cache.encoders.text_encoder import TextEncoder, Tokens, load_text_encoder

__all__ = [
    "AudioEncoder",
    "ComputeDtype",
    "TextEncoder",
    "Tokens",
    "load_audio_encoder",
    "load_text_encoder",
]
