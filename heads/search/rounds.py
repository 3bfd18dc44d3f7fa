"""One cohort of the search: drawn, trained side by side, halved at each rung, kept, told.

Also the heads that a search has to have at its end and has not: with folds, those trained on the
training set; in a shared study, those that another machine trained.
"""

from __future__ import annotations

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
    package_versions,
    remove_trials,
    save_head,
    save_probabilities,
    selection_file,
    trial_file,
)
from heads.search.candidates import Candidates, Selection, head_cost, selection_scores
from heads.search.halving import rungs, survivors
from heads.search.space import Space, trial_configs
from heads.search.study import PUBLISHED, SEED, HeadStudy, final_value
from heads.training import Schedule, TrainingConfig, predict


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
    published: str


def run_cohort(setting: Setting, study: HeadStudy, count: int, total: int, bar: Any) -> int:  # noqa: ANN401 - tqdm
    """Draw a cohort, train it with halving, keep what is worth keeping, tell the results.

    Args:
        setting: the search.
        study: asked and told.
        count: trials of the cohort.
        total: trials in all, see `HeadStudy.ask`.
        bar: counts trained heads × epochs.

    Returns:
        How many trials there were to take.
    """

    def draw(trial: Trial, seed: int) -> _Member:
        configs = trial_configs(trial, setting.space, seed)
        return _Member(trial, *configs, trial.user_attrs.get(PUBLISHED, ""))

    members = study.ask(count, draw, total=total)
    if not members:
        return 0
    taken = len(members)
    configs = [(member.head, member.training) for member in members]
    candidates = Candidates(
        configs, setting.store, setting.schedule, setting.selection, setting.workers
    )
    for rung in rungs(setting.schedule.epochs):
        while candidates.epoch < rung:
            candidates.run_epoch()
            bar.update(len(members) * setting.selection.heads)
        probabilities = candidates.probabilities()
        scores = selection_scores(probabilities, setting.gold)
        for member, score in zip(members, scores, strict=True):
            study.report(member.trial, score, rung)
        if rung < setting.schedule.epochs:
            safe = [bool(member.published) for member in members]
            stay = survivors(scores, safe, [head_cost(member.head) for member in members])
            for k in set(range(len(members))) - set(stay):
                study.prune(members[k].trial)
            candidates.keep(stay)
            members = [members[k] for k in stay]
    for member, said in zip(members, probabilities, strict=True):
        save_probabilities(selection_file(setting.folder, member.trial.number), said)
    with _kept_weights(setting, study, members, candidates.heads, scores):
        for member, score in zip(members, scores, strict=True):
            study.complete(member.trial, score)
    return taken


def dev_scores(heads: Sequence[Head], store: VectorStore) -> list[float]:
    """Macro-F1 of each head on the whole development set; 0 for one whose numbers overflowed."""
    rows = store.dataset.rows("dev")
    return selection_scores(predict(heads, store, rows), store.dataset.targets(rows))


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


def train_missing(setting: Setting, study: HeadStudy) -> list[int]:
    """Train the best trials whose heads are not here, on the training set; return their numbers.

    A head is the same alone or in any company, and follows from its trial's values and seed.
    """
    missing = [t for t in study.ranked[:KEPT] if not trial_file(setting.folder, t.number).is_file()]
    if not missing:
        return []
    dataset = setting.store.dataset
    configs = [trial_configs(t, setting.space, t.user_attrs[SEED]) for t in missing]
    alone = Selection.of(dataset, folds=None)
    candidates = Candidates(configs, setting.store, setting.schedule, alone, setting.workers)
    while candidates.epoch < setting.schedule.epochs:
        candidates.run_epoch()
    for trial, head, (_, training) in zip(missing, candidates.heads, configs, strict=True):
        _save(setting, trial.number, trial, head, training, final_value(trial))
    _remove_behind(setting, study)
    return [trial.number for trial in missing]


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
        published=trial.user_attrs.get(PUBLISHED, ""),
        params=trial.params,
        head=head.config,
        training=training,
        schedule=setting.schedule,
        origin=origin_of_head(setting.origin, setting.store.dataset, head.config),
        study_seed=setting.seed,
        versions=package_versions(),
        dev_macro_f1=score,
        selected_on="dev" if folds is None else str(folds),
    )
    path = trial_file(setting.folder, number)
    save_head(path, path.with_suffix(".safetensors"), head, record)
