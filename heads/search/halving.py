"""Synchronous successive halving: who stays when, and what that costs.

A cohort starts together and all that are sampled are compared at the same epoch (Jamieson and
Talwalkar 2016, factor 3). A sequential pruner would see lockstep reports in an arbitrary order.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

# A third stays at each rung.
KEEP = 3
# Epochs of a completed trial, with rungs at 1, 3 and 9 ...
EPOCHS = 9
# ... but a multiple of that which gives at least so many steps: with fewer, heads on a small
# corpus would be halved and chosen before they have learnt anything. On EMO-DB and RAVDESS 108
# steps at 3e-3 score as 216 at 1e-3 (docs/results.md).
FEWEST_STEPS = 200


def default_epochs(steps_per_epoch: int) -> int:
    """Epochs of a completed trial: `EPOCHS`, or a multiple of it that has the fewest steps."""
    return EPOCHS * math.ceil(FEWEST_STEPS / (EPOCHS * steps_per_epoch))


def rungs(epochs: int) -> list[int]:
    """The epochs after which a cohort is compared: a ninth, a third and all of them."""
    return sorted({max(1, round(epochs / 9)), max(1, round(epochs / 3)), epochs})


def staying(sampled: int) -> int:
    """How many of the sampled ones stay at a rung: a third, rounded up."""
    return math.ceil(sampled / KEEP)


def survivors(
    scores: Sequence[float], protected: Sequence[bool], costs: Sequence[float]
) -> list[int]:
    """Positions of those who stay, in their order.

    Where a corpus is so easy that many score the same, the simplest of them are the better ones.

    Args:
        scores: of each trial; larger is better.
        protected: who stays whatever the score, and takes nobody's place.
        costs: of equal scores the lower one stays; of equal costs the earlier trial.
    """
    sampled = [k for k, safe in enumerate(protected) if not safe]
    best = sorted(sampled, key=lambda k: (-scores[k], costs[k], k))[: staying(len(sampled))]
    return sorted([*best, *(k for k, safe in enumerate(protected) if safe)])


def head_epochs(count: int, protected: int, epochs: int) -> int:
    """Epochs that the heads of one cohort train, all together."""
    total, done, sampled = 0, 0, count - protected
    for rung in rungs(epochs):
        total += (sampled + protected) * (rung - done)
        done, sampled = rung, staying(sampled)
    return total
