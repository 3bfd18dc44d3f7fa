"""All that is known of cues where a model attends: effects, levels and published scores by group.

A group is an emotion and an outcome: utterances predicted as it, rightly or wrongly.

Against neutral: are cues at attended frames where research expects them for an emotion?

Voices differ more than emotions do, so every speaker is compared with the own neutral utterances,
and differences are in standard deviations between the utterances of one speaker.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from explain.cues.descriptors import NEUTRAL, Cue, Directions, Expected
from explain.cues.stream import CueFrames
from explain.cues.within import FEWEST_FRAMES, WindowScores, contrasts, exchange_p, window_scores
from explain.ragged import (
    Bools,
    Floats,
    Ints,
    Mean,
    attended_frames,
    floats,
    ints,
    segment_sum,
    speaker_means,
)
from explain.subject import Subject, frame_attention
from heads.bootstrap import holm, known_speakers


@dataclass(frozen=True, eq=False)
class Levels:
    """Cue levels of B utterances, relative to neutral speech of the same speaker.

    Attributes:
        absolute: `[B, K]`, the mean over attended frames in the cue's unit; NaN with too few.
        relative: `[B, K]`, less the speaker's neutral mean, over the deviation between utterances
            of a speaker; NaN where one of them is not known.
        without_reference: utterances whose speaker has no neutral one.
        pooled_strangers: utterances of unknown speakers, who count as one speaker here.
    """

    absolute: Floats
    relative: Floats
    without_reference: int
    pooled_strangers: int


def present_means(values: Floats, chosen: Bools, offsets: Ints) -> Floats:
    """`[B, K]`, the mean of each cue over chosen frames that have it; NaN with fewer than three."""
    there = chosen[:, None] & ~np.isnan(values)
    count = segment_sum(there, offsets)
    total = segment_sum(np.where(there, values, 0.0), offsets)
    return np.where(count >= FEWEST_FRAMES, total / np.maximum(count, 1), np.nan)


@dataclass(frozen=True, eq=False)
class Neutral:
    """What neutral speech is like.

    Attributes:
        means: by speaker `[K]`, of the neutral utterances, NaN where none has the cue; speakers
            without any are not in it.
        deviation: `[K]`, between utterances of one speaker; NaN where it is not known.
    """

    means: Mapping[str, Floats]
    deviation: Floats

    def mean(self, speaker: str) -> Floats:
        """`[K]`; NaN for a speaker who is not in it."""
        return self.means.get(speaker, np.full(len(self.deviation), np.nan))

    def above(self, levels: Floats, speakers: Sequence[str]) -> Floats:
        """`[B, K]`, how far levels lie above each speaker's neutral, in deviations."""
        means = np.stack([self.mean(name) for name in speakers])
        difference: Floats = (levels - means) / self.deviation
        return difference


def neutral_speech(absolute: Floats, neutral: Bools, speakers: Sequence[str]) -> Neutral:
    """Each speaker's neutral utterances, and how utterances of one speaker differ.

    Args:
        absolute: `[B, K]`, NaN where not known.
        neutral: `[B]`, utterances labelled neutral.
        speakers: `[B]`; those who are not told apart (such as "") count as one.
    """
    voices = {name: number for number, name in enumerate(dict.fromkeys(speakers))}
    owner = np.array([voices[name] for name in speakers])
    there = ~np.isnan(absolute)
    own_mean, own_count = _level_means(absolute, there, owner, len(voices))
    spread = np.where(there, np.square(absolute - own_mean[owner]), 0.0).sum(axis=0)
    # One mean a speaker is estimated from the same utterances.
    freedom = there.sum(axis=0) - (own_count > 0).sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        deviation = np.sqrt(spread / np.where(freedom > 0, freedom, np.nan))
        deviation = np.where(deviation > 0, deviation, np.nan)
    means, _ = _level_means(absolute, there & neutral[:, None], owner, len(voices))
    has_neutral = np.bincount(owner[neutral], minlength=len(voices)) > 0
    known = {name: means[number] for name, number in voices.items() if has_neutral[number]}
    return Neutral(known, deviation)


def relative_levels(absolute: Floats, neutral: Bools, speakers: Sequence[str]) -> Levels:
    """Levels against each speaker's neutral utterances.

    Args:
        absolute: `[B, K]`, NaN where not known.
        neutral: `[B]`, utterances labelled neutral.
        speakers: `[B]`, "" where unknown.
    """
    names = known_speakers(speakers)
    found = neutral_speech(absolute, neutral, names)
    return Levels(
        absolute,
        found.above(absolute, names),
        sum(name not in found.means for name in names),
        names.count(""),
    )


def _level_means(values: Floats, there: Bools, owner: Ints, count: int) -> tuple[Floats, Floats]:
    """Mean (NaN without values) and number of values of each owner, both `[S, K]`."""
    total, held = np.zeros((count, values.shape[1])), np.zeros((count, values.shape[1]))
    np.add.at(total, owner, np.where(there, values, 0.0))
    np.add.at(held, owner, there)
    return np.where(held > 0, total / np.maximum(held, 1), np.nan), held


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
    usable = speech_frames(subject, "audio")
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


def speech_frames(subject: Subject, modality: str) -> Bools:
    """`[N]`, frames that a detector calls speech; all of an utterance where it finds none.

    Without this, every cue would show that the model attends to speech rather than to pauses. Of
    text, and where no detector was run, all frames.
    """
    frames = subject.frames[modality]
    if frames.speech is None:
        return np.ones(frames.total, dtype=np.bool_)
    offsets = ints(frames.offsets)
    spoken: Bools = floats(frames.speech) >= SPEECH
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
