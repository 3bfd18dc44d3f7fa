"""The search's benchmark: its rows, in the order of the table."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from statistics import mean
from typing import Any

import torch

from bench.frames import LABELS, generated
from bench.large_search import large_search
from bench.plain_heads import PlainTraining, items
from bench.table import Outcome, Row, Settings, compare, seconds, seconds_outcome
from heads.dataset import Dataset
from heads.folds import Selection
from heads.gold import Gold, selection_scores
from heads.head import Head, HeadConfig
from heads.load import suitable_threads
from heads.search.rounds import Candidates, rungs, survivors
from heads.search.space import PUBLISHED, Space, start_params, trial_configs
from heads.training import Cohort, Schedule, TrainingConfig
from heads.vector_store import VectorStore

DIM = 1024
WIDTH = 256
Configs = list[tuple[HeadConfig, TrainingConfig]]

# Q and H: the published heads with linear scorers, and one with neither.
LINEAR = ((1, 1), (1, 2), (2, 2), (2, 4))
# Halved and completed trials may differ by chance in what they learn; their mean may not.
SAME_SCORE = 0.03


def _head(pooling: dict[str, Any], seed: int) -> tuple[HeadConfig, TrainingConfig]:
    config = HeadConfig(LABELS, {"audio": DIM}, {"audio": pooling}, mlp_width=WIDTH)
    return config, TrainingConfig(1e-3, seed=seed)


def _linear() -> Configs:
    kinds = [
        {"kind": "mqmha", "queries": queries, "heads": heads, "scorer_layers": 1}
        for queries, heads in LINEAR
    ]
    return [_head(kinds[k % len(kinds)], k) for k in range(32)]


def _wide() -> Configs:
    return [_head({"kind": "as", "hidden": 256}, k) for k in range(8)]


def _statistics() -> Configs:
    return [_head({"kind": "statistics"}, k) for k in range(32)]


def epoch(
    settings: Settings, *, make: Callable[[], Configs], precision: str, least: float
) -> Outcome:
    """An epoch of some heads side by side, against one head after the other."""
    dataset = generated(settings.scaled(256, 64), DIM)
    schedule, rows = Schedule(9, frames=None), dataset.rows("train")
    plain = items(dataset, rows)
    configs = make()
    others = [PlainTraining(*config, plain, schedule, {}) for config in configs]
    store = VectorStore(dataset, precision)
    heads = [Head(config, training.seed) for config, training in configs]
    cohort = Cohort(heads, [training for _, training in configs], store, rows, schedule)

    def ours() -> None:
        with suitable_threads(dataset, schedule.batch_size):
            cohort.run_epoch()

    def one_by_one() -> None:
        for other in others:
            other.run_epoch()

    found = compare(ours, one_by_one, settings.times(3))
    return seconds_outcome(found, least)


def whole_space(settings: Settings, *, least: float) -> Outcome:
    """100 trials of the default space with halving; the same heads in both, and their scores."""
    dataset = generated(settings.scaled(320, 128), DIM)
    trials = settings.scaled(100, 8)
    schedule, selection = Schedule(9, frames=None), Selection.of(dataset, folds=None)
    configs = drawn(dataset, trials)
    plain_rows = [items(dataset, rows) for rows in (selection.trained, selection.scored)]
    statistics = _input_statistics(dataset, selection.trained)
    gold = Gold.of(dataset, selection.scored)
    left: list[list[list[int]]] = []  # for each cohort who stays at each rung
    ours: list[float] = []
    theirs: list[float] = []

    def side_by_side() -> None:
        with suitable_threads(dataset, schedule.batch_size):
            search()

    def search() -> None:
        store = VectorStore(dataset, "bf16")
        for cohort in _cohorts(configs):
            candidates = Candidates(cohort, store, schedule, selection)
            left.append([])
            for rung in rungs(schedule.epochs):
                while candidates.epoch < rung:
                    candidates.run_epoch()
                scores = selection_scores(candidates.trial_probabilities(), gold)
                stay = list(range(len(scores)))
                if rung < schedule.epochs:
                    stay = survivors(scores, [False] * len(scores), range(len(scores)))
                    candidates.keep_trials(stay)
                left[-1].append(stay)
            ours.extend(scores)

    def one_by_one() -> None:
        for cohort, rounds in zip(_cohorts(configs), left, strict=True):
            running = [
                PlainTraining(*config, plain_rows[0], schedule, statistics) for config in cohort
            ]
            done = 0
            for rung, stay in zip(rungs(schedule.epochs), rounds, strict=True):
                said = []
                for head in running:
                    for _ in range(done, rung):
                        head.run_epoch()
                    said.append(head.predict(plain_rows[1]))
                done = rung
                running = [running[k] for k in stay]
            certain = torch.nn.functional.one_hot(torch.stack(said), len(LABELS)).float()
            theirs.extend(selection_scores(certain, gold))

    mine, others = seconds(side_by_side), seconds(one_by_one)
    same = abs(mean(ours) - mean(theirs)) <= SAME_SCORE
    return Outcome(
        f"{mine:.0f} s, macro-F1 {mean(ours):.3f}",
        f"{others:.0f} s, macro-F1 {mean(theirs):.3f}",
        f"{others / mine:.1f}×",
        same and others / mine >= least,
    )


def drawn(dataset: Dataset, count: int) -> Configs:
    """The published configurations and random ones of the default space."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    space = Space.of(dataset)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for params in start_params(space, PUBLISHED)[0].values():
        study.enqueue_trial(params)
    return [trial_configs(study.ask(), space, seed) for seed in range(count)]


def _cohorts(configs: Configs, size: int = 25) -> list[Configs]:
    return [configs[start : start + size] for start in range(0, len(configs), size)]


def _input_statistics(dataset: Dataset, rows: torch.Tensor) -> dict[str, Any]:
    store = VectorStore(dataset)
    return {name: store.frame_statistics(name, rows) for name in dataset.frames}


SINGLY = "one after the other, padded"
ROWS = (
    *(
        Row(
            f"{name}-{precision}",
            f"{what}, {precision}",
            SINGLY,
            f"at least {least}×",
            partial(epoch, make=make, precision=precision, least=least),
        )
        for name, what, make, limits in (
            ("linear", "32 heads, linear scorers", _linear, {"fp32": 10, "bf16": 15}),
            ("wide", "8 heads, scorers of 256", _wide, {"fp32": 2, "bf16": 4}),
            ("statistics", "32 heads, statistics", _statistics, {"fp32": 50}),
        )
        for precision, least in limits.items()
    ),
    Row(
        "space",
        "100 trials, default space, halved",
        SINGLY,
        "at least 5×",
        partial(whole_space, least=5),
    ),
    Row(
        "large",
        "100 trials, 10,000 × 250 × 1024",
        "peak of matrix products",
        "< 30 min, < 12 GB",
        large_search,
    ),
)
