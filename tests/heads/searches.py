"""Small searches: seconds, on the synthetic data set."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from heads.config import STUDY_NAME, SearchConfig
from heads.dataset import Dataset
from heads.records import Origin
from heads.search.report import SearchReport
from heads.search.search import search_heads
from heads.search.space import PROBES, STARTS, Space, fitting_poolings
from heads.search.trials import SEAL, SECONDS
from tests.heads.synthetic import LABELS, make_dataset

COHORT = 16
EPOCHS = 9
# The first cohort is of the probes alone, the second one of all other beginnings and sampled
# trials; of as many as this there is a third one of eight.
TWO_COHORTS = len(PROBES) + COHORT
TRIALS = TWO_COHORTS + 8
# Probes, published poolings, and of each later kind one.
BEGINNINGS = (*STARTS, *fitting_poolings(Space(("a", "b"), {"audio": 1}, speech=True)))
STARTED = len(BEGINNINGS)


def make_origin(**changes: Any) -> Origin:
    origin = Origin(
        corpus="toy",
        synthetic=True,
        labels=LABELS,
        encoders={"audio": "tiny", "text": "tiny"},
        layers={"audio": 4, "text": 2},
        streams={"audio": "audio-0/layer_4", "text": "text-0/layer_2"},
        manifest_sha256="0" * 64,
    )
    return replace(origin, **changes)


def small_dataset() -> Dataset:
    """Three splits with all labels in each: the speaker does not tell the label."""
    dataset = make_dataset(60, dim=8, signal=0.5)
    splits = ("train", "train", "dev", "train", "test")
    utterances = tuple(
        replace(u, split=splits[(number // 3) % 5], speaker=f"s{number // 3}")
        for number, u in enumerate(dataset.utterances)
    )
    return replace(dataset, utterances=utterances)


def relabelled(dataset: Dataset, split: str) -> Dataset:
    """The labels of one split, moved on by one."""
    following = dict(zip(dataset.labels, dataset.labels[1:] + dataset.labels[:1], strict=True))
    utterances = tuple(
        replace(u, label=following[u.label]) if u.split == split else u for u in dataset.utterances
    )
    return replace(dataset, utterances=utterances)


def small_search(folder: Path, trials: int = 24, **options: Any) -> SearchReport:
    dataset = options.pop("dataset", None) or small_dataset()
    origin = options.pop("origin", None) or make_origin()
    fresh = options.pop("fresh", False)
    defaults: dict[str, Any] = {
        "batch_size": 16,
        "epochs": EPOCHS,
        "cohort": COHORT,
        "folds": "off",
    }
    config = SearchConfig(trials=trials, **{**defaults, **options})
    return search_heads(dataset, folder, origin, config, fresh=fresh)


def stored_trials(folder: Path) -> list[FrozenTrial]:
    """The study as any other program reads it."""
    storage = optuna.storages.RDBStorage(f"sqlite:///{folder / 'study.db'}")
    trials = optuna.load_study(study_name=STUDY_NAME, storage=storage).get_trials()
    storage.remove_session()
    storage.engine.dispose()
    return trials


def finished(trials: list[FrozenTrial]) -> list[FrozenTrial]:
    return [trial for trial in trials if trial.state in (TrialState.COMPLETE, TrialState.PRUNED)]


def essence(trials: list[FrozenTrial]) -> list[tuple[Any, ...]]:
    """What a trial is and gave, without times."""
    return [
        (t.number, t.state, t.value, t.params, t.intermediate_values, untimed(t)) for t in trials
    ]


def untimed(trial: FrozenTrial) -> dict[str, Any]:
    """A trial's notes, without what it has from its end only: the seconds it took and its seal."""
    return {n: value for n, value in trial.user_attrs.items() if n not in (SECONDS, SEAL)}
