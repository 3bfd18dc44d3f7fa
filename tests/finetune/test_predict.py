"""Predictions: what a model says about files, without texts, in company, and what it cannot use."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from click.testing import CliRunner, Result

from cache.audio import load_audio
from cli import main
from corpora.base.errors import AudioError, ConfigError
from corpora.manifest import Manifest, Utterance, write_manifest
from finetune.assembly import assemble
from finetune.model import EmotionModel
from finetune.predict.answering import predict
from finetune.predict.prediction import Prediction, Unusable, table
from heads.head import Head
from heads.pooling.attentive import AttentivePooling
from tests.cache.whispers import save_whisper
from tests.finetune.conftest import Searched
from tests.finetune.corpus import LABELS, make_head, make_model
from tests.finetune.scoring import evaluate_model
from tests.finetune.searched import copy_work
from tests.scorers import draw_scorers

HOP, WINDOW, RATE = 320, 560, 16_000  # the tiny speech encoder's grid


@pytest.fixture(scope="module")
def model(encoders: Path) -> EmotionModel:
    made = make_model(encoders)
    draw_scorers(made.head)
    return made


@pytest.fixture(scope="module")
def files(manifest: Manifest) -> list[str]:
    return [str(u.audio) for u in manifest.utterances[:5]]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory, model: EmotionModel) -> Path:
    directory = tmp_path_factory.mktemp("predict") / "model"
    model.save_pretrained(directory)
    return directory


def values(answers: list[Prediction]) -> np.ndarray:
    return np.array([list(one.probabilities.values()) for one in answers])


def run(*words: object, stdin: str = "") -> Result:
    return CliRunner().invoke(main, ["predict", *map(str, words)], input=stdin)


def lines(result: Result) -> list[dict[str, Any]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_three_lines_give_the_softmax_of_the_models_logits(
    model: EmotionModel, saved: Path, files: list[str]
) -> None:
    texts = ["stop that now", "", "I miss you", "it is eight", ""]
    loaded = EmotionModel.from_pretrained(saved)
    found = loaded.predict(files, texts=texts)
    with torch.no_grad():
        logits = model([load_audio(file) for file in files], texts).double().numpy()
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(values(found), expected, atol=1e-5)
    assert [one.label for one in found] == [LABELS[i] for i in expected.argmax(axis=1)]
    assert [one.text_source for one in found] == ["given", "none", "given", "given", "none"]
    assert [one.id for one in found] == files
    assert all(sum(one.probabilities.values()) == pytest.approx(1) for one in found)


def test_company_and_batches_change_nothing(model: EmotionModel, files: list[str]) -> None:
    utterances = [Utterance(file, Path(file), "") for file in files]
    alone = list(predict([model], utterances, frame_budget=1))
    together = list(predict([model], utterances))
    assert [one.id for one in alone] == files
    np.testing.assert_allclose(values(alone), values(together), atol=1e-5)  # type: ignore[arg-type]


def test_top_frames_are_the_largest_of_the_heads_attention_in_seconds(
    model: EmotionModel, files: list[str]
) -> None:
    found = model.predict(files[:2], top_frames=3)
    waveforms = [load_audio(file) for file in files[:2]]
    with torch.no_grad():
        frames = model.encode(waveforms, ["", ""])
        weights = model.head.attention(frames, "audio").mean(dim=1).numpy()
    assert isinstance(model.head.poolings["audio"], AttentivePooling)
    own = weights[: 1 + (len(waveforms[0]) - WINDOW) // HOP]
    places = np.argsort(-own)[:3]
    assert [one.start for one in found[0].top_frames] == pytest.approx(places * HOP / RATE)
    assert [one.weight for one in found[0].top_frames] == pytest.approx(own[places], abs=1e-6)
    for frame in found[0].top_frames:
        assert frame.end - frame.start == pytest.approx(WINDOW / RATE)


def test_top_frames_of_a_segment_are_in_seconds_of_its_recording(
    model: EmotionModel, manifest: Manifest
) -> None:
    cut = replace(manifest.utterances[0], start=0.1, end=0.25)
    [one] = predict([model], [cut])
    assert isinstance(one, Prediction)
    assert all(0.1 <= frame.start < frame.end <= 0.26 for frame in one.top_frames)


def test_a_head_without_attention_names_no_frames(encoders: Path, files: list[str]) -> None:
    plain = make_model(encoders, {"kind": "statistics"})
    assert plain.predict(files[:1])[0].top_frames == ()
    text = make_model(encoders, modalities=("text",))
    [one] = text.predict(None, texts=["stop that now"])
    assert (one.audio, one.top_frames, one.text) == ("", (), "stop that now")


def test_an_ensemble_is_the_mean_probability(
    model: EmotionModel, encoders: Path, files: list[str]
) -> None:
    other = make_model(encoders, {"kind": "statistics"})
    utterances = [Utterance(file, Path(file), "") for file in files]
    found = list(predict([model, other], utterances))
    expected = (values(model.predict(files)) + values(other.predict(files))) / 2
    np.testing.assert_allclose(values(found), expected, atol=1e-6)  # type: ignore[arg-type]
    assert all(isinstance(one, Prediction) and not one.top_frames for one in found)


def test_what_cannot_be_used_is_answered_in_its_place_and_the_rest_goes_on(
    model: EmotionModel, files: list[str], tmp_path: Path
) -> None:
    notes, short, long = (tmp_path / name for name in ("notes.wav", "short.wav", "long.wav"))
    notes.write_text("not a recording")
    soundfile.write(short, np.zeros(100), RATE)
    soundfile.write(long, np.zeros(61 * RATE), RATE)
    names = [files[0], str(notes), str(short), str(long), str(tmp_path / "gone.wav"), files[1]]
    found = list(predict([model], [Utterance(name, Path(name), "") for name in names]))
    assert [one.id for one in found] == names
    assert [isinstance(one, Prediction) for one in found] == [
        True,
        False,
        False,
        False,
        False,
        True,
    ]
    reasons = [one.error for one in found if isinstance(one, Unusable)]
    for reason, words in zip(
        reasons, ("cannot be read", "shortest frame", "more than 60 s", "no such file"), strict=True
    ):
        assert words in reason
        assert str(tmp_path) in reason
    with pytest.raises(AudioError, match="no such file"):
        model.predict([tmp_path / "gone.wav"])


def test_a_model_that_reads_alone_refuses_recordings_without_text(
    encoders: Path, files: list[str]
) -> None:
    text = make_model(encoders, modalities=("text",))
    [one] = predict([text], [Utterance("a", Path(files[0]), "")])
    assert isinstance(one, Unusable)
    assert "reads text alone" in one.error


def test_numbers_of_texts_and_recordings_have_to_agree(
    model: EmotionModel, files: list[str]
) -> None:
    with pytest.raises(ConfigError, match="5 recordings and 1 texts"):
        model.predict(files, texts=["a"])
    with pytest.raises(ConfigError, match="got none recordings"):
        model.predict(None, texts=["a"])
    with pytest.raises(ConfigError, match="top frames -1"):
        model.predict(files, top_frames=-1)
    with pytest.raises(ConfigError, match="same labels"):
        list(predict([], []))


def test_missing_texts_are_heard_and_given_ones_kept(
    saved: Path, files: list[str], tmp_path: Path
) -> None:
    whisper = save_whisper(tmp_path / "ear")
    words = ("--model", saved, "--whisper", whisper, "--json", "--text", "I miss you", "--text", "")
    # Noise is no speech to the detector, so nothing is decoded: what counts is who is asked.
    answers = lines(run(*files[:2], *words))
    assert [one["text_source"] for one in answers] == ["given", "ear"]
    assert answers[0]["text"] == "I miss you"


def test_predictions_on_a_manifest_are_those_of_evaluate(
    searched: Searched, manifest: Manifest, saved: Path, tmp_path: Path
) -> None:
    work = copy_work(searched.work, tmp_path / "work")
    write_manifest(manifest, work.manifest)  # its paths are relative
    evaluation = evaluate_model(work, manifest, directory=saved)
    with (evaluation.folder / "predictions.csv").open(encoding="utf-8") as file:
        expected = {
            row["id"]: [float(row[f"p_{name}"]) for name in LABELS] for row in csv.DictReader(file)
        }
    result = run("--model", saved, "--work", work.root, "--split", "test", "--json")
    assert result.exit_code == 0, result.output
    found = {one["id"]: list(one["probabilities"].values()) for one in lines(result)}
    assert found.keys() == expected.keys()
    for name, row in expected.items():
        assert found[name] == pytest.approx(row, abs=1e-5)


def test_without_a_model_the_searched_head_is_put_on_its_encoders(
    searched: Searched, manifest: Manifest
) -> None:
    audio = manifest.utterances[0].audio
    result = run(audio, "--work", searched.work.root)
    assert result.exit_code == 0, result.output
    assert "The head of trial 4 on its encoders" in result.stderr
    assert "come without text" in result.stderr
    assert "recording" in result.stdout


def test_a_list_on_standard_input_may_bring_texts(saved: Path, files: list[str]) -> None:
    stdin = f"{files[0]}\tstop that now\n\n{files[1]}\n"
    result = run("-", "--model", saved, "--json", stdin=stdin)
    assert [(one["audio"], one["text"]) for one in lines(result)] == [
        (files[0], "stop that now"),
        (files[1], ""),
    ]


def test_an_unusable_recording_ends_in_status_1_with_the_others_answered(
    saved: Path, files: list[str]
) -> None:
    result = run("gone.wav", files[0], "--model", saved, "--json")
    assert result.exit_code == 1
    first, second = lines(result)
    assert first == {"id": "gone.wav", "audio": "gone.wav", "error": "gone.wav: no such file."}
    assert second["label"] in LABELS
    assert "1 of 2 recordings could not be used" in result.stderr


@pytest.mark.parametrize("labels", [(), LABELS])
def test_attributes_are_said_in_the_units_of_their_scales(
    labels: tuple[str, ...], encoders: Path, files: list[str]
) -> None:
    config = make_head({"kind": "average"}, ("audio",)).config
    head = Head(replace(config, labels=labels, attributes={"arousal": (1, 7), "valence": (-1, 1)}))
    model = assemble(head, {"audio": encoders / "tiny-audio"}, {"audio": 2})
    rows = [Utterance(file, Path(file), "") for file in files]
    found = [one for one in predict([model], rows) if isinstance(one, Prediction)]
    with torch.no_grad():
        outputs = model([load_audio(file) for file in files], None)[:, len(labels) :]
    expected = outputs.clamp(-1, 1).double().numpy() * [3, 1] + [4, 0]
    said = [list(one.attributes.values()) for one in found]
    np.testing.assert_allclose(said, expected, atol=1e-5)
    assert {one.label for one in found} <= ({*labels} or {""})
    assert "arousal" in table(found)[0]
    assert ("label" in table(found)[0]) == bool(labels)


def test_the_command_writes_a_submission(
    encoders: Path, manifest: Manifest, saved: Path, tmp_path: Path
) -> None:
    path = tmp_path / "m.csv"
    write_manifest(manifest, path)
    out = tmp_path / "submission.csv"
    words = ("--manifest", path, "--split", "dev", "--submission", out, "--model")
    refused = run(*words, saved)
    assert refused.exit_code == 1
    assert "the challenge asks for" in refused.stderr
    assert not refused.stdout  # before anything is predicted
    config = make_head({"kind": "average"}, ("audio",)).config
    head = Head(replace(config, labels=("angry", "neutral", "other")))
    msp = assemble(head, {"audio": encoders / "tiny-audio"}, {"audio": 2})
    msp.save_pretrained(tmp_path / "msp")
    result = run(*words, tmp_path / "msp")
    assert result.exit_code == 0, result.output
    assert len(out.read_text().splitlines()) == 1 + len(manifest.in_split("dev"))
    assert f"Wrote {out}: 9 recordings" in result.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "name recordings"),
        (("a.wav", "--split", "dev"), "not both"),
        (("--manifest", "m.csv", "--text", "hello"), "not both"),
        (("a.wav", "--top-frames", "-1"), "at least 0"),
        (("a.wav",), "neither a model nor a searched head"),
        (("a.wav", "--model", "/nowhere/model"), "no such directory, and it is no hub id"),
    ],
    ids=str,
)
def test_a_mistake_is_a_message(words: tuple[str, ...], message: str, tmp_path: Path) -> None:
    result = run(*words, "--work", tmp_path)
    assert result.exit_code != 0
    assert message in " ".join(result.output.split())
    assert "Traceback" not in result.output
