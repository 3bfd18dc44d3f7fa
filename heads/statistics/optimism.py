"""How much of the winner's score is the luck of being chosen.

The best of many heads looks better on the data it was chosen by than it is. A nested estimate: draw
a resample of the units (speakers, or utterances where speakers are few), choose the head that is
best on it, and score that head on the units that were not drawn, which had no part in the choice.
The predictions on units left out are counted together over all draws, and macro-F1 follows from
their sum: it has no bias from small samples. The winner's own score less this is its optimism.

Halved trials are among the candidates, with what they said when they left: they too were compared
on the same data.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heads.statistics.bootstrap import MIN_CLUSTERS
from heads.statistics.clusters import cluster_numbers, judge_clusters, known_speakers
from heads.statistics.confusion import Floats, macro_f1

DRAWS = 500


@dataclass(frozen=True)
class Optimism:
    """The score of a winner, and what an honest one would be.

    Attributes:
        selected: macro-F1 on the data that the winner was chosen by.
        nested: macro-F1 of winners on data that had no part in their choice.
        candidates: heads that it was chosen from.
        unit: what was drawn, `speaker` or `utterance`.
        units: how many of them there are.
        reason: why utterances were drawn and not speakers; else "".
    """

    selected: float
    nested: float
    candidates: int
    unit: str
    units: int
    reason: str = ""

    @property
    def value(self) -> float:
        """What to take off the winner's score."""
        return self.selected - self.nested

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {**asdict(self), "value": self.value}


def optimism(
    gold: NDArray[np.int64],
    predicted: NDArray[np.int64],
    classes: int,
    speakers: Sequence[str],
    *,
    draws: int = DRAWS,
    seed: int = 0,
) -> Optimism | None:
    """Estimate the optimism of the best of several heads.

    Args:
        gold: `[N]` class indices.
        predicted: `[T, N]` predicted classes of T heads, in the order that decides among equals.
        classes: number of classes.
        speakers: `[N]`.
        draws: resamples.
        seed: of the draws.

    Returns:
        None for fewer than two heads, or where there is too little to draw from.
    """
    known = known_speakers(speakers)
    reason, by_speaker = judge_clusters(known)
    clusters = cluster_numbers(known if by_speaker else [""] * len(known))
    count = int(clusters.max()) + 1 if len(clusters) else 0
    if len(predicted) < 2 or count < MIN_CLUSTERS:
        return None
    heads = len(predicted)
    # The cell of each utterance in the confusion matrix of each head, [T, N].
    cells = (np.arange(heads)[:, None] * classes + gold) * classes + predicted

    def confusion(times: NDArray[Any]) -> Floats:
        """`[T, C, C]` where unit u counts `times[u]` times."""
        weights = np.tile(times[clusters], heads)
        counts = np.bincount(cells.ravel(), weights, minlength=heads * classes * classes)
        return counts.reshape(heads, classes, classes).astype(np.float64)

    random = np.random.default_rng(seed)
    left_out = np.zeros((classes, classes))
    for _ in range(draws):
        drawn = np.bincount(random.integers(0, count, count), minlength=count)
        chosen = int(macro_f1(confusion(drawn)).argmax())
        rest = (drawn == 0)[clusters]
        own = cells[chosen, rest] - chosen * classes * classes
        left_out += np.bincount(own, minlength=classes * classes).reshape(classes, classes)
    whole = macro_f1(confusion(np.ones(count)))
    return Optimism(
        selected=float(whole.max()),
        nested=float(macro_f1(left_out)),
        candidates=len(predicted),
        unit="speaker" if by_speaker else "utterance",
        units=count,
        reason="" if by_speaker else reason.partition(":")[0],
    )
