"""What an order of frames gains over a rival, and the verdict on attention."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from explain.faithfulness.curves import (
    ATTENTION,
    ENERGY,
    GRADIENTS,
    RANDOM,
    SHIFTED,
    UNTRAINED,
    Curves,
)
from explain.intervals import Mean, speaker_means

# Of probability: less does not matter, however narrow the interval around it.
NOTABLE = 0.001
#: In the order of tables and legends.
ORDERS = (ATTENTION, GRADIENTS, ENERGY, UNTRAINED, SHIFTED, RANDOM)


@dataclass(frozen=True)
class Gain:
    """By how much an order's areas are better than a rival's, in probability.

    Attributes:
        order: which.
        rival: compared with.
        deletion: above 0 where the order finds what matters.
        insertion: above 0 likewise.
    """

    order: str
    rival: str
    deletion: Mean
    insertion: Mean

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "order": self.order,
            "rival": self.rival,
            **{
                name: {"value": mean.value, "low": mean.low, "high": mean.high, "n": mean.count}
                for name, mean in (("deletion", self.deletion), ("insertion", self.insertion))
            },
        }


def find_gains(curves: Curves, speakers: Sequence[str]) -> list[Gain]:
    """Attention against each rival, shifted attention first; then the untrained head's order."""
    rivals = [SHIFTED, *(name for name in ORDERS if name in curves.deletion)]
    pairs = [(ATTENTION, name) for name in dict.fromkeys(rivals) if name != ATTENTION]
    pairs.append((UNTRAINED, SHIFTED))
    found = []
    for order, rival in pairs:
        deletion, insertion = speaker_means(curves.advantage(order, rival), speakers)
        found.append(Gain(order, rival, deletion, insertion))
    return found


def verdict(gain: Gain, method: str = ATTENTION) -> str:
    """Whether attention beats shifted attention, and by how much, in one sentence."""
    sizes = (
        f"dropping its frames first lowers the probability by {gain.deletion} more, keeping them "
        f"alone retains {gain.insertion} more (mean along the curve, 95 % interval over speakers)"
    )
    subject = method[0].upper() + method[1:]
    means = (gain.deletion, gain.insertion)
    if any(mean.interval is None for mean in means):
        return (
            f"Whether {method} beats its shifted self cannot be said with so few speakers: {sizes}."
        )
    if all(abs(mean.value) < NOTABLE for mean in means):
        return f"{subject} does not measurably beat its shifted self: {sizes}."
    if all(mean.above for mean in means):
        return f"{subject} beats its shifted self: {sizes}."
    if any(mean.below for mean in means):
        return f"{subject} does NOT point to what decides; its shifted self does better: {sizes}."
    if any(mean.above for mean in means):
        better = "deletion" if gain.deletion.above else "insertion"
        return f"{subject} beats its shifted self under {better} alone: {sizes}."
    return f"{subject} does not measurably beat its shifted self: {sizes}."
