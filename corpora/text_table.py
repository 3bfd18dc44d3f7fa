"""Tables and paragraphs for a terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

WIDTH = 100  # columns


def aligned(rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> list[str]:
    """Lines with their cells under one another, two spaces apart.

    Args:
        rows: as many cells in each.
        right: columns whose cells end under one another.
    """
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if position in right else cell.ljust(width)
            for position, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def inert(cell: object) -> object:
    """A cell of a CSV that is made to be looked at: no spreadsheet takes its text for a formula.

    Ids, labels and words come from corpora. Text that begins with `=`, `+`, `-`, `@`, a tab or a
    carriage return gets an apostrophe in front, unless it is a number; so does text that has
    apostrophes before those, so that `as_written` is exact.
    """
    return f"'{cell}" if isinstance(cell, str) and _formula(cell.lstrip("'")) else cell


def as_written(cell: str) -> str:
    """What a cell said before it was made `inert`."""
    return cell[1:] if cell.startswith("'") and _formula(cell.lstrip("'")) else cell


def _formula(text: str) -> bool:
    if not text.startswith(("\t", "\r")) and not text.lstrip().startswith(("=", "+", "-", "@")):
        return False
    try:
        float(text)
    except ValueError:
        return True
    return False


def wrapped(text: str, indent: str = "  ") -> list[str]:
    """Lines of a paragraph, those after the first indented; words are not torn apart.

    Args:
        text: its own leading spaces indent the first line.
        indent: of the lines that follow.
    """
    return textwrap.wrap(
        text, WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )
