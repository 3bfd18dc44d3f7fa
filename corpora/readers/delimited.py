"""Reading the tables that corpora come with: columns by name, bad rows reported, the rest kept.

A published table is read line by line, so that one broken row costs that row and not the file, and
so that a table of a million ratings needs no memory. A cell in quotation marks may hold line ends.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from operator import itemgetter
from pathlib import Path

from corpora.base.encodings import UTF8_OR_WINDOWS, encoding_of
from corpora.base.errors import CorpusError
from corpora.readers.registry import Dropped
from corpora.readers.tree import inside

# Excel's first line that names the delimiter.
_SEPARATOR_LINE = re.compile(r'"?sep=([^"\w])"?', re.IGNORECASE)
LONGEST_CELL = 20  # lines that one cell in quotation marks may span


def named_rows(
    path: Path,
    root: Path,
    needed: Sequence[str],
    dropped: list[Dropped],
    *,
    optional: Sequence[str] = (),
    rest: bool = False,
) -> Iterator[tuple[int, list[str]]]:
    """Yield (line, stripped cells of the needed and then the optional columns) of each good row.

    Args:
        path: a table with a header (see `lines_of_cells`).
        root: the corpus, for the names of places.
        needed: column names, in any case.
        dropped: gets the rows that cannot be read.
        optional: column names; a column that is absent gives empty cells.
        rest: the last column takes the rest of the line, commas and all.

    Raises:
        CorpusError: the file is not text, is empty, or lacks a needed column.
    """
    records = lines_of_cells(path)
    _, header = next(records, (0, None))
    names = [cell.strip().lower() for cell in header or []]
    missing = [name for name in needed if name.lower() not in names]
    if missing:
        found = ", ".join(cell.strip() for cell in header or []) or "none: the file is empty"
        raise CorpusError(
            f"{path} has no column {' and no column '.join(missing)}. Columns found: {found}."
        )
    # An absent column is the empty cell that is put behind every row.
    places = [names.index(n.lower()) if n.lower() in names else -1 for n in (*needed, *optional)]
    pick = itemgetter(*places, -1)  # two at least, so that it always gives a tuple
    count, table = len(names), inside(path, root)
    for line, cells in records:
        if rest and cells is not None and len(cells) > count:
            cells[count - 1 :] = [",".join(cells[count - 1 :])]
        if cells is None:
            dropped.append(Dropped(f"{table}:{line}", "the quotation marks do not pair up"))
        elif len(cells) != count:
            reason = f"{len(cells)} cells where the header has {count}"
            dropped.append(Dropped(f"{table}:{line}", reason))
        else:
            cells.append("")
            yield line, list(map(str.strip, pick(cells)[:-1]))


def separator_told(line: str) -> str:
    """The separator that a table's first line tells Excel, as in `sep=;`; "" for any other line."""
    told = _SEPARATOR_LINE.fullmatch(line.strip(" \ufeff\r\n"))
    return told[1] if told else ""


def lines_of_cells(
    path: Path, encodings: Sequence[str] = UTF8_OR_WINDOWS
) -> Iterator[tuple[int, list[str] | None]]:
    """Yield (line, cells) of every row that is not blank; cells None is one that cannot be read.

    Cells are separated by commas, or by what the first line tells Excel.

    Raises:
        CorpusError: the file is not text in any of the encodings.
    """
    with path.open(encoding=encoding_of(path, encodings), newline="") as file:
        first = file.readline()
        told = separator_told(first)
        number, again = (2, iter(list[str]())) if told else (1, iter([first] if first else []))
        while True:
            taken: list[str] = []  # the lines of the row that is being read
            lines = _feed(chain(again, file), taken)
            try:
                for cells in csv.reader(
                    lines, delimiter=told or ",", skipinitialspace=True, strict=True
                ):
                    if any(cells):
                        yield number, cells
                    number += len(taken)
                    taken.clear()
                return
            except csv.Error:
                yield number, None
                number += 1
                again = iter([*taken[1:], *again])  # a quotation mark may have swallowed good rows


def _feed(lines: Iterable[str], taken: list[str]) -> Iterator[str]:
    """Yield lines and note them in `taken`; end where one row has taken too many."""
    for line in lines:
        taken.append(line)
        yield line
        if len(taken) >= LONGEST_CELL:
            return
