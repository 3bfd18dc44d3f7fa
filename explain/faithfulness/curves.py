"""Deletion and insertion curves: the predicted class's probability as frames go, or come.

Deletion (Petsiuk et al. 2018, on frames): the frames an order puts first are dropped; the faster
the probability falls, the more they mattered. Insertion: only those are kept; the faster it is
back, the better. Frames are ragged, so dropped means gone: nothing stands in their place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from explain.ragged import Floats, Ints

# Dense where attention is: the published head holds 80 % of it in 15 % of the frames.
SHARES = (0.05, 0.1, 0.2, 0.35, 0.6, 0.9)
ATTENTION, EXCHANGED, RANDOM = "attention", "exchanged attention", "random"
ENERGY, UNTRAINED, GRADIENTS = "energy", "untrained head", "integrated gradients"


@dataclass(frozen=True)
class CurveConfig:
    """How curves are made.

    Attributes:
        draws: random orders and random exchanges of attention: of each utterance as many as give
            this many in all, and at least one.
        seed: of these and of the untrained head.
        plain_limit: utterances, drawn at random, for heads that learn no weights: their frames
            have to be pooled again for each choice.
        untrained_limit: utterances with the order of an untrained head, drawn at random.
        gradient_limit: utterances with integrated gradients (0: none), drawn at random.
        gradient_steps: of the integral.
        progress: whether to show a bar.
    """

    draws: int = 1000
    seed: int = 0
    plain_limit: int = 600
    untrained_limit: int = 600
    gradient_limit: int = 24
    gradient_steps: int = 16
    progress: bool = False


@dataclass(frozen=True, eq=False)
class Curves:
    """Curves of m utterances of a subject, for each order of their frames.

    Attributes:
        modality: whose frames were dropped.
        rows: `[m]`, the utterances' numbers in the subject.
        whole: `[m]`, the probability of the predicted class with all frames.
        deletion: by order `[m, S]`, after dropping each of `SHARES`; NaN where there is none.
        insertion: by order `[m, S]`, with only each of `SHARES` kept.
        agreement: `[m]`, rank correlation of attention with that of the untrained head.
    """

    modality: str
    rows: Ints
    whole: Floats
    deletion: Mapping[str, Floats]
    insertion: Mapping[str, Floats]
    agreement: Floats = field(default_factory=lambda: np.empty(0))

    def deletion_area(self, order: str) -> Floats:
        """`[m]`, mean probability over the shares dropped, from none on: lower is better."""
        points = np.concatenate([self.whole[:, None], self.deletion[order]], axis=1)
        return _area(points, (0.0, *SHARES))

    def insertion_area(self, order: str) -> Floats:
        """`[m]`, mean probability over the shares kept, up to all: higher is better."""
        points = np.concatenate([self.insertion[order], self.whole[:, None]], axis=1)
        return _area(points, (*SHARES, 1.0))

    def advantage(self, order: str, rival: str) -> Floats:
        """`[m, 2]`, by how much an order's areas are better: deletion, insertion."""
        return np.stack(
            [
                self.deletion_area(rival) - self.deletion_area(order),
                self.insertion_area(order) - self.insertion_area(rival),
            ],
            axis=1,
        )


def _area(points: Floats, shares: Sequence[float]) -> Floats:
    """The mean height of a curve `[m, k]` over its shares (trapezoids)."""
    area: Floats = np.trapezoid(points, np.array(shares), axis=1) / (shares[-1] - shares[0])
    return area
