"""Content keys: what an input is, whatever its name, its label or its corpus.

A renamed recording is a hit, a corrected transcript extracts its text alone, two corpora share one
cache. Keys are part of the cache's format: changing how they are made orphans every cache.
"""

from __future__ import annotations

import hashlib
import unicodedata

from cache.recipe import canonical_json

# 128 bits: no accidental collision among any number of utterances that fits on a disk.
KEY_DIGITS = 32

# Long recordings are encoded in windows of this length. Attention costs the square of a length, so
# windows are shorter than what is encoded whole (60 s), and much longer than what surrounds them:
WINDOW_SECONDS = 40.0
# of each window, so much at either side is encoded only for what lies inside. 250 frames: W2V-BERT
# tells distances apart up to 64 frames back and 8 ahead, its convolutions reach 31 frames a layer.
CONTEXT_SECONDS = 5.0


def audio_key(content_sha256: str, start: float | None = None, end: float | None = None) -> str:
    """Key of a stretch of a recording.

    Args:
        content_sha256: hexadecimal SHA-256 of the file's bytes.
        start: seconds; None is the file's start, so the same as 0.
        end: seconds; None is the file's end.

    Returns:
        32 hexadecimal digits.

    Raises:
        ValueError: a bound is not finite.
    """
    # `+ 0.0` turns -0.0 into 0.0, which is the same instant.
    first = 0.0 if start is None else float(start) + 0.0
    last = None if end is None else float(end)
    return _key(["audio", content_sha256.lower(), first, last])


def windowed_key(key: str) -> str:
    """Key of the frames of a recording that was encoded in overlapping windows.

    Its numbers differ a little from those of the whole recording encoded at once, so they lie
    under a key of their own beside those; all shorter recordings are the same with and without
    `--long window`. The sizes of the windows are in the key.

    Args:
        key: of the recording, from `audio_key`.

    Returns:
        32 hexadecimal digits.
    """
    return _key(["windowed", key, WINDOW_SECONDS, CONTEXT_SECONDS])


def text_key(text: str) -> str:
    """Key of a text, the same for all texts that `normalise_text` makes the same.

    Returns:
        32 hexadecimal digits.
    """
    return _key(["text", normalise_text(text)])


def normalise_text(text: str) -> str:
    """NFC, runs of white space as one space, none at the ends. Encoders see this same text."""
    return " ".join(unicodedata.normalize("NFC", text).split())


def _key(parts: list[str | float | None]) -> str:
    return hashlib.sha256(canonical_json(parts).encode("ascii")).hexdigest()[:KEY_DIGITS]
