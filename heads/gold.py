"""What utterances are, and how well something said of them fits: classes, attributes, or both.

All that is compared goes by one score: macro-F1 of classes, the mean CCC of attributes, and of both
the mean of the two. Each follows from what adds up over speakers (confusion matrices, sums), so the
same bootstraps serve all of them.

How much of the winner's score is the luck of being chosen.

The best of many heads looks better on the data it was chosen by than it is. A nested estimate: draw
a resample of the units (speakers, or utterances where speakers are few), choose the head that is
best on it, and score that head on the units that were not drawn, which had no part in the choice.
The predictions on units left out are counted together over all draws, and the score follows from
their sum: it has no bias from small samples. The winner's own score less this is its optimism.

Halved trials are among the candidates, with what they said when they left: they too were compared
on the same data.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from corpora.base.codec import Jsonable
from heads.attributes import (
    SUMS,
    AttributeScores,
    attribute_report,
    concordance,
    mean_absolute_error,
    mean_concordance,
    sums_by_cluster,
)
from heads.bootstrap import (
    MIN_CLUSTERS,
    Difference,
    Floats,
    cluster_numbers,
    differences_from_first,
    judge_clusters,
    known_speakers,
)
from heads.confusion import confusion_by_cluster, macro_f1
from heads.dataset import Dataset
from heads.metrics import SCORES, Scores, classification_report

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


def objective_key(labels: Sequence[str], attributes: Mapping[str, Any]) -> str:
    """Which of `Gold.scores` heads are compared by."""
    if not attributes:
        return "macro_f1"
    return "macro_f1_ccc" if labels else "mean_ccc"


def objective_name(labels: Sequence[str], attributes: Mapping[str, Any]) -> str:
    """What the score that heads are compared by is called."""
    if not attributes:
        return "macro-F1"
    return "mean of macro-F1 and CCC" if labels else "mean CCC"


@dataclass(frozen=True, eq=False)
class Gold:
    """The truth about n utterances.

    What is said of them is `[n, C + A]`: a number for each class, of which the largest counts, and
    attributes in the units of their scales.

    Attributes:
        labels: the label order; none where only attributes are scored.
        classes: `[n]` class indices; −1 where an utterance has none.
        attributes: the lowest and highest value of each.
        ratings: `[n, A]` in the units of the scales, not a number where an utterance has none.
        speakers: `[n]`, "" where not known.
    """

    labels: tuple[str, ...]
    classes: NDArray[np.int64]
    attributes: Mapping[str, tuple[float, float]]
    ratings: Floats
    speakers: Sequence[str]

    @classmethod
    def of(cls, dataset: Dataset, rows: Tensor) -> Gold:
        """Of these utterances of a data set."""
        return cls(
            dataset.labels,
            dataset.targets(rows).numpy(),
            dataset.attributes,
            dataset.ratings(rows).numpy(),
            dataset.speakers(rows),
        )

    def at(self, rows: NDArray[np.bool_]) -> Gold:
        """Of some of the utterances, `[n]`."""
        speakers = [name for name, own in zip(self.speakers, rows, strict=True) if own]
        return replace(
            self, classes=self.classes[rows], ratings=self.ratings[rows], speakers=speakers
        )

    def score(self, said: Floats) -> float:
        """The score that heads are compared by."""
        return float(self._score(self.tables(said, np.zeros(len(said), dtype=np.int64))[0]))

    def differences(
        self, said: Sequence[Floats], other: Floats
    ) -> tuple[list[Difference] | None, str]:
        """How much the scores of several are above another's; see `paired_differences`.

        Args:
            said: of each `[n, C + A]`, or `[R, n, C + A]` of R runs, whose mean score is compared.
            other: likewise.
        """
        every = [other, *said]

        def scores(tables: Floats) -> Floats:
            found = self._score(tables)
            return found.mean(axis=-1) if other.ndim == 3 else found

        return differences_from_first(
            lambda clusters: np.stack([self.tables(one, clusters) for one in every], axis=1),
            scores,
            self.speakers,
        )

    def optimism(self, said: Sequence[Floats]) -> Optimism | None:
        """How much of the best one's score is the luck of being chosen among all of these."""

        def each(clusters: NDArray[np.int64]) -> Iterator[Floats]:
            return (self.tables(one, clusters) for one in said)

        return optimism(each, self._score, self.speakers)

    def class_scores(self, said: Floats) -> Scores | None:
        """The report on classes, of those utterances that have one; None where none has."""
        known = self.classes >= 0
        if not (self.labels and known.any()):
            return None
        return classification_report(
            self.classes[known],
            said[known, : len(self.labels)],
            self.labels,
            [speaker for speaker, own in zip(self.speakers, known, strict=True) if own],
        )

    def attribute_scores(self, said: Floats) -> AttributeScores | None:
        """The report on attributes; None where no utterance was rated."""
        if not np.isfinite(self.ratings).any():
            return None
        own = said[:, len(self.labels) :]
        return attribute_report(self.ratings, own, self.attributes, self.speakers)

    def scores(self, tables: Floats) -> dict[str, Floats]:
        """Every score by name, `[...]` of sums `[..., C·C + A·SUMS]`.

        `macro_f1` and the like; `mean_ccc`, `ccc_<attribute>` and `mae_<attribute>`; where there
        are both, `macro_f1_ccc`, the mean of the first ones.
        """
        found: dict[str, Floats] = {}
        confusion, sums = self._parts(tables)
        if self.labels:
            found |= {name: score(confusion) for name, score in SCORES.items()}
        if self.attributes:
            found["mean_ccc"] = mean_concordance(sums)
            each = {"ccc": concordance(sums), "mae": mean_absolute_error(sums)}
            for at, name in enumerate(self.attributes):
                found |= {f"{kind}_{name}": values[..., at] for kind, values in each.items()}
        if self.labels and self.attributes:
            found["macro_f1_ccc"] = (found["macro_f1"] + found["mean_ccc"]) / 2
        return found

    def bounds(self, score: str) -> tuple[float, float]:
        """The values that a score can have."""
        kind, _, name = score.partition("_")
        if kind == "mae":
            low, high = self.attributes[name]
            return 0, high - low
        return (-1 if "ccc" in score else 0), 1

    def tables(self, said: Floats, clusters: NDArray[np.int64]) -> Floats:
        """What adds up over each of S clusters, `[S, C·C + A·SUMS]`; of R runs `[S, R, …]`."""
        if said.ndim == 3:
            return np.stack([self.tables(one, clusters) for one in said], axis=1)
        count, parts = int(clusters.max()) + 1, []
        if classes := len(self.labels):
            known = self.classes >= 0
            predicted = said[known, :classes].argmax(axis=-1)
            counted = confusion_by_cluster(
                self.classes[known], predicted, clusters[known], classes, count
            )
            parts.append(counted.reshape(count, -1).astype(np.float64))
        if self.attributes:
            sums = sums_by_cluster(self.ratings, said[:, classes:], clusters)
            parts.append(sums.reshape(count, -1))
        return np.concatenate(parts, axis=-1)

    def _score(self, tables: Floats) -> Floats:
        """The score `[...]` of sums `[..., C·C + A·SUMS]`."""
        confusion, sums = self._parts(tables)
        if not self.attributes:
            return macro_f1(confusion)
        together = mean_concordance(sums)
        return (macro_f1(confusion) + together) / 2 if self.labels else together

    def _parts(self, tables: Floats) -> tuple[Floats, Floats]:
        """Confusion matrices `[..., C, C]`, and sums of attributes `[..., A, SUMS]`."""
        classes, stack = len(self.labels), tables.shape[:-1]
        confusion, sums = np.split(tables, [classes * classes], axis=-1)
        return (
            confusion.reshape(*stack, classes, classes),
            sums.reshape(*stack, len(self.attributes), SUMS),
        )


def selection_scores(said: Tensor, gold: Gold) -> list[float]:
    """The score over all scored rows of each trial; 0 for one whose numbers overflowed.

    Args:
        said: `[trials, m, C + A]`.
        gold: of the m rows.
    """
    return [gold.score(one) if np.isfinite(one).all() else 0.0 for one in said.numpy()]
