"""Intervals cover as often as they say, simulated: 8 to 100 speakers of different skill.

Each repetition draws new speakers from one population: skill is logistic normal, each says 30
utterances of six classes, and classes differ in how hard they are. The true scores are those of
40,000 speakers. What is stated of coverage is .93 to .97. A share of 400 repetitions has a standard
error of .011 at .95; two and a half of them are allowed beyond on each side, so that of 12 shares
(4 numbers of speakers, 3 scores) that lie at the bounds themselves one in 14 would fail, and seeds
are fixed. A coverage of .89, that of percentiles with eight speakers, fails.
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import pytest
from numpy.typing import NDArray

from heads.bootstrap import paired_differences
from heads.metrics import HEADLINE, classification_report

pytestmark = pytest.mark.slow

CLASSES = 6
LABELS = tuple("abcdef")
EACH = 30
REPETITIONS = 400
LOW, HIGH = 0.93, 0.97
MOST_FALSE = 0.06

Ints = NDArray[np.int64]


def slack(share: float) -> float:
    """Two and a half standard errors of a share of so many repetitions."""
    return 2.5 * math.sqrt(share * (1 - share) / REPETITIONS)


def draw_speakers(random: np.random.Generator, count: int, systems: int = 1) -> tuple[Ints, Ints]:
    """Gold `[S, 30]`, and what systems that are equally good say, `[systems, S, 30]`."""
    skill = 1 / (1 + np.exp(-(1.0 + 0.7 * random.standard_normal(count))))
    # How often speakers use a class differs too.
    shares = random.dirichlet(np.full(CLASSES, 4.0), count).cumsum(axis=1)
    gold = (random.random((count, EACH, 1)) > shares[:, None]).sum(-1).clip(max=CLASSES - 1)
    right = np.minimum(0.98, skill[:, None] * (0.6 + 0.8 * gold / CLASSES))
    misses = (gold + random.integers(1, CLASSES, (systems, count, EACH))) % CLASSES
    said = np.where(random.random((systems, count, EACH)) < right, gold, misses)
    return gold.astype(np.int64), said.astype(np.int64)


@cache
def true_scores() -> dict[str, float]:
    gold, said = draw_speakers(np.random.default_rng(1), 40_000)
    report = classification_report(
        gold.ravel(), said.ravel(), LABELS, ["a", "b"] * (gold.size // 2)
    )
    return {name: float(getattr(report, name)) for name in HEADLINE}


def names_of(count: int) -> list[str]:
    return [f"s{speaker}" for speaker in range(count) for _ in range(EACH)]


@pytest.mark.parametrize("speakers", [8, 10, 24, 100])
def test_intervals_cover_the_true_scores_as_often_as_they_say(speakers: int) -> None:
    random = np.random.default_rng(speakers)
    hits = dict.fromkeys(HEADLINE, 0)
    for repetition in range(REPETITIONS):
        gold, said = draw_speakers(random, speakers)
        report = classification_report(
            gold.ravel(), said.ravel(), LABELS, names_of(speakers), seed=repetition
        )
        assert report.intervals is not None
        for name, true in true_scores().items():
            low, high = report.intervals[name]
            hits[name] += low <= true <= high
    covered = {name: count / REPETITIONS for name, count in hits.items()}
    for name, share in covered.items():
        assert LOW - slack(LOW) <= share <= HIGH + slack(HIGH), (name, covered)


@pytest.mark.parametrize("speakers", [8, 10, 24, 100])
def test_equal_systems_are_seldom_declared_different(speakers: int) -> None:
    random = np.random.default_rng(1000 + speakers)
    declared = beyond = 0
    for repetition in range(REPETITIONS):
        gold, said = draw_speakers(random, speakers, systems=2)
        flat = said.reshape(2, -1)
        found, _ = paired_differences(
            gold.ravel(), flat[:1], flat[1], CLASSES, names_of(speakers), seed=repetition
        )
        assert found is not None
        declared += found[0].p < 0.05
        beyond += not found[0].interval.low <= 0 <= found[0].interval.high
    assert declared == beyond  # the interval and p say the same
    assert declared / REPETITIONS <= MOST_FALSE + slack(MOST_FALSE)
