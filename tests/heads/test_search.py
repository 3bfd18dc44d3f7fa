"""The search: reproducible, resumable, halved as stated, blind to the test set."""

from __future__ import annotations

import shutil
import sqlite3
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from optuna.trial import FrozenTrial, Trial, TrialState

import heads.training
from corpora.base.errors import CacheError, ConfigError, ManifestError
from corpora.base.work import exclusive_lock
from finetune.trial_record import _read_study
from heads.dataset import Dataset
from heads.folds import Selection, make_folds
from heads.gold import Gold, selection_scores
from heads.head import Head
from heads.predict import predict
from heads.records import load_head, trial_file
from heads.search.report import SearchReport
from heads.search.rounds import Candidates
from heads.search.space import PROBES, Space, start_params, trial_configs
from heads.search.storage import close
from heads.search.study import HeadStudy
from heads.search.trials import SECONDS
from heads.training import Schedule, TrainingConfig
from heads.vector_store import VectorStore
from tests.heads.searches import (
    BEGINNINGS,
    COHORT,
    EPOCHS,
    STARTED,
    TRIALS,
    TWO_COHORTS,
    essence,
    finished,
    make_origin,
    relabelled,
    small_dataset,
    small_search,
    stored_trials,
    untimed,
)
from tests.heads.synthetic import make_configs, make_dataset


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[SearchReport, list[FrozenTrial]]:
    folder = tmp_path_factory.mktemp("work") / "search"
    return small_search(folder, TRIALS), stored_trials(folder)


def test_two_searches_with_one_seed_give_the_same_trials_and_values(
    done: tuple[SearchReport, list[FrozenTrial]], tmp_path: Path
) -> None:
    report = small_search(tmp_path / "search", TRIALS)
    assert essence(stored_trials(tmp_path / "search")) == essence(done[1])
    assert report.best.scores == done[0].best.scores


def test_another_seed_gives_other_trials(
    done: tuple[SearchReport, list[FrozenTrial]], tmp_path: Path
) -> None:
    small_search(tmp_path / "search", TWO_COHORTS, seed=1)
    other = stored_trials(tmp_path / "search")
    drawn = [trial.params for trial in other[STARTED:]]
    assert drawn != [trial.params for trial in done[1][STARTED:TWO_COHORTS]]
    assert [t.value for t in other[:STARTED]] != [t.value for t in done[1][:STARTED]]


def test_labels_of_the_test_set_change_no_trial(
    done: tuple[SearchReport, list[FrozenTrial]], tmp_path: Path
) -> None:
    dataset = relabelled(small_dataset(), "test")
    report = small_search(tmp_path / "search", TRIALS, dataset=dataset)
    assert essence(stored_trials(tmp_path / "search")) == essence(done[1])
    assert report.best.trial == done[0].best.trial
    assert report.reference is not None
    assert done[0].reference is not None
    assert report.reference.strength == done[0].reference.strength
    assert report.best.scores["test"] != done[0].best.scores["test"]


def test_probes_come_first_and_are_never_halved_then_published_poolings(
    done: tuple[SearchReport, list[FrozenTrial]],
) -> None:
    assert [trial.user_attrs["start"] for trial in done[1][:STARTED]] == list(BEGINNINGS)
    probes = done[1][: len(PROBES)]
    assert {trial.state for trial in probes} == {TrialState.COMPLETE}
    assert {tuple(trial.intermediate_values) for trial in probes} == {(1, 3, 9)}
    assert TrialState.PRUNED in {trial.state for trial in done[1][len(PROBES) : STARTED]}


def test_halving_keeps_the_best_third_of_all_others(
    done: tuple[SearchReport, list[FrozenTrial]],
) -> None:
    cohorts = [done[1][len(PROBES) : TWO_COHORTS], done[1][TWO_COHORTS:]]
    assert [len(cohort) for cohort in cohorts] == [COHORT, 8]
    for cohort in cohorts:
        for rung, following in ((1, 3), (3, 9)):
            there = [trial for trial in cohort if rung in trial.intermediate_values]
            stayed = [trial for trial in there if following in trial.intermediate_values]
            assert len(stayed) == -(-len(there) // 3)
            left = [t.intermediate_values[rung] for t in there if t not in stayed]
            assert min(t.intermediate_values[rung] for t in stayed) >= max(left, default=0.0)
        for trial in cohort:
            whole = 9 in trial.intermediate_values
            assert trial.state == (TrialState.COMPLETE if whole else TrialState.PRUNED)
            assert trial.value == trial.intermediate_values[trial.last_step or 0]


def test_a_resumed_search_goes_on_to_its_number_as_if_it_had_not_stopped(
    done: tuple[SearchReport, list[FrozenTrial]], tmp_path: Path
) -> None:
    folder = tmp_path / "search"
    first = small_search(folder, TWO_COHORTS)
    second = small_search(folder, TRIALS)
    assert (first.added, second.added) == (TWO_COHORTS, TRIALS - TWO_COHORTS)
    assert essence(stored_trials(folder)) == essence(done[1])


def test_a_search_with_enough_trials_trains_none(tmp_path: Path) -> None:
    folder = tmp_path / "search"
    first = small_search(folder, 12)
    before = stored_trials(folder)
    for trials in (12, 5):
        again = small_search(folder, trials)
        assert again.added == 0
        assert again.best == first.best
    assert stored_trials(folder) == before


def test_fewer_trials_than_starts_are_the_first_of_them(tmp_path: Path) -> None:
    report = small_search(tmp_path / "search", 3)
    names = [line.start for line in sorted(report.top, key=lambda line: line.number)]
    assert names == list(PROBES)[:3]
    small_search(tmp_path / "search", STARTED + 1)
    found = [t.user_attrs.get("start") for t in finished(stored_trials(tmp_path / "search"))]
    assert found == [*BEGINNINGS, None]


def test_draws_do_not_depend_on_what_the_starts_scored(tmp_path: Path) -> None:
    drawn = []
    for name, score in (("low", 0.1), ("high", 0.9)):
        (tmp_path / name).mkdir()
        space = Space.of(small_dataset())
        starts, _ = start_params(space)
        with HeadStudy(tmp_path / name, {}, 0, starts) as study:

            def draw(trial: Trial, seed: int, space: Space = space) -> Trial:
                trial_configs(trial, space, seed)
                return trial

            for trial in study.ask(len(starts), draw, total=99):
                study.complete(trial, score)
            drawn.append([trial.params for trial in study.ask(4, draw, total=99)])
    assert drawn[0] == drawn[1]


def test_an_interrupted_search_leaves_its_table_and_a_head_to_use(tmp_path: Path) -> None:
    folder = tmp_path / "search"
    with pytest.MonkeyPatch.context() as patch:
        stop_training(patch, EPOCHS + 2, KeyboardInterrupt())  # in the second cohort
        with pytest.raises(KeyboardInterrupt):
            small_search(folder, TRIALS)
    rows = (folder / "trials.csv").read_text().splitlines()
    assert len(rows) > len(PROBES)
    record = load_head(folder)[1]
    assert record.start in PROBES
    report = small_search(folder, TRIALS)
    assert report.completed + report.halved == TRIALS


def test_the_seconds_of_trials_are_their_shares(tmp_path: Path) -> None:
    begun = time.monotonic()
    small_search(tmp_path / "search", TWO_COHORTS)
    took = time.monotonic() - begun
    seconds = [t.user_attrs[SECONDS] for t in finished(stored_trials(tmp_path / "search"))]
    assert len(seconds) == TWO_COHORTS
    assert sum(seconds) <= took


class Stopped:
    """`Cohort.run_epoch` that raises at one call."""

    def __init__(self, at: int, error: BaseException) -> None:
        self.left = at
        self.error = error
        self.real = heads.training.Cohort.run_epoch

    def __call__(self, cohort: heads.training.Cohort) -> None:
        if self.left == 0:
            raise self.error
        self.left -= 1
        self.real(cohort)


def stop_training(patch: pytest.MonkeyPatch, at: int, error: BaseException) -> None:
    stopped = Stopped(at, error)
    patch.setattr(heads.training.Cohort, "run_epoch", lambda cohort: stopped(cohort))


@pytest.mark.parametrize(
    "epoch", [9, *(pytest.param(late, marks=pytest.mark.slow) for late in (10, 19))]
)
def test_an_interrupted_search_loses_no_trial_and_runs_none_twice(
    epoch: int, tmp_path: Path
) -> None:
    folder = tmp_path / "search"
    with pytest.MonkeyPatch.context() as patch:
        stop_training(patch, epoch, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            small_search(folder, TRIALS)
    assert TrialState.RUNNING not in {trial.state for trial in stored_trials(folder)}
    report = small_search(folder, TRIALS)
    trials = stored_trials(folder)
    assert len(finished(trials)) == report.completed + report.halved == TRIALS
    assert TrialState.WAITING not in {trial.state for trial in trials}
    drawn = [tuple(sorted(trial.params.items())) for trial in finished(trials)]
    assert len(set(drawn)) == TRIALS
    given_up = [trial for trial in trials if trial.state == TrialState.FAIL]
    assert {tuple(sorted(trial.params.items())) for trial in given_up} <= set(drawn)


@pytest.mark.parametrize(
    ("way", "at"),
    [
        ("epoch", EPOCHS + 2),
        ("told", len(PROBES) + 4),
        pytest.param("asked", len(PROBES) + COHORT + 3, marks=pytest.mark.slow),
        *(
            pytest.param(way, at, marks=pytest.mark.slow)
            for way in ("epoch", "told", "asked")
            for at in (0, 5, 12, 17, 20)
        ),
    ],
)
def test_a_search_that_stopped_ends_as_one_that_did_not(
    way: str, at: int, done: tuple[SearchReport, list[FrozenTrial]], tmp_path: Path
) -> None:
    """Stopped between epochs, between two results, or between two draws; and without a word."""
    folder = tmp_path / "search"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(HeadStudy, "_give_back", lambda *_: None)  # as when it is killed
        if way == "epoch":
            stop_training(patch, at, KeyboardInterrupt())
        else:
            stop_study(patch, "_tell" if way == "told" else "_surplus", at)
        with pytest.raises(KeyboardInterrupt):
            small_search(folder, TRIALS)
    report = small_search(folder, TRIALS)
    assert essence(stored_trials(folder)) == essence(done[1])
    assert report.best == done[0].best
    assert report.top == done[0].top


def stop_study(patch: pytest.MonkeyPatch, name: str, at: int) -> None:
    real, left = getattr(HeadStudy, name), [at]

    def counted(self: HeadStudy, *arguments: object, **options: object) -> object:
        if left[0] == 0:
            raise KeyboardInterrupt
        left[0] -= 1
        return real(self, *arguments, **options)

    patch.setattr(HeadStudy, name, counted)


def test_trials_of_a_killed_process_are_run_again_with_their_values_and_seeds(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "search"
    small_search(folder, STARTED)
    study = HeadStudy(folder, {}, seed=0)
    space = Space.of(small_dataset())
    lost = [
        (trial.params, trial.user_attrs)
        for trial in study.ask(
            3, lambda trial, seed: (trial_configs(trial, space, seed), trial)[1], total=99
        )
    ]
    close(study._storage)  # as when the process is gone: nothing is told
    assert sum(t.state == TrialState.RUNNING for t in stored_trials(folder)) == 3
    small_search(folder, STARTED + 4)
    again = finished(stored_trials(folder))[STARTED:]
    assert [(trial.params, untimed(trial)) for trial in again[:3]] == lost
    assert len(again) == 4


def test_trials_in_hand_have_heartbeats(tmp_path: Path) -> None:
    small_search(tmp_path / "search", 3)
    with closing(sqlite3.connect(tmp_path / "search" / "study.db")) as connection:
        assert connection.execute("SELECT count(*) FROM trial_heartbeats").fetchone() == (3,)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"origin": make_origin(labels=("anger", "sadness", "neutral"))}, "labels"),
        ({"origin": make_origin(manifest_sha256="1" * 64)}, "manifest_sha256"),
        ({"origin": make_origin(streams={"audio": "audio-1/layer_4"})}, "streams"),
        ({"seed": 1}, "seed: 0 -> 1"),
        ({"epochs": 18}, "epochs: 9 -> 18"),
        ({"batch_size": 8}, "batch_size"),
        ({"tied": False}, "tied"),
    ],
)
def test_a_study_made_from_something_else_is_refused_with_the_difference(
    change: dict[str, object], named: str, tmp_path: Path
) -> None:
    small_search(tmp_path / "search", 1)
    with pytest.raises(ConfigError, match=named) as caught:
        small_search(tmp_path / "search", 2, **change)
    assert "--fresh" in str(caught.value)
    assert len(stored_trials(tmp_path / "search")) == STARTED


def test_a_fresh_search_removes_the_old_one_and_nothing_else(tmp_path: Path) -> None:
    folder = tmp_path / "search"
    small_search(folder, 3)
    (folder / "notes.txt").write_text("mine")
    report = small_search(folder, 2, seed=1, fresh=True)
    assert report.added == report.completed == 2
    assert (folder / "notes.txt").read_text() == "mine"
    assert not trial_file(folder, 2).exists()


def test_a_second_search_at_the_same_time_is_refused(tmp_path: Path) -> None:
    with exclusive_lock(tmp_path / "search"), pytest.raises(CacheError, match="in use"):
        small_search(tmp_path / "search", 1)


def test_a_damaged_study_is_refused_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "search").mkdir()
    (tmp_path / "search" / "study.db").write_bytes(b"not a database, but long enough" * 100)
    with pytest.raises(CacheError, match="--fresh"):
        small_search(tmp_path / "search", 1)
    small_search(tmp_path / "search", 1, fresh=True)


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE trial_values SET value = value / 2",
        "UPDATE trial_intermediate_values SET intermediate_value = intermediate_value / 2",
        "UPDATE trial_params SET param_value = param_value + 1 WHERE param_name = 'pooling'",
    ],
)
def test_a_trial_that_was_altered_is_named(change: str, tmp_path: Path) -> None:
    small_search(tmp_path / "search", 1)
    with closing(sqlite3.connect(tmp_path / "search" / "study.db")) as database, database:
        database.execute(change)
    with pytest.raises(CacheError, match=r"study\.db cannot be read.*trial 0 was altered"):
        small_search(tmp_path / "search", 2)


@pytest.fixture(scope="module")
def studied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study with one trial that ended."""
    folder = tmp_path_factory.mktemp("studied")
    with HeadStudy(folder, {}, 0, {"start": {"rate": 1}}) as study:
        [trial] = study.ask(
            1, lambda trial, _: (trial.suggest_int("rate", 1, 9), trial)[1], total=1
        )
        study.report(trial, 0.5, 1)
        study.complete(trial, 0.5)
    return folder / "study.db"


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE trial_params SET distribution_json = replace(distribution_json, 'Dist', 'dIst')",
        "UPDATE trial_params SET distribution_json = '[1,'",
        "UPDATE trial_user_attributes SET value_json = '{' WHERE key = 'seed'",
        "UPDATE trial_user_attributes SET value_json = '5' WHERE key = 'cohort'",
        "DELETE FROM trial_user_attributes",
        "UPDATE trials SET state = 'DONE'",
        "UPDATE trials SET number = NULL",
        "UPDATE trial_values SET value_type = 'x'",
        "DELETE FROM study_directions",
        "UPDATE alembic_version SET version_num = 'x'",
        "DROP TABLE trial_values",
    ],
)
def test_a_study_that_optuna_stumbles_over_is_one_sentence(
    change: str, studied: Path, tmp_path: Path
) -> None:
    database = tmp_path / "study.db"
    shutil.copy(studied, database)
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute(change)

    def search() -> None:
        with HeadStudy(tmp_path, {}, 0) as study:
            study.ask(1, lambda trial, _: trial.suggest_int("rate", 1, 9), total=2)

    for read in (search, lambda: _read_study(database)):
        with pytest.raises(CacheError, match="damaged or altered") as caught:
            read()
        assert str(caught.value).startswith(f"{database} cannot be read as an Optuna study (")
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("split", ["train", "dev"])
def test_a_split_without_utterances_is_refused(split: str, tmp_path: Path) -> None:
    dataset = small_dataset()
    emptied = tuple(replace(u, split="") if u.split == split else u for u in dataset.utterances)
    with pytest.raises(ManifestError, match=split):
        small_search(tmp_path / "search", 1, dataset=replace(dataset, utterances=emptied))


def unlabelled(dataset: Dataset, label: str, splits: set[str]) -> Dataset:
    utterances = tuple(
        replace(u, label="") if u.label == label and u.split in splits else u
        for u in dataset.utterances
    )
    return replace(dataset, utterances=utterances)


def test_a_label_that_nobody_can_learn_or_choose_by_is_refused(tmp_path: Path) -> None:
    dataset = unlabelled(small_dataset(), "neutral", {"train", "dev"})
    with pytest.raises(ManifestError, match="neutral"):
        small_search(tmp_path / "search", 1, dataset=dataset)


@pytest.mark.parametrize("split", ["train", "dev"])
def test_a_label_missing_from_one_split_is_noted(split: str, tmp_path: Path) -> None:
    dataset = unlabelled(small_dataset(), "neutral", {split})
    report = small_search(tmp_path / "search", 1, dataset=dataset)
    assert any(split in note and "neutral" in note for note in report.notes)


def test_without_a_test_split_the_dev_score_is_not_called_a_result(tmp_path: Path) -> None:
    dataset = small_dataset()
    utterances = tuple(u for u in dataset.utterances if u.split != "test")
    frames = {
        name: batch.select([i for i, u in enumerate(dataset.utterances) if u.split != "test"])
        for name, batch in dataset.frames.items()
    }
    report = small_search(
        tmp_path / "search", 1, dataset=replace(dataset, utterances=utterances, frames=frames)
    )
    assert set(report.best.scores) == {"dev"}
    assert report.reference is not None
    assert set(report.reference.scores) == {"dev"}
    assert "is not a result" in report.to_text()


def test_a_head_whose_numbers_overflowed_scores_nothing() -> None:
    dataset = small_dataset()
    heads_ = [
        Head(replace(config, dims=dict.fromkeys(config.dims, 8))) for config in make_configs()[:2]
    ]
    with torch.no_grad():
        heads_[0].output.bias.fill_(float("nan"))
    rows = dataset.rows("dev")
    said = predict(heads_, VectorStore(dataset), rows)
    scores = selection_scores(said, Gold.of(dataset, rows))
    assert scores[0] == 0.0
    assert scores[1] > 0.0


def test_a_corpus_with_one_label_is_refused_with_what_to_do(tmp_path: Path) -> None:
    dataset = small_dataset()
    alike = tuple(replace(u, label="joy") for u in dataset.utterances)
    with pytest.raises(ManifestError, match=r"one label, joy.* Prepare the corpus"):
        small_search(
            tmp_path / "search", 1, dataset=replace(dataset, utterances=alike, labels=("joy",))
        )


def test_a_train_split_with_one_label_is_refused(tmp_path: Path) -> None:
    dataset = unlabelled(unlabelled(small_dataset(), "anger", {"train"}), "neutral", {"train"})
    with pytest.raises(ManifestError, match=r"All utterances of train have one label, sadness"):
        small_search(tmp_path / "search", 1, dataset=dataset)


@pytest.mark.parametrize("option", [{"trials": 0}, {"cohort": 0}, {"seed": -1}, {"epochs": 0}])
def test_an_option_out_of_range_is_refused(option: dict[str, int], tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        small_search(tmp_path / "search", **option)


def test_the_report_names_encoders_scores_files_and_the_next_command(
    done: tuple[SearchReport, list[FrozenTrial]],
) -> None:
    report = done[0]
    text = report.to_text()
    for part in ("tiny", "synthetic", "linear", "selected on it", "finetune --best", "evaluate"):
        assert part in text
    assert f"{report.best.scores['test'].macro_f1:.3f}" in text
    for step in ("finetune --best", "evaluate"):
        assert f"python cli.py {step} --work" in text
        assert f"python cli.py {step} --manifest 'my rows.csv' --work" in report.to_text(
            Path("my rows.csv")
        )
    assert all(path.exists() for path in report.files)
    assert len(report.top) == 10
    assert report.best.trial in {line.number for line in report.top}


@pytest.mark.parametrize("how", ["off", "3"])
def test_candidates_are_the_same_with_any_number_of_workers(how: str) -> None:
    dataset = make_dataset(60)
    folds = make_folds(dataset, how)
    configs = [(config, TrainingConfig(1e-3, seed=k)) for k, config in enumerate(make_configs())]

    def said(workers: int) -> torch.Tensor:
        selection = Selection.of(dataset, folds)
        candidates = Candidates(configs, VectorStore(dataset), Schedule(3, 16), selection, workers)
        candidates.run_epoch()
        candidates.keep_trials([1, 2, 4, 7])
        candidates.run_epoch()
        assert [head.config for head in candidates.heads[:: selection.heads]] == [
            configs[k][0] for k in (1, 2, 4, 7)
        ]
        return candidates.trial_probabilities()

    torch.testing.assert_close(said(3), said(1), atol=1e-5, rtol=0)
