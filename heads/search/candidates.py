"""The heads of a cohort's trials in training: one a trial, or one a trial and fold.

With folds a trial is as many heads as there are folds, trained beside one another, and its score
is that of each utterance's prediction by the head it was held out from.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from torch import Tensor

from heads.dataset import Dataset, VectorStore
from heads.folds import Folds
from heads.head import Head, HeadConfig
from heads.pooling import pooling_config
from heads.search.space import seed_from
from heads.sharing import dealt
from heads.statistics.confusion import confusion_matrix, macro_f1
from heads.training import Cohort, Schedule, TrainingConfig, predict

Result = TypeVar("Result")

# Heads trained in one company where trials are several heads: bounds the memory that the hidden
# units of their scorers take. Companies do not change results.
HEADS_AT_ONCE = 32
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


class Candidates:
    """The trials of a cohort in training, as companies that share their work on frames.

    Args:
        configs: shape and training of each trial's heads.
        store: the data.
        schedule: what they have in common.
        selection: what they are trained on and scored by.
        workers: threads that train companies beside one another. For small data, where two
            threads in one company would mostly wait for each other.
    """

    def __init__(
        self,
        configs: Sequence[tuple[HeadConfig, TrainingConfig]],
        store: VectorStore,
        schedule: Schedule,
        selection: Selection,
        workers: int = 1,
    ) -> None:
        self._store = store
        self._selection = selection
        self._workers = workers
        size = len(configs) if selection.folds is None else max(1, HEADS_AT_ONCE // selection.heads)
        # The position of each trial of each company among those that are left.
        companies = max(math.ceil(len(configs) / size), workers)
        self._members = dealt([head_cost(config) for config, _ in configs], companies, size)
        self._companies = [
            _company([configs[k] for k in members], store, schedule, selection)
            for members in self._members
        ]
        self.epoch = 0

    @property
    def heads(self) -> list[Head]:
        """All heads in training, the folds of a trial one after the other."""
        count = self._selection.heads
        found = {
            trial: company.heads[at * count : (at + 1) * count]
            for company, members in zip(self._companies, self._members, strict=True)
            for at, trial in enumerate(members)
        }
        return [head for trial in sorted(found) for head in found[trial]]

    def run_epoch(self) -> None:
        """One pass of every head over its rows."""
        self._each(lambda company: company.run_epoch())
        self.epoch += 1

    def probabilities(self) -> Tensor:
        """`[trials, m, C]` for the scored rows, in their order."""
        said = torch.cat(self._each(lambda company: self._predict(company.heads)))
        trials = torch.tensor([trial for members in self._members for trial in members])
        return said[trials.argsort()]

    def keep(self, trials: Sequence[int]) -> None:
        """Go on with the trials at these positions only."""
        count = self._selection.heads
        place = {trial: position for position, trial in enumerate(sorted(trials))}
        members, companies = [], []
        for company, own in zip(self._companies, self._members, strict=True):
            staying = [at for at, trial in enumerate(own) if trial in place]
            company.keep([at * count + fold for at in staying for fold in range(count)])
            if staying:
                members.append([place[own[at]] for at in staying])
                companies.append(company)
        self._members, self._companies = members, companies

    def _each(self, work: Callable[[Cohort], Result]) -> list[Result]:
        """Do something with every company, in their order."""
        if self._workers == 1:
            return [work(company) for company in self._companies]
        with ThreadPoolExecutor(self._workers) as pool:
            return list(pool.map(work, self._companies))

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


def head_cost(head: HeadConfig) -> float:
    """About how much work a head is: the outputs of its scorers, and its classifier as one more."""
    return 1.0 + sum(pooling_config(head.pooling[name]).cost for name in head.modalities)


def _company(
    configs: Sequence[tuple[HeadConfig, TrainingConfig]],
    store: VectorStore,
    schedule: Schedule,
    selection: Selection,
) -> Cohort:
    folds = selection.folds
    if folds is None:
        heads = [Head(shape, training.seed) for shape, training in configs]
        return Cohort(heads, [t for _, t in configs], store, selection.trained, schedule)
    copies = [
        (shape, replace(training, seed=seed_from(training.seed, _FOLD_DOMAIN, fold)), fold)
        for shape, training in configs
        for fold in range(folds.count)
    ]
    return Cohort(
        [Head(shape, training.seed) for shape, training, _ in copies],
        [training for _, training, _ in copies],
        store,
        selection.trained,
        schedule,
        folds.numbers,
        [fold for _, _, fold in copies],
    )


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
