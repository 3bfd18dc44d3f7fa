"""How much of the winner's score is the luck of being chosen.

The best of many heads looks better on the data it was chosen by than it is. A nested estimate: draw
a resample of the units (speakers, or utterances where speakers are few), choose the head that is
best on it, and score that head on the units that were not drawn, which had no part in the choice.
The predictions on units left out are counted together over all draws, and the score follows from
their sum: it has no bias from small samples. The winner's own score less this is its optimism.

Halved trials are among the candidates, with what they said when they left: they too were compared
on the same data.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from corpora.base.codec import Jsonable
from heads.bootstrap import MIN_CLUSTERS, Floats, cluster_numbers, judge_clusters, known_speakers

NESTED_DRAWS = 500


@dataclass(frozen=True)
class Optimism(Jsonable):
    """The score of a winner, such as macro-F1, and what an honest one would be.

    Attributes:
        selected: score on the data that the winner was chosen by.
        nested: score of winners on data that had no part in their choice.
        candidates: heads that it was chosen from.
        unit: what was drawn, `speaker` or `utterance`.
        units: how many of them there are.
        reason: why utterances were drawn and not speakers; else "".
    """

    json_entries = "* value"

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


def optimism(
    tables_of: Callable[[NDArray[np.int64]], Iterable[NDArray[Any]]],
    score: Callable[[Any], Floats],
    speakers: Sequence[str],
    *,
    draws: int = NESTED_DRAWS,
) -> Optimism | None:
    """Estimate the optimism of the best of several heads.

    Args:
        tables_of: from the cluster of each utterance `[N]` to what is added up over each of S
            clusters, `[S, ...]` of each head, in the order that decides among equals.
        score: of sums over clusters.
        speakers: `[N]`.
        draws: resamples.

    Returns:
        None for fewer than two heads, or where there is too little to draw from.
    """
    known = known_speakers(speakers)
    reason, by_speaker = judge_clusters(known)
    clusters = cluster_numbers(known if by_speaker else [""] * len(known))
    count = int(clusters.max()) + 1 if len(clusters) else 0
    if count < MIN_CLUSTERS:
        return None
    random = np.random.default_rng(0)
    times = [np.bincount(random.integers(0, count, count), minlength=count) for _ in range(draws)]
    drawn = np.stack(times).astype(np.float64)
    out = np.equal(drawn, 0).astype(np.float64)
    whole, chosen, left_out = [], [], []  # of each head, of one after the other
    for tables in tables_of(clusters):
        flat = tables.reshape(count, -1).astype(np.float64)
        whole.append(score(flat.sum(axis=0).reshape(tables.shape[1:])))
        chosen.append(score((drawn @ flat).reshape(draws, *tables.shape[1:])))
        left_out.append(out @ flat)
    if len(whole) < 2:
        return None
    best = np.stack(chosen).argmax(axis=0)
    rest = np.stack(left_out)[best, np.arange(draws)].sum(axis=0).reshape(tables.shape[1:])
    return Optimism(
        selected=float(max(whole)),
        nested=float(score(rest)),
        candidates=len(whole),
        unit="speaker" if by_speaker else "utterance",
        units=count,
        reason="" if by_speaker else reason.partition(":")[0],
    )
