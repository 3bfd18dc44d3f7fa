"""The files in which the MSP-Podcast challenges (Odyssey 2024, Interspeech 2025) take predictions.

Categories (task 1): a CSV `FileName,EmoClass`, one letter of A S H U F D C N for each recording,
with the header that published entries use.

File names stand as they are, unlike in tables made to be looked at
(`corpora.base.terminal.inert`): a program compares them, and an apostrophe more would name another
recording.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path

from corpora.base.errors import ManifestError, did_you_mean
from corpora.base.files import write_text
from corpora.msp_ratings import CODES

LETTERS = {label: code for code, label in CODES.items()}


def write_submission(path: Path, rows: Iterable[tuple[str, str]]) -> int:
    """Write predicted emotions; returns how many.

    Args:
        path: the CSV.
        rows: (file name, label), for example (utterance.audio.name, "neutral").

    Raises:
        ManifestError: no row, a file twice, or a label that the challenge does not have.
    """
    lines = []
    for file, label in rows:
        if label not in LETTERS:
            raise ManifestError(
                f"{file}: '{label}' is no class of the challenge.{did_you_mean(label, LETTERS)} "
                f"It has: {', '.join(LETTERS)}."
            )
        lines.append((file, LETTERS[label]))
    return _write(path, ("FileName", "EmoClass"), lines)


def _write(path: Path, header: Sequence[str], lines: Sequence[Sequence[str]]) -> int:
    files = [line[0] for line in lines]
    if not lines or len(set(files)) < len(files):
        twice = next((file for file in files if files.count(file) > 1), "")
        raise ManifestError(
            f"{path}: {twice} is predicted twice." if twice else f"{path}: nothing to submit."
        )
    out = io.StringIO(newline="")
    csv.writer(out, lineterminator="\n").writerows([header, *lines])
    write_text(path, out.getvalue())
    return len(lines)
