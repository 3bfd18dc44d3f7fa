"""`evaluate` of heads that say arousal and valence, alone or beside classes."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from corpora.base.errors import ConfigError, ManifestError
from corpora.base.work import Work
from corpora.manifest import Manifest, write_manifest
from finetune.config import EvaluateConfig
from finetune.evaluate.evaluate import evaluate
from finetune.evaluate.evaluation import Evaluation
from heads.config import SearchConfig
from heads.records import load_head
from heads.search.search import run_search
from tests.finetune.conftest import Searched
from tests.finetune.corpus import LABELS
from tests.finetune.searched import copy_work

SCALES = {"arousal": (1.0, 7.0), "valence": (-1.0, 1.0)}


@pytest.fixture(scope="module")
def rated(manifest: Manifest) -> Manifest:
    """Ratings that follow the class; a test row without a label, another without valence."""
    random = np.random.default_rng(0)
    rows = []
    for u in manifest.utterances:
        level = LABELS.index(u.label)
        arousal = 6 - 2 * level + float(random.uniform(-0.5, 0.5))
        rows.append(replace(u, arousal=arousal, valence=(level - 1) / 2))
    tests = [row for row, u in enumerate(rows) if u.split == "test"]
    rows[tests[0]] = replace(rows[tests[0]], label="")
    rows[tests[1]] = replace(rows[tests[1]], valence=None)
    return replace(manifest, utterances=tuple(rows), scales=SCALES)


@pytest.fixture(scope="module", params=["attributes", "both"])
def work(
    request: pytest.FixtureRequest,
    searched: Searched,
    rated: Manifest,
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Work, str]:
    """A search for attributes in a work folder of its own."""
    work = copy_work(searched.work, tmp_path_factory.mktemp(request.param) / "work")
    write_manifest(rated, work.manifest)
    shutil.rmtree(work.search)
    config = SearchConfig(
        targets=request.param, trials=2, epochs=2, folds="off", batch_size=8, device="cpu"
    )
    run_search(work, rated, config)
    return work, request.param


def written(found: Evaluation) -> list[dict[str, str]]:
    with (found.folder / "predictions.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def ccc(rows: list[dict[str, str]], name: str) -> float:
    """Lin's coefficient of what was written, in float64."""
    pairs = [(row[name], row[f"gold_{name}"]) for row in rows if row[f"gold_{name}"]]
    x, y = np.array(pairs, np.float64).T
    covariance = np.mean((x - x.mean()) * (y - y.mean()))
    return float(2 * covariance / (x.var() + y.var() + (x.mean() - y.mean()) ** 2))


def test_scores_are_the_searchs_and_those_of_the_file(
    work: tuple[Work, str], rated: Manifest
) -> None:
    folder, targets = work
    found = evaluate(folder, rated, config=EvaluateConfig("head", calibration=True))
    _, record = load_head(folder.search)
    assert found.attributes is not None
    expected = record.attribute_scores["test"]
    assert found.attributes.mean_ccc == pytest.approx(expected.mean_ccc, abs=1e-6)
    rows = written(found)
    assert len(rows) == 9
    for one in found.attributes.per_attribute:
        assert one.ccc == pytest.approx(ccc(rows, one.name), abs=1e-5)
    assert [one.n for one in found.attributes.per_attribute] == [9, 8]
    report = json.loads((found.folder / "report.json").read_text())
    assert report["attributes"]["mean_ccc"] == found.attributes.mean_ccc
    text = " ".join(found.to_text().split())
    assert "9 rated" in text
    if targets == "both":
        assert found.report.macro_f1 == pytest.approx(record.scores["test"].macro_f1)
        assert found.report.n == 8
        assert found.calibration is not None
        assert "8 utterances, 9 rated" in text
    else:
        assert found.classes is None
        assert report["report"] is None
        assert "macro-F1" not in text
        assert "No calibration: of attributes alone" in text


def test_an_ensemble_of_one_twice_says_what_one_says_and_is_compared_by_its_objective(
    work: tuple[Work, str], rated: Manifest
) -> None:
    folder, targets = work
    alone = evaluate(folder, rated, config=EvaluateConfig("head"))
    config = EvaluateConfig(models=(folder.search, folder.search), against=(folder.search,))
    twice = evaluate(folder, rated, config=config)
    assert twice.attributes == alone.attributes
    [against] = twice.against
    assert alone.attributes is not None
    expected = alone.attributes.mean_ccc
    if targets == "both":
        expected = (expected + alone.report.macro_f1) / 2
        assert against.objective == "mean of macro-F1 and CCC"
    assert against.own == against.other == pytest.approx(expected)


def test_only_some_labels_keep_the_attributes_of_their_rows(
    work: tuple[Work, str], rated: Manifest
) -> None:
    folder, targets = work
    config = EvaluateConfig("head", labels=LABELS[:2])
    if targets == "attributes":
        with pytest.raises(ConfigError, match="anger"):
            evaluate(folder, rated, config=config)
        return
    found = evaluate(folder, rated, config=config)
    assert found.attributes is not None
    assert {row["gold"] for row in written(found)} == set(LABELS[:2])
    whole = {row["id"]: row for row in written(evaluate(folder, rated))}
    for row in written(found):
        assert row["arousal"] == whole[row["id"]]["arousal"]


def test_another_scale_and_other_attributes_are_refused(
    work: tuple[Work, str], rated: Manifest, searched: Searched, tmp_path: Path
) -> None:
    folder, _ = work
    other = replace(rated, scales={**SCALES, "arousal": (1.0, 9.0)}, corpus="other")
    with pytest.raises(ManifestError, match="arousal from 1 to 9 instead of 1 to 7"):
        evaluate(folder, other, config=EvaluateConfig("head"))
    with pytest.raises(ConfigError, match="the attributes differ"):
        evaluate(folder, rated, config=EvaluateConfig("head", against=(searched.work.search,)))
    unrated = replace(
        rated,
        corpus="other",
        utterances=tuple(
            replace(u, arousal=None, valence=None, label="") for u in rated.utterances
        ),
    )
    with pytest.raises(ManifestError, match=r"no utterance .*rated for arousal, valence"):
        evaluate(folder, unrated, config=EvaluateConfig("head"))


def test_ratings_that_changed_are_another_manifest(work: tuple[Work, str], rated: Manifest) -> None:
    first, *others = rated.utterances
    changed = replace(rated, utterances=(replace(first, arousal=1.0), *others))
    with pytest.raises(ConfigError, match="has changed since the head was searched"):
        evaluate(work[0], changed, config=EvaluateConfig("head"))
