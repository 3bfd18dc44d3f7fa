"""Whisper through fine-tuning: upper layers, boundary cache, phases, model directory, resuming."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from cache.audio import load_audio
from cache.config import ExtractConfig
from cache.encoders.audio_encoder import AudioEncoder, load_audio_encoder
from cache.encoders.front_ends import WhisperMels
from cache.extract.extract import extract
from cache.lookup import FrameCache
from cache.recipe import PaddingName
from corpora.base.work import Work
from corpora.manifest import Manifest, Utterance
from finetune.assembly import build_model
from finetune.batches import gather_examples
from finetune.boundary import open_boundary
from finetune.checkpoints import CheckpointManager
from finetune.config import FinetuneConfig
from finetune.finetune import run_finetune
from finetune.model import EmotionModel
from finetune.phases import PhaseConfig, StepConfig, trainable_parts, unfreeze
from finetune.predict.answering import predict
from finetune.predict.prediction import Prediction, Unusable
from finetune.session import agreement
from finetune.steps import Trainer
from finetune.upper import Upper, upper_layers
from heads.head import Head, HeadConfig
from heads.load import load_dataset, read_origin
from heads.records import HeadRecord, package_versions, save_head
from heads.training import Cohort, Schedule, TrainingConfig
from heads.vector_store import VectorStore
from tests.cache.test_whisper import save_small
from tests.finetune.corpus import LABELS
from tests.finetune.searched import copy_work

LAYERS = 3
POOLING = {"kind": "average+vad_average"}  # reads the detector's output too


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_small(tmp_path_factory.mktemp("whisper") / "small")


@pytest.fixture(scope="module", params=["short", "full"])
def work(
    request: pytest.FixtureRequest,
    folder: Path,
    manifest: Manifest,
    tmp_path_factory: pytest.TempPathFactory,
) -> Work:
    """A work folder with a head on layer 2 of a small Whisper, padded in either way."""
    return searched_work(tmp_path_factory.mktemp("work"), folder, manifest, request.param)


def searched_work(root: Path, folder: Path, manifest: Manifest, padding: PaddingName) -> Work:
    work = Work(root)
    root.mkdir(exist_ok=True)
    config = ExtractConfig(
        audio_encoder=str(folder),
        text_encoder="",
        audio_layers=(2,),
        stored_dtype="float32",
        device="cpu",
        padding=padding,
    )
    extract(work, manifest, config)
    dataset = load_dataset(FrameCache(work), manifest)
    shape = HeadConfig(LABELS, {"audio": 32}, {"audio": POOLING}, "standardise", mlp_width=16)
    head = Head(shape, seed=1)
    training, schedule = TrainingConfig(1e-2, seed=1), Schedule(6, 8)
    cohort = Cohort([head], [training], VectorStore(dataset), dataset.rows("train"), schedule)
    for _ in range(schedule.epochs):
        cohort.run_epoch()
    record = HeadRecord(
        trial=4,
        start="",
        params={},
        head=shape,
        training=training,
        schedule=schedule,
        origin=read_origin(FrameCache(work), manifest, dataset.frames),
        study_seed=0,
        versions=package_versions(),
        dev_macro_f1=0.5,
    )
    save_head(work.search / "best.json", work.search / "head.safetensors", head, record)
    return work


@pytest.fixture
def model(work: Work) -> EmotionModel:
    return built(work)


def built(work: Work) -> EmotionModel:
    return build_model(FrameCache(work), work.search / "best.json", "cpu", "fp32")[0]


def encoder_of(model: EmotionModel) -> AudioEncoder:
    assert model.audio_encoder is not None
    return model.audio_encoder


@pytest.mark.parametrize("start", range(LAYERS + 1))
def test_upper_layers_from_a_hidden_state_and_its_silence_give_what_the_encoder_gives(
    start: int, folder: Path, manifest: Manifest
) -> None:
    encoder = load_audio_encoder(folder)
    waveforms = [load_audio(u.audio) for u in manifest.utterances[:6]]
    waveforms[2] = np.concatenate([waveforms[2]] * 3)  # of another padded length
    with torch.no_grad():
        states = encoder(waveforms, [start], whole=True)[start]
        expected = encoder(waveforms, [LAYERS])[LAYERS]
        found = upper_layers(encoder, start, LAYERS)
        assert isinstance(found, Upper)
        again = found(states, expected.lengths)
    assert len(set(states.lengths.tolist())) > 1
    assert again.lengths.tolist() == expected.lengths.tolist()
    torch.testing.assert_close(again.values, expected.values, atol=1e-5, rtol=0)


def losses(work: Work, manifest: Manifest, *, cached: bool) -> list[float]:
    """Of some steps of phase 2."""
    model = built(work)
    boundary = None
    if cached:
        boundary, told = open_boundary(
            FrameCache(work), manifest, model, 1, stored_dtype="float32", device="cpu"
        )
        assert boundary is not None, told
        assert told == ["Trains from cached hidden states: audio layer 1, float32."]
    parts = trainable_parts(model, 2, 1)
    unfreeze(model, parts)
    train = gather_examples(model, manifest.in_split("train"), {})[0]
    steps = StepConfig(frame_budget=200)
    trainer = Trainer(model, parts, PhaseConfig(2, 1e-3, epochs=5), steps, train, None, boundary)
    rows = [row for epoch in range(1, 4) for row in trainer.run_epoch(epoch)]
    return [row.loss for row in rows if row.loss is not None]


def test_losses_from_the_boundary_equal_those_from_recordings(
    work: Work, manifest: Manifest, tmp_path: Path
) -> None:
    own = copy_work(work, tmp_path / "work")
    found = losses(own, manifest, cached=True)
    assert len(found) > 3
    assert found == pytest.approx(losses(own, manifest, cached=False), abs=1e-4)


def test_the_model_says_what_the_head_says_of_cached_frames(
    work: Work, model: EmotionModel, manifest: Manifest
) -> None:
    record = build_model(FrameCache(work), work.search / "best.json", "cpu", "fp32")[1]
    examples = gather_examples(model, manifest.in_split("dev"), {})[0]
    same, _, count = agreement(FrameCache(work), manifest, model, record, examples, 2000)
    assert same == count == len(examples)


def test_unused_upper_layers_go_and_positions_are_never_trained(model: EmotionModel) -> None:
    encoder = encoder_of(model)
    assert encoder.layers == LAYERS  # one stays above layer 2: the last state passes a layer norm
    names = {n for part in trainable_parts(model, 3) for n in part.parameters}
    assert any("conv1" in name for name in names)
    assert not any("embed_positions" in name or "layers.2" in name for name in names)


def test_a_saved_model_keeps_its_padding(
    work: Work, model: EmotionModel, manifest: Manifest, tmp_path: Path
) -> None:
    model.save_pretrained(tmp_path / "model")
    again = EmotionModel.from_pretrained(tmp_path / "model")
    front_end = encoder_of(again).front_end
    before = encoder_of(model).front_end
    assert isinstance(front_end, WhisperMels)
    assert isinstance(before, WhisperMels)
    assert front_end.padding == before.padding
    waveforms = [load_audio(u.audio) for u in manifest.utterances[:3]]
    with torch.no_grad():
        torch.testing.assert_close(again(waveforms, None), model(waveforms, None), atol=0, rtol=0)
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    assert config["encoders"]["audio"]["padding"] == front_end.padding.to_json()


def test_a_recording_over_30_s_is_refused_by_name_and_the_others_answered(
    model: EmotionModel, manifest: Manifest, tmp_path: Path
) -> None:
    long = tmp_path / "long.wav"
    soundfile.write(long, np.random.default_rng(0).standard_normal(31 * 16_000) * 0.1, 16_000)
    rows = [Utterance(id="long", audio=long, label=""), manifest.utterances[0]]
    first, second = predict([model], rows)
    assert isinstance(first, Unusable)
    assert "31.0 s, more than the 30 s that the model's encoder takes at once" in first.error
    assert isinstance(second, Prediction)


class StopError(Exception):
    """Stands for a power cut."""


def test_a_run_that_stopped_goes_on_to_the_same_weights(
    folder: Path, manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.set_num_threads(1)
    rows = replace(manifest, utterances=tuple(u for u in manifest.utterances if u.split != "test"))
    config = FinetuneConfig(
        epochs=2,
        frame_budget=150,
        lr2=1e-3,
        lr3=1e-3,
        unfreeze_layers=1,
        device="cpu",
    )
    start = searched_work(tmp_path / "start", folder, manifest, "short")
    whole = copy_work(start, tmp_path / "whole")
    run_finetune(whole, rows, config)
    stopped = copy_work(start, tmp_path / "stopped")
    after_step, left = CheckpointManager.after_step, [3]

    def count(self: CheckpointManager, trainer: Trainer, now: object) -> None:
        after_step(self, trainer, now)  # type: ignore[arg-type]
        left[0] -= 1
        if left[0] == 0:
            raise StopError

    with monkeypatch.context() as patch:
        patch.setattr(CheckpointManager, "after_step", count)
        with pytest.raises(StopError):
            run_finetune(stopped, rows, config)
    run_finetune(stopped, rows, config)
    found, expected = (
        {
            str(path.relative_to(one.model)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(one.model.rglob("*.safetensors"))
        }
        for one in (stopped, whole)
    )
    assert found == expected
