"""From the runs of a row to its line in a table: its tuning chosen on dev, scores and intervals.

A score is the mean over seeds. Its interval comes from a bootstrap over speakers of that mean: it
says how it could differ with other speakers, the deviation how it does with other seeds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from corpora.base.codec import Jsonable
from heads.bootstrap import (
    Difference,
    Floats,
    Interval,
    bootstrap,
    cluster_numbers,
    judge_clusters,
    known_speakers,
    t_interval,
)
from heads.compare.division import Division
from heads.config import Tuning
from heads.dataset import Dataset
from heads.gold import Gold, objective_key, selection_scores

#: What runs say of n utterances, `[R, n, C + A]` (see `Gold`).
Said = NDArray[Any]


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
        scores: macro_f1, uar and the like, and those of attributes: see `Gold.scores`.
        difference: of the objective to the table's best row; None for that row, and where a
            bootstrap says nothing.
        to_reference: of the objective to the table's regression on the same modalities, likewise.
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
    """Scores what is said on the splits of a division.

    Args:
        dataset: labels, ratings and speakers.
        division: what is scored.
    """

    def __init__(self, dataset: Dataset, division: Division) -> None:
        self._dataset = dataset
        self.labels, self.attributes = dataset.labels, dataset.attributes
        self.division = division
        self.gold = {split: Gold.of(dataset, division.scored(split)) for split in division.splits}

    @property
    def objective(self) -> str:
        """The score that rows are chosen and compared by."""
        return objective_key(self.labels, self.attributes)

    def reason(self, split: str) -> str:
        """Why there are no intervals on a split, or what makes them too narrow; "" otherwise."""
        return judge_clusters(known_speakers(self.gold[split].speakers))[0]

    def speakers(self, split: str) -> int:
        """Known speakers of a split."""
        return len(set(known_speakers(self.gold[split].speakers)) - {""})

    def selection(self, probabilities: Tensor, part: int | None = None) -> list[float]:
        """On dev the objective of runs `[R, n, C + A]`, of one part or all; 0 of overflows."""
        parts = self.division.parts
        rows = self.division.scored("dev") if part is None else parts[part].rows["dev"]
        return selection_scores(probabilities, Gold.of(self._dataset, rows))

    def places(self, split: str) -> list[slice]:
        """Where each part's rows stand among those of a split."""
        ends = np.cumsum([len(part.rows[split]) for part in self.division.parts]).tolist()
        return [slice(start, end) for start, end in zip([0, *ends], ends, strict=False)]

    def scores(self, split: str, said: Said) -> dict[str, Score]:
        """Scores of runs `[R, n, C + A]`, with intervals where a bootstrap says something."""
        gold = self.gold[split]
        known = known_speakers(gold.speakers)
        clusters = cluster_numbers(known)
        tables = gold.tables(said, clusters)
        drawn: Floats | None = None
        if judge_clusters(known)[1]:

            def means(summed: Floats) -> Floats:
                found = [values.mean(axis=-1) for values in gold.scores(summed).values()]
                return np.stack(found, axis=-1)

            drawn = bootstrap(tables, means)
        by_fold = self._by_fold(split, said)
        scores = {}
        for column, (name, values) in enumerate(gold.scores(tables.sum(axis=0)).items()):
            interval, mean = None, float(values.mean())
            if not np.isfinite(mean):
                continue  # an attribute that nobody here was rated for
            if drawn is not None:
                bounds = gold.bounds(name)
                own = drawn[:, column]
                interval = t_interval(mean, own, len(tables), bounds=bounds)
            scores[name] = Score(
                mean,
                float(values.std(ddof=1)) if len(values) > 1 else None,
                interval,
                tuple(values.tolist()),
                by_fold.get(name),
            )
        return scores

    def differences(
        self, split: str, rows: Sequence[Said], best: Said
    ) -> tuple[list[Difference] | None, str]:
        """Score of each row `[R, n, C + A]` less that of the best, Holm-corrected; or why not."""
        return self.gold[split].differences(rows, best)

    def _by_fold(self, split: str, said: Said) -> dict[str, tuple[float, float]]:
        """Mean and deviation over folds (each fold's score a mean over seeds); {} without folds."""
        if not self.division.folded or split != "test":
            return {}
        found: dict[str, list[float]] = {}
        for part, own in zip(self.division.parts, self.places(split), strict=True):
            gold = Gold.of(self._dataset, part.rows[split])
            one = np.zeros(len(gold.classes), dtype=np.int64)
            for name, values in gold.scores(gold.tables(said[:, own], one)[0]).items():
                found.setdefault(name, []).append(float(values.mean()))
        return {
            name: (float(np.mean(values)), float(np.std(values, ddof=1)))
            for name, values in found.items()
        }


def finite(said: Tensor) -> Said:
    """What runs said, `[..., n, C + A]`; what overflowed counts as 0."""
    found: Said = torch.nan_to_num(said).numpy()
    return found


def choose_tuning(selection: Mapping[Tuning, float]) -> Tuning:
    """The best on dev; of equals the first, with the lowest rate.

    Args:
        selection: for each tuning the objective on dev.
    """
    return min(selection, key=lambda tuning: (-selection[tuning], tuning))
