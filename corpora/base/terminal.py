"""What people read on a terminal: tables, paragraphs, amounts, progress."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Sequence
from typing import Any

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


def shortened(items: Sequence[str], most: int, where: str = "") -> list[str]:
    """The first of many lines, indented, and how many more there are.

    Args:
        items: a line each.
        most: shown.
        where: the others are, in words.
    """
    more = [f"and {len(items) - most:,} more{where}"] * (len(items) > most)
    return [f"  {item}" for item in (*items[:most], *more)]


_UNITS = ("bytes", "kB", "MB", "GB", "TB", "PB")


def bytes_text(nbytes: int) -> str:
    """`1.3 GB`: powers of 1,000, three digits."""
    size, unit = float(nbytes), 0
    while size >= 999.5 and unit < len(_UNITS) - 1:
        size, unit = size / 1000, unit + 1
    if not unit:
        return f"{nbytes} bytes"
    return f"{size:.{2 if size < 9.995 else 1 if size < 99.95 else 0}f} {_UNITS[unit]}"


# From how many seconds on a larger unit is used, and what it has.
_TIMES = ((2 * 3600.0, 3600.0, "h"), (120.0, 60.0, "min"), (0.0, 1.0, "s"))


def time_text(seconds: float) -> str:
    """`42.3 s`, `15.7 min`, `78.0 h`."""
    _, size, unit = next(one for one in _TIMES if seconds >= one[0])
    return f"{seconds / size:,.1f} {unit}"


def count_text(count: int, singular: str, plural: str = "") -> str:
    """`1 part`, `2,000 parts`."""
    return f"{count:,} {singular if count == 1 else plural or f'{singular}s'}"


#: The unit of bars over recordings.
AUDIO = "of audio"
# Shorter work is over before a bar would be read.
DELAY_SECONDS = 2.0
# Between two updates: often enough for an eye on a terminal, seldom enough for a log file.
TERMINAL_SECONDS, LOG_SECONDS = 0.2, 10.0


def progress_bar(
    description: str, total: float, unit: str, *, show: bool = True, initial: float = 0
) -> Any:  # noqa: ANN401 - tqdm
    """A tqdm bar, as a context manager with `update(amount)`.

    Args:
        description: what is going on.
        total: in units; fractions are fine. Where more is done than that, it grows: a bar of tqdm's
            would have no total from there on, and none of the formats below.
        unit: such as `trial`, `step`; or AUDIO, of which `total` and updates are seconds: it is
            shown in seconds, minutes or hours, whatever fits.
        show: False keeps it silent.
        initial: what was done before, in units; the time left does not count it.
    """
    from tqdm import tqdm

    class Growing(tqdm):  # type: ignore[misc] # tqdm has no types
        def update(self, n: float = 1) -> Any:  # noqa: ANN401 - tqdm's own
            self.total: float = max(self.total, self.n + n)
            return super().update(n)

    _, size, name = next(one for one in _TIMES if total >= one[0])
    # Of audio the caller says the rate: how many times faster than real time.
    done = (
        f"{{n:.1f}}/{{total:.1f}} {name} {AUDIO} [{{elapsed}}<{{remaining}}{{postfix}}]"
        if unit == AUDIO
        else "{n:.0f}/{total:.0f}{unit} [{elapsed}<{remaining}, {rate_fmt}{postfix}]"
    )
    return Growing(
        desc=description,
        total=total,
        initial=initial,
        unit=f" {unit}",
        unit_scale=1 / size if unit == AUDIO else False,
        bar_format="{desc}: {percentage:3.0f}% |{bar:24}| " + done,
        delay=DELAY_SECONDS,
        mininterval=TERMINAL_SECONDS if sys.stderr.isatty() else LOG_SECONDS,
        disable=not show,
        # In a log the last state stays, on a line that ends: what follows begins a new one.
        leave=not sys.stderr.isatty(),
        dynamic_ncols=True,
    )
