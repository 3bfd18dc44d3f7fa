"""One cohort of the search: drawn, trained side by side, halved at each rung, kept, told.

Also the heads that a search has to have at its end and has not: with folds, those trained on the
training set; in a shared study, those that another machine trained.

Synchronous successive halving: who stays when, and what that costs.

A cohort starts together and all that are sampled are compared at the same epoch (Jamieson and
Talwalkar 2016, factor 3). A sequential pruner would see lockstep reports in an arbitrary order.

The heads of a cohort's trials in training: one a trial, or one a trial and fold.

With folds a trial is as many heads as there are folds, trained beside one another, and its score
is that of each utterance's prediction by the head it was held out from.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from optuna.trial import FrozenTrial, Trial
from torch import Tensor

from heads.config import KEPT
from heads.folds import Selection
from heads.gold import Gold, objective_name, selection_scores
from heads.head import Head, HeadConfig
from heads.pooling.segments import dealt
from heads.predict import predict
from heads.records import (
    HeadRecord,
    Origin,
    best_numbers,
    load_head,
    origin_of_head,
    package_versions,
    remove_trials,
    save_head,
    save_probabilities,
    selection_file,
    trial_file,
)
from heads.runs import MOST_HEADS, Run, Runs, head_cost, seed_from
from heads.search.space import PROBES, Space, trial_configs
from heads.search.study import HeadStudy
from heads.search.trials import SEED, START, final_value
from heads.training import Schedule, TrainingConfig
from heads.vector_store import VectorStore

# A third stays at each rung.
KEEP = 3
# Epochs of a completed trial, with rungs at 1, 3 and 9 ...
EPOCHS = 9
# ... but a multiple of that which gives at least so many steps: with fewer, heads on a small
# corpus would be halved and chosen before they have learnt anything. On EMO-DB and RAVDESS 108
# steps at 3e-3 score as 216 at 1e-3 (docs/studies.md).
FEWEST_STEPS = 200


def default_epochs(steps_per_epoch: int) -> int:
    """Epochs of a completed trial: `EPOCHS`, or a multiple of it that has the fewest steps."""
    return EPOCHS * math.ceil(FEWEST_STEPS / (EPOCHS * steps_per_epoch))


def rungs(epochs: int) -> list[int]:
    """The epochs after which a cohort is compared: a ninth, a third and all of them."""
    return sorted({max(1, round(epochs / 9)), max(1, round(epochs / 3)), epochs})


def staying(sampled: int) -> int:
    """How many of the sampled ones stay at a rung: a third, rounded up."""
    return math.ceil(sampled / KEEP)


def survivors(
    scores: Sequence[float], protected: Sequence[bool], costs: Sequence[float]
) -> list[int]:
    """Positions of those who stay, in their order.

    Where a corpus is so easy that many score the same, the simplest of them are the better ones.

    Args:
        scores: of each trial; larger is better.
        protected: who stays whatever the score, and takes nobody's place.
        costs: of equal scores the lower one stays; of equal costs the earlier trial.
    """
    sampled = [k for k, safe in enumerate(protected) if not safe]
    best = sorted(sampled, key=lambda k: (-scores[k], costs[k], k))[: staying(len(sampled))]
    return sorted([*best, *(k for k, safe in enumerate(protected) if safe)])


def head_epochs(count: int, protected: int, epochs: int) -> int:
    """Epochs that the heads of one cohort train, all together."""
    total, done, sampled = 0, 0, count - protected
    for rung in rungs(epochs):
        total += (sampled + protected) * (rung - done)
        done, sampled = rung, staying(sampled)
    return total


# Keeps the seeds of folds apart from other numbers drawn from a trial's seed.
_FOLD_DOMAIN = 3


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
        """`[trials, m, C]` (with attributes C + A) for the scored rows, in their order."""
        return self.predict(self._predict)

    def keep_trials(self, trials: Sequence[int]) -> None:
        """Go on with the trials at these positions only."""
        each = self._selection.heads
        self.keep([k * each + fold for k in trials for fold in range(each)])

    def _predict(self, heads: Sequence[Head]) -> Tensor:
        scored, folds = self._selection.scored, self._selection.folds
        if folds is None:
            return predict(heads, self._store, scored)
        outputs = heads[0].config.outputs
        found = torch.empty(len(heads) // folds.count, len(scored), outputs)
        for fold in range(folds.count):
            own = folds.numbers == fold
            found[:, own] = predict(heads[fold :: folds.count], self._store, scored[own])
        return found


def _held_out(run: Run, fold: int) -> Run:
    """A trial's run that does not learn from a fold."""
    seed = seed_from(run.training.seed, _FOLD_DOMAIN, fold)
    return Run(run.head, replace(run.training, seed=seed), fold)


@dataclass(frozen=True, eq=False)
class SearchContext:
    """What all trials of a search have in common.

    Attributes:
        store: the data.
        space: the axes.
        schedule: epochs, batches and their order.
        selection: what is trained on and compared by.
        origin: where the data comes from.
        folder: the search's.
        workers: threads that train heads beside one another (see `Candidates`).
        seed: of the study.
    """

    store: VectorStore
    space: Space
    schedule: Schedule
    selection: Selection
    origin: Origin
    folder: Path
    seed: int
    workers: int = 1

    @cached_property
    def gold(self) -> Gold:
        """The truth about the rows that trials are compared by."""
        return Gold.of(self.store.dataset, self.selection.scored)

    @property
    def objective(self) -> str:
        """What the score of selection is called."""
        return objective_name(self.space.labels, self.space.attributes)


@dataclass(frozen=True, eq=False)
class _Member:
    """A trial in training."""

    trial: Trial
    head: HeadConfig
    training: TrainingConfig
    start: str


def run_cohort(setting: SearchContext, study: HeadStudy, count: int, total: int, bar: Any) -> int:  # noqa: ANN401 - tqdm
    """Draw a cohort, train it with halving, keep what is worth keeping, tell the results.

    Each rung is in the study as soon as it is reached: what was halved stays so if a run is
    stopped. A cohort that was is trained anew as a whole, and those that were told once are not
    told again.

    Args:
        setting: the search.
        study: asked and told.
        count: trials of the cohort.
        total: trials in all, see `HeadStudy.ask`.
        bar: counts trained heads × epochs, and shows the best score so far.

    Returns:
        How many trials there were to take; those that had a result before do not count.
    """

    def draw(trial: Trial, seed: int) -> _Member:
        configs = trial_configs(trial, setting.space, seed)
        return _Member(trial, *configs, trial.user_attrs.get(START, ""))

    members = study.ask(count, draw, total=total)
    if not members:
        return 0
    told = {trial.number for trial in study.trials if trial.state.is_finished()}
    taken = sum(member.trial.number not in told for member in members)
    before = max((final_value(trial) for trial in study.ranked), default=0.0)
    seconds = dict.fromkeys((member.trial.number for member in members), 0.0)
    configs = [(member.head, member.training) for member in members]
    candidates = Candidates(
        configs, setting.store, setting.schedule, setting.selection, setting.workers
    )
    for rung in rungs(setting.schedule.epochs):
        begun = time.monotonic()
        while candidates.epoch < rung:
            candidates.run_epoch()
            bar.update(len(members) * setting.selection.heads)
        probabilities = candidates.trial_probabilities()
        scores = selection_scores(probabilities, setting.gold)
        costs = [head_cost(member.head) for member in members]
        for member, cost in zip(members, costs, strict=True):
            share = cost / sum(costs) * (time.monotonic() - begun)
            seconds[member.trial.number] += share
        for member, score in zip(members, scores, strict=True):
            study.report(member.trial, score, rung)
        bar.set_postfix_str(
            f"{study.finished} trials, best {setting.objective} {max(before, *scores):.3f} "
            f"(epoch {rung})"
        )
        stay = list(range(len(members)))
        if rung < setting.schedule.epochs:
            stay = survivors(scores, [member.start in PROBES for member in members], costs)
        for k, member in enumerate(members):
            if rung == setting.schedule.epochs or k not in stay:
                study.note_seconds(member.trial, seconds[member.trial.number])
                path = selection_file(setting.folder, member.trial.number)
                save_probabilities(path, probabilities[k])
            if k not in stay:
                study.prune(member.trial)
        candidates.keep_trials(stay)
        members = [members[k] for k in stay]
    _complete(setting, study, members, candidates.heads, scores)
    return taken


def _complete(
    setting: SearchContext,
    study: HeadStudy,
    members: Sequence[_Member],
    heads: Sequence[Head],
    scores: Sequence[float],
) -> None:
    """Write the heads that are among the best, tell the results, remove what fell behind.

    In this order: whenever a run is killed, the weights of a completed trial are there. The heads
    of folds are not kept: the best trials are trained on the training set at the end. Those of a
    trial that is not finished are not removed: another process may just have written them, and
    not told the result yet.
    """
    values = {trial.number: final_value(trial) for trial in study.ranked}
    values |= {member.trial.number: score for member, score in zip(members, scores, strict=True)}
    kept = best_numbers(values)
    if setting.selection.folds is None:
        for member, head, score in zip(members, heads, scores, strict=True):
            if member.trial.number in kept:
                _save(setting, member.trial, head, member.training, score)
    for member, score in zip(members, scores, strict=True):
        study.complete(member.trial, score)
    best = {trial.number for trial in study.ranked[:KEPT]}
    ended = {trial.number for trial in study.trials if trial.state.is_finished()}
    remove_trials(setting.folder, sorted(ended - best))


def train_missing(setting: SearchContext, study: HeadStudy, numbers: Sequence[int]) -> list[int]:
    """Train those of these trials whose heads are not here; return their numbers.

    With folds no trial's head is: it is trained on train and dev, or on train alone (see
    `Selection.kept`). One that an earlier run trained on other splits is trained anew: it would
    be scored on rows that it learnt from. Nothing is chosen here: the epochs are those of the
    search.
    """
    split = setting.selection.trained_on

    trials = {trial.number: trial for trial in study.ranked}
    missing = [
        trials[number]
        for number in numbers
        if number in trials and not _kept_on(trial_file(setting.folder, number), split)
    ]
    if not missing:
        return []
    configs = [trial_configs(t, setting.space, t.user_attrs[SEED]) for t in missing]
    runs = Runs(
        [Run(*config) for config in configs],
        setting.store,
        setting.schedule,
        setting.selection.kept(setting.store.dataset),
        groups=dealt([head_cost(head) for head, _ in configs], setting.workers),
        workers=setting.workers,
    )
    for trial, head, (_, training) in zip(missing, runs.train(), configs, strict=True):
        _save(setting, trial, head, training, final_value(trial))
    return [trial.number for trial in missing]


def _kept_on(path: Path, split: str) -> bool:
    """Whether a trial's head is here, and was trained on these splits."""
    return path.is_file() and load_head(path)[1].trained_on == split


def _save(
    setting: SearchContext,
    trial: Trial | FrozenTrial,
    head: Head,
    training: TrainingConfig,
    score: float,
) -> None:
    """Write a trial's head and its record."""
    folds = setting.selection.folds
    record = HeadRecord(
        trial=trial.number,
        start=trial.user_attrs.get(START, ""),
        params=trial.params,
        head=head.config,
        training=training,
        schedule=setting.schedule,
        origin=origin_of_head(setting.origin, setting.store.dataset, head.config),
        study_seed=setting.seed,
        versions=package_versions(),
        dev_macro_f1=score,
        selected_on="dev" if folds is None else str(folds),
        trained_on=setting.selection.trained_on,
    )
    path = trial_file(setting.folder, trial.number)
    save_head(path, path.with_suffix(".safetensors"), head, record)
