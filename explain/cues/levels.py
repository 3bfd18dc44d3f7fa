"""Against neutral: are cues at attended frames where research expects them for an emotion?

Voices differ more than emotions do, so every speaker is compared with the own neutral utterances,
and differences are in standard deviations between the utterances of one speaker.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from explain.cues.within import FEWEST_FRAMES
from explain.ragged import Bools, Floats, Ints, segment_sum
from heads.statistics.clusters import known_speakers


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


def relative_levels(absolute: Floats, neutral: Bools, speakers: Sequence[str]) -> Levels:
    """Levels against each speaker's neutral utterances.

    Args:
        absolute: `[B, K]`, NaN where not known.
        neutral: `[B]`, utterances labelled neutral.
        speakers: `[B]`, "" where unknown.
    """
    names = known_speakers(speakers)
    voices = {name: number for number, name in enumerate(dict.fromkeys(names))}
    owner = np.array([voices[name] for name in names])
    there = ~np.isnan(absolute)
    own_mean, own_count = _means(absolute, there, owner, len(voices))
    spread = np.where(there, np.square(absolute - own_mean[owner]), 0.0).sum(axis=0)
    # One mean a speaker is estimated from the same utterances.
    freedom = there.sum(axis=0) - (own_count > 0).sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        deviation = np.sqrt(spread / np.where(freedom > 0, freedom, np.nan))
        deviation = np.where(deviation > 0, deviation, np.nan)
        reference, _ = _means(absolute, there & neutral[:, None], owner, len(voices))
        relative = (absolute - reference[owner]) / deviation
    has_neutral = np.bincount(owner[neutral], minlength=len(voices)) > 0
    return Levels(
        absolute,
        relative,
        int((~has_neutral[owner]).sum()),
        sum(name == "" for name in names),
    )


def _means(values: Floats, there: Bools, owner: Ints, count: int) -> tuple[Floats, Floats]:
    """Mean (NaN without values) and number of values of each owner, both `[S, K]`."""
    total, held = np.zeros((count, values.shape[1])), np.zeros((count, values.shape[1]))
    np.add.at(total, owner, np.where(there, values, 0.0))
    np.add.at(held, owner, there)
    return np.where(held > 0, total / np.maximum(held, 1), np.nan), held
