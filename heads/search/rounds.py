"""One cohort of the search: drawn, trained side by side, halved at each rung, kept, told.

Also the heads that a search has to have at its end and has not: with folds, those trained on the
training set; in a shared study, those that another machine trained.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optuna.trial import FrozenTrial, Trial
from torch import Tensor

from heads.dataset import VectorStore
from heads.head import Head, HeadConfig
from heads.layers import origin_of_head
from heads.origin import Origin
from heads.results import (
    KEPT,
    HeadRecord,
    best_numbers,
    load_head,
    package_versions,
    remove_trials,
    save_head,
    save_probabilities,
    selection_file,
    trial_file,
)
from heads.runs import Run, Runs, head_cost
from heads.search.candidates import Candidates, Selection, selection_scores
from heads.search.halving import rungs, survivors
from heads.search.space import PROBES, Space, trial_configs
from heads.search.study import SEED, START, HeadStudy, final_value
from heads.sharing import dealt
from heads.training import Schedule, TrainingConfig


@dataclass(frozen=True, eq=False)
class Setting:
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

    @property
    def gold(self) -> Tensor:
        """`[m]` classes of the rows that trials are compared by."""
        return self.store.dataset.targets(self.selection.scored)


@dataclass(frozen=True, eq=False)
class _Member:
    """A trial in training."""

    trial: Trial
    head: HeadConfig
    training: TrainingConfig
    start: str


def run_cohort(setting: Setting, study: HeadStudy, count: int, total: int, bar: Any) -> int:  # noqa: ANN401 - tqdm
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
            f"{study.finished} trials, best macro-F1 {max(before, *scores):.3f} (epoch {rung})"
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
    with _kept_weights(setting, study, members, candidates.heads, scores):
        for member, score in zip(members, scores, strict=True):
            study.complete(member.trial, score)
    return taken


@contextmanager
def _kept_weights(
    setting: Setting,
    study: HeadStudy,
    members: Sequence[_Member],
    heads: Sequence[Head],
    scores: Sequence[float],
) -> Iterator[None]:
    """Write the heads that are among the best, have the results told, remove what fell behind.

    In this order: whenever a run is killed, the weights of a completed trial are there. The heads
    of folds are not kept: the best trials are trained on the training set at the end.
    """
    values = {trial.number: final_value(trial) for trial in study.ranked}
    values |= {member.trial.number: score for member, score in zip(members, scores, strict=True)}
    kept = best_numbers(values)
    if setting.selection.folds is None:
        for member, head in zip(members, heads, strict=True):
            number = member.trial.number
            if number in kept:
                _save(setting, number, member.trial, head, member.training, values[number])
    yield
    _remove_behind(setting, study)


def train_missing(setting: Setting, study: HeadStudy, numbers: Sequence[int]) -> list[int]:
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
        _save(setting, trial.number, trial, head, training, final_value(trial))
    return [trial.number for trial in missing]


def _kept_on(path: Path, split: str) -> bool:
    """Whether a trial's head is here, and was trained on these splits."""
    return path.is_file() and load_head(path)[1].trained_on == split


def _remove_behind(setting: Setting, study: HeadStudy) -> None:
    """Remove the heads of finished trials that are not among the best.

    Those of a trial that is not finished are left alone: another process may just have written
    them, and not told the result yet.
    """
    kept = {trial.number for trial in study.ranked[:KEPT]}
    ended = [trial.number for trial in study.trials if trial.state.is_finished()]
    remove_trials(setting.folder, [number for number in ended if number not in kept])


def _save(
    setting: Setting,
    number: int,
    trial: Trial | FrozenTrial,
    head: Head,
    training: TrainingConfig,
    score: float,
) -> None:
    """Write a trial's head and its record."""
    folds = setting.selection.folds
    record = HeadRecord(
        trial=number,
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
    path = trial_file(setting.folder, number)
    save_head(path, path.with_suffix(".safetensors"), head, record)
