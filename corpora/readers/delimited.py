"""Reading the tables that corpora come with: columns by name, bad rows reported, the rest kept.

A published table is read line by line, so that one broken row costs that row and not the file, and
so that a table of a million ratings needs no memory. A cell in quotation marks may hold line ends.
"""

from __future__ import annotations

import codecs
import csv
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from operator import itemgetter
from pathlib import Path

from corpora.base.errors import CorpusError
from corpora.base.files import LFS_SENTENCE, is_lfs_pointer
from corpora.readers.registry import Dropped
from corpora.readers.tree import inside

UTF8_OR_WINDOWS = ("utf-8-sig", "cp1252")
BYTE_ORDER_MARKS = {
    b"\xff\xfe\x00\x00": "utf-32", b"\x00\x00\xfe\xff": "utf-32",
    b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16",
}  # fmt: skip
KOREAN = "cp949"
MOSTLY = 0.9  # of the characters beyond ASCII


def told_by_bytes(head: bytes, candidates: Sequence[str]) -> Sequence[str]:
    """The encodings to try: the candidates, but for what the bytes themselves tell.

    UTF-16 and UTF-32 show in marks and zeros. Korean shows in its letters, and comes in the place
    of cp1252, which decodes nearly any bytes.

    Args:
        head: the text's first bytes, the more the better.
        candidates: names of encodings, in the order in which they are tried.
    """
    if head.isascii() and b"\0" not in head:
        return candidates
    wide = _wide(head)
    if wide:
        return (wide,)
    if "cp1252" in candidates and KOREAN not in candidates and _is_korean(head):
        return tuple(KOREAN if name == "cp1252" else name for name in candidates)
    return candidates


def _wide(head: bytes) -> str:
    """The encoding of text in units of two or four bytes, "" for any other.

    Without a byte order mark, separators and line ends alone put a zero into every other place.
    """
    for mark, name in BYTE_ORDER_MARKS.items():
        if head.startswith(mark):
            return name
    even, odd = head[::2].count(0), head[1::2].count(0)
    if max(even, odd) * 20 < len(head) or min(even, odd) * 10 > max(even, odd):
        return ""
    return "utf-16-le" if odd > even else "utf-16-be"


def _is_korean(head: bytes) -> bool:
    """Whether bytes that are not UTF-8 are Korean: decoded so, nearly all letters are Hangul.

    The few Western words that decode as Hangul too lack the second high byte of KS X 1001.
    """
    text = codecs.getincrementaldecoder(KOREAN)("replace").decode(head)
    beyond = [letter for letter in text if not letter.isascii()]
    hangul = [letter for letter in beyond if "\uac00" <= letter <= "\ud7a3"]
    plain = sum(len(letter.encode("euc_kr", "ignore")) == 2 for letter in hangul)
    return bool(beyond) and min(len(hangul), plain) >= MOSTLY * len(beyond)


BYTES = 1 << 16  # read at once; nearly every transcript is shorter


def read_transcript(path: str | Path, encodings: Sequence[str] = UTF8_OR_WINDOWS) -> str:
    """The words of a text file with single spaces between them, "" where it is absent.

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


CHUNK = 1 << 20  # bytes decoded at once while an encoding is tried
# Excel's first line that names the delimiter.
_SEPARATOR_LINE = re.compile(r'"?sep=([^"\w])"?', re.IGNORECASE)
LONGEST_CELL = 20  # lines that one cell in quotation marks may span


def encoding_of(path: Path, candidates: Sequence[str] = UTF8_OR_WINDOWS) -> str:
    """The first encoding that decodes the whole file.

    Raises:
        CorpusError: none of them does, or the file was not fetched.
    """
    if is_lfs_pointer(path):
        raise CorpusError(f"{path} {LFS_SENTENCE}")
    with path.open("rb") as file:
        candidates = told_by_bytes(file.read(CHUNK), candidates)
        for name in candidates:
            file.seek(0)
            decoder = codecs.getincrementaldecoder(name)()
            try:
                while chunk := file.read(CHUNK):
                    decoder.decode(chunk)
                decoder.decode(b"", final=True)
            except UnicodeDecodeError:
                continue
            return name
    raise CorpusError(f"{path} is not text in any of {', '.join(candidates)}. Save it as UTF-8.")


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
