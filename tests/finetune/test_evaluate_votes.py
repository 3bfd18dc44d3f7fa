"""`evaluate --votes`: heads and models against shares of planted votes, in text and in files."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from scipy.spatial.distance import jensenshannon

from cli import main
from corpora.base.errors import ConfigError
from corpora.base.work import Work
from corpora.manifest import Manifest, write_manifest
from finetune.config import EvaluateConfig
from finetune.evaluate.evaluate import evaluate
from finetune.evaluate.evaluation import Evaluation
from tests.finetune.conftest import Searched
from tests.finetune.corpus import LABELS, LAST
from tests.finetune.searched import copy_work


@pytest.fixture
def work(searched: Searched, tmp_path: Path) -> Work:
    return copy_work(searched.work, tmp_path / "work")


@pytest.fixture
def voted(manifest: Manifest) -> Manifest:
    """Three of five raters hear the label, two another one; one test row has no votes."""
    rows = []
    for number, u in enumerate(manifest.utterances):
        other = LABELS[(LABELS.index(u.label) + 1 + number % 2) % 3]
        rows.append(replace(u, votes={u.label: 3.0, other: 2.0, "other": 1.0}))
    last = max(row for row, u in enumerate(rows) if u.split == "test")
    rows[last] = replace(rows[last], votes=None)
    return replace(manifest, utterances=tuple(rows))


def mean_js(evaluation: Evaluation, manifest: Manifest) -> float:
    """From the probabilities as they were written."""
    with (evaluation.folder / "predictions.csv").open(encoding="utf-8", newline="") as file:
        said = {
            row["id"]: [float(row[f"p_{label}"]) for label in LABELS]
            for row in csv.DictReader(file)
        }
    voted = [u for u in manifest.in_split("test") if u.votes]
    votes = np.array([[(u.votes or {}).get(label, 0.0) for label in LABELS] for u in voted])
    answer = np.array([said[u.id] for u in voted])
    return float(np.mean(jensenshannon(votes, answer, axis=1) ** 2))


@pytest.mark.parametrize("subject", ["head", "model"])
def test_whatever_is_scored_is_scored_as_votes(
    subject: str, work: Work, voted: Manifest, searched: Searched
) -> None:
    if subject == "model":
        from finetune.assembly import assemble

        directories = {name: work.encoders / f"tiny-{name}" for name in LAST}
        model = assemble(searched.head, directories, LAST, speech_dtype="float32")
        model.save_pretrained(work.model)
    found = evaluate(work, voted, config=EvaluateConfig(subject, votes=True))
    assert found.votes is not None
    assert (found.votes.n, found.votes.without) == (8, 1)
    assert found.votes.outside == pytest.approx(1 / 6)
    assert found.votes.scores.js == pytest.approx(mean_js(found, voted), abs=1e-6)
    train = [u.label for u in voted.in_split("train")]
    assert found.votes.majority == max(LABELS, key=train.count)
    report = json.loads((found.folder / "report.json").read_text())
    assert report["votes"] == found.votes.to_json()
    with (found.folder / "votes.csv").open(encoding="utf-8", newline="") as file:
        rows = {row["score"]: row for row in csv.DictReader(file)}
    assert float(rows["JS divergence (nats)"][subject]) == found.votes.scores.js
    assert rows["macro-F1 at p > 1/K"]["uniform"] == "0.0"
    text = found.to_text()
    assert "As votes: 8 utterances" in text
    assert f"majority ({found.votes.majority})" in text
    assert str(found.folder / "votes-by-entropy.csv") in text


def test_an_evaluation_without_votes_leaves_no_older_ones_behind(
    work: Work, voted: Manifest
) -> None:
    before = evaluate(work, voted, config=EvaluateConfig("head", votes=True))
    after = evaluate(work, voted, config=EvaluateConfig("head"))
    assert after.folder == before.folder
    assert after.report == before.report
    assert json.loads((after.folder / "report.json").read_text())["votes"] is None
    assert not list(after.folder.glob("votes*"))


def test_a_manifest_without_votes_is_refused_before_anything_is_scored(
    work: Work, manifest: Manifest
) -> None:
    with pytest.raises(ConfigError, match="has a vote for any of anger, neutral, sadness"):
        evaluate(work, manifest, config=EvaluateConfig("head", votes=True))
    assert not work.evaluation.exists()


def test_the_command_combines_votes_labels_and_a_map(
    work: Work, voted: Manifest, tmp_path: Path
) -> None:
    rows = tuple(
        replace(
            u,
            label=u.label.replace("anger", "ang"),
            votes=None
            if u.votes is None
            else {n.replace("anger", "ang"): v for n, v in u.votes.items()},
        )
        for u in voted.utterances
    )
    path = tmp_path / "other.csv"
    write_manifest(replace(voted, utterances=rows, labels=("ang", *LABELS[1:]), corpus="o"), path)
    words = [
        "evaluate",
        "--subject",
        "head",
        "--votes",
        "--labels",
        "anger,sadness",
        "--map",
        "ang=anger",
        "--json",
    ]
    done = CliRunner().invoke(main, [*words, "--work", str(work.root), "--manifest", str(path)])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["only_labels"] == ["anger", "sadness"]
    kept = [u for u in voted.in_split("test") if u.label != "neutral"]
    assert found["left_out"] == len(voted.in_split("test")) - len(kept)
    assert found["report"]["n"] == len(kept)
    # Votes for neutral are votes for another label here.
    assert found["votes"]["n"] + found["votes"]["without"] == len(kept)
    assert found["votes"]["outside"] > 1 / 6
