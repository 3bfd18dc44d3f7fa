"""Praat TextGrids: tiers of named intervals, read in both text formats, written in the long one.

The formats are described in Praat's manual, "TextGrid file formats": what counts are the strings in
quotation marks, the flags in angle brackets and the numbers that stand free, in their order; all
other words of the long format are comments.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from corpora.base.encodings import encoding_of
from corpora.base.errors import CorpusError
from corpora.base.files import write_text

_TOKEN = re.compile(
    r'"(?P<string>(?:[^"]|"")*)"|(?P<mark>")|!.*|<(?P<flag>\w+)>'
    r"|(?<!\S)(?P<number>[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)(?!\S)"
)


@dataclass(frozen=True)
class Interval:
    """A stretch of time, in seconds, and what is in it."""

    start: float
    end: float
    label: str


@dataclass(frozen=True)
class Tier:
    """An interval tier: its name, and its intervals by their starts, empty ones too."""

    name: str
    intervals: tuple[Interval, ...]


@dataclass(frozen=True)
class TextGrid:
    """The interval tiers of a TextGrid.

    Attributes:
        start: of the whole, seconds.
        end: the same.
        tiers: in the order of the file; those of points are left out.
    """

    start: float
    end: float
    tiers: tuple[Tier, ...]


def read_textgrid(path: Path) -> TextGrid:
    """Read a TextGrid in the long or the short text format.

    Raises:
        ValueError: the file is none; the message says what it is instead, or where it goes wrong.
        OSError: it cannot be read.
    """
    data = path.read_bytes()
    if data.startswith(b"ooBinaryFile"):
        raise ValueError(f"{path} is a binary TextGrid. In Praat, save it as a text file.")
    try:
        text = data.decode(encoding_of(path))
    except CorpusError as error:
        raise ValueError(str(error)) from error
    if text.lstrip().startswith("{"):
        raise ValueError(
            f"{path} is JSON, not a TextGrid. Have MFA write TextGrids: --output_format "
            "long_textgrid."
        )
    return _parse(_Tokens(path, text))


class _Tokens:
    """The strings, flags and numbers of a TextGrid, one after another."""

    def __init__(self, path: Path, text: str) -> None:
        self.path = path
        self._text = text
        self._found = _TOKEN.finditer(text)

    def take(self, kind: str, what: str) -> str:
        """The next one, which must be of a kind (string, flag, number)."""
        match = self._next()
        if match is None or match.lastgroup != kind:
            self._refuse(match, f"{what} is expected (a {kind})")
        return match[kind]

    def finish(self) -> None:
        """Check that there is nothing more than the counts say."""
        match = self._next()
        if match is not None:
            self._refuse(match, "the end is expected, by the numbers of tiers and intervals")

    def _next(self) -> re.Match[str] | None:
        return next((match for match in self._found if match.lastgroup), None)

    def _refuse(self, match: re.Match[str] | None, expected: str) -> NoReturn:
        line = 1 + self._text.count("\n", 0, match.start() if match else None)
        where = f"line {line} has {match[0]}" if match else "the file ends"
        raise ValueError(
            f"{self.path} is not a TextGrid that can be read: {where} where {expected}"
        )

    def string(self, what: str) -> str:
        """The next token, a string."""
        return self.take("string", what).replace('""', '"')

    def number(self, what: str) -> float:
        """The next token, a number."""
        value = float(self.take("number", what))
        if not math.isfinite(value):
            raise ValueError(
                f"{self.path} is not a TextGrid that can be read: {what} is beyond all numbers"
            )
        return value


def _parse(tokens: _Tokens) -> TextGrid:
    kind, of = tokens.string("File type"), tokens.string("Object class")
    if not (kind.startswith("ooTextFile") and of == "TextGrid"):
        raise ValueError(f"{tokens.path} is not a TextGrid that can be read: it is {kind} {of}")
    start, end = tokens.number("xmin"), tokens.number("xmax")
    count = 0
    if tokens.take("flag", "<exists>") == "exists":
        count = int(tokens.number("the number of tiers"))
    tiers = []
    for _ in range(count):
        kind, name = tokens.string("the class of a tier"), tokens.string("the name of a tier")
        tokens.number("xmin of a tier")
        tokens.number("xmax of a tier")
        items = int(tokens.number("the number of intervals"))
        if kind == "IntervalTier":
            intervals = [_interval(tokens, name) for _ in range(items)]
            tiers.append(Tier(name, tuple(sorted(intervals, key=lambda one: one.start))))
        else:
            for _ in range(items):
                tokens.number("the time of a point")
                tokens.string("the mark of a point")
    tokens.finish()
    return TextGrid(start, end, tuple(tiers))


def _interval(tokens: _Tokens, tier: str) -> Interval:
    start, end = tokens.number("xmin of an interval"), tokens.number("xmax of an interval")
    label = tokens.string("the text of an interval").strip()
    if end < start:
        raise ValueError(
            f"{tokens.path} is not a TextGrid that can be read: in tier {tier}, '{label}' ends at "
            f"{end:g} s, before it starts at {start:g} s"
        )
    return Interval(start, end, label)


def fill_gaps(intervals: Iterable[Interval], duration: float, label: str) -> list[Interval]:
    """Make ordered intervals contiguous over [0, duration]: what lies between them is `label`.

    Neighbours that both are `label` become one; intervals without a length are left out.
    """
    filled: list[Interval] = []

    def add(start: float, end: float, name: str) -> None:
        if end <= start:
            return
        if filled and name == label == filled[-1].label:
            filled[-1] = Interval(filled[-1].start, end, label)
        else:
            filled.append(Interval(start, end, name))

    now = 0.0
    for interval in intervals:
        start = min(max(interval.start, now), duration)
        end = min(max(interval.end, start), duration)
        add(now, start, label)
        add(start, end, interval.label)
        now = end
    add(now, duration, label)
    return filled


def format_textgrid(tiers: Mapping[str, Sequence[Interval]], duration: float) -> str:
    """The text of a TextGrid with these interval tiers, each contiguous over [0, duration]."""
    lines = [
        'File type = "ooTextFile"',
        'Object class = "TextGrid"',
        "",
        "xmin = 0",
        f"xmax = {duration:.6f}",
        "tiers? <exists>",
        f"size = {len(tiers)}",
        "item []:",
    ]
    for number, (name, intervals) in enumerate(tiers.items(), start=1):
        lines += [
            f"    item [{number}]:",
            '        class = "IntervalTier"',
            f"        name = {_quoted(name)}",
            "        xmin = 0",
            f"        xmax = {duration:.6f}",
            f"        intervals: size = {len(intervals)}",
        ]
        for index, interval in enumerate(intervals, start=1):
            lines += [
                f"        intervals [{index}]:",
                f"            xmin = {interval.start:.6f}",
                f"            xmax = {interval.end:.6f}",
                f"            text = {_quoted(interval.label)}",
            ]
    return "\n".join(lines) + "\n"


def write_textgrid(path: Path, tiers: Mapping[str, Sequence[Interval]], duration: float) -> None:
    """Write the tiers to `path`, atomically, as UTF-8."""
    write_text(path, format_textgrid(tiers, duration))


def _quoted(text: str) -> str:
    """A Praat string: a quotation mark inside is doubled."""
    return '"' + text.replace('"', '""') + '"'
