"""Transcripts that lie in a text file of their own, one for each recording."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from corpora.encodings import UTF8_OR_WINDOWS, told_by_bytes

BYTES = 1 << 16  # read at once; nearly every transcript is shorter


def read_transcript(path: str | Path, encodings: Sequence[str] = UTF8_OR_WINDOWS) -> str:
    """Return the words of a text file with single spaces between them, "" where it is absent.

    Args:
        path: the file.
        encodings: tried in turn; what none of them decodes becomes U+FFFD, since one broken
            transcript is no reason to lose a corpus.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY)  # a corpus has 270,000: `open` takes twice as long
    except FileNotFoundError:
        return ""
    try:
        data = chunk = os.read(descriptor, BYTES)
        while len(chunk) == BYTES:
            chunk = os.read(descriptor, BYTES)
            data += chunk
    finally:
        os.close(descriptor)
    encodings = told_by_bytes(data, encodings)
    for encoding in encodings:
        try:
            return " ".join(data.decode(encoding).split())
        except UnicodeDecodeError:
            continue
    return " ".join(data.decode(encodings[0], errors="replace").split())
