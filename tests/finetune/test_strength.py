"""`predict --strength`: of recordings, over time, and where it cannot be told."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from cache.lookup import FrameCache
from cli import main
from corpora.base.errors import ConfigError
from corpora.base.work import Work
from corpora.manifest import Manifest, write_manifest
from finetune.evaluate.scored import open_head
from finetune.predict.answering import predict
from finetune.predict.predict import open_predictor
from finetune.predict.prediction import Prediction
from heads.records import load_head, save_head
from tests.finetune.conftest import Searched
from tests.finetune.searched import copy_work


@pytest.fixture
def work(searched: Searched, manifest: Manifest, tmp_path: Path) -> Work:
    made = copy_work(searched.work, tmp_path / "work")
    write_manifest(manifest, made.manifest)  # its paths are relative
    return made


def run(work: Work, *words: object) -> Result:
    return CliRunner().invoke(main, ["predict", "--work", str(work.root), *map(str, words)])


def failed(found: Result) -> str:
    """What it said, on one line."""
    assert found.exit_code != 0
    return " ".join(found.stderr.split())


def test_each_emotion_and_the_label_have_a_strength(work: Work, manifest: Manifest) -> None:
    found = run(work, "--strength", "--manifest", work.manifest, "--json")
    assert found.exit_code == 0, found.output
    lines = [json.loads(line) for line in found.stdout.splitlines()]
    assert len(lines) == len(manifest.utterances)
    strength = open_head(FrameCache(work), work.search).strength(work.manifest, "neutral")
    assert strength.labels == ("anger", "sadness")
    for line in lines:
        assert list(line["strengths"]) == ["anger", "sadness"]
        assert all(0 < value < 1 for value in line["strengths"].values())
        assert line.get("strength") == line["strengths"].get(line["label"])
    # Of what it learnt from, ranked by others: neither all strong nor all weak.
    train = [
        line["strengths"][u.label]
        for line, u in zip(lines, manifest.utterances, strict=True)
        if u.split == "train" and u.label in line["strengths"]
    ]
    assert 0.3 < np.mean(train) < 0.9


def test_it_is_that_of_the_vector_that_the_classifier_reads(work: Work, manifest: Manifest) -> None:
    scored = open_head(FrameCache(work), work.search)
    strength = scored.strength(work.manifest, "neutral")
    model = open_predictor(work, work.search, "cpu")
    for one in predict([model], manifest.utterances[:4], embeddings=True, strength=strength):
        assert isinstance(one, Prediction)
        vector = np.concatenate(list(one.embedding.values())).astype(np.float64)
        assert list(one.strengths.values()) == pytest.approx(strength(vector[None])[0], abs=1e-4)
    [plain] = predict([model], manifest.utterances[:1])
    assert isinstance(plain, Prediction)
    assert plain.strength is None
    assert not {"strength", "strengths"} & set(plain.to_json())


def test_the_table_names_that_of_the_label(work: Work, manifest: Manifest) -> None:
    files = [u.audio for u in manifest.utterances[:6]]
    found = run(work, "--strength", *files)
    header, *rows = found.stdout.splitlines()
    assert header.split()[-1] == "strength"
    assert len(rows) == 6
    for row in rows:
        told = row.split()[-1]
        assert (told == "–") == (" neutral " in row.split("  ", 1)[1][:20])


def test_only_the_labels_asked_for(work: Work, manifest: Manifest) -> None:
    words = ("--labels", "anger,neutral", "--json", manifest.utterances[0].audio)
    line = json.loads(run(work, "--strength", *words).stdout)
    assert list(line["strengths"]) == ["anger"]


def test_over_time(work: Work, manifest: Manifest, tmp_path: Path) -> None:
    out = tmp_path / "emotion.csv"
    recording = manifest.utterances[0].audio
    found = run(work, "--strength", "--every", ".1", "--window", ".2", "--out", out, recording)
    assert found.exit_code == 0, found.output
    assert "strength" in found.stdout.splitlines()[1]
    with out.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0])[-3:] == ["strength", "strength_anger", "strength_sadness"]
    for row in rows:
        assert row["strength"] == row.get(f"strength_{row['label']}", "")


def test_another_label_may_stand_for_no_emotion(work: Work, manifest: Manifest) -> None:
    words = ("--reference", "sadness", "--json", manifest.utterances[0].audio)
    line = json.loads(run(work, "--strength", *words).stdout)
    assert list(line["strengths"]) == ["anger", "neutral"]
    said = failed(run(work, "--strength", "--reference", "calm", manifest.utterances[0].audio))
    assert "0 of those trained on are labelled 'calm'. Name the label" in said


def test_what_it_cannot_be_told_of(work: Work, manifest: Manifest) -> None:
    recording = manifest.utterances[0].audio
    for names in ((work.search, work.search), ("a-model",)):
        models = [word for name in names for word in ("--model", name)]
        said = failed(run(work, "--strength", *models, recording))
        assert "--strength is told of one searched head" in said
        assert f"not of {' and '.join(map(str, names))}. Give --model {work.search}." in said


def test_a_manifest_that_has_changed_is_refused(work: Work, manifest: Manifest) -> None:
    rows = (replace(manifest.utterances[0], label="sadness"), *manifest.utterances[1:])
    write_manifest(replace(manifest, utterances=rows), work.manifest)
    said = failed(run(work, "--strength", manifest.utterances[0].audio))
    assert "is another manifest. Restore that of the search, or search again." in said


def test_frames_by_speaker_are_refused(work: Work) -> None:
    head, record = load_head(work.search)
    config = replace(head.config, input_norm="speaker")
    changed = type(head)(config)
    save_head(
        work.search / "best.json",
        work.search / "head.safetensors",
        changed,
        replace(record, head=config),
    )
    with pytest.raises(ConfigError, match="normalised by each speaker's recordings"):
        open_head(FrameCache(work), work.search).strength(work.manifest, "neutral")
