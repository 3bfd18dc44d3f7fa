"""From the runs of a row to its line in a table: its tuning chosen on dev, scores and intervals.

A score is the mean over seeds. Its interval comes from a bootstrap over speakers of that mean: it
says how it could differ with other speakers, the deviation how it does with other seeds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from corpora.base.codec import Jsonable
from heads.bootstrap import (
    Counts,
    Difference,
    Floats,
    Interval,
    bootstrap,
    cluster_numbers,
    confusion_by_cluster,
    confusion_matrix,
    judge_clusters,
    known_speakers,
    paired_differences,
    t_interval,
)
from heads.compare.rows import Division
from heads.config import Tuning
from heads.dataset import Dataset
from heads.metrics import SCORES
from heads.search.rounds import selection_scores

CONFIDENCE = 0.95
Classes = NDArray[np.int64]


@dataclass(frozen=True)
class Score(Jsonable):
    """One score of a row.

    Attributes:
        mean: over seeds.
        deviation: over seeds (n − 1); None of one seed.
        interval: 95 %, of the mean, bootstrap over speakers; None where that says nothing.
        seeds: the score of each seed.
        folds: mean and deviation over folds of each fold's own score; None without folds.
    """

    mean: float
    deviation: float | None
    interval: Interval | None
    seeds: tuple[float, ...]
    folds: tuple[float, float] | None = None


@dataclass(frozen=True)
class Outcome(Jsonable):
    """A row on one split.

    Attributes:
        scores: macro_f1, uar and accuracy.
        difference: of macro-F1 to the table's best row; None for that row, and where a bootstrap
            says nothing.
        to_reference: of macro-F1 to the table's regression on the same modalities, likewise.
    """

    json_entries = "**scores difference to_reference under_trained"

    scores: Mapping[str, Score]
    difference: Difference | None = None
    to_reference: Difference | None = None

    @property
    def under_trained(self) -> bool:
        """Below the regression, which its head could be, by more than its interval."""
        return self.to_reference is not None and self.to_reference.interval.high < 0


class Scorer:
    """Scores classes on the splits of a division.

    Args:
        dataset: labels and speakers.
        division: what is scored.
    """

    def __init__(self, dataset: Dataset, division: Division) -> None:
        self.labels = dataset.labels
        self.division = division
        rows = {split: division.scored(split) for split in division.splits}
        self.gold = {split: dataset.targets(own).numpy() for split, own in rows.items()}
        self._speakers = {split: dataset.speakers(own) for split, own in rows.items()}

    def reason(self, split: str) -> str:
        """Why there are no intervals on a split, or what makes them too narrow; "" otherwise."""
        return judge_clusters(known_speakers(self._speakers[split]))[0]

    def speakers(self, split: str) -> int:
        """Known speakers of a split."""
        return len(set(known_speakers(self._speakers[split])) - {""})

    def selection(self, split: str, probabilities: Tensor, part: int | None = None) -> list[float]:
        """Macro-F1 of runs `[R, n, C]`, of one part or all; 0 for one whose numbers overflowed."""
        own = slice(None) if part is None else self.places(split)[part]
        return selection_scores(probabilities, torch.from_numpy(self.gold[split][own]))

    def places(self, split: str) -> list[slice]:
        """Where each part's rows stand among those of a split."""
        ends = np.cumsum([len(part.rows[split]) for part in self.division.parts]).tolist()
        return [slice(start, end) for start, end in zip([0, *ends], ends, strict=False)]

    def scores(self, split: str, predicted: Classes) -> dict[str, Score]:
        """Scores of runs `[R, n]`, with intervals where a bootstrap says something."""
        gold, classes = self.gold[split], len(self.labels)
        confusion = confusion_matrix(gold, predicted, classes)
        known = known_speakers(self._speakers[split])
        drawn: Floats | None = None
        count = 0
        if judge_clusters(known)[1]:

            def means(tables: Counts) -> Floats:
                found = [score(tables).mean(axis=-1) for score in SCORES.values()]
                return np.stack(found, axis=-1)

            tables = confusion_by_cluster(gold, predicted, cluster_numbers(known), classes)
            drawn, count = bootstrap(tables, means), len(tables)
        by_fold = self._by_fold(split, predicted)
        scores = {}
        for column, (name, score) in enumerate(SCORES.items()):
            values = np.atleast_1d(score(confusion))
            scores[name] = Score(
                float(values.mean()),
                float(values.std(ddof=1)) if len(values) > 1 else None,
                None
                if drawn is None
                else t_interval(
                    float(values.mean()), drawn[:, column], count, CONFIDENCE, bounds=(0, 1)
                ),
                tuple(values.tolist()),
                by_fold.get(name),
            )
        return scores

    def differences(
        self, split: str, rows: Sequence[Classes], best: Classes
    ) -> tuple[list[Difference] | None, str]:
        """Macro-F1 of each row `[R, n]` less that of the best, Holm-corrected; or why not."""
        return paired_differences(
            self.gold[split],
            np.stack(rows),
            best,
            len(self.labels),
            self._speakers[split],
        )

    def _by_fold(self, split: str, predicted: Classes) -> dict[str, tuple[float, float]]:
        """Mean and deviation over folds (each fold's score a mean over seeds); {} without folds."""
        if not self.division.folded or split != "test":
            return {}
        tables = [
            confusion_matrix(self.gold[split][own], predicted[:, own], len(self.labels))
            for own in self.places(split)
        ]
        found = {}
        for name, score in SCORES.items():
            values = np.array([score(table).mean() for table in tables])
            found[name] = (float(values.mean()), float(values.std(ddof=1)))
        return found


def classes_of(probabilities: Tensor) -> Classes:
    """`[..., n]` of `[..., n, C]`; what overflowed counts as 0."""
    found: Classes = torch.nan_to_num(probabilities).argmax(-1).numpy()
    return found


def choose_tuning(selection: Mapping[Tuning, float]) -> Tuning:
    """The best on dev; of equals the first, with the lowest rate.

    Args:
        selection: for each tuning macro-F1 on dev.
    """
    return min(selection, key=lambda tuning: (-selection[tuning], tuning))
