"""Words and phones of an utterance from its TextGrid, put on the audio frames.

TextGrids as the Montreal Forced Aligner, Praat or this project write them, long or short format;
tiers are found by name. Needs praatio (extra `explain`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from corpora.errors import MissingExtraError
from corpora.textgrid import Interval
from corpora.utterance import Utterance
from explain.ragged import Floats, Ints
from explain.subject import Subject

# In lower case. MFA names tiers of several speakers "speaker - phones".
PHONE_TIERS = ("phones", "phone", "phonemes", "segments", "mau", "lablaut")
WORD_TIERS = ("words", "word", "ort", "ort-mau", "orthography")
# A recording may be cut by a few milliseconds on its way to an aligner.
END_TOLERANCE = 0.1


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


def has_praatio() -> bool:
    """Whether TextGrids can be read."""
    return find_spec("praatio") is not None


def read_alignment(path: Path) -> Alignment:
    """Read a TextGrid.

    Raises:
        MissingExtraError: praatio is not installed.
        ValueError: the file is no TextGrid, or has neither a tier of words nor one of phones.
        OSError: it cannot be read.
    """
    if not has_praatio():
        raise MissingExtraError(
            "TextGrids need praatio, which is not installed: pip install 'emopool[explain]'."
        )
    from praatio import textgrid
    from praatio.utilities.errors import PraatioException

    try:
        grid = textgrid.openTextgrid(
            str(path), includeEmptyIntervals=False, duplicateNamesMode="rename"
        )
    except (PraatioException, IndexError, KeyError, AssertionError) as error:
        raise ValueError(f"{path} is not a TextGrid that can be read ({error})") from error
    found: dict[str, tuple[Interval, ...]] = {}
    for kind, names in (("words", WORD_TIERS), ("phones", PHONE_TIERS)):
        tier = next((n for n in grid.tierNames if _tier_kind(n) in names), None)
        entries = () if tier is None else grid.getTier(tier).entries
        found[kind] = tuple(
            Interval(float(e[0]), float(e[1]), str(e[2]).strip()) for e in entries if len(e) == 3
        )
        if tier is None:
            found.pop(kind)
    if not found:
        raise ValueError(
            f"{path} has the tiers {', '.join(grid.tierNames) or 'none'}; expected one named "
            f"{' or '.join(('words', 'phones'))}"
        )
    return Alignment(found.get("words", ()), found.get("phones", ()))


def _tier_kind(name: str) -> str:
    return name.rsplit(" - ", 1)[-1].strip().lower()


def read_alignments(utterances: Sequence[Utterance]) -> Aligned:
    """Read the TextGrids of utterances; what is missing or broken is told, not raised."""
    bare = sum(u.alignment is None for u in utterances)
    problems: list[str] = []
    if bare == len(utterances):
        problems.append("No utterance has a TextGrid (manifest column `alignment`).")
        return Aligned((None,) * len(utterances), tuple(problems))
    if not has_praatio():
        problems.append(
            "TextGrids were not read: praatio is not installed (pip install 'emopool[explain]')."
        )
        return Aligned((None,) * len(utterances), tuple(problems))
    if bare:
        problems.append(f"Without a TextGrid: {bare:,} of {len(utterances):,} utterances.")
    broken: list[str] = []
    alignments: list[Alignment | None] = []
    for u in utterances:
        alignment = None
        if u.alignment is not None:
            try:
                alignment = _within(read_alignment(u.alignment), u)
            except (ValueError, OSError) as error:
                broken.append(f"{u.id}: {error}")
        alignments.append(alignment)
    if broken:
        problems.append(
            f"TextGrids that cannot be used: {len(broken):,}. First: {broken[0].rstrip('.')}."
        )
    return Aligned(tuple(alignments), tuple(problems))


def _within(alignment: Alignment, utterance: Utterance) -> Alignment:
    """Times from the start of the utterance, where the TextGrid is of the whole recording."""
    start, end = utterance.start or 0.0, utterance.end
    ends = [i.end for i in (*alignment.words, *alignment.phones)]
    of_segment = end is None or not ends or max(ends) <= end - start + END_TOLERANCE
    if start <= 0.0 or of_segment:
        return alignment

    def moved(intervals: tuple[Interval, ...]) -> tuple[Interval, ...]:
        return tuple(
            Interval(max(i.start - start, 0.0), i.end - start, i.label)
            for i in intervals
            if i.end > start and (end is None or i.start < end)
        )

    return Alignment(moved(alignment.words), moved(alignment.phones))


def frame_intervals(intervals: Sequence[Interval], frames: int, hop: float, centre: float) -> Ints:
    """`[frames]`, the number of the interval that holds each frame's centre; -1 for none.

    Args:
        intervals: in order, not overlapping.
        frames: of the utterance.
        hop: seconds from one frame to the next.
        centre: of the first frame, seconds.
    """
    if not intervals:
        return np.full(frames, -1, dtype=np.int64)
    starts = np.array([i.start for i in intervals])
    ends = np.array([i.end for i in intervals])
    times: Floats = centre + hop * np.arange(frames, dtype=np.float64)
    held = np.searchsorted(starts, times, side="right") - 1
    inside = (held >= 0) & (times < ends[np.maximum(held, 0)])
    return np.where(inside, held, -1).astype(np.int64)


def phone_frames(subject: Subject, aligned: Aligned, silence: str) -> tuple[Ints, list[str]]:
    """The phone of every audio frame of the aligned utterances.

    Args:
        subject: which listens.
        aligned: its alignments.
        silence: the label of frames in no phone.

    Returns:
        `[N]` numbers into the labels, -1 in utterances without phones; and the labels, silence
        first.
    """
    numbers: dict[str, int] = {silence: 0}
    codes: list[Ints] = []
    lengths = subject.frames["audio"].lengths.tolist()
    for alignment, length in zip(aligned.alignments, lengths, strict=True):
        if alignment is None or not alignment.phones:
            codes.append(np.full(length, -1, dtype=np.int64))
            continue
        phones = alignment.phones
        held = frame_intervals(phones, length, subject.hop_seconds, subject.centre_seconds)
        coded = np.array([numbers.setdefault(p.label, len(numbers)) for p in phones] + [0])
        codes.append(coded[held])  # -1 takes the last, silence
    return np.concatenate(codes), list(numbers)
