"""Cluster bootstrap: how far a score could be off with other speakers from the same population.

Utterances of one speaker resemble each other, so speakers are resampled, not utterances (Field and
Welsh 2007). A score that is a function of a confusion matrix needs only one matrix a speaker: a
resample of speakers is a weighted sum of them, and thousands of resamples are one matrix product.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr, stdtrit

from corpora.base.errors import ConfigError

# Of fewer clusters too few distinct resamples exist, and the interval is far too narrow.
MIN_CLUSTERS = 8
# Draws computed together: bounds the memory of the counts to 32 MB.
_COUNTS_AT_ONCE = 2**22

Floats = NDArray[np.float64]


class Interval(NamedTuple):
    """A confidence interval, `low` to `high`."""

    low: float
    high: float


def bootstrap(
    tables: NDArray[Any],
    statistic: Callable[[Floats], Floats],
    *,
    draws: int = 2000,
    seed: int = 0,
) -> Floats:
    """Values of a statistic over resamples of clusters, drawn with replacement.

    For two systems on the same utterances put both into the tables (`[S, 2, C, C]`) and let
    the statistic return the difference: each resample then serves both, which makes it paired.

    The result depends on the set of tables only, not on their order or names. Clusters with equal
    tables are drawn as one with their joint probability, so many one-utterance clusters are cheap.

    Args:
        tables: `[S, ...]` counts that add up over clusters, such as a confusion matrix
            `[S, C, C]` for each speaker.
        statistic: maps summed tables `[d, ...]` to values `[d]` or `[d, k]`. A class can be
            missing from a resample; the statistic has to have a value then.
        draws: number of resamples. At 2,000 an end of a 95 % interval is off by about 6 % of
            the standard error.
        seed: equal seeds give equal values.

    Returns:
        `[draws]` or `[draws, k]`.

    Raises:
        ConfigError: no clusters, or no draws.
    """
    if len(tables) == 0 or draws < 1:
        raise ConfigError(
            f"A bootstrap needs clusters and draws, got {len(tables)} clusters, {draws} draws."
        )
    clusters = len(tables)
    flat = np.ascontiguousarray(tables, dtype=np.float64).reshape(clusters, -1)
    distinct = sorted(Counter(row.tobytes() for row in flat).items())
    rows = np.stack([np.frombuffer(row, dtype=np.float64) for row, _ in distinct])
    share = np.array([count for _, count in distinct]) / clusters
    random = np.random.default_rng(seed)
    step = max(1, _COUNTS_AT_ONCE // len(distinct))
    values = []
    for start in range(0, draws, step):
        counts = random.multinomial(clusters, share, size=min(step, draws - start))
        summed = counts.astype(np.float64) @ rows
        values.append(statistic(summed.reshape(-1, *tables.shape[1:])))
    return np.concatenate(values)


def t_interval(
    value: float,
    drawn: Floats,
    clusters: int,
    confidence: float = 0.95,
    *,
    bounds: tuple[float, float] = (-math.inf, math.inf),
) -> Interval:
    """An interval for a statistic: Student's t with the standard error of its resamples.

    Percentiles of the resamples are too narrow where clusters are few: with 8 speakers 95 % of them
    cover .88 to .91 of the time, and BCa's (Efron 1987) do no better. The t form, with S − 1
    degrees of freedom and the error times √(S / (S − 1)), covers .93 to .97 with 8 to 100 speakers
    (simulated in `tests/heads/test_coverage.py`).

    Args:
        value: of the statistic on all clusters.
        drawn: `[draws]` its values over resamples; those that are not a number do not count.
        clusters: S, how many there are.
        confidence: coverage that is aimed at.
        bounds: values that the statistic cannot go beyond.

    Raises:
        ConfigError: confidence is not between 0 and 1.
    """
    reach = standard_error(drawn, clusters) * critical(confidence, clusters - 1)
    low, high = bounds
    return Interval(max(low, float(value - reach)), min(high, float(value + reach)))


def standard_error(drawn: Floats, clusters: int) -> Any:  # noqa: ANN401 - a number, or one a column
    """Of a statistic with resamples `[draws]` (or `[draws, k]`, for each column), S clusters.

    A resample of S from S clusters varies less than S new ones would, by √((S − 1) / S).
    """
    return np.nanstd(drawn, axis=0) * np.sqrt(clusters / (clusters - 1))


def two_sided(t: float, freedom: int) -> float:
    """The probability that Student's t is further from 0 than this."""
    return float(2 * stdtr(freedom, -abs(t)))


def critical(confidence: float, freedom: int) -> float:
    """The t that Student's t is nearer to 0 than with this probability.

    Raises:
        ConfigError: confidence is not between 0 and 1.
    """
    if not 0 < confidence < 1:
        raise ConfigError(f"Confidence is {confidence}, expected a share between 0 and 1.")
    return float(stdtrit(freedom, (1 + confidence) / 2))
