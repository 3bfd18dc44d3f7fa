"""Stretches of a recording: from a TextGrid, a table or an RTTM file; evenly spaced ones; and RTTM.

RTTM is NIST's table of who speaks when: a line has ten fields, `SPEAKER file channel onset duration
<NA> subtype name confidence <NA>` (RT-09 evaluation plan, appendix A).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

from corpora.base.encodings import encoding_of
from corpora.base.errors import AudioError, ConfigError, CorpusError
from corpora.readers.delimited import lines_of_cells
from corpora.sound_file import END_TOLERANCE
from corpora.textgrid import read_textgrid

RTTM = ".rttm"
#: What RTTM writes where a field says nothing.
NOTHING = "<NA>"
_FIELDS = 9  # older files leave the tenth away


@dataclass(frozen=True)
class Stretch:
    """A part of a recording that gets an answer of its own.

    Attributes:
        start: seconds.
        end: seconds.
        name: what its source calls it: the label of an interval, a speaker, a column `name`; "" for
            nothing.
        text: what is said in it, where its source tells.
        span: the moments that it stands for, where these are not all of it.
    """

    start: float
    end: float
    name: str = ""
    text: str = ""
    span: tuple[float, float] | None = None

    @property
    def seconds(self) -> float:
        """How long it is."""
        return self.end - self.start


def evenly(duration: float, every: float, window: float) -> list[Stretch]:
    """Windows of one length, one every so many seconds, all inside the recording.

    The last one ends where the recording does. A recording that is no longer than a window is one.
    Of overlapping windows each stands for the moments that are nearest to its middle.
    """
    if duration <= window:
        return [Stretch(0.0, duration)]
    # Rounding must not add a window that is the last one but for a trifle.
    count = math.floor((duration - window) / every + 1e-9) + 1
    starts = [number * every for number in range(count)]
    if duration - window - starts[-1] > 1e-6:
        starts.append(duration - window)
    inner = [(left + right + window) / 2 for left, right in pairwise(starts)]
    bounds = pairwise([0.0, *inner, duration])
    found = []
    for start, (first, last) in zip(starts, bounds, strict=True):
        end = min(start + window, duration)
        # To the microsecond, so that .1 three times is .3 where it is written down.
        times = (round(time, 6) for time in (start, end, max(start, first), min(end, last)))
        begin, stop, since, until = times
        found.append(Stretch(begin, stop, span=(since, until)))
    return found


def checked(
    stretches: Sequence[Stretch], duration: float, where: str, shortest: float = 0.0
) -> list[Stretch]:
    """Stretches by their starts, each inside the recording.

    Ends up to 50 ms past the recording's are rounding, and become its end.

    Args:
        stretches: of one recording.
        duration: of it, seconds.
        where: they come from, for messages.
        shortest: what can be answered at all (one frame), seconds.

    Raises:
        AudioError: one is empty, too short or not inside the recording.
    """
    found = []
    for one in sorted(stretches, key=lambda one: (one.start, one.end)):
        said = f"{where}: the segment {one.start:g} to {one.end:g} s"
        if one.start < 0 or one.end > duration + END_TOLERANCE:
            raise AudioError(
                f"{said} does not lie inside the recording, which is {duration:.3f} s long."
            )
        inside = replace(one, end=min(one.end, duration))
        if inside.seconds <= 0:
            raise AudioError(f"{said} is empty. Expected start < end, in seconds.")
        if inside.seconds < shortest:
            raise AudioError(f"{said} is shorter than one frame of the encoder ({shortest:.3f} s).")
        found.append(inside)
    return found


def textgrid_stretches(path: Path, tier: str) -> list[Stretch]:
    """The labelled intervals of a tier; those without a label are nothing, as in Praat.

    Raises:
        AudioError: there is no TextGrid, it cannot be read, or has no such tier or no label in it.
    """
    if not path.is_file():
        raise AudioError(f"{path}: no such TextGrid. It has the recording's name beside it.")
    try:
        grid = read_textgrid(path)
    except ValueError as error:
        raise AudioError(str(error)) from error
    tiers = {one.name: one for one in grid.tiers}
    if tier not in tiers:
        names = ", ".join(tiers) or "none"
        raise AudioError(f"{path} has no tier {tier!r} of intervals. Its tiers are {names}.")
    found = [Stretch(one.start, one.end, one.label) for one in tiers[tier].intervals if one.label]
    if not found:
        raise AudioError(f"{path}: no interval of the tier {tier!r} has a label.")
    return found


@dataclass(frozen=True)
class StretchFile:
    """Stretches by recording, as a file names them.

    Attributes:
        path: the file.
        by_recording: by what names a recording in it: a path, a file's stem in RTTM, or "" where a
            table has no such column.
    """

    path: Path
    by_recording: Mapping[str, Sequence[Stretch]]

    def of(self, audio: Path, given: str) -> list[Stretch]:
        """Those of a recording.

        Args:
            audio: its file.
            given: how the user names it.

        Raises:
            AudioError: the file has none of it.
        """
        if "" in self.by_recording:
            return list(self.by_recording[""])
        absolute = audio.absolute()
        found = [
            stretch
            for name, own in self.by_recording.items()
            if name in (given, str(audio))
            or (self.path.parent / name).absolute() == absolute
            or (self.path.suffix.lower() == RTTM and name == file_field(audio))
            for stretch in own
        ]
        if not found:
            raise AudioError(f"{given}: {self.path} has no segment of it.")
        return found


def read_stretches(path: Path) -> StretchFile:
    """Read RTTM (by its suffix; lines of SPEAKER), or a table with `start` and `end` in seconds.

    A table may have `path` (of the recording, from the table's folder), `name` and `text`.

    Raises:
        ConfigError: the file cannot be read, or holds no segment.
    """
    if not path.is_file():
        raise ConfigError(
            f"--segments {path}: no such file. Expected vad, textgrid, a table with start and end, "
            "or an RTTM file."
        )
    try:
        found = _read_rttm(path) if path.suffix.lower() == RTTM else _read_table(path)
    except CorpusError as error:
        raise ConfigError(str(error)) from error
    if not found:
        raise ConfigError(f"{path} holds no segment.")
    return StretchFile(path, found)


def _read_rttm(path: Path) -> dict[str, list[Stretch]]:
    found: dict[str, list[Stretch]] = {}
    text = path.read_text(encoding=encoding_of(path))
    for number, line in enumerate(text.splitlines(), start=1):
        fields = line.split()
        if not fields or fields[0] != "SPEAKER":
            continue
        if len(fields) < _FIELDS:
            raise ConfigError(
                f"{path}, line {number}: {len(fields)} fields; a SPEAKER line of RTTM has ten."
            )
        start = _seconds(path, number, fields[3])
        end = start + _seconds(path, number, fields[4])
        name = "" if fields[7] == NOTHING else fields[7]
        found.setdefault(fields[1], []).append(Stretch(start, end, name))
    return found


def _read_table(path: Path) -> dict[str, list[Stretch]]:
    rows = lines_of_cells(path)
    _, header = next(rows, (0, None))
    names = [cell.strip().lower() for cell in header or []]
    missing = [name for name in ("start", "end") if name not in names]
    if missing:
        raise ConfigError(
            f"{path} has no column {' and no column '.join(missing)}. Columns found: "
            f"{', '.join(names) or 'none'}."
        )
    found: dict[str, list[Stretch]] = {}
    for line, cells in rows:
        if cells is None or len(cells) != len(names):
            raise ConfigError(f"{path}, line {line}: cannot be read as {len(names)} cells.")
        row = dict(zip(names, map(str.strip, cells), strict=True))
        start, end = (_seconds(path, line, row[name]) for name in ("start", "end"))
        stretch = Stretch(start, end, row.get("name", ""), row.get("text", ""))
        if "path" in row and not row["path"]:
            raise ConfigError(f"{path}, line {line}: path is empty.")
        found.setdefault(row.get("path", ""), []).append(stretch)
    return found


def _seconds(path: Path, line: int, cell: str) -> float:
    try:
        value = float(cell)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ConfigError(f"{path}, line {line}: {cell!r} is not a number of seconds.")
    return value


def file_field(audio: Path) -> str:
    """What names a recording in RTTM: its stem; fields hold no white space."""
    return _field(audio.stem)


def rttm_line(
    audio: Path, start: float, end: float, name: str, confidence: float, subtype: str = ""
) -> str:
    """A SPEAKER line of RTTM; `name` is what would name the speaker."""
    return (
        f"SPEAKER {file_field(audio)} 1 {start:.3f} {end - start:.3f} {NOTHING} "
        f"{_field(subtype)} {_field(name)} {confidence:.4f} {NOTHING}"
    )


def _field(text: str) -> str:
    return "_".join(text.split()) or NOTHING
