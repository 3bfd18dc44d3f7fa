"""All that is known of cues where a model attends: effects, levels and published scores by group.

A group is an emotion and an outcome: utterances predicted as it, rightly or wrongly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from explain.cues.descriptors import Cue
from explain.cues.directions import NEUTRAL, Directions, Expected
from explain.cues.levels import Levels, present_means, relative_levels
from explain.cues.stream import CueFrames
from explain.cues.windows import WindowScores, window_scores
from explain.cues.within import contrasts, exchange_p
from explain.intervals import Mean, speaker_means
from explain.ragged import Bools, Floats, Ints, attended_frames, floats, ints, segment_sum
from explain.subject import Subject, frame_attention
from heads.statistics.comparison import holm

CORRECT, WRONG = "correct", "wrong"
OUTCOMES = (CORRECT, WRONG)
# silero-vad's own default for calling a window speech.
SPEECH = 0.5


@dataclass(frozen=True)
class Effect:
    """Question (a) of one group and cue.

    Attributes:
        mean: attended less other frames, in deviations within an utterance.
        p: from the attention of other utterances; NaN where no utterance has an effect, or there
            are too few others.
        corrected: by Holm, for all tests of the report.
        without: utterances of the group with too few frames on a side.
    """

    mean: Mean
    p: float
    corrected: float
    without: int


@dataclass(frozen=True)
class Level:
    """Question (b) of one group and cue.

    Attributes:
        mean: at attended frames, above the same speaker's neutral utterances, in deviations
            between utterances of a speaker.
        expected: what research expects; None where no source says.
        agreeing: share of utterances on the expected side, less a half (0 is chance).
    """

    mean: Mean
    expected: Expected | None
    agreeing: Mean | None

    @property
    def agrees(self) -> bool | None:
        """Whether the mean lies on the expected side; None where that is not known."""
        if self.expected is None or not self.mean.count:
            return None
        return bool(np.sign(self.mean.value) == self.expected.sign)


@dataclass(frozen=True)
class Scores:
    """The published scores of one group and cue, and coverage less what chance gives."""

    similarity: Mean
    coverage: Mean
    above_chance: Mean


@dataclass(frozen=True, eq=False)
class CueAnalysis:
    """What was found.

    Attributes:
        cues: by column.
        labels: by row.
        counts: utterances by (label, outcome).
        effects: by (label, outcome, cue name).
        levels: likewise; empty where there is no neutral speech.
        scores: likewise.
        relative: what the levels were made from; None where there is no neutral speech.
        windows: what the scores were made from.
        voiced: share of usable frames that are voiced.
        unusable: utterances without known cues.
    """

    cues: tuple[Cue, ...]
    labels: tuple[str, ...]
    counts: dict[tuple[str, str], int]
    effects: dict[tuple[str, str, str], Effect]
    levels: dict[tuple[str, str, str], Level]
    scores: dict[tuple[str, str, str], Scores]
    relative: Levels | None
    windows: WindowScores
    voiced: float
    unusable: int


def analyse(
    subject: Subject,
    frames: CueFrames,
    directions: Directions,
    *,
    share: float | None,
    seed: int = 0,
) -> CueAnalysis:
    """Answer both questions for every emotion, outcome and cue.

    Args:
        subject: with audio frames.
        frames: their cues.
        directions: what research expects.
        share: of the attention that attended frames hold (see `attended_frames`).
        seed: of exchanged attention and bootstraps.
    """
    offsets = ints(subject.frames["audio"].offsets)
    attention = floats(frame_attention(subject, "audio"))
    attended = attended_frames(attention, offsets, share)
    usable = speech_frames(subject)
    groups = {
        (label, outcome): _rows(subject, number, outcome == CORRECT)
        for number, label in enumerate(subject.labels)
        for outcome in OUTCOMES
    }
    known = [u.id not in frames.problems for u in subject.utterances]
    neutral = np.array([directions.emotion(u.label) == NEUTRAL for u in subject.utterances])
    relative = None
    if neutral.any():
        means = present_means(frames.values, attended & usable, offsets)
        relative = relative_levels(means, neutral, subject.speakers)
    signs = np.array(
        [directions.window_sign(subject.labels[number]) or 0 for number in subject.predicted]
    )
    windows = window_scores(frames.values, attention, signs, offsets, subject.hop_seconds)
    voiced = [number for number, cue in enumerate(frames.cues) if cue.voiced]
    there = np.any(~np.isnan(frames.values[:, voiced]), axis=1)
    return CueAnalysis(
        frames.cues,
        subject.labels,
        {group: len(rows) for group, rows in groups.items()},
        _effects(subject, frames, attended, usable, offsets, groups, seed),
        {} if relative is None else _levels(subject, frames, relative, directions, groups),
        _scores(subject, frames, windows, groups),
        relative,
        windows,
        float(there[usable].mean()),
        known.count(False),
    )


def speech_frames(subject: Subject) -> Bools:
    """`[N]`, audio frames that a detector calls speech; all of an utterance where it finds none.

    Without this, every cue would show that the model attends to speech rather than to pauses.
    """
    audio = subject.frames["audio"]
    if audio.speech is None:
        return np.ones(audio.total, dtype=np.bool_)
    offsets = ints(audio.offsets)
    spoken: Bools = floats(audio.speech) >= SPEECH
    silent = segment_sum(spoken, offsets) == 0
    chosen: Bools = spoken | np.repeat(silent, np.diff(offsets))
    return chosen


def _rows(subject: Subject, label: int, correct: bool) -> Ints:
    """Labelled utterances predicted as a label, rightly or wrongly."""
    predicted, targets = subject.predicted.numpy(), subject.targets.numpy()
    right = predicted == targets
    return np.flatnonzero((predicted == label) & (targets >= 0) & (right == correct))


def _effects(
    subject: Subject,
    frames: CueFrames,
    attended: Bools,
    usable: Bools,
    offsets: Ints,
    groups: dict[tuple[str, str], Ints],
    seed: int,
) -> dict[tuple[str, str, str], Effect]:
    # A head may attend early in one emotion and late in another: exchanged between emotions, that
    # alone would make any cue that declines over utterances differ.
    predicted = ints(subject.predicted)
    found = contrasts(frames.values, attended, usable, offsets, predicted, seed=seed)
    means: dict[tuple[str, str, str], Mean] = {}
    p: dict[tuple[str, str, str], float] = {}
    for group, rows in groups.items():
        by_cue = _means(found.observed, rows, subject.speakers)
        tested = exchange_p(found, rows.tolist(), seed=seed)
        for cue, mean, value in zip(frames.cues, by_cue, tested, strict=True):
            means[(*group, cue.name)] = mean
            p[(*group, cue.name)] = float(value)
    tests = [key for key, value in p.items() if not np.isnan(value)]
    corrected = dict(zip(tests, holm(np.array([p[key] for key in tests])), strict=True))
    return {
        key: Effect(
            mean,
            p[key],
            float(corrected.get(key, np.nan)),
            len(groups[key[0], key[1]]) - mean.count,
        )
        for key, mean in means.items()
    }


def _levels(
    subject: Subject,
    frames: CueFrames,
    found: Levels,
    directions: Directions,
    groups: dict[tuple[str, str], Ints],
) -> dict[tuple[str, str, str], Level]:
    result = {}
    for group, rows in groups.items():
        if directions.emotion(group[0]) == NEUTRAL:
            continue  # it is what the others are compared with
        for number, mean in enumerate(_means(found.relative, rows, subject.speakers)):
            cue = frames.cues[number].name
            expected = directions.expected(group[0], cue)
            agreeing = None
            if expected is not None:
                values = found.relative[:, [number]]
                side = np.where(np.isnan(values), np.nan, np.sign(values) * expected.sign / 2)
                agreeing = _means(side, rows, subject.speakers)[0]
            result[(*group, cue)] = Level(mean, expected, agreeing)
    return result


def _scores(
    subject: Subject,
    frames: CueFrames,
    found: WindowScores,
    groups: dict[tuple[str, str], Ints],
) -> dict[tuple[str, str, str], Scores]:
    result = {}
    for group, rows in groups.items():
        columns = (found.similarity, found.coverage, found.coverage - found.chance)
        means = [_means(values, rows, subject.speakers) for values in columns]
        for number, cue in enumerate(frames.cues):
            if means[1][number].count:
                result[(*group, cue.name)] = Scores(*(column[number] for column in means))
    return result


def _means(values: Floats, rows: Ints, speakers: Sequence[str]) -> list[Mean]:
    return speaker_means(values[rows], [speakers[row] for row in rows])
