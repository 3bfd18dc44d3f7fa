"""Words and phones of an utterance from its TextGrid, put on the audio frames.

TextGrids as the Montreal Forced Aligner, MAUS, SPPAS, Praat or this project write them, long or
short format; tiers are found by name.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from corpora.manifest_fields import ROUNDING
from corpora.recordings import read_header
from corpora.textgrid import Interval, TextGrid, Tier, read_textgrid
from corpora.utterance import Utterance, look_alike

# In lower case, the first that there is. MFA names tiers of several speakers "speaker - phones".
PHONE_TIERS = ("phones", "phone", "phonemes", "phonalign", "segments", "mau", "lablaut")
WORD_TIERS = ("words", "word", "tokensalign", "tokenalign", "ort-mau", "ort", "orthography")
# A recording may be cut by a few milliseconds on its way to an aligner.
END_TOLERANCE = 0.1
_OUTSIDE = re.compile(r"^[^\w]+|[^\w]+$")


def plain(word: str) -> str:
    """A word as words are compared: lower case, no punctuation around it."""
    return _OUTSIDE.sub("", word.casefold())


@dataclass(frozen=True)
class Alignment:
    """What is said when, in seconds from the start of the utterance; silence is left out or ""."""

    words: tuple[Interval, ...]
    phones: tuple[Interval, ...]


@dataclass(frozen=True, eq=False)
class Aligned:
    """The alignments of a subject's utterances.

    Attributes:
        alignments: one an utterance, None where there is none.
        problems: sentences on what is missing, for the report.
    """

    alignments: tuple[Alignment | None, ...]
    problems: tuple[str, ...]

    @property
    def count(self) -> int:
        """Utterances that have one."""
        return sum(a is not None for a in self.alignments)


def read_alignment(path: Path, speaker: str = "") -> Alignment:
    """Read a TextGrid.

    Args:
        path: the file.
        speaker: whose tiers are taken where several speakers have some.

    Raises:
        ValueError: the file is no TextGrid, has neither a tier of words nor one of phones, or it is
            not clear whose are the speaker's.
        OSError: it cannot be read.
    """
    return _alignment(read_textgrid(path), path, speaker)


def _alignment(grid: TextGrid, path: Path, speaker: str) -> Alignment:
    """The words and phones of a TextGrid."""
    words, phones = (
        _said_by(_tiers(grid, kinds), path, speaker) for kinds in (WORD_TIERS, PHONE_TIERS)
    )
    if words is None and phones is None:
        names = ", ".join(tier.name for tier in grid.tiers)
        raise ValueError(
            f"{path} has the tiers {names or 'none'}; expected one named words or phones"
        )
    return Alignment(_spoken(words), _spoken(phones))


def _tiers(grid: TextGrid, kinds: Sequence[str]) -> dict[str, Tier]:
    """The tiers of the first of these kinds that there is, by speaker ("": not named)."""
    by_kind: dict[str, dict[str, Tier]] = {}
    for tier in grid.tiers:
        speaker, _, kind = tier.name.rpartition(" - ")
        own = by_kind.setdefault(kind.strip().lower(), {})
        own.setdefault(look_alike(speaker), tier)
    return next((by_kind[kind] for kind in kinds if kind in by_kind), {})


def _said_by(tiers: Mapping[str, Tier], path: Path, speaker: str) -> Tier | None:
    """The tier of a speaker, or the only one that says something."""
    if len(tiers) < 2:
        return next(iter(tiers.values()), None)
    own = tiers.get(look_alike(speaker)) if speaker else None
    speaking = [tier for tier in tiers.values() if any(one.label for one in tier.intervals)]
    if own is None and len(speaking) > 1:
        names = ", ".join(tier.name for tier in speaking)
        whose = f"none is of speaker '{speaker}'" if speaker else "the speaker is not known"
        raise ValueError(f"{path} has tiers of several speakers ({names}), and {whose}")
    return own or next(iter(speaking), None)


def _spoken(tier: Tier | None) -> tuple[Interval, ...]:
    """What is said, in order: intervals that overlap end where the next one starts.

    What has no length is left out: aligners leave such marks of silence.
    """
    said = [one for one in (tier.intervals if tier else ()) if one.label and one.end > one.start]
    starts = [one.start for one in said] + [math.inf]
    return tuple(
        Interval(one.start, min(one.end, following), one.label)
        for one, following in zip(said, starts[1:], strict=True)
        if following > one.start
    )


def read_alignments(utterances: Sequence[Utterance]) -> Aligned:
    """Read the TextGrids of utterances; what is missing or broken is told, not raised."""
    bare = sum(u.alignment is None for u in utterances)
    problems: list[str] = []
    if bare == len(utterances):
        problems.append("No utterance has a TextGrid (manifest column `alignment`).")
        return Aligned((None,) * len(utterances), tuple(problems))
    if bare:
        problems.append(f"Without a TextGrid: {bare:,} of {len(utterances):,} utterances.")
    broken: list[str] = []
    overlapping = 0
    alignments: list[Alignment | None] = []
    for u in utterances:
        alignment = None
        if u.alignment is not None:
            try:
                grid = read_textgrid(u.alignment)
                alignment = _within(_alignment(grid, u.alignment, u.speaker), grid, u)
                overlapping += _overlaps(grid)
            except (ValueError, OSError) as error:
                broken.append(f"{u.id}: {error}")
        alignments.append(alignment)
    if broken:
        problems.append(
            f"TextGrids that cannot be used: {len(broken):,}. First: {broken[0].rstrip('.')}."
        )
    if overlapping:
        problems.append(
            f"Words or phones overlap in {overlapping:,} TextGrids: the earlier one ends where the "
            "later one starts."
        )
    return Aligned(tuple(alignments), tuple(problems))


def _overlaps(grid: TextGrid) -> bool:
    """Whether words or phones overlap by more than times are rounded."""
    return any(
        one.label and other.label and one.end - other.start > ROUNDING
        for kinds in (WORD_TIERS, PHONE_TIERS)
        for tier in _tiers(grid, kinds).values()
        for one, other in pairwise(tier.intervals)
    )


def _within(alignment: Alignment, grid: TextGrid, utterance: Utterance) -> Alignment:
    """Times from the start of the utterance, where the TextGrid is of the whole recording.

    Which of the two it is of, its own length tells (not that of its words: a recording may end in
    silence).

    Raises:
        ValueError: it is longer than the segment, and ends before it.
    """
    start, end = utterance.start or 0.0, utterance.end
    if not start and end is None:
        return alignment
    recording = read_header(utterance.audio).seconds  # 0 where it cannot be read
    if end is None and not recording:
        return alignment
    end = recording if end is None else end
    off = abs(grid.end - (end - start))
    of_recording = recording and abs(grid.end - recording) < off
    if start and grid.end <= end - start + END_TOLERANCE and not of_recording:
        return alignment
    if grid.end < end - END_TOLERANCE:
        raise ValueError(
            f"{utterance.alignment} is {grid.end:g} s long: too long for the segment ({start:g} to "
            f"{end:g} s), too short for its recording"
        )

    def moved(intervals: tuple[Interval, ...]) -> tuple[Interval, ...]:
        return tuple(
            Interval(max(i.start - start, 0.0), i.end - start, i.label)
            for i in intervals
            if i.end > start and i.start < end
        )

    return Alignment(moved(alignment.words), moved(alignment.phones))


def frame_intervals(intervals: Sequence[Interval], times: NDArray[np.float64]) -> NDArray[np.int64]:
    """`[T]`, the number of the interval that holds each frame's middle; -1 for none.

    Args:
        intervals: in order, not overlapping.
        times: `[T]`, the middle of each frame of the utterance, seconds.
    """
    if not intervals:
        return np.full(len(times), -1, dtype=np.int64)
    starts = np.array([i.start for i in intervals])
    ends = np.array([i.end for i in intervals])
    held = np.searchsorted(starts, times, side="right") - 1
    inside = (held >= 0) & (times < ends[np.maximum(held, 0)])
    return np.where(inside, held, -1).astype(np.int64)
