"""What a search writes, and reading it back."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from optuna.trial import TrialState

from corpora.base.errors import CacheError, FormatVersionError, MissingStepError
from corpora.base.files import write_json
from heads.gold import Gold, selection_scores
from heads.head import Head
from heads.metrics import Scores, classification_report
from heads.predict import predict
from heads.records import (
    HeadRecord,
    best_numbers,
    load_head,
    save_head,
    trial_file,
)
from heads.reference import Reference
from heads.search.report import SearchReport
from heads.vector_store import VectorStore
from tests.heads.searches import (
    TRIALS,
    make_origin,
    small_dataset,
    small_search,
    stored_trials,
)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> SearchReport:
    return small_search(tmp_path_factory.mktemp("work") / "search", TRIALS)


@pytest.fixture
def copied(done: SearchReport, tmp_path: Path) -> Path:
    """A copy of the best head, to be spoilt."""
    for name in ("best.json", "head.safetensors"):
        (tmp_path / name).write_bytes((done.folder / name).read_bytes())
    return tmp_path


def read_table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_kept_weights_give_the_score_that_was_recorded(done: SearchReport) -> None:
    store = VectorStore(small_dataset())
    for line in done.top:
        head, record = load_head(trial_file(done.folder, line.number))
        assert record.trial == line.number
        rows = store.dataset.rows("dev")
        (score,) = selection_scores(predict([head], store, rows), Gold.of(store.dataset, rows))
        assert score == pytest.approx(line.dev_macro_f1)
        assert record.dev_macro_f1 == line.dev_macro_f1


def test_the_weights_of_the_ten_best_are_kept_and_no_others(done: SearchReport) -> None:
    complete = [t for t in stored_trials(done.folder) if t.state == TrialState.COMPLETE]
    assert len(complete) > 10
    expected = best_numbers({trial.number: trial.value or 0.0 for trial in complete})
    names = {path.name for path in (done.folder / "trials").iterdir()}
    assert names == {f"{n:05}{end}" for n in expected for end in (".json", ".safetensors")}
    assert done.best.trial in expected


def test_of_equal_trials_the_earlier_one_is_better() -> None:
    assert best_numbers({3: 0.5, 1: 0.5, 2: 0.7}) == [2, 1, 3]


def test_the_best_head_is_the_kept_trial_of_its_number(done: SearchReport) -> None:
    best, record = load_head(done.folder)
    kept, _ = load_head(trial_file(done.folder, record.trial))
    for name, value in best.state_dict().items():
        assert torch.equal(value, kept.state_dict()[name])


def test_the_best_record_says_what_it_is_made_from(done: SearchReport) -> None:
    record = load_head(done.folder / "best.json")[1]
    assert record == done.best
    assert record.origin == make_origin()
    assert set(record.scores) == {"dev", "test"}
    assert record.schedule.epochs == 9
    assert record.training.seed == stored_trials(done.folder)[record.trial].user_attrs["seed"]
    assert {"emopool", "torch", "optuna"} <= set(record.versions)


def test_scores_follow_from_the_predictions_file(done: SearchReport) -> None:
    rows = read_table(done.folder / "predictions.csv")
    dataset = small_dataset()
    assert [row["id"] for row in rows] == [
        u.id for split in ("dev", "test") for u in dataset.utterances if u.split == split
    ]
    speakers = {u.id: u.speaker for u in dataset.utterances}
    for split in ("dev", "test"):
        own = [row for row in rows if row["split"] == split]
        values = np.array([[float(row[f"p_{label}"]) for label in dataset.labels] for row in own])
        np.testing.assert_allclose(values.sum(1), 1, atol=1e-6)
        report = classification_report(
            [row["gold"] for row in own],
            values,
            dataset.labels,
            [speakers[row["id"]] for row in own],
        )
        assert report == done.best.scores[split]


def test_every_trial_has_a_row_in_the_table(done: SearchReport) -> None:
    rows = read_table(done.folder / "trials.csv")
    for row, trial in zip(rows, stored_trials(done.folder), strict=True):
        assert row["number"] == str(trial.number)
        assert row["state"] == trial.state.name.lower()
        assert float(row["dev_macro_f1"]) == trial.value
        assert row["epochs"] == str(trial.last_step)
        for axis, value in trial.params.items():
            assert row[axis] == str(value)


def test_the_best_head_may_come_from_an_earlier_session(tmp_path: Path) -> None:
    folder = tmp_path / "search"
    first = small_search(folder, 12)
    second = small_search(folder, 14)
    assert second.best.dev_macro_f1 >= first.best.dev_macro_f1
    assert load_head(folder)[1].trial == second.best.trial


def test_reports_survive_json(done: SearchReport) -> None:
    gold = np.arange(60) % 3
    report = classification_report(gold, gold, ("a", "b", "c"), [f"s{k % 10}" for k in range(60)])
    assert report.intervals is not None
    for entry in (report, *done.best.scores.values()):
        assert Scores.from_json(json.loads(json.dumps(entry.to_json()))) == entry


def test_records_survive_json(done: SearchReport) -> None:
    assert HeadRecord.from_json(json.loads(json.dumps(done.best.to_json()))) == done.best
    assert done.reference is not None
    assert Reference.from_json(json.loads(json.dumps(done.reference.to_json()))) == done.reference


def test_a_missing_head_is_refused_with_the_command_that_makes_one(tmp_path: Path) -> None:
    with pytest.raises(MissingStepError, match=r"cli\.py search"):
        load_head(tmp_path)


def test_missing_weights_are_refused(copied: Path) -> None:
    (copied / "head.safetensors").unlink()
    with pytest.raises(MissingStepError, match=r"head\.safetensors"):
        load_head(copied)


def test_altered_weights_are_refused(copied: Path) -> None:
    data = bytearray((copied / "head.safetensors").read_bytes())
    data[-1] ^= 1
    (copied / "head.safetensors").write_bytes(data)
    with pytest.raises(CacheError, match="SHA-256"):
        load_head(copied)


def alter(path: Path, **changes: Any) -> None:
    write_json(path, {**json.loads(path.read_text()), **changes})


@pytest.mark.parametrize(
    "changes", [{"version": 2}, {"format": "other"}, {"head": {}}, {"weights": None}]
)
def test_another_format_is_refused(changes: dict[str, Any], copied: Path) -> None:
    alter(copied / "best.json", **changes)
    with pytest.raises(FormatVersionError, match=r"best\.json"):
        load_head(copied)


def test_a_description_of_another_head_is_refused(copied: Path) -> None:
    value = json.loads((copied / "best.json").read_text())["head"]
    alter(copied / "best.json", head={**value, "mlp_width": value["mlp_width"] + 1})
    with pytest.raises(CacheError, match="another head"):
        load_head(copied)


@pytest.mark.parametrize("width", [10**9, 10**20])
def test_an_immense_head_is_refused_before_memory_is_taken(width: int, copied: Path) -> None:
    value = json.loads((copied / "best.json").read_text())["head"]
    alter(copied / "best.json", head={**value, "mlp_width": width})
    with pytest.raises(CacheError, match="another head"):
        load_head(copied)


def reverse(value: dict[str, Any]) -> None:
    value["labels"].reverse()


def reverse_both(value: dict[str, Any]) -> None:
    value["labels"].reverse()
    value["head"]["labels"].reverse()


def another_score(value: dict[str, Any]) -> None:
    value["dev_macro_f1"] += 0.01


@pytest.mark.parametrize("change", [reverse, reverse_both, another_score])
def test_values_that_were_changed_are_refused(
    change: Callable[[dict[str, Any]], None], copied: Path
) -> None:
    """Labels in another order would turn one emotion into another."""
    path = copied / "best.json"
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))
    with pytest.raises(FormatVersionError, match=r"best\.json was altered"):
        load_head(copied)


def test_labels_that_contradict_the_heads_are_refused(copied: Path) -> None:
    alter(copied / "best.json", labels=["neutral", "anger", "sadness"])
    with pytest.raises(FormatVersionError, match=r"best\.json was altered.*neutral"):
        load_head(copied)


def test_layout_and_order_of_keys_do_not_count(copied: Path) -> None:
    path = copied / "best.json"
    value = json.loads(path.read_text())
    path.write_text(json.dumps(dict(reversed(value.items()))))
    assert load_head(copied)[1].trial == value["trial"]


def test_input_statistics_are_kept_with_the_weights(done: SearchReport, tmp_path: Path) -> None:
    config = HeadRecord.from_json(
        {**done.best.to_json(), "head": {**done.best.head.to_json(), "input_norm": "standardise"}}
    ).head
    head = Head(config)
    for modality in config.modalities:
        head.set_input_statistics(modality, torch.full((8,), 2.0), torch.full((8,), 3.0))
    record = HeadRecord(**{**vars(done.best), "head": config})
    save_head(tmp_path / "best.json", tmp_path / "head.safetensors", head, record)
    affine = load_head(tmp_path)[0].affine(config.modalities[0])
    assert affine is not None
    assert affine.scale.tolist() == [3.0] * 8


def test_records_of_earlier_versions_can_be_read(copied: Path) -> None:
    value = json.loads((copied / "best.json").read_text())
    value["published"] = value.pop("start")
    del value["trained_on"], value["training"]["scorer_rate"], value["schedule"]["frames"]
    del value["digest"]
    (copied / "best.json").write_text(json.dumps(value))
    record = load_head(copied)[1]
    assert record.start == value["published"]
    assert record.trained_on == "train"
    # They had one rate for all parameters, and read all frames.
    assert record.training.scorer_rate == 1.0
    assert record.schedule.frames is None


def test_a_head_read_again_says_the_same_to_the_bit(done: SearchReport) -> None:
    store = VectorStore(small_dataset())
    rows = store.dataset.rows("test")
    one, two = (load_head(done.folder)[0] for _ in range(2))
    fresh = Head(one.config)
    fresh.load_state_dict(one.state_dict())
    assert torch.equal(predict([fresh], store, rows), predict([two], store, rows))
