"""Measuring: two ways of doing the same, in turns, so that both meet the same machine."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True)
class Comparison:
    """Medians over the repeats.

    Attributes:
        ours: seconds.
        theirs: seconds.
        ratio: of their time to ours in the same repeat: above 1 we are faster.
    """

    ours: float
    theirs: float
    ratio: float


def compare(
    ours: Callable[[], object], theirs: Callable[[], object], repeats: int, *, warm_up: bool = True
) -> Comparison:
    """Time both `repeats` times, one after the other; who begins changes from repeat to repeat.

    Args:
        ours: does the work once.
        theirs: does the same work in the other way.
        repeats: how often; medians are taken over these.
        warm_up: whether each runs once before, untimed.
    """
    if warm_up:
        theirs()
        ours()
    mine, others = [], []
    for repeat in range(repeats):
        if repeat % 2:
            mine.append(seconds(ours))
            others.append(seconds(theirs))
        else:
            others.append(seconds(theirs))
            mine.append(seconds(ours))
    ratios = [other / own for other, own in zip(others, mine, strict=True)]
    return Comparison(median(mine), median(others), median(ratios))


def seconds(action: Callable[[], object]) -> float:
    """How long it takes, freeing its result included."""
    started = time.perf_counter()
    action()
    return time.perf_counter() - started
