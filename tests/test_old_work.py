"""A work folder of an earlier version, with manifest, cache, study, heads and model, is read.

It was made at 7267193 of the tones of `tests.finetune.corpus`, with a speech encoder of random
weights: extract, search --trials 12, finetune --best --epochs 1, evaluate.
"""

from __future__ import annotations

import csv
import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from cli import main
from tests.finetune.corpus import make_corpus

KEPT = Path(__file__).with_name("work_of_7267193.zip")


@pytest.fixture
def work(tmp_path: Path) -> Path:
    make_corpus(tmp_path / "corpus", 24)
    with zipfile.ZipFile(KEPT) as archive:
        archive.extractall(tmp_path / "work")
    return tmp_path / "work"


def run(words: str, work: Path) -> Any:
    done = CliRunner().invoke(main, [*words.split(), "--json", "--work", str(work)])
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


@pytest.mark.parametrize("subject", ["head", "model"])
def test_a_head_and_a_model_say_what_they_said(subject: str, work: Path) -> None:
    kept = work / "evaluation" / f"{subject}-test" / "predictions.csv"
    with kept.open(newline="") as file:
        before = list(csv.DictReader(file))
    shutil.rmtree(work / "evaluation")
    run(f"evaluate --subject {subject} --split test", work)
    with kept.open(newline="") as file:
        after = list(csv.DictReader(file))
    assert [row["id"] for row in before] == [row["id"] for row in after]
    for one, other in zip(before, after, strict=True):
        for name in (name for name in one if name.startswith("p_")):
            assert float(other[name]) == pytest.approx(float(one[name]), abs=2e-4)


def test_its_cache_is_whole_and_its_recordings_are_found_in_it(work: Path) -> None:
    assert run("cache verify", work)["problems"] == []
    streams = run("cache info", work)["streams"]
    read = [one for one in streams if one["last"] and one["layer"] is not None]
    assert [(one["layer"], one["present"], one["complete"]) for one in read] == [(2, 24, True)]


def test_its_head_is_explained_and_its_study_is_named_where_it_cannot_go_on(work: Path) -> None:
    run("explain --subject head --limit 4 --no-plots", work)
    refused = CliRunner().invoke(main, ["search", "--trials", "14", "--work", str(work)])
    assert refused.exit_code == 1
    assert "holds a search over something else" in refused.output


def test_a_trial_that_was_kept_is_scored(work: Path) -> None:
    trials = sorted((work / "search" / "trials").glob("*.json"))
    assert trials
    said = run(f"evaluate --model {trials[0]} --split dev", work)
    assert "macro_f1" in json.dumps(said)
