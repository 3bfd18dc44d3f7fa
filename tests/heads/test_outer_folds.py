"""`search --test-folds`: every utterance is scored once, by a head that never heard its speaker."""

from __future__ import annotations

import csv
import json
from dataclasses import replace

import numpy as np
import pytest

import heads.training
from corpora.base.errors import ConfigError, ManifestError
from corpora.base.work import Work
from corpora.manifest import Manifest
from heads.config import SearchConfig
from heads.dataset import Dataset
from heads.records import load_head
from heads.search.outer_folds import OuterFoldsReport, search_test_folds
from heads.search.space import PROBES
from tests.heads.test_load import FAILED, extracted

Extracted = tuple[Work, Manifest, Dataset]
CONFIG = SearchConfig(trials=len(PROBES), epochs=3, batch_size=16, folds="2")
__all__ = ["extracted"]


def search(found: Extracted, how: str = "4", config: SearchConfig = CONFIG) -> OuterFoldsReport:
    return search_test_folds(found[0], found[1], replace(config, test_folds=how))


def test_every_labelled_utterance_is_scored_once_by_heads_without_its_speaker(
    extracted: Extracted,
) -> None:
    work, manifest, _ = extracted
    report = search(extracted)
    with (work.search / "test_fold_predictions.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    expected = {u.id for u in manifest.utterances if u.id != FAILED}
    assert report.report is not None
    assert report.reference is not None
    assert len(rows) == len(expected) == report.report.n == report.reference.n
    assert {row["id"] for row in rows} == expected
    assert len(report.folds) == 4
    assert sum(fold.report.n for fold in report.folds if fold.report) == len(rows)
    assert all(fold.optimism and fold.optimism.candidates > 1 for fold in report.folds)
    speakers = {u.id: u.speaker for u in manifest.utterances}
    tested = []
    for folder in sorted(path for path in (work.search / "test_folds").iterdir() if path.is_dir()):
        record = load_head(folder)[1]
        assert record.trained_on == "train+dev"
        with (folder / "predictions.csv").open(encoding="utf-8", newline="") as file:
            own = {speakers[row["id"]] for row in csv.DictReader(file)}
        with (folder / "fold_predictions.csv").open(encoding="utf-8", newline="") as file:
            learnt = {speakers[row["id"]] for row in csv.DictReader(file)}
        assert not own & learnt
        tested.append(own)
    assert len(set().union(*tested)) == sum(len(own) for own in tested)


@pytest.mark.slow
def test_a_second_run_trains_nothing_and_says_the_same(
    extracted: Extracted, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = search(extracted)

    def refuse(cohort: heads.training.Cohort) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(heads.training.Cohort, "run_epoch", refuse)
    again = replace(search(extracted), notes=first.notes)  # how much memory is free changes
    assert again.to_json() == first.to_json()


def test_the_json_holds_report_reference_difference_and_folds(extracted: Extracted) -> None:
    report = search(extracted)
    value = json.loads((extracted[0].search / "test_folds.json").read_text())
    for name in ("report", "reference", "difference", "folds"):
        assert name in value
    assert report.report is not None
    assert "attributes" not in value
    assert value["report"]["macro_f1"] == pytest.approx(report.report.macro_f1)
    assert value["report"]["weighted_f1"] == pytest.approx(report.report.weighted_f1)
    text = report.to_text()
    assert "repeated for each fold" in text
    assert "Mean and standard deviation over 4 folds: macro-F1" in text


@pytest.mark.slow
def test_labels_of_a_test_fold_reach_no_head_that_is_scored_on_it(extracted: Extracted) -> None:
    work, manifest, _ = extracted
    before = search(extracted)
    chosen = before.folds[0]
    with (work.search / "test_folds" / "01-1" / "predictions.csv").open() as file:
        own = {row["id"] for row in csv.DictReader(file)}
    following = dict(zip(manifest.labels, manifest.labels[1:] + manifest.labels[:1], strict=True))
    utterances = tuple(
        replace(u, label=following[u.label]) if u.id in own else u for u in manifest.utterances
    )
    config = replace(CONFIG, test_folds="4")
    after = search_test_folds(work, replace(manifest, utterances=utterances), config, fresh=True)
    assert after.folds[0].head == chosen.head
    assert after.folds[0].reference == chosen.reference


@pytest.mark.parametrize(
    ("how", "error", "words"),
    [
        ("protocol", ManifestError, "no folds"),
        ("session", ManifestError, "session"),
        ("speakers", ConfigError, "expected speaker, session, protocol"),
        ("2", ConfigError, "from 3 on"),
    ],
)
def test_what_makes_no_folds_is_refused(
    how: str, error: type[Exception], words: str, extracted: Extracted
) -> None:
    with pytest.raises(error, match=words):
        search(extracted, how)


def test_a_study_in_a_database_is_refused(extracted: Extracted) -> None:
    with pytest.raises(ConfigError, match="--storage"):
        search(extracted, config=replace(CONFIG, storage="sqlite:///x.db"))


SCALES = {"arousal": (1.0, 7.0), "valence": (-1.0, 1.0)}


def rated(manifest: Manifest) -> Manifest:
    """Ratings that follow the class; some rows lack one, some the class."""
    random = np.random.default_rng(0)
    rows = []
    for k, u in enumerate(manifest.utterances):
        level = manifest.labels.index(u.label)
        arousal = None if k % 9 == 2 else 2.0 + level + float(random.uniform(-0.5, 0.5))
        label = "" if k % 7 == 3 else u.label
        rows.append(replace(u, label=label, arousal=arousal, valence=0.5 - level / 4))
    return replace(manifest, utterances=tuple(rows), scales=SCALES)


def ccc(x: np.ndarray, y: np.ndarray) -> float:
    together = np.mean((x - x.mean()) * (y - y.mean()))
    return float(2 * together / (x.var() + y.var() + (x.mean() - y.mean()) ** 2))


@pytest.mark.parametrize("targets", ["attributes", pytest.param("both", marks=pytest.mark.slow)])
def test_attributes_are_scored_once_each_beside_ridge_on_the_same_folds(
    targets: str, extracted: Extracted
) -> None:
    work, manifest = extracted[0], rated(extracted[1])
    config = replace(CONFIG, targets=targets, test_folds="4", trials=12)
    report = search_test_folds(work, manifest, config, fresh=True)
    with (work.search / "test_fold_predictions.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len({row["id"] for row in rows}) == len(rows) == len(manifest.utterances) - 1
    assert report.attributes is not None
    assert report.reference_attributes is not None
    ridge: dict[str, list[float]] = {}
    for folder in sorted(path for path in (work.search / "test_folds").iterdir() if path.is_dir()):
        said = json.loads((folder / "ridge.json").read_text())["predicted"]["test"]
        with (folder / "predictions.csv").open(encoding="utf-8", newline="") as file:
            own = [row["id"] for row in csv.DictReader(file) if row["split"] == "test"]
        ridge |= dict(zip(own, said, strict=True))
    means = []
    for at, name in enumerate(SCALES):
        known = [row for row in rows if row[f"gold_{name}"]]
        gold = np.array([float(row[f"gold_{name}"]) for row in known])
        head = ccc(np.array([float(row[name]) for row in known]), gold)
        other = ccc(np.array([ridge[row["id"]][at] for row in known]), gold)
        means.append((head, other))
        found = report.attributes.per_attribute[at]
        assert found.n == len(known)
        assert found.ccc == pytest.approx(head, abs=1e-5)
        reference = report.reference_attributes.per_attribute[at]
        assert reference.ccc == pytest.approx(other, abs=1e-6)
    lead = np.mean([head - other for head, other in means])
    value = json.loads((work.search / "test_folds.json").read_text())
    assert value["attributes"]["mean_ccc"] == pytest.approx(np.mean(means, axis=0)[0], abs=1e-5)
    text = report.to_text()
    assert all("ridge regression" in fold.reference for fold in report.folds)
    if targets == "both":
        assert report.report is not None
        assert report.reference is not None
        lead = (lead + report.report.macro_f1 - report.reference.macro_f1) / 2
        assert report.objective == "mean of macro-F1 and CCC"
    else:
        assert value["report"] is None
        assert "macro-F1" not in text
    assert report.lead == pytest.approx(lead, abs=1e-5)
    if report.difference is not None:
        assert report.difference.value == pytest.approx(lead, abs=1e-5)


@pytest.mark.slow
def test_folds_by_speaker_need_no_labels_where_ratings_are_learnt(extracted: Extracted) -> None:
    manifest = rated(extracted[1])
    bare = tuple(replace(u, label="") for u in manifest.utterances)
    config = replace(CONFIG, targets="attributes", test_folds="speaker", trials=11)
    unlabelled = replace(manifest, utterances=bare)
    report = search_test_folds(extracted[0], unlabelled, config, fresh=True)
    assert len(report.folds) == len({u.speaker for u in bare})
    assert report.reference_attributes is not None
