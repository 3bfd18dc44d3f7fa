"""Arithmetic over frames laid end to end: `[N]` values with `[B+1]` offsets, in NumPy float64.

Vectorised: the statistics of thousands of utterances are a few passes over all frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from heads.bootstrap import (
    Interval,
    bootstrap,
    cluster_numbers,
    judge_clusters,
    known_speakers,
    t_interval,
)

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


def floats(values: Tensor) -> Floats:
    """A tensor as NumPy float64."""
    array: Floats = values.detach().cpu().double().numpy()
    return array


def ints(values: Tensor) -> Ints:
    """A tensor as NumPy int64."""
    array: Ints = values.detach().cpu().long().numpy()
    return array


def segment_sum(values: NDArray[np.generic], offsets: Ints) -> Floats:
    """Sum over each utterance: `[N, …] -> [B, …]`; every utterance has a frame."""
    summed: Floats = np.add.reduceat(values.astype(np.float64), offsets[:-1], axis=0)
    return summed


def segments(offsets: Ints) -> Ints:
    """`[N]`, the utterance number of each frame."""
    return np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))


def positions(offsets: Ints) -> Ints:
    """`[N]`, the number of each frame within its utterance."""
    return np.arange(int(offsets[-1])) - np.repeat(offsets[:-1], np.diff(offsets))


def order_within(values: Floats, offsets: Ints) -> Ints:
    """`[N]` frame numbers, utterance after utterance, the largest value of each first.

    Of equal values the earlier frame comes first.
    """
    turned = -values
    order = np.empty(len(values), dtype=np.int64)
    # Many short sorts take a fifth of the time of a long one.
    for start, end in pairwise(offsets.tolist()):
        order[start:end] = turned[start:end].argsort(kind="stable")
        order[start:end] += start
    return order


def cumulative(sorted_values: Floats, offsets: Ints) -> Floats:
    """Running sum within each utterance, `[N]`."""
    total = np.cumsum(sorted_values)
    before = np.concatenate([[0.0], total])[offsets[:-1]]
    running: Floats = total - np.repeat(before, np.diff(offsets))
    return running


def running_shares(values: Floats, offsets: Ints, points: Floats) -> Floats:
    """`[n, k]`, the sum of each utterance's values up to `[k]` shares of its frames.

    Between whole frames it rises in a straight line, so that even values give the shares at any
    length.
    """
    held = np.concatenate([[0.0], np.cumsum(values)])
    at = offsets[:-1, None] + points[None, :] * np.diff(offsets)[:, None]
    found: Floats = np.interp(at, np.arange(len(held)), held) - held[offsets[:-1]][:, None]
    return found


def attended_frames(values: Floats, offsets: Ints, share: float | None) -> Bools:
    """`[N]`, whether a frame is attended.

    Args:
        values: weights, summing to 1 over each utterance.
        offsets: of the utterances.
        share: attended is the smallest set of frames that holds this share of the mass; None is
            the top frame of each utterance alone.
    """
    order = order_within(values, offsets)
    if share is None:
        chosen = positions(offsets) == 0
    else:
        # A frame belongs to the set if those before it do not reach the share yet.
        ranked = values[order]
        before = cumulative(ranked, offsets) - ranked
        chosen = (before < share - 1e-12) | (positions(offsets) == 0)
    attended = np.zeros(len(values), dtype=np.bool_)
    attended[order[chosen]] = True
    return attended


def ranks_within(values: Floats, offsets: Ints) -> Floats:
    """`[N]` ranks from 1 within each utterance, ties at their mean."""
    owner = segments(offsets)
    order = order_within(-values, offsets)
    ranked, owned = values[order], owner[order]
    fresh = np.ones(len(values), dtype=np.bool_)
    fresh[1:] = (np.diff(ranked) != 0) | (np.diff(owned) != 0)
    starts = np.flatnonzero(fresh)
    ends = np.append(starts[1:], len(values))
    place = positions(offsets)
    mean_rank = (place[starts] + place[ends - 1]) / 2 + 1
    ranks = np.empty(len(values))
    ranks[order] = np.repeat(mean_rank, ends - starts)
    return ranks


def correlations(a: Floats, b: Floats, offsets: Ints) -> Floats:
    """Pearson correlation within each utterance, `[B]`; NaN where one of them does not vary."""
    counts = np.diff(offsets)
    both = np.stack([a, b], axis=1)
    centred = both - np.repeat(segment_sum(both, offsets) / counts[:, None], counts, axis=0)
    products = np.stack([centred[:, 0] * centred[:, 1], *np.square(centred).T], axis=1)
    covariance, first, second = segment_sum(products, offsets).T
    scale = np.sqrt(first * second)
    # What is left of a constant after rounding is no variation.
    size = segment_sum(np.square(both), offsets)
    varies = (first > 1e-20 * size[:, 0]) & (second > 1e-20 * size[:, 1]) & (scale > 0)
    result = np.full(len(counts), np.nan)
    result[varies] = np.clip(covariance[varies] / scale[varies], -1, 1)
    return result


DRAWS = 2000


@dataclass(frozen=True)
class Mean:
    """The mean of a value over the utterances that have it.

    Attributes:
        value: NaN where no utterance has it.
        count: utterances that have it.
        interval: 95 %, over speakers; None where a bootstrap would say nothing.
    """

    value: float
    count: int
    interval: Interval | None = None

    @property
    def above(self) -> bool:
        """Whether the whole interval lies above 0."""
        return self.interval is not None and self.interval.low > 0

    @property
    def below(self) -> bool:
        """Whether the whole interval lies below 0."""
        return self.interval is not None and self.interval.high < 0

    @property
    def low(self) -> float | None:
        """The interval's lower end, None where there is none."""
        return None if self.interval is None else self.interval.low

    @property
    def high(self) -> float | None:
        """The interval's upper end, None where there is none."""
        return None if self.interval is None else self.interval.high

    def __str__(self) -> str:
        if not self.count:
            return "not known"
        if self.interval is None:
            return f"{self.value:+.3f} (no interval)"
        return f"{self.value:+.3f} [{self.interval.low:+.3f}, {self.interval.high:+.3f}]"


def speaker_means(values: Floats, speakers: Sequence[str], *, seed: int = 0) -> list[Mean]:
    """The mean of each column over the utterances that have a value.

    Speakers are resampled, as in `heads.bootstrap`; a column gets an interval where the
    utterances that have a value come from enough speakers.

    Args:
        values: `[n, k]`, NaN where an utterance has no value.
        speakers: `[n]`, "" where unknown.
        seed: of the bootstrap.
    """
    return [_mean(column, speakers, seed) for column in values.T]


def interval_note(speakers: Sequence[str]) -> str:
    """What there is to say about intervals over these speakers; "" if nothing."""
    return judge_clusters(known_speakers(speakers))[0]


def _mean(column: Floats, speakers: Sequence[str], seed: int) -> Mean:
    held: Bools = ~np.isnan(column)
    count = int(held.sum())
    if not count:
        return Mean(float("nan"), 0)
    value = float(column[held].mean())
    known = known_speakers([name for name, there in zip(speakers, held, strict=True) if there])
    if not judge_clusters(known)[1]:
        return Mean(value, count)
    clusters = cluster_numbers(known)
    tables = np.stack([np.bincount(clusters, column[held]), np.bincount(clusters)], axis=1)
    drawn = bootstrap(tables, lambda sums: sums[:, 0] / sums[:, 1], draws=DRAWS, seed=seed)
    return Mean(value, count, t_interval(value, drawn, len(tables)))
