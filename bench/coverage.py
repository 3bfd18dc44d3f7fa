"""How often intervals hold the true score, simulated: 8 to 100 speakers of different skill.

Each repetition draws new speakers from one population: skill is logistic normal, each says 30
utterances of six classes, and classes differ in how hard they are. The true scores are those of
40,000 speakers.
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np
from numpy.typing import NDArray

from heads.bootstrap import paired_differences
from heads.metrics import HEADLINE, classification_report

CLASSES = 6
LABELS = tuple("abcdef")
EACH = 30
REPETITIONS = 400
SPEAKERS = (8, 10, 24, 100)

Ints = NDArray[np.int64]


def share_error(share: float) -> float:
    """The standard error of a share of so many repetitions."""
    return math.sqrt(share * (1 - share) / REPETITIONS)


def coverage(speakers: int) -> dict[str, float]:
    """By score the share of repetitions whose 95 % interval holds the true score.

    Args:
        speakers: of each repetition.
    """
    random = np.random.default_rng(speakers)
    hits = dict.fromkeys(HEADLINE, 0)
    for repetition in range(REPETITIONS):
        gold, said = _draw_speakers(random, speakers)
        report = classification_report(
            gold.ravel(), said.ravel(), LABELS, _names_of(speakers), seed=repetition
        )
        assert report.intervals is not None
        for name, true in _true_scores().items():
            low, high = report.intervals[name]
            hits[name] += low <= true <= high
    return {name: count / REPETITIONS for name, count in hits.items()}


def declared_different(speakers: int) -> tuple[float, float]:
    """Of two equally good systems: how often p < .05, and how often the interval leaves 0 out.

    Args:
        speakers: of each repetition.
    """
    random = np.random.default_rng(1000 + speakers)
    declared = beyond = 0
    for repetition in range(REPETITIONS):
        gold, said = _draw_speakers(random, speakers, systems=2)
        flat = said.reshape(2, -1)
        found, _ = paired_differences(
            gold.ravel(), flat[:1], flat[1], CLASSES, _names_of(speakers), seed=repetition
        )
        assert found is not None
        declared += found[0].p < 0.05
        beyond += not found[0].interval.low <= 0 <= found[0].interval.high
    return declared / REPETITIONS, beyond / REPETITIONS


def _draw_speakers(random: np.random.Generator, count: int, systems: int = 1) -> tuple[Ints, Ints]:
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
def _true_scores() -> dict[str, float]:
    gold, said = _draw_speakers(np.random.default_rng(1), 40_000)
    report = classification_report(
        gold.ravel(), said.ravel(), LABELS, ["a", "b"] * (gold.size // 2)
    )
    return {name: float(getattr(report, name)) for name in HEADLINE}


def _names_of(count: int) -> list[str]:
    return [f"s{speaker}" for speaker in range(count) for _ in range(EACH)]
