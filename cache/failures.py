"""`failures.csv`: the utterances an extraction could not use, each with its reason."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path

from corpora.files import write_text


def write_failures(path: Path, reasons: Mapping[str, str]) -> None:
    """Write reasons by utterance id; without any, an old file is removed."""
    if not reasons:
        path.unlink(missing_ok=True)
        return
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["id", "reason"])
    writer.writerows(reasons.items())
    write_text(path, buffer.getvalue())


def read_failures(path: Path) -> dict[str, str]:
    """Reasons by utterance id; empty where there is no such file."""
    if not path.is_file():
        return {}
    with path.open(encoding="utf-8", newline="") as file:
        return {row["id"]: row["reason"] for row in csv.DictReader(file)}
