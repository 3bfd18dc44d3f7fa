"""Scores of head and model, and what is written beside them."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from cache.audio import load_audio
from cache.last_extraction import write_failures
from cache.lookup import FrameCache
from cache.mapped import Residence, choose_residence
from corpora.base.errors import ConfigError, ManifestError, MissingStepError
from corpora.base.work import Work
from corpora.manifest import Manifest
from explain.config import ExplainConfig
from explain.explain import explain_split
from finetune.assembly import assemble
from finetune.config import EvaluateConfig, FinetuneConfig
from finetune.evaluate.evaluate import evaluate
from finetune.evaluate.evaluation import Evaluation
from finetune.finetune import run_finetune
from finetune.model import EmotionModel
from heads.head import Head
from heads.load import load_dataset
from heads.predict import predict
from heads.records import manifest_digest, save_head
from heads.vector_store import VectorStore
from tests.finetune.conftest import Searched
from tests.finetune.corpus import LABELS, LAST
from tests.finetune.scoring import evaluate_head, evaluate_model
from tests.finetune.searched import copy_work


@pytest.fixture
def work(searched: Searched, tmp_path: Path) -> Work:
    return copy_work(searched.work, tmp_path / "work")


@pytest.fixture
def with_model(work: Work, searched: Searched) -> Work:
    """A model as it is before the first step."""
    directories = {name: work.encoders / f"tiny-{name}" for name in LAST}
    model = assemble(
        searched.head,
        directories,
        LAST,
        speech_dtype="float32",
        provenance={"encoders": dict.fromkeys(LAST, "tiny")},
    )
    model.save_pretrained(work.model)
    return work


def probabilities(evaluation: Evaluation) -> tuple[list[str], np.ndarray]:
    """Ids and probabilities as written."""
    with (evaluation.folder / "predictions.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return [row["id"] for row in rows], np.array(
        [[float(row[f"p_{label}"]) for label in LABELS] for row in rows]
    )


@pytest.mark.parametrize("free", [10**12, 0], ids=["in memory", "from disk"])
def test_the_heads_probabilities_are_those_on_cached_frames(
    work: Work,
    searched: Searched,
    manifest: Manifest,
    monkeypatch: pytest.MonkeyPatch,
    free: int,
) -> None:
    chosen: list[str] = []

    def choose(nbytes: int, device: str) -> Residence:
        found = choose_residence(nbytes, device, free=lambda _: free)
        chosen.append(found.place)
        return found

    monkeypatch.setattr("cache.mapped.choose_residence", choose)
    evaluation = evaluate_head(work, manifest, "dev")
    assert chosen == ["memory" if free else "disk"]
    rows = replace(manifest, utterances=manifest.in_split("dev"))
    held = FrameCache(work).find(rows, ("audio", "text"))
    frames = {name: held.load(name) for name in held.modalities}
    with torch.no_grad():
        expected = torch.softmax(searched.head(frames), dim=1)
    ids, found = probabilities(evaluation)
    assert ids == [u.id for u in rows.utterances]
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-5)


def test_the_model_before_its_first_step_says_what_the_head_says(
    with_model: Work, manifest: Manifest
) -> None:
    head = evaluate_head(with_model, manifest)
    model = evaluate_model(with_model, manifest)
    assert model.report == head.report
    np.testing.assert_allclose(probabilities(model)[1], probabilities(head)[1], atol=1e-4)


def test_the_model_needs_no_cache(with_model: Work, manifest: Manifest, tmp_path: Path) -> None:
    expected = evaluate_model(with_model, manifest)
    with_model.model.rename(tmp_path / "elsewhere")
    found = evaluate_model(Work(tmp_path / "new"), manifest, directory=tmp_path / "elsewhere")
    assert found.report == expected.report


def test_the_report_says_what_was_scored(with_model: Work, manifest: Manifest) -> None:
    evaluation = evaluate_model(with_model, manifest)
    report = json.loads((evaluation.folder / "report.json").read_text())
    assert (report["format"], report["version"]) == ("emopool-evaluation", 1)
    assert report["subject"] == "model"
    assert report["encoders"] == {"audio": "tiny", "text": "tiny"}
    assert report["report"]["n"] == len(manifest.in_split("test"))
    text = evaluation.to_text()
    assert "synthetic" in text
    assert "random weights" in text
    assert "macro-F1" in text


def test_the_model_is_scored_where_there_is_one(
    with_model: Work, work: Work, manifest: Manifest
) -> None:
    assert evaluate(with_model, manifest).subject == "model"
    assert evaluate(with_model, manifest, config=EvaluateConfig("head")).subject == "head"


def test_without_a_model_the_head_is_scored(work: Work, manifest: Manifest) -> None:
    assert evaluate(work, manifest, "dev").subject == "head"
    with pytest.raises(MissingStepError, match="finetune --best"):
        evaluate(work, manifest, config=EvaluateConfig("model"))
    with pytest.raises(ConfigError, match="head or model"):
        evaluate(work, manifest, config=EvaluateConfig("trial"))


def test_an_unreadable_recording_is_skipped_and_named(
    with_model: Work, manifest: Manifest, tmp_path: Path
) -> None:
    rows = list(manifest.utterances)
    tests = [row for row, u in enumerate(rows) if u.split == "test"]
    rows[tests[0]] = replace(rows[tests[0]], audio=tmp_path / "gone.wav")
    broken = tmp_path / "broken.flac"
    # The header promises all samples; a part of them is there.
    soundfile.write(broken, *soundfile.read(rows[tests[1]].audio))
    data = broken.read_bytes()
    broken.write_bytes(data[: len(data) // 3])
    rows[tests[1]] = replace(rows[tests[1]], audio=broken)
    evaluation = evaluate_model(with_model, replace(manifest, utterances=tuple(rows)))
    assert set(evaluation.skipped) == {rows[row].id for row in tests[:2]}
    assert evaluation.report.n == len(tests) - 2
    assert "2 utterances could not be used" in evaluation.to_text()


def test_unlabelled_utterances_are_not_scored(with_model: Work, manifest: Manifest) -> None:
    rows = [replace(u, label="") if u.label == "anger" else u for u in manifest.utterances]
    unlabelled = replace(manifest, utterances=tuple(rows), corpus="others")
    expected = sum(u.label != "anger" for u in manifest.in_split("test"))
    assert evaluate_model(with_model, unlabelled).report.n == expected
    assert evaluate_head(with_model, unlabelled).report.n == expected


def test_an_empty_split_is_refused(with_model: Work, manifest: Manifest) -> None:
    rows = tuple(replace(u, split="") if u.split == "test" else u for u in manifest.utterances)
    for score in (evaluate_model, evaluate_head):
        with pytest.raises(ManifestError, match="no labelled utterance"):
            score(with_model, replace(manifest, utterances=rows))


def test_a_label_nobody_learnt_is_refused(with_model: Work, manifest: Manifest) -> None:
    rows = [replace(u, label="joy") if u.label == "anger" else u for u in manifest.utterances]
    other = replace(manifest, utterances=tuple(rows), labels=("joy", "neutral", "sadness"))
    for score in (evaluate_model, evaluate_head):
        with pytest.raises(ManifestError, match="labels joy, which are not among"):
            score(with_model, other)


def test_recordings_that_are_all_unreadable_are_an_error(
    with_model: Work, manifest: Manifest, tmp_path: Path
) -> None:
    rows = tuple(replace(u, audio=load_nothing(tmp_path)) for u in manifest.utterances)
    with pytest.raises(ConfigError, match=r"could be used, of 9 in it\. First: .*cannot be read"):
        evaluate_model(with_model, replace(manifest, utterances=rows))


def load_nothing(folder: Path) -> Path:
    """A file that is no recording."""
    path = folder / "notes.wav"
    path.write_text("not a recording")
    with pytest.raises(ValueError, match="cannot be read"):
        load_audio(path)
    return path


def swapped(manifest: Manifest, corpus: str = "tones") -> Manifest:
    """Train and test have changed places."""
    other = {"train": "test", "test": "train"}
    rows = tuple(replace(u, split=other.get(u.split, u.split)) for u in manifest.utterances)
    return replace(manifest, utterances=rows, corpus=corpus)


def trained_on(work: Work, manifest: Manifest) -> None:
    """Note in the model where it comes from, as `finetune` does."""
    model = EmotionModel.from_pretrained(work.model)
    digest = manifest_digest(manifest)
    model.provenance |= {
        "corpus": manifest.corpus,
        "manifest_sha256": digest,
        "search_manifest_sha256": digest,
    }
    model.save_pretrained(work.model)


@pytest.mark.parametrize("subject", ["head", "model"])
def test_splits_that_changed_since_are_refused(
    subject: str, with_model: Work, manifest: Manifest
) -> None:
    trained_on(with_model, manifest)
    with pytest.raises(ConfigError, match=rf"has changed since the {subject}.*`search`.*again"):
        evaluate(with_model, swapped(manifest), config=EvaluateConfig(subject))
    assert not with_model.evaluation.exists()


@pytest.mark.parametrize("subject", ["head", "model"])
def test_another_corpus_is_scored_with_a_note(
    subject: str, with_model: Work, manifest: Manifest
) -> None:
    trained_on(with_model, manifest)
    evaluation = evaluate(
        with_model, swapped(manifest, corpus="others"), config=EvaluateConfig(subject)
    )
    assert evaluation.to_text().startswith("Note: This manifest is not the one")
    report = json.loads((evaluation.folder / "report.json").read_text())
    assert "may be among those it was trained or chosen on; " in report["note"]


@pytest.mark.parametrize("subject", ["head", "model"])
def test_its_own_manifest_needs_no_note(subject: str, with_model: Work, manifest: Manifest) -> None:
    trained_on(with_model, manifest)
    evaluation = evaluate(with_model, manifest, config=EvaluateConfig(subject))
    assert evaluation.note == ""
    assert "Note: This manifest" not in evaluation.to_text()


def test_a_model_hears_what_another_extraction_could_not_use(
    with_model: Work, manifest: Manifest
) -> None:
    write_failures(with_model.failures, {u.id: "corrupt" for u in manifest.in_split("test")[:3]})
    evaluation = evaluate_model(with_model, manifest)
    assert evaluation.report.n == len(manifest.in_split("test"))
    assert not evaluation.skipped


@pytest.mark.parametrize("subject", ["head", "model"])
def test_a_folder_that_cannot_be_written_to_stops_it_first(
    subject: str, with_model: Work, manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_model.evaluation.write_text("a file where the folder should be")
    monkeypatch.delattr("cache.lookup.FrameCache.find")
    monkeypatch.delattr("finetune.evaluate.scored.predict_logits")
    with pytest.raises(ConfigError, match="cannot be written to"):
        evaluate(with_model, manifest, config=EvaluateConfig(subject))


def test_a_head_normalised_by_speaker_is_scored_as_in_its_search_and_goes_no_further(
    work: Work, searched: Searched, manifest: Manifest
) -> None:
    everyone = replace(
        manifest, utterances=tuple(replace(u, speaker=f"of {u.split}") for u in manifest.utterances)
    )
    head = Head(replace(searched.head.config, input_norm="speaker"), 3)
    store = VectorStore(load_dataset(FrameCache(work), everyone))
    for name in LAST:
        head.set_input_statistics(name, *store.speakers_target(name))
    origin = replace(searched.record.origin, manifest_sha256=manifest_digest(everyone))
    record = replace(searched.record, head=head.config, origin=origin)
    save_head(work.search / "best.json", work.search / "head.safetensors", head, record)
    rows = [n for n, u in enumerate(everyone.utterances) if u.split == "dev"]
    expected = predict([head], store, torch.tensor(rows))[0]
    evaluation = evaluate_head(work, everyone, "dev")
    np.testing.assert_allclose(probabilities(evaluation)[1], expected.numpy(), atol=1e-5)
    assert "own mean and deviation over all recordings" in evaluation.note
    with pytest.raises(ConfigError, match="reads frames normalised by each speaker"):
        run_finetune(work, everyone, FinetuneConfig(epochs=1))
    with pytest.raises(ConfigError, match="what it says of one recording depends on all others"):
        explain_split(work, everyone, ExplainConfig(figures=False))
