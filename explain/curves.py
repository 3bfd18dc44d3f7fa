"""Deletion and insertion curves: the predicted class's probability as frames go, or come.

Deletion (Petsiuk et al. 2018, on frames): the frames an order puts first are dropped; the faster
the probability falls, the more they mattered. Insertion: only those are kept; the faster it is
back, the better. Frames are ragged, so dropped means gone: nothing stands in their place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import isnan
from typing import Any

import numpy as np

from explain.ragged import Floats, Ints, Mean, speaker_means

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


# Of probability: less does not matter, however narrow the interval around it.
NOTABLE = 0.001
# Of probability, in float32: what differs by less does not differ.
ROUNDING = 1e-6
#: In the order of tables and legends.
ORDERS = (ATTENTION, GRADIENTS, ENERGY, UNTRAINED, EXCHANGED, RANDOM)


@dataclass(frozen=True)
class Gain:
    """By how much an order's areas are better than a rival's, in probability.

    Attributes:
        order: which.
        rival: compared with.
        deletion: above 0 where the order finds what matters.
        insertion: above 0 likewise.
        wins: the share of utterances in which it is better, under deletion and under insertion, of
            those in which the two differ; NaN where they never do.
    """

    order: str
    rival: str
    deletion: Mean
    insertion: Mean
    wins: tuple[float, float] = (float("nan"), float("nan"))

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "order": self.order,
            "rival": self.rival,
            **{
                name: {
                    "value": mean.value if mean.count else None,
                    "low": mean.low,
                    "high": mean.high,
                    "n": mean.count,
                    "better_in": None if isnan(share) else share,
                }
                for name, mean, share in zip(
                    ("deletion", "insertion"),
                    (self.deletion, self.insertion),
                    self.wins,
                    strict=True,
                )
            },
        }


def shown(order: str, method: str) -> str:
    """An order's name for a reader, where gradient saliency may stand for attention."""
    return {ATTENTION: method, EXCHANGED: f"exchanged {method}"}.get(order, order)


def find_gains(curves: Curves, speakers: Sequence[str]) -> list[Gain]:
    """Attention against each rival, exchanged attention first; then the untrained head's order."""
    rivals = [EXCHANGED, *(name for name in ORDERS if name in curves.deletion)]
    pairs = [(ATTENTION, name) for name in dict.fromkeys(rivals) if name != ATTENTION]
    pairs.append((UNTRAINED, EXCHANGED))
    found = []
    for order, rival in pairs:
        advantage = curves.advantage(order, rival)
        deletion, insertion = speaker_means(advantage, speakers)
        wins = _share_above(advantage[:, 0]), _share_above(advantage[:, 1])
        found.append(Gain(order, rival, deletion, insertion, wins))
    return found


def _share_above(values: Floats) -> float:
    """The share of positive values among those that are neither 0 nor NaN; NaN without any."""
    differ = values[~np.isnan(values) & (np.abs(values) > ROUNDING)]
    return float((differ > 0).mean()) if len(differ) else float("nan")


def verdict(gains: Sequence[Gain], method: str = ATTENTION, reason: str = "") -> str:
    """Whether attention beats exchanged attention, and by how much, in a few sentences.

    And whether it points the wrong way: whether frames dropped at random are missed more. That is
    said of the utterances at hand, so it needs no interval over speakers.

    Args:
        gains: from `find_gains`, attention over exchanged attention first.
        method: what stands for attention.
        reason: why there is no interval, where there is none.
    """
    gain, wrong = gains[0], _wrong_way(gains, method)
    sizes = (
        f"dropping its frames first lowers the probability by {_size(gain.deletion)} more, keeping "
        f"them alone retains {_size(gain.insertion)} more (mean along the curve"
    )
    better = " and ".join(
        f"{share:.0%} of the utterances under {name}"
        for name, share in zip(("deletion", "insertion"), gain.wins, strict=True)
        if not isnan(share)
    )
    wins = f" It is better in {better}, counting those in which the two differ." if better else ""
    means = (gain.deletion, gain.insertion)
    rival = shown(EXCHANGED, method)
    if any(mean.interval is None for mean in means):
        why = f" ({reason})" if reason else ""
        return (
            f"{wrong}Whether {method} beats {rival} cannot be said with so few speakers{why}. In "
            f"these {gain.deletion.count:,} utterances {sizes}).{wins}"
        )
    subject = method.capitalize()
    claim = f"{subject} does not measurably beat {rival}"
    if any(abs(mean.value) >= NOTABLE for mean in means):
        if all(mean.above for mean in means):
            claim = f"{subject} beats {rival}"
        elif any(mean.below for mean in means):
            claim = f"{subject} does NOT point to what decides; {rival} does better"
        elif any(mean.above for mean in means):
            one = "deletion" if gain.deletion.above else "insertion"
            claim = f"{subject} beats {rival} under {one} alone"
    return f"{wrong}{claim}: {sizes}, 95 % interval over speakers).{wins}"


def dropping_tells(gains: Sequence[Gain], method: str = ATTENTION) -> bool:
    """Whether the verdict lets one say what is lost without attended frames.

    Its half on deletion has to hold, with an interval; its half on insertion must not speak against
    it, and attention must not point the wrong way.

    Args:
        gains: from `find_gains`.
        method: what stands for attention.
    """
    gain = gains[0]
    lost = gain.deletion.above and gain.deletion.value >= NOTABLE
    return lost and not gain.insertion.below and not _wrong_way(gains, method)


def _wrong_way(gains: Sequence[Gain], method: str) -> str:
    """A sentence where most utterances are answered more surely without the frames put first."""
    chance = next(gain for gain in gains if (gain.order, gain.rival) == (ATTENTION, RANDOM))
    better = chance.wins[0]
    # Of no utterance in which the two differ the share is not a number, and nothing is said.
    if not (better < 0.5 and chance.deletion.value <= -NOTABLE):
        return ""
    return (
        f"{method.capitalize()} points the wrong way in {1 - better:.0%} of the utterances: frames "
        "dropped at random lower the probability more than those it puts first. "
    )


def _size(mean: Mean) -> str:
    return f"{mean.value:+.3f}" if mean.interval is None and mean.count else str(mean)
