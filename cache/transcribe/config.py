"""What the user asks of a transcription."""

from __future__ import annotations

from dataclasses import dataclass

from corpora.base.command_options import Config, device_setting, setting
from corpora.utterance import ALL, SPLITS

WHISPER = "openai/whisper-large-v3"
AUTO = "auto"


def language_code(text: str) -> str:
    """Read a language as it is typed."""
    return text.strip().lower()


@dataclass(frozen=True)
class TranscribeConfig(Config):
    """What the user asks of a transcription."""

    model: str = setting(
        WHISPER, "Which Whisper: hub id or directory.", flag="--whisper", metavar="ID|DIR"
    )
    language: str = setting(
        "",
        "Of all recordings, such as de; auto detects it.  "
        "[default: the manifest's language where it gives one, else detected]",
        metavar="CODE",
        parse=language_code,
    )
    device: str = device_setting()
    batch_size: int | None = setting(
        None,
        "Pieces of up to 30 s decoded at once.  [default: 4 on a CPU, 16 on a GPU]",
        least=1,
    )
    # Of 621 recordings of EMO-DB and RAVDESS the least certain reaches .32; digital silence, hum
    # and noise stay below .05. Low, because a whisper lost is worse than a sigh that is decoded.
    speech_threshold: float = setting(
        0.1,
        "Recordings in which the probability of speech stays below this get no text; 0: off.",
        least=0,
        below=1,
    )
    overwrite: bool = setting(False, "Replace human texts, too.")
    reference: bool = setting(
        False,
        "Transcribe what has a human text, too, and print the word error rate; texts are kept.",
    )
    split: str = setting(ALL, "Only its utterances.", choices=(*SPLITS, ALL))
    limit: int | None = setting(None, "Hear the first N of them only.", least=1, metavar="N")
