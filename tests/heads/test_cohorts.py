"""Cohort by cohort: who is in them, what is drawn next, and what a stopped search leaves."""

from __future__ import annotations

import csv
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import Trial, TrialState

import heads.search.rounds
import heads.search.search
import heads.training
from heads.folds import Selection, make_folds
from heads.gold import Gold, selection_scores
from heads.predict import predict
from heads.records import load_head, load_probabilities, selection_file
from heads.search.rounds import Candidates, SearchContext
from heads.search.space import PROBES, Space, start_params, trial_configs
from heads.search.study import HeadStudy
from heads.search.trials import SECONDS
from heads.vector_store import VectorStore
from tests.heads.searches import (
    BEGINNINGS,
    COHORT,
    EPOCHS,
    STARTED,
    TRIALS,
    TWO_COHORTS,
    finished,
    small_dataset,
    small_search,
    stored_trials,
)


def read_trials(folder: Path) -> list[dict[str, str]]:
    """The table of trials as it stands; empty where there is none."""
    if not (folder / "trials.csv").is_file():
        return []
    with (folder / "trials.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def proposals(
    folder: Path, start_scores: Sequence[float], factor: float, sampler: str = "tpe"
) -> list[dict[str, Any]]:
    """What a study draws after its starts and 15 sampled trials, enough for TPE to learn from.

    Args:
        folder: of the study.
        start_scores: taken in turn by the starts.
        factor: of dropout in the score of sampled trials, .5 without any.
        sampler: of the study.
    """
    folder.mkdir()
    space = Space.of(small_dataset())
    starts, _ = start_params(space)

    def draw(trial: Trial, seed: int) -> Trial:
        trial_configs(trial, space, seed)
        return trial

    with HeadStudy(folder, {}, 0, starts, sampler=sampler) as study:
        for number, trial in enumerate(study.ask(len(starts), draw, total=99)):
            assert trial.user_attrs["start"] in starts
            study.complete(trial, start_scores[number % len(start_scores)])
        for number, trial in enumerate(study.ask(15, draw, total=99)):
            score = 0.5 + factor * trial.params["dropout"]
            if number % 3:
                study.report(trial, score, 1)
                study.prune(trial)
            else:
                study.complete(trial, score)
        return [trial.params for trial in study.ask(6, draw, total=99)]


@pytest.mark.parametrize("sampler", ["tpe", pytest.param("random", marks=pytest.mark.slow)])
def test_draws_do_not_depend_on_what_the_starts_scored(sampler: str, tmp_path: Path) -> None:
    drawn = [
        proposals(tmp_path / str(number), scores, 0.5, sampler)
        for number, scores in enumerate([(0.1,), (0.9,), (0.2, 0.8, 0.4)])
    ]
    assert drawn[0] == drawn[1] == drawn[2]


@pytest.mark.slow
def test_draws_of_tpe_depend_on_what_sampled_trials_scored_and_random_ones_do_not(
    tmp_path: Path,
) -> None:
    drawn = {
        (sampler, factor): proposals(tmp_path / f"{sampler}{factor}", (0.5,), factor, sampler)
        for sampler in ("tpe", "random")
        for factor in (-0.5, 0.5)
    }
    assert drawn["tpe", -0.5] != drawn["tpe", 0.5]
    assert drawn["random", -0.5] == drawn["random", 0.5]


def test_the_first_cohort_is_of_the_probes_alone_and_each_leaves_a_table_and_a_head(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "search"
    before = []
    asked = []
    real = heads.search.rounds.run_cohort

    def run_cohort(
        setting: SearchContext, study: HeadStudy, count: int, total: int, bar: Any
    ) -> int:
        table = read_trials(folder)
        done = sum(row["state"] in ("complete", "pruned") for row in table)
        before.append((done, (folder / "best.json").is_file()))
        if done:
            load_head(folder)
        asked.append(count)
        return real(setting, study, count, total, bar)

    monkeypatch.setattr(heads.search.search, "run_cohort", run_cohort)
    small_search(folder, len(PROBES) + 12, cohort=5, epochs=1)
    probes = len(PROBES)
    assert asked == [probes, 5, 5, 2]
    assert before == [(0, False), (probes, True), (probes + 5, True), (probes + 10, True)]
    begun = [row["start"] for row in read_trials(folder)][:STARTED]
    assert begun == list(BEGINNINGS[: probes + 12])


def test_a_stopped_search_leaves_its_table_and_the_best_head_so_far(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "search"
    real = heads.training.Cohort.run_epoch
    left = EPOCHS + 2  # in the second cohort, after its first rung

    def run_epoch(cohort: heads.training.Cohort) -> None:
        nonlocal left
        if left == 0:
            raise KeyboardInterrupt
        left -= 1
        real(cohort)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(heads.training.Cohort, "run_epoch", run_epoch)
        with pytest.raises(KeyboardInterrupt):
            small_search(folder, TRIALS)
    table = read_trials(folder)
    done = [row for row in table if row["state"] == "complete"]
    assert [row["start"] for row in done] == list(PROBES)
    assert all(float(row["dev_macro_f1"]) > 0 and row["seconds"] for row in done)
    # The second cohort is there too, and those that left at its first rung with their score.
    halved = [row for row in table if row["state"] == "pruned"]
    assert len(table) == TWO_COHORTS
    assert len(halved) == COHORT - math.ceil(COHORT / 3)
    assert {row["epochs"] for row in halved} == {"1"}
    head, record = load_head(folder)
    assert record.start in PROBES
    assert record.scores == {}
    dataset = small_dataset()
    rows = dataset.rows("dev")
    said = predict([head], VectorStore(dataset), rows)
    (score,) = selection_scores(said, Gold.of(dataset, rows))
    assert score == pytest.approx(record.dev_macro_f1)
    report = small_search(folder, TRIALS)
    assert report.added == TRIALS - len(done) - len(halved)
    assert report.completed + report.halved == TRIALS
    table = read_trials(folder)
    assert sum(row["state"] in ("complete", "pruned") for row in table) == TRIALS
    assert set(load_head(folder)[1].scores) == {"dev", "test"}


def test_a_stopped_search_on_folds_leaves_a_head_of_train_and_dev(tmp_path: Path) -> None:
    folder = tmp_path / "search"
    options: dict[str, Any] = {"folds": "2", "epochs": 3}
    real = Candidates.run_epoch

    def run_epoch(candidates: Candidates) -> None:
        if len(candidates.heads) == 2 * COHORT:  # the second cohort
            raise KeyboardInterrupt
        real(candidates)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Candidates, "run_epoch", run_epoch)
        with pytest.raises(KeyboardInterrupt):
            small_search(folder, TWO_COHORTS, **options)
    record = load_head(folder)[1]
    assert record.start in PROBES
    assert record.trained_on == "train+dev"
    assert small_search(folder, TWO_COHORTS, **options).added == COHORT


@pytest.mark.parametrize("how", ["off", "2"])
def test_what_halved_trials_said_is_kept_too(how: str, tmp_path: Path) -> None:
    folder = tmp_path / "search"
    small_search(folder, TWO_COHORTS, folds=how, epochs=3)
    dataset = small_dataset()
    selection = Selection.of(dataset, make_folds(dataset, how))
    gold = Gold.of(dataset, selection.scored)
    trials = finished(stored_trials(folder))
    assert TrialState.PRUNED in {trial.state for trial in trials}
    for trial in trials:
        said = load_probabilities(selection_file(folder, trial.number))
        assert said is not None
        # What it said when it left is what it scored.
        assert selection_scores(said[None], gold) == [pytest.approx(trial.value)]
    assert len(list((folder / "selection").iterdir())) == TWO_COHORTS


def test_seconds_are_shares_of_the_time_that_the_search_took(tmp_path: Path) -> None:
    begun = time.monotonic()
    small_search(tmp_path / "search", TWO_COHORTS)
    took = time.monotonic() - begun
    trials = finished(stored_trials(tmp_path / "search"))
    seconds = {trial.number: trial.user_attrs[SECONDS] for trial in trials}
    assert len(seconds) == TWO_COHORTS
    # Each is rounded to a hundredth.
    assert 0 < sum(seconds.values()) <= took + 0.005 * TWO_COHORTS
    table = read_trials(tmp_path / "search")
    assert {int(row["number"]): float(row["seconds"]) for row in table} == seconds


@pytest.mark.parametrize("refit", [True, False])
def test_a_study_that_goes_on_with_or_without_refitting_trains_its_head_so(
    refit: bool, tmp_path: Path
) -> None:
    """A head that learnt from dev must not be scored there, whoever trained it before."""
    options: dict[str, Any] = {"folds": "2", "epochs": 1}
    small_search(tmp_path / "search", 3, refit=not refit, **options)
    report = small_search(tmp_path / "search", 3, refit=refit, **options)
    assert report.reference is not None
    assert report.best.trained_on == report.reference.trained_on
    assert report.best.trained_on == ("train+dev" if refit else "train")
    assert ("dev" in report.best.scores) != refit
