"""The runs of a search, of a comparison and of phase 1: heads trained side by side.

A run is one head from its seed through the whole schedule, or until it is halved. Runs of a group
share their work on frames (`heads.training`); groups bound memory, and are trained beside one
another where there are threads for it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from heads.head import Head, HeadConfig
from heads.pooling import pooling_config
from heads.predict import predict
from heads.pretraining import Clustered, pretrain
from heads.training import Cohort, Schedule, TrainingConfig
from heads.vector_store import VectorStore

Part = TypeVar("Part")
Result = TypeVar("Result")

# Heads of a group: bounds parameters and optimiser state (60 MB a head with 4 queries of 1,792
# features and an MLP of 256), and what a stopped comparison loses.
MOST_HEADS = 32
# Values of hidden scorer units of a batch, all heads together: 0.5 GB, and thrice that in training.
MOST_HIDDEN = 2**27


@dataclass(frozen=True)
class Run:
    """One head to be trained.

    Attributes:
        head: its shape.
        training: its rates, loss and seed.
        held_out: number of the fold whose rows it does not learn from; -1: it learns from all.
    """

    head: HeadConfig
    training: TrainingConfig
    held_out: int = -1


class Runs:
    """Heads in training, each from its own seed.

    Args:
        runs: with the same labels.
        store: the data.
        schedule: what they have in common.
        rows: `[n]` utterance numbers that are trained on.
        folds: `[n]`, the fold of each row, where runs hold one out.
        groups: positions of the runs of each group; by default all are one.
        workers: threads that train groups beside one another. For small data, where two threads in
            one group would mostly wait for each other.
    """

    def __init__(
        self,
        runs: Sequence[Run],
        store: VectorStore,
        schedule: Schedule,
        rows: Tensor,
        folds: Tensor | None = None,
        *,
        groups: Sequence[Sequence[int]] | None = None,
        workers: int = 1,
    ) -> None:
        self._store = store
        self._schedule = schedule
        self._workers = workers
        # By group the positions of its runs among those that are left.
        self._groups = [list(group) for group in groups or [range(len(runs))]]
        clustered = Clustered.of(store, rows, folds) if schedule.pretrain else None

        def begin(group: Sequence[int]) -> Cohort:
            held_out = [runs[k].held_out for k in group]
            cohort = Cohort(
                [Head(runs[k].head, runs[k].training.seed) for k in group],
                [runs[k].training for k in group],
                store,
                rows,
                schedule,
                folds,
                () if folds is None else held_out,
            )
            if clustered is not None:
                pretrain(cohort.heads, cohort.configs, store, clustered, schedule, held_out)
            return cohort

        self._cohorts = self._side_by_side(begin, self._groups)
        self.epoch = 0
        self.steps_per_epoch = self._cohorts[0].steps_per_epoch

    @property
    def heads(self) -> list[Head]:
        """The heads of the runs that are left, in their order."""
        found = {
            k: head
            for group, cohort in zip(self._groups, self._cohorts, strict=True)
            for k, head in zip(group, cohort.heads, strict=True)
        }
        return [found[k] for k in sorted(found)]

    def run_epoch(self) -> None:
        """One pass of every head over its rows."""
        self._each(lambda cohort: cohort.run_epoch())
        self.epoch += 1

    def train(self, after: Callable[[], bool | None] = lambda: None) -> list[Head]:
        """All epochs that are left; return the heads.

        Args:
            after: called after each epoch; True ends the training.
        """
        while self.epoch < self._schedule.epochs:
            self.run_epoch()
            if after():
                break
        return self.heads

    def predict(self, say: Callable[[Sequence[Head]], Tensor]) -> Tensor:
        """What the heads of each group say, `[runs or fewer, …]`, by the runs' order.

        Args:
            say: gives for the heads of a group one row each, or one for equally many of them.
        """
        said = self._each(lambda cohort: say(cohort.heads))
        each = max(len(group) for group in self._groups) // max(len(one) for one in said)
        firsts = torch.tensor([k for group in self._groups for k in group[::each]])
        return torch.cat(said)[firsts.argsort()]

    def probabilities(self, rows: Tensor) -> Tensor:
        """`[runs, n, C]` for utterances."""
        return self.predict(lambda heads: predict(heads, self._store, rows))

    def keep(self, positions: Sequence[int]) -> None:
        """Go on with the runs at these positions only, which are then numbered anew."""
        place = {run: position for position, run in enumerate(sorted(positions))}
        groups, cohorts = [], []
        for group, cohort in zip(self._groups, self._cohorts, strict=True):
            staying = [at for at, run in enumerate(group) if run in place]
            cohort.keep(staying)
            if staying:
                groups.append([place[group[at]] for at in staying])
                cohorts.append(cohort)
        self._groups, self._cohorts = groups, cohorts

    def _each(self, work: Callable[[Cohort], Result]) -> list[Result]:
        """Do something with every group, in their order."""
        return self._side_by_side(work, self._cohorts)

    def _side_by_side(self, work: Callable[[Part], Result], parts: Sequence[Part]) -> list[Result]:
        if self._workers == 1:
            return [work(part) for part in parts]
        with ThreadPoolExecutor(self._workers) as pool:
            return list(pool.map(work, parts))


def head_cost(head: HeadConfig) -> float:
    """About how much work a head is: the outputs of its scorers, and its classifier as one more."""
    return 1.0 + sum(pooling_config(head.pooling[name]).cost for name in head.modalities)


def learns_weights(head: HeadConfig) -> bool:
    """Whether a head has scorers, which read frames at every step."""
    return any(pooling_config(head.pooling[name]).learns_weights for name in head.modalities)


def bounded_groups(
    heads: Sequence[HeadConfig], store: VectorStore, batch_size: int
) -> list[list[int]]:
    """Positions of heads in groups of bounded memory, those of about the same cost together.

    Heads without attention are by themselves: they need no frames after the first pass.
    """
    dataset = store.dataset
    lengths = {n: frames.total / len(dataset) for n, frames in dataset.frames.items()}
    attentive = [learns_weights(head) for head in heads]
    hidden = [
        sum(
            pooling_config(head.pooling[name]).hidden_values * lengths[name] * batch_size
            for name in head.modalities
        )
        for head in heads
    ]
    groups: list[list[int]] = []
    held = 0.0
    for k in sorted(range(len(heads)), key=lambda k: (attentive[k], hidden[k])):
        full = held + hidden[k] > MOST_HIDDEN or (groups and len(groups[-1]) == MOST_HEADS)
        if not groups or full or attentive[groups[-1][0]] != attentive[k]:
            groups.append([])
            held = 0.0
        groups[-1].append(k)
        held += hidden[k]
    return groups


def seed_from(*numbers: int) -> int:
    """A 32-bit seed that changes unpredictably with each of the numbers (at least 0)."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])
