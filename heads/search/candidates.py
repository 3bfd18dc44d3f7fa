"""The heads of a cohort's trials in training: one a trial, or one a trial and fold.

With folds a trial is as many heads as there are folds, trained beside one another, and its score
is that of each utterance's prediction by the head it was held out from.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from corpora.base.seeds import seed_from
from heads.dataset import Dataset, VectorStore
from heads.folds import Folds
from heads.head import Head, HeadConfig
from heads.runs import MOST_HEADS, Run, Runs, head_cost
from heads.sharing import dealt
from heads.statistics.confusion import confusion_matrix, macro_f1
from heads.training import Schedule, TrainingConfig, predict

# Keeps the seeds of folds apart from other numbers drawn from a trial's seed.
_FOLD_DOMAIN = 3


@dataclass(frozen=True, eq=False)
class Selection:
    """What heads are trained on and compared by.

    Attributes:
        trained: `[n]` utterance numbers that are trained on (with folds, each held out once).
        scored: `[m]` utterance numbers that heads are compared on.
        folds: where there are.
        refit: whether the chosen head is trained on train and dev, and not on train alone.
    """

    trained: Tensor
    scored: Tensor
    folds: Folds | None = None
    refit: bool = False

    @classmethod
    def of(cls, dataset: Dataset, folds: Folds | None, *, refit: bool = False) -> Selection:
        """Train and dev, or the folds of both."""
        if folds is None:
            return cls(dataset.rows("train"), dataset.rows("dev"))
        return cls(folds.rows, folds.rows, folds, refit)

    def kept(self, dataset: Dataset) -> Tensor:
        """`[n]` utterance numbers that the kept head is trained on."""
        return self.trained if self.refit else dataset.rows("train")

    @property
    def trained_on(self) -> str:
        """The splits of `kept`."""
        return "train+dev" if self.refit else "train"

    @property
    def heads(self) -> int:
        """Heads of one trial."""
        return 1 if self.folds is None else self.folds.count

    @property
    def name(self) -> str:
        """What tables call the scored rows."""
        return "dev" if self.folds is None else "folds"


class Candidates(Runs):
    """The trials of a cohort in training, each one run or one a fold.

    Args:
        configs: shape and training of each trial's heads.
        store: the data.
        schedule: what they have in common.
        selection: what they are trained on and scored by.
        workers: threads (see `Runs`).
    """

    def __init__(
        self,
        configs: Sequence[tuple[HeadConfig, TrainingConfig]],
        store: VectorStore,
        schedule: Schedule,
        selection: Selection,
        workers: int = 1,
    ) -> None:
        self._selection = selection
        folds = selection.folds
        each, runs = selection.heads, [Run(*config) for config in configs]
        size = len(configs)
        if folds is not None:
            size = max(1, MOST_HEADS // each)
            runs = [_held_out(run, fold) for run in runs for fold in range(folds.count)]
        # The folds of a trial stay in one group: they read the same vectors.
        groups = max(math.ceil(len(configs) / size), workers)
        members = dealt([head_cost(head) for head, _ in configs], groups, size)
        super().__init__(
            runs,
            store,
            schedule,
            selection.trained,
            None if folds is None else folds.numbers,
            groups=[[k * each + fold for k in own for fold in range(each)] for own in members],
            workers=workers,
        )

    def trial_probabilities(self) -> Tensor:
        """`[trials, m, C]` for the scored rows, in their order."""
        return self.predict(self._predict)

    def keep_trials(self, trials: Sequence[int]) -> None:
        """Go on with the trials at these positions only."""
        each = self._selection.heads
        self.keep([k * each + fold for k in trials for fold in range(each)])

    def _predict(self, heads: Sequence[Head]) -> Tensor:
        scored, folds = self._selection.scored, self._selection.folds
        if folds is None:
            return predict(heads, self._store, scored)
        labels = len(self._store.dataset.labels)
        found = torch.empty(len(heads) // folds.count, len(scored), labels)
        for fold in range(folds.count):
            own = folds.numbers == fold
            found[:, own] = predict(heads[fold :: folds.count], self._store, scored[own])
        return found


def _held_out(run: Run, fold: int) -> Run:
    """A trial's run that does not learn from a fold."""
    seed = seed_from(run.training.seed, _FOLD_DOMAIN, fold)
    return Run(run.head, replace(run.training, seed=seed), fold)


def selection_scores(probabilities: Tensor, gold: Tensor) -> list[float]:
    """Macro-F1 over all scored rows of each trial; 0 for one whose numbers overflowed.

    Args:
        probabilities: `[trials, m, C]`.
        gold: `[m]` class indices.
    """
    predicted = probabilities.argmax(-1).numpy()
    confusion = confusion_matrix(gold.numpy(), predicted, probabilities.shape[-1])
    finite = torch.isfinite(probabilities).flatten(1).all(1)
    return [
        float(score) if fine else 0.0
        for score, fine in zip(macro_f1(confusion), finite.tolist(), strict=True)
    ]
