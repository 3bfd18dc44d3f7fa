"""Means over utterances with an interval over speakers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from explain.ragged import Bools, Floats
from heads.statistics.bootstrap import Interval, bootstrap, t_interval
from heads.statistics.clusters import cluster_numbers, judge_clusters, known_speakers

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

    Speakers are resampled, as in `heads.statistics.bootstrap`; a column gets an interval where the
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
