"""`--labels`: what is said of some labels alone, by heads, models and ensembles."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from cli import main
from corpora.base.errors import ConfigError, ManifestError
from corpora.base.work import Work
from corpora.label_map import chosen_labels, parse_labels
from corpora.manifest import Manifest, Utterance, write_manifest
from finetune.config import EvaluateConfig
from finetune.evaluate.calibration import renormalised
from finetune.evaluate.evaluate import evaluate
from finetune.evaluate.evaluation import Evaluation
from finetune.model import EmotionModel
from finetune.predict.answering import predict
from finetune.predict.prediction import Prediction
from tests.finetune.conftest import Searched
from tests.finetune.corpus import LABELS, make_model
from tests.finetune.searched import copy_work

KEPT = ("anger", "sadness")


@pytest.fixture
def work(searched: Searched, tmp_path: Path) -> Work:
    return copy_work(searched.work, tmp_path / "work")


@pytest.fixture(scope="module")
def models(encoders: Path) -> list[EmotionModel]:
    return [make_model(encoders), make_model(encoders, {"kind": "statistics"})]


def written(evaluation: Evaluation) -> dict[str, dict[str, float]]:
    """Probabilities by id and label."""
    with (evaluation.folder / "predictions.csv").open(encoding="utf-8", newline="") as file:
        return {
            row["id"]: {n.removeprefix("p_"): float(p) for n, p in row.items() if n[:2] == "p_"}
            for row in csv.DictReader(file)
        }


def test_probabilities_of_two_labels_are_those_of_three_over_their_sum(
    work: Work, manifest: Manifest
) -> None:
    whole = evaluate(work, manifest, config=EvaluateConfig("head"))
    found = evaluate(work, manifest, config=EvaluateConfig("head", labels=("sadness", "anger")))
    assert found.only_labels == KEPT  # in the head's order
    expected = {
        u.id: written(whole)[u.id] for u in manifest.in_split("test") if u.label != "neutral"
    }
    assert list(written(found)) == list(expected)
    for name, row in written(found).items():
        assert list(row) == list(KEPT)
        total = sum(expected[name][label] for label in KEPT)
        assert list(row.values()) == pytest.approx(
            [expected[name][label] / total for label in KEPT], abs=1e-5
        )
    assert found.report.labels == KEPT
    assert found.left_out == 9 - len(expected)
    # Neither the scores of all labels nor a model card's are written over.
    assert found.folder.name == "head-test-anger+sadness"
    said = " ".join(found.to_text().split())
    assert "Only anger, sadness: probabilities are renormalised over these labels, and 3" in said
    report = json.loads((found.folder / "report.json").read_text())
    assert (report["only_labels"], report["left_out"]) == (list(KEPT), 3)


def test_labels_that_nobody_learnt_are_left_out_with_the_others(
    work: Work, manifest: Manifest
) -> None:
    rows = tuple(
        replace(u, label="joy") if u.label == "neutral" else u for u in manifest.utterances
    )
    other = Manifest(rows, ("anger", "joy", "sadness"), "others")
    found = evaluate(work, other, config=EvaluateConfig("head", labels=KEPT))
    assert (found.left_out, found.report.n) == (3, 6)
    alone = replace(other, utterances=tuple(replace(u, label="joy") for u in rows))
    with pytest.raises(ManifestError, match="no utterance with one of the labels anger, sadness"):
        evaluate(work, alone, config=EvaluateConfig("head", labels=KEPT))


def test_calibration_and_comparison_are_of_these_labels_too(work: Work, manifest: Manifest) -> None:
    write_manifest(manifest, work.manifest)
    config = EvaluateConfig("head", labels=KEPT, calibration=True, against=(work.search,))
    found = evaluate(work, manifest, config=config)
    assert found.calibration is not None
    assert found.calibration.fitted == sum(u.label in KEPT for u in manifest.in_split("dev"))
    [same] = found.against
    assert same.own == same.other == found.report.macro_f1


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ("anger,joy", "does not know 'joy'. Known labels: anger, neutral, sadness."),
        ("anger,sadnes", "does not know 'sadnes'. Known labels: anger, neutral, sadness. Did you"),
        ("anger", "at least two are needed. Known labels"),
        ("anger,anger", "at least two are needed"),
        ("anger,", "does not know ''"),
        ("", "does not know ''"),
    ],
)
@pytest.mark.parametrize("command", ["evaluate", "predict"])
def test_other_labels_are_refused_in_a_sentence(
    command: str, labels: str, message: str, searched: Searched, manifest: Manifest
) -> None:
    words = [command, "--labels", labels, "--work", str(searched.work.root)]
    more = ["--subject", "head"] if command == "evaluate" else ["--split", "test"]
    done = CliRunner().invoke(main, [*words, *more])
    assert done.exit_code == 1
    assert message in " ".join(done.output.split())
    assert "Traceback" not in done.output


def test_labels_are_read_as_manifests_spell_them() -> None:
    assert parse_labels(" fear ,cafe\u0301") == ("fear", "caf\u00e9")
    assert chosen_labels(("a", "b", "c"), ("c", "a", "c"), "it") == ("a", "c")
    with pytest.raises(ConfigError, match="it does not know 'd' and 'e'"):
        chosen_labels(("a", "b"), ("d", "e"), "it")


def test_labels_that_are_all_0_are_equally_probable() -> None:
    found = renormalised(torch.tensor([[1.0, 0.0, 0.0], [0.5, 0.2, 0.3]]), "abc", "cb")
    np.testing.assert_allclose(found, [[0.5, 0.5], [0.6, 0.4]], rtol=1e-6)


def test_an_ensemble_is_the_mean_of_what_each_says_of_these_labels(
    models: list[EmotionModel], manifest: Manifest
) -> None:
    rows = [Utterance(u.id, u.audio, "", text=u.text) for u in manifest.utterances[:5]]
    each = [list(predict([one], rows)) for one in models]
    found = list(predict(models, rows, labels=KEPT))
    for number, one in enumerate(found):
        assert isinstance(one, Prediction)
        pair = [own[number].probabilities for own in each]  # type: ignore[union-attr]
        parts = [{n: p[n] / (p["anger"] + p["sadness"]) for n in KEPT} for p in pair]
        expected = {n: (parts[0][n] + parts[1][n]) / 2 for n in KEPT}
        assert one.probabilities == pytest.approx(expected)
        assert one.label == max(expected, key=expected.__getitem__)
        assert one.other_labels == pytest.approx(np.mean([p["neutral"] for p in pair]))
    assert all(one.other_labels is None for own in each for one in own)  # type: ignore[union-attr]
    everything = list(predict(models[:1], rows, labels=LABELS))
    assert everything == each[0]


def test_the_command_says_so_and_agrees_with_evaluate(work: Work, manifest: Manifest) -> None:
    write_manifest(manifest, work.manifest)
    config = EvaluateConfig("head", labels=KEPT)
    expected = written(evaluate(work, manifest, config=config))
    words = ["predict", "--work", str(work.root), "--split", "test", "--labels", "anger,sadness"]
    done = CliRunner().invoke(main, [*words, "--json"])
    assert done.exit_code == 0, done.output
    assert "Only anger, sadness: probabilities are renormalised over these" in done.stderr
    found = {one["id"]: one for one in map(json.loads, done.stdout.splitlines())}
    for name, row in expected.items():
        assert found[name]["probabilities"] == pytest.approx(row, abs=1e-4)
        assert 0 < found[name]["other_labels"] < 1
    table = CliRunner().invoke(main, words).stdout.splitlines()
    assert "other labels" in table[0]
