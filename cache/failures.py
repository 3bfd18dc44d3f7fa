"""`failures.csv`: the utterances an extraction could not use, each with its reason."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path

from corpora.errors import CacheError
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
    """Reasons by utterance id; empty where there is no such file.

    Raises:
        CacheError: it is damaged.
    """
    if not path.is_file():
        return {}
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return {row["id"]: row["reason"] for row in csv.DictReader(file, strict=True)}
    except (KeyError, UnicodeDecodeError, csv.Error) as error:
        raise CacheError(
            f"{path} is damaged ({error!r}). Delete it and run `extract` again, which writes "
            "it anew."
        ) from error
