"""Bytes, counts and tables as people read them."""

from __future__ import annotations

from collections.abc import Sequence

_UNITS = ("bytes", "kB", "MB", "GB", "TB", "PB")


def bytes_text(nbytes: int) -> str:
    """`1.3 GB`: powers of 1,000, three digits."""
    size, unit = float(nbytes), 0
    while size >= 999.5 and unit < len(_UNITS) - 1:
        size, unit = size / 1000, unit + 1
    if not unit:
        return f"{nbytes} bytes"
    return f"{size:.{2 if size < 9.995 else 1 if size < 99.95 else 0}f} {_UNITS[unit]}"


def count_text(count: int, singular: str, plural: str = "") -> str:
    """`1 part`, `2,000 parts`."""
    return f"{count:,} {singular if count == 1 else plural or f'{singular}s'}"


def table_lines(rows: Sequence[Sequence[str]], left: int) -> list[str]:
    """Rows as aligned lines; the first `left` columns to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if number < left else cell.rjust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
