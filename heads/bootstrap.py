"""Cluster bootstrap: how far a score could be off with other speakers from the same population.

Utterances of one speaker resemble each other, so speakers are resampled, not utterances (Field and
Welsh 2007). A score that is a function of a confusion matrix needs only one matrix a speaker: a
resample of speakers is a weighted sum of them, and thousands of resamples are one matrix product.

Are two heads different? A paired bootstrap, and p-values corrected for many comparisons.

Both heads answer for the same utterances, so what is hard for both cancels: each resample of
speakers gives one difference. With 8 to 24 speakers the share of resamples beyond 0 calls equal
heads different twice too often (simulated: 8 to 12 % at a level of 5 %), so the resamples give the
standard error, times √(S / (S − 1)), and Student's t with S − 1 degrees of freedom the rest. Of
many comparisons some come out small by chance; Holm's correction (1979) keeps the probability of
even one false finding below the level.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr, stdtrit

from corpora.base.codec import Jsonable
from corpora.base.errors import ConfigError
from corpora.utterance import is_unknown
from heads.confusion import Counts, confusion_by_cluster, macro_f1

Floats = NDArray[np.float64]


def known_speakers(speakers: Sequence[str]) -> list[str]:
    """The names, "" where a speaker is not known."""
    names = [speaker.strip() for speaker in speakers]
    return ["" if is_unknown(name) else name for name in names]


def judge_clusters(known: Sequence[str]) -> tuple[str, bool]:
    """What there is to say about a bootstrap over these speakers, and whether to run it."""
    speakers = len(set(known) - {""})
    unknown = sum(speaker == "" for speaker in known)
    strangers = f"the speaker of {unknown} of {len(known)} utterances is unknown"
    # A few speakers with most of the utterances stay a few speakers, whatever is added to them.
    few = speakers < MIN_CLUSTERS and 2 * unknown < len(known)
    if few or speakers + unknown < MIN_CLUSTERS:
        found = f"{speakers} speaker{'' if speakers == 1 else 's'}"
        extra = f" ({strangers})" if unknown else ""
        return f"{found}{extra}: a bootstrap over fewer than {MIN_CLUSTERS} says nothing", False
    if unknown:
        return f"{strangers}; each counts as one speaker, so intervals may be too narrow", True
    return "", True


def cluster_numbers(known: Sequence[str]) -> NDArray[np.int64]:
    """`[N]`: one number a known speaker, and one an utterance of unknown speakers."""
    numbers: dict[str | int, int] = {}
    return np.array(
        [numbers.setdefault(name or row, len(numbers)) for row, name in enumerate(known)],
        dtype=np.int64,
    )


# Of fewer clusters too few distinct resamples exist, and the interval is far too narrow.
MIN_CLUSTERS = 8
# At so many an end of a 95 % interval is off by about 6 % of the standard error.
DRAWS = 2000
CONFIDENCE = 0.95
# Draws computed together: bounds the memory of the counts to 32 MB.
_COUNTS_AT_ONCE = 2**22


class Interval(NamedTuple):
    """A confidence interval, `low` to `high`."""

    low: float
    high: float


def with_interval(value: float, interval: Interval | None) -> str:
    """Such as `0.512 [0.430, 0.594]`."""
    return f"{value:.3f}" + ("" if interval is None else " [{:.3f}, {:.3f}]".format(*interval))


def interval_notes(
    speakers: int, confidence: float, reason: str, *, found: bool
) -> tuple[str, ...]:
    """What the intervals of a report are, or why there are none."""
    over = f"{speakers} speakers" if speakers else "utterances"
    said = f"{100 * confidence:g} % intervals in brackets, bootstrap over {over}."
    why = f"{'Note' if found else 'No intervals'}: {reason}."
    return (*[said] * found, *[why] * bool(reason))


def bootstrap(
    tables: NDArray[Any],
    statistic: Callable[[Floats], Floats],
    *,
    draws: int = DRAWS,
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
        draws: number of resamples.
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
    confidence: float = CONFIDENCE,
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


@dataclass(frozen=True)
class Difference(Jsonable):
    """How much a head's score, such as macro-F1, is above (or below) another's.

    Attributes:
        value: the difference on all utterances.
        interval: 95 %, of the difference.
        error: its standard error.
        p: probability of a difference at least as large, in either direction, if there were none;
            corrected for the number of comparisons.
    """

    value: float
    interval: Interval
    p: float
    error: float = 0.0

    @property
    def short(self) -> str:
        """Without its interval, for cells."""
        return f"{self.value:+.3f} ({'p < .001' if self.p < 0.001 else f'p = {self.p:.3f}'})"

    def __str__(self) -> str:
        low, high = self.interval
        return f"{self.value:+.3f} [{low:+.3f}, {high:+.3f}], p = {self.p:.3f}"


def paired_differences(
    gold: NDArray[np.int64],
    heads: NDArray[np.int64],
    other: NDArray[np.int64],
    classes: int,
    speakers: Sequence[str],
    *,
    seed: int = 0,
) -> tuple[list[Difference] | None, str]:
    """Compare heads with one other by macro-F1 on the same utterances.

    Args:
        gold: `[N]` class indices.
        heads: `[K, N]` predicted classes of K heads, or `[K, R, N]` of R runs of each: compared
            is then the mean macro-F1 of the runs.
        other: `[N]` (or `[R, N]`) predicted classes of the one they are compared with.
        classes: number of classes.
        speakers: `[N]`, resampled; unknown ones count as one each.
        seed: of the bootstrap.

    Returns:
        One difference a head, with Holm-corrected p; None where a bootstrap says nothing, and the
        reason.
    """
    predicted = np.concatenate([other[None], heads])

    def scores(confusion: Counts) -> Floats:
        found = macro_f1(confusion)
        return found.mean(axis=-1) if heads.ndim == 3 else found

    return differences_from_first(
        lambda clusters: confusion_by_cluster(gold, predicted, clusters, classes),
        scores,
        speakers,
        seed=seed,
    )


def differences_from_first(
    tables_of: Callable[[NDArray[np.int64]], NDArray[Any]],
    scores: Callable[[Any], Floats],
    speakers: Sequence[str],
    *,
    seed: int = 0,
) -> tuple[list[Difference] | None, str]:
    """Compare systems with the first of them, by any score that follows from what adds up.

    Args:
        tables_of: from the cluster of each utterance `[N]` to what is added up over each of S
            clusters, `[S, 1 + K, ...]`.
        scores: of sums `[..., 1 + K, ...]` those of the systems, `[..., 1 + K]`.
        speakers: `[N]`, resampled; unknown ones count as one each.
        seed: of the bootstrap.

    Returns:
        As `paired_differences`.
    """
    known = known_speakers(speakers)
    reason, usable = judge_clusters(known)
    if not usable:
        return None, reason

    def differences(summed: Any) -> Floats:  # noqa: ANN401 - counts or sums
        found = scores(summed)
        return found[..., 1:] - found[..., :1]

    tables = tables_of(cluster_numbers(known))
    drawn = bootstrap(tables, differences, seed=seed)
    values = differences(tables.sum(axis=0))
    count = len(tables)
    error = np.atleast_1d(standard_error(drawn, count))
    corrected = holm(
        np.array(
            [two_sided(v / e, count - 1) if e else 1.0 for v, e in zip(values, error, strict=True)]
        )
    )
    reach = error * critical(CONFIDENCE, count - 1)
    found = [
        Difference(float(value), Interval(float(value - r), float(value + r)), float(p), float(e))
        for value, r, p, e in zip(values, reach, corrected, error, strict=True)
    ]
    return found, reason


def holm(p: Floats) -> Floats:
    """Holm's step-down correction of p-values `[K]`: the j-th smallest times K − j + 1."""
    order = np.argsort(p, kind="stable")
    raised = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    corrected = np.empty_like(p)
    corrected[order] = np.minimum(1.0, raised)
    return corrected
