"""`failures.csv`: the utterances an extraction could not use, each with its reason."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path

from corpora.base.errors import CacheError
from corpora.base.files import write_text
from corpora.base.terminal import as_written, inert


def write_failures(path: Path, reasons: Mapping[str, str]) -> None:
    """Write reasons by utterance id; without any, an old file is removed."""
    if not reasons:
        path.unlink(missing_ok=True)
        return
    buffer = io.StringIO()
    # A bare carriage return is not quoted by itself, and would end the row on reading.
    writer = csv.writer(buffer, lineterminator="\n", quoting=csv.QUOTE_ALL)
    writer.writerow(["id", "reason"])
    writer.writerows([inert(cell) for cell in row] for row in reasons.items())
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
            rows = csv.DictReader(file, strict=True)
            return {as_written(row["id"]): as_written(row["reason"]) for row in rows}
    except (KeyError, AttributeError, UnicodeDecodeError, csv.Error) as error:
        raise CacheError(
            f"{path} is damaged ({error!r}). Delete it and run `extract` again, which writes "
            "it anew."
        ) from error
