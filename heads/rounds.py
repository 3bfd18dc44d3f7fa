"""One cohort of the search: drawn, trained side by side, halved at each rung, kept, told."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from optuna.trial import Trial

from heads.confusion import confusion_matrix, macro_f1
from heads.dataset import VectorStore
from heads.halving import rungs, survivors
from heads.head import Head, HeadConfig
from heads.origin import Origin
from heads.results import (
    HeadRecord,
    best_numbers,
    package_versions,
    remove_other_trials,
    save_head,
    trial_file,
)
from heads.space import Space, trial_configs
from heads.study import PUBLISHED, HeadStudy, final_value
from heads.training import Cohort, Schedule, TrainingConfig, predict


@dataclass(frozen=True, eq=False)
class Setting:
    """What all trials of a search have in common.

    Attributes:
        store: the data.
        space: the axes.
        schedule: epochs, batches and their order.
        origin: where the data comes from.
        folder: the search's.
        seed: of the study.
    """

    store: VectorStore
    space: Space
    schedule: Schedule
    origin: Origin
    folder: Path
    seed: int


@dataclass(frozen=True, eq=False)
class _Member:
    """A trial in training."""

    trial: Trial
    head: HeadConfig
    training: TrainingConfig
    published: str


def run_cohort(setting: Setting, study: HeadStudy, count: int, bar: Any) -> None:  # noqa: ANN401 - tqdm
    """Draw a cohort, train it with halving, keep the weights worth keeping, tell the results."""
    store = setting.store

    def draw(trial: Trial, seed: int) -> _Member:
        configs = trial_configs(trial, setting.space, seed)
        return _Member(trial, *configs, trial.user_attrs.get(PUBLISHED, ""))

    members = study.ask(count, draw)
    cohort = Cohort(
        [Head(member.head, member.training.seed) for member in members],
        [member.training for member in members],
        store,
        store.dataset.rows("train"),
        setting.schedule,
    )
    scores: list[float] = []
    for rung in rungs(setting.schedule.epochs):
        while cohort.epoch < rung:
            cohort.run_epoch()
            bar.update(len(members))
        scores = dev_scores(cohort.heads, store)
        for member, score in zip(members, scores, strict=True):
            member.trial.report(score, step=rung)
        if rung < setting.schedule.epochs:
            stay = survivors(scores, [bool(member.published) for member in members])
            for k in set(range(len(members))) - set(stay):
                study.prune(members[k].trial)
            cohort.keep(stay)
            members = [members[k] for k in stay]
    with _kept_weights(setting, study, members, cohort.heads, scores):
        for member, score in zip(members, scores, strict=True):
            study.complete(member.trial, score)


def dev_scores(heads: Sequence[Head], store: VectorStore) -> list[float]:
    """Macro-F1 of each head on the whole development set; 0 for one whose numbers overflowed."""
    dataset = store.dataset
    rows = dataset.rows("dev")
    probabilities = predict(heads, store, rows)
    gold = dataset.targets(rows).numpy()
    confusion = confusion_matrix(gold, probabilities.argmax(-1).numpy(), len(dataset.labels))
    finite = torch.isfinite(probabilities).flatten(1).all(1)
    return [
        float(score) if fine else 0.0
        for score, fine in zip(macro_f1(confusion), finite.tolist(), strict=True)
    ]


@contextmanager
def _kept_weights(
    setting: Setting,
    study: HeadStudy,
    members: Sequence[_Member],
    heads: Sequence[Head],
    scores: Sequence[float],
) -> Iterator[None]:
    """Write the heads that are among the best, have the results told, remove the others' files.

    In this order: whenever a run is killed, the weights of a completed trial are there.
    """
    values = {trial.number: final_value(trial) for trial in study.ranked}
    values |= {member.trial.number: score for member, score in zip(members, scores, strict=True)}
    kept = best_numbers(values)
    versions = package_versions()
    for member, head in zip(members, heads, strict=True):
        number = member.trial.number
        if number in kept:
            record = HeadRecord(
                trial=number,
                published=member.published,
                params=member.trial.params,
                head=member.head,
                training=member.training,
                schedule=setting.schedule,
                origin=setting.origin,
                study_seed=setting.seed,
                versions=versions,
                dev_macro_f1=values[number],
            )
            path = trial_file(setting.folder, number)
            save_head(path, path.with_suffix(".safetensors"), head, record)
    yield
    remove_other_trials(setting.folder, kept)
