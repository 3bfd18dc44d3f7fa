"""Praat TextGrids: tiers of named intervals, written in the long text format.

The format is described in Praat's manual, "TextGrid file formats".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from corpora.files import write_text


@dataclass(frozen=True)
class Interval:
    """A stretch of time, in seconds, and what is in it."""

    start: float
    end: float
    label: str


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
