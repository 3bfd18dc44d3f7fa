"""Trained on one corpus, scored on another: labels renamed, a table by corpus, folders apart."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from cli import main
from corpora.base.errors import ManifestError, MissingStepError
from corpora.base.work import Work
from corpora.label_map import likely, map_manifest, parse_label_map
from corpora.manifest import Manifest, write_manifest
from finetune.config import EvaluateConfig
from finetune.evaluate.evaluate import evaluate
from finetune.evaluate.evaluation import evaluation_folder
from tests.finetune.conftest import Searched
from tests.finetune.scoring import evaluate_head
from tests.finetune.searched import copy_work

NAMES = {"anger": "ang", "neutral": "neu", "sadness": "sad"}


@pytest.fixture
def work(searched: Searched, tmp_path: Path) -> Work:
    return copy_work(searched.work, tmp_path / "work")


@pytest.fixture
def other(manifest: Manifest) -> Manifest:
    """The same recordings as another corpus with labels of its own."""
    rows = tuple(replace(u, label=NAMES[u.label], corpus="others") for u in manifest.utterances)
    return Manifest(rows, tuple(NAMES.values()), "others")


def test_another_corpus_is_scored_once_its_labels_are_renamed(
    work: Work, manifest: Manifest, other: Manifest
) -> None:
    labels = parse_label_map([f"{new}={old}" for old, new in NAMES.items()])
    found = evaluate_head(work, map_manifest(other, labels))
    assert found.report == evaluate_head(work, manifest).report
    assert found.folder.name == "head-test-others"


def test_scores_on_another_corpus_leave_those_on_the_own_one_alone(
    work: Work, manifest: Manifest, other: Manifest
) -> None:
    evaluate_head(work, manifest)
    report = evaluation_folder(work.evaluation, "head", "test") / "report.json"
    before = report.read_bytes()
    labels = parse_label_map(["ang=anger", "neu=neutral", "sad="])
    assert evaluate_head(work, map_manifest(other, labels)).report.n < 12
    assert report.read_bytes() == before


def test_labels_that_were_not_trained_on_say_how_to_rename_them(
    work: Work, other: Manifest
) -> None:
    with pytest.raises(ManifestError, match=r"Rename them with --map ang=anger.*--map ang="):
        evaluate_head(work, other)


@pytest.mark.parametrize(
    ("label", "labels", "meant"),
    [
        ("hap", ("anger", "happiness"), "happiness"),
        ("HAPPY", ("anger", "happiness"), "happiness"),
        ("fearful", ("fear", "neutral"), "fear"),
        ("anger", ("neutral", "happy"), ""),  # not the first of the others
        ("sa", ("sadness", "neutral"), ""),
        ("surp", ("surprise", "surprise_positive"), ""),
        ("exc", ("happiness",), ""),
    ],
)
def test_a_label_is_only_taken_for_one_that_begins_alike(
    label: str, labels: tuple[str, ...], meant: str
) -> None:
    assert likely(label, labels) == meant


def test_a_label_that_is_like_none_is_mapped_to_nothing_in_the_message(
    work: Work, manifest: Manifest
) -> None:
    rows = tuple(replace(u, label="calm") for u in manifest.utterances)
    with pytest.raises(ManifestError, match=r"--map calm=NEW \(NEW: one of those.*--map calm=,"):
        evaluate_head(work, replace(manifest, utterances=rows, labels=("calm",), corpus="others"))


def test_content_tells_which_recordings_of_another_manifest_were_trained_on(
    work: Work, manifest: Manifest
) -> None:
    write_manifest(manifest, work.manifest)  # its paths are relative to where it lies
    names = {u.id: u.split for u in manifest.utterances}
    # The same recordings under other names; what is called test now was trained on, or was not.
    for home, said in (
        ("test", "by their content none of these"),
        ("train", "which flatters it"),
    ):
        rows = tuple(
            replace(u, id=f"o-{u.id}", corpus="others", split="test" if u.split == home else "")
            for u in manifest.utterances
        )
        count = list(names.values()).count(home)
        found = evaluate_head(work, Manifest(rows, manifest.labels, "others"))
        assert said in found.note
        assert f"of these {count} recordings" in found.note
    work.manifest.unlink()
    assert "cannot be told" in evaluate_head(work, Manifest(rows, manifest.labels, "others")).note


def test_all_scores_every_labelled_utterance_and_says_what_was_trained_on(
    work: Work, manifest: Manifest
) -> None:
    unused = replace(manifest.utterances[0], split="", label="")
    every = evaluate_head(work, manifest, "all")
    assert every.report.n == len(manifest.utterances)
    assert "trained and chosen on" in every.note
    assert every.folder.name == "head-all"
    lines = (every.folder / "predictions.csv").read_text().splitlines()[1:]
    assert [line.split(",")[:2] for line in lines if ",test," in line] == [
        [u.id, "test"] for u in manifest.utterances if u.split == "test"
    ]
    assert len(lines) == len(manifest.utterances)
    # Of another corpus without any splits, and without a note on training.
    rows = tuple(
        replace(u, split="", corpus="others") for u in manifest.utterances if u.split == "test"
    )
    other = Manifest((*rows, replace(unused, corpus="others")), manifest.labels, "others")
    with pytest.raises(ManifestError, match="in test"):
        evaluate_head(work, other)
    found = evaluate_head(work, other, "all")
    assert found.report.n == len(rows)
    assert "whole manifest" in found.to_text()
    assert found.report.confusion == evaluate_head(work, manifest).report.confusion


def test_without_a_search_the_head_asked_for_is_said_to_need_one(
    tmp_path: Path, manifest: Manifest
) -> None:
    for subject in ("head", ""):
        with pytest.raises(MissingStepError, match=r"No head at .*cli\.py search"):
            evaluate(Work(tmp_path), manifest, config=EvaluateConfig(subject=subject))
    with pytest.raises(MissingStepError, match="finetune --best"):
        evaluate(Work(tmp_path), manifest, config=EvaluateConfig(subject="model"))


def test_a_split_of_several_corpora_gets_a_table_by_corpus(work: Work, manifest: Manifest) -> None:
    rows = tuple(
        replace(u, corpus="ab"[number % 2]) for number, u in enumerate(manifest.utterances)
    )
    found = evaluate_head(work, replace(manifest, utterances=rows, corpus="a+b"))
    assert list(found.by_corpus) == ["a", "b"]
    assert sum(report.n for report in found.by_corpus.values()) == found.report.n
    correct = sum(report.accuracy * report.n for report in found.by_corpus.values())
    assert correct == pytest.approx(found.report.accuracy * found.report.n)
    assert "corpus  macro-F1" in found.to_text()
    assert set(found.to_json()["by_corpus"]) == {"a", "b"}


def test_one_corpus_gets_no_table(work: Work, manifest: Manifest) -> None:
    found = evaluate_head(work, manifest)
    assert not found.by_corpus
    assert "corpus  macro-F1" not in found.to_text()


def test_splits_that_share_speakers_are_said_to(work: Work, manifest: Manifest) -> None:
    found = evaluate_head(work, replace(manifest, shared_speakers=True))
    assert "share speakers, as declared" in found.to_text()
    assert found.to_json()["shared_speakers"]


def test_the_command_takes_the_map(work: Work, other: Manifest, tmp_path: Path) -> None:
    path = tmp_path / "other.csv"
    write_manifest(other, path)
    words = ["evaluate", "--subject", "head", "--work", str(work.root), "--manifest", str(path)]
    maps = [word for old, new in NAMES.items() for word in ("--map", f"{new}={old}")]
    result = CliRunner().invoke(main, [*words, *maps, "--json"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["corpus"] == "others"
