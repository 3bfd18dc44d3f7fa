"""Cues in the stretches of an answer, against those in the stretches of neutral speech."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from cache.lookup import FrameCache
from corpora.base.errors import AudioError
from explain.cues.descriptors import NEUTRAL, Cue, read_directions
from explain.cues.measure import Neutral, neutral_speech
from explain.cues.stream import CueFrames, cue_set, load_cues
from explain.ragged import Floats, ints
from explain.subject import Subject
from finetune.batches import decode
from heads.bootstrap import known_speakers

SPEAKER, CORPUS = "speaker", "corpus"


@dataclass(frozen=True)
class CueLevel:
    """One cue in the stretches' speech.

    Attributes:
        cue: which.
        level: in its unit.
        neutral: the mean level in the stretches of neutral utterances.
        deviation: between utterances.
        against: whose these two are: the `speaker`'s or the `corpus`'s.
        expected: 1 up, -1 down, by emotion of the answer; those without a source are not in it.
    """

    cue: Cue
    level: float
    neutral: float
    deviation: float
    against: str
    expected: Mapping[str, int]

    @property
    def difference(self) -> float:
        """Above neutral speech, in deviations."""
        return (self.level - self.neutral) / self.deviation


@dataclass(frozen=True, eq=False)
class Reference:
    """Cues in the stretches of neutral utterances.

    Attributes:
        cues: names, by column.
        speakers: by speaker who is known.
        corpus: all utterances as if one person spoke, under "".
    """

    cues: tuple[str, ...]
    speakers: Neutral
    corpus: Neutral

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; what is not known is null."""
        parts = {"speakers": self.speakers, "corpus": self.corpus}
        return {"cues": list(self.cues)} | {
            name: {
                "deviation": _listed(one.deviation),
                "means": {speaker: _listed(mean) for speaker, mean in one.means.items()},
            }
            for name, one in parts.items()
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Reference:
        """The inverse of `to_json`."""
        speakers, corpus = (
            Neutral(
                {name: _array(mean) for name, mean in value[part]["means"].items()},
                _array(value[part]["deviation"]),
            )
            for part in ("speakers", "corpus")
        )
        return cls(tuple(value["cues"]), speakers, corpus)


def _listed(values: Floats) -> list[float | None]:
    return [None if np.isnan(value) else value for value in values.tolist()]


def _array(values: Sequence[float | None]) -> Floats:
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)


def cues_of(
    subject: Subject,
    cache: FrameCache | None,
    name: str,
    reference: Reference | None,
    progress: bool = False,
) -> CueFrames | None:
    """Cues on the audio frames of a subject; None where it has none, or nothing to compare with.

    Args:
        subject: what is explained.
        cache: where those of a split are kept; None for a few recordings, which may be in no
            corpus: they are measured, and leave the cache alone.
        name: of the set of cues.
        reference: what a few recordings are compared with.
        progress: whether to show a bar.

    Raises:
        MissingExtraError: these cues need a package that is not installed.
    """
    if subject.grid is None:
        return None
    chosen, offsets = cue_set(name), ints(subject.frames["audio"].offsets)
    grid, utterances = subject.grid, subject.utterances
    if cache is not None:
        return load_cues(cache, utterances, grid, offsets, chosen, progress=progress)
    if reference is None or reference.cues != tuple(cue.name for cue in chosen.cues):
        return None
    values = np.full((int(offsets[-1]), len(chosen.cues)), np.nan)
    problems = {}
    for utterance, (start, end) in zip(utterances, pairwise(offsets.tolist()), strict=True):
        try:
            found = chosen.compute(decode(utterance), grid)
        except AudioError as error:
            problems[utterance.id] = str(error)
            continue
        if len(found) == end - start:
            values[start:end] = found
        else:
            problems[utterance.id] = f"has {end - start} frames, and its recording {len(found)}"
    return CueFrames(chosen.cues, values, offsets, problems)


def own_reference(subject: Subject, levels: Floats, cues: CueFrames) -> Reference | None:
    """From the subject's own neutral utterances; None without any."""
    directions = read_directions()
    neutral = np.array([directions.emotion(u.label) == NEUTRAL for u in subject.utterances])
    if not neutral.any():
        return None
    names = known_speakers(subject.speakers)
    # Strangers may be many people: they are compared with the corpus.
    known = np.flatnonzero([name != "" for name in names])
    return Reference(
        tuple(cue.name for cue in cues.cues),
        neutral_speech(levels[known], neutral[known], [names[row] for row in known]),
        neutral_speech(levels, neutral, [""] * len(names)),
    )


def cue_levels(
    cues: CueFrames, levels: Floats, reference: Reference, speaker: str, emotions: Sequence[str]
) -> tuple[CueLevel, ...]:
    """The cues of one utterance (levels `[K]`), against its speaker where that is possible."""
    directions = read_directions()
    result = []
    for number, cue in enumerate(cues.cues):
        for against, neutral, name in (
            (SPEAKER, reference.speakers, speaker),
            (CORPUS, reference.corpus, ""),
        ):
            mean, deviation = neutral.mean(name)[number], neutral.deviation[number]
            if not np.isnan([levels[number], mean, deviation]).any():
                expected = {name: directions.expected(name, cue.name) for name in emotions}
                signs = {name: one.sign for name, one in expected.items() if one is not None}
                numbers = float(levels[number]), float(mean), float(deviation)
                result.append(CueLevel(cue, *numbers, against, signs))
                break
    return tuple(result)
