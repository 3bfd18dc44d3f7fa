"""Phase 2 from cached hidden states is phase 2 from recordings."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from cache.audio import load_audio
from cache.encoders.front_ends import StackedMels
from cache.extract import passes
from cache.frames import Frames
from cache.lookup import FrameCache
from corpora.base.work import Work
from corpora.manifest import Manifest
from corpora.utterance import Utterance
from finetune import upper as uppers
from finetune.batches import AHEAD, gather_examples, load_batches
from finetune.boundary import open_boundary
from finetune.config import FinetuneConfig
from finetune.finetune import run_finetune
from finetune.model import EmotionModel
from finetune.phases import PhaseConfig, StepConfig, trainable_parts, unfreeze
from finetune.steps import Trainer
from finetune.upper import Boundary, Upper, upper_layers
from tests.finetune.conftest import Searched
from tests.finetune.corpus import make_model
from tests.finetune.searched import copy_work

POOLINGS: list[dict[str, Any]] = [
    {"kind": "mqmha", "queries": 2, "heads": 2},
    {"kind": "average+vad_average"},
]


def boundary_of(
    work: Work, manifest: Manifest, model: EmotionModel, dtype: str, layers: int | None = None
) -> Boundary:
    found, told = open_boundary(
        FrameCache(work), manifest, model, layers, stored_dtype=dtype, device="cpu"
    )
    assert found is not None, told
    return found


def losses(model: EmotionModel, manifest: Manifest, boundary: Boundary | None) -> list[float]:
    """Of 20 steps of phase 2, with dropout in the upper layers and the head."""
    parts = trainable_parts(model, 2)
    unfreeze(model, parts)
    train = gather_examples(model, manifest.in_split("train"), {})[0]
    steps = StepConfig(frame_budget=200)
    trainer = Trainer(model, parts, PhaseConfig(2, 1e-3, epochs=9), steps, train, None, boundary)
    rows = [row for epoch in range(1, 10) for row in trainer.run_epoch(epoch)]
    return [row.loss for row in rows[:20] if row.loss is not None]


@pytest.mark.parametrize("modality", ["audio", "text"])
@pytest.mark.parametrize("start", [0, 1, 2, 3])
def test_upper_layers_from_a_hidden_state_give_what_the_whole_encoder_gives(
    modality: str, start: int, encoders: Path, manifest: Manifest
) -> None:
    model = make_model(encoders)
    some = manifest.utterances[:5]
    encoder = model.get_submodule(f"{modality}_encoder")
    inputs = [load_audio(u.audio) for u in some] if modality == "audio" else [u.text for u in some]
    with torch.no_grad():
        states: dict[int, Frames] = encoder(inputs, [start, 3])
        found = upper_layers(encoder, start, 3)  # type: ignore[arg-type]
        assert isinstance(found, Upper)
        again = found(states[start])
    torch.testing.assert_close(again.values, states[3].values, atol=1e-5, rtol=0)
    assert again.lengths.tolist() == states[3].lengths.tolist()


@pytest.mark.parametrize("pooling", POOLINGS, ids=lambda pooling: pooling["kind"])
def test_losses_from_a_float32_boundary_equal_those_from_recordings(
    pooling: dict[str, Any], searched: Searched, manifest: Manifest, tmp_path: Path
) -> None:
    work = copy_work(searched.work, tmp_path / "work")
    raw, cached = (make_model(work.encoders, pooling) for _ in range(2))
    expected = losses(raw, manifest, None)
    found = losses(cached, manifest, boundary_of(work, manifest, cached, "float32"))
    assert len(found) == 20
    assert found == pytest.approx(expected, abs=1e-4)
    assert found[-1] < found[0]


def test_losses_from_a_float16_boundary_come_near(
    searched: Searched, manifest: Manifest, tmp_path: Path
) -> None:
    work = copy_work(searched.work, tmp_path / "work")
    raw, cached = make_model(work.encoders), make_model(work.encoders)
    expected = losses(raw, manifest, None)
    found = losses(cached, manifest, boundary_of(work, manifest, cached, "float16"))
    assert found == pytest.approx(expected, abs=2e-2)


def test_the_boundary_is_extracted_once_and_alone(
    searched: Searched, manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = copy_work(searched.work, tmp_path / "work")
    record = work.extraction.read_text()
    before = {path.name for path in work.features.iterdir()}
    boundary_of(work, manifest, make_model(work.encoders), "float16")
    new = {path.name for path in work.features.iterdir()} - before
    assert {name.partition("-")[0] for name in new} == {"audio", "text"}
    streams = {path.name for name in new for path in (work.features / name).iterdir()}
    assert {name for name in streams if not name.endswith(".json")} == {"layer_2"}
    assert work.extraction.read_text() == record
    monkeypatch.setattr(passes, "run_plan", None)
    boundary_of(work, manifest, make_model(work.encoders), "float16")


def test_with_no_layer_to_train_the_boundary_is_what_the_head_reads(
    searched: Searched, manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(passes, "run_plan", None)  # it is all there
    model = make_model(searched.work.encoders)
    boundary = boundary_of(searched.work, manifest, model, "float32", layers=0)
    some = manifest.utterances[:3]
    states = boundary.states(some)
    assert torch.equal(boundary.uppers["audio"](states["audio"]).values, states["audio"].values)


def test_an_encoder_whose_upper_layers_need_more_is_run_from_recordings(
    searched: Searched, manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uppers, "Samples", StackedMels)
    monkeypatch.setattr(uppers, "TOLERANCE", {"fp32": -1.0})
    model = make_model(searched.work.encoders)
    found, told = open_boundary(
        FrameCache(searched.work), manifest, model, None, stored_dtype="float32", device="cpu"
    )
    assert found is None
    assert told == [
        "No boundary cache for the audio encoder: it reads waveforms through convolutions.",
        "No boundary cache for the text encoder: its upper layers depend on more than hidden "
        "states.",
    ]


def test_the_layers_are_in_their_place_afterwards(encoders: Path) -> None:
    model = make_model(encoders)
    before = dict(model.named_modules())
    encoder = model.text_encoder
    assert encoder is not None
    found = upper_layers(encoder, 2, 3)
    assert isinstance(found, Upper)
    found(Frames(torch.randn(7, 96), torch.tensor([0, 3, 7])))
    assert dict(model.named_modules()) == before


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "Trains from cached hidden states: audio layer 2 and text layer 2, float16."),
        ({"spec_augment": 0.1}, "SpecAugment changes what the lower layers hear"),
        ({"precision": "bf16"}, "extraction computes in another precision"),
        ({"precision": "bf16"}, "of 9 dev rows the same label"),
    ],
    ids=["default", "spec_augment", "bf16", "bridge"],
)
def test_whether_the_cache_is_used_is_told(
    options: dict[str, Any], words: str, searched: Searched, manifest: Manifest, tmp_path: Path
) -> None:
    work = copy_work(searched.work, tmp_path / "work")
    said: list[str] = []
    config = FinetuneConfig(phases=(2,), epochs=1, frame_budget=300, device="cpu", **options)
    rows = tuple(u for u in manifest.utterances if u.split != "test")
    run_finetune(work, replace(manifest, utterances=rows), config, tell=said.append)
    assert words in "\n".join(said)


def test_hidden_states_are_read_ahead_in_the_plan_s_order_by_one_thread(
    searched: Searched, manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = copy_work(searched.work, tmp_path / "work")
    boundary = boundary_of(work, manifest, make_model(work.encoders), "float16")
    threads: list[str] = []
    plain = Boundary.states

    def states(self: Boundary, utterances: Sequence[Utterance]) -> dict[str, Frames]:
        threads.append(threading.current_thread().name)
        return plain(self, utterances)

    monkeypatch.setattr(Boundary, "states", states)
    plan = [(3, 1), (0,), (2, 4), (6, 5), (7,)]
    found = load_batches(manifest.utterances, plan, audio=True, boundary=boundary)
    first = next(found)
    assert first.rows == (3, 1)
    assert AHEAD - 1 <= len(threads) <= AHEAD + 1
    batches = [first, *found]
    assert [batch.rows for batch in batches] == plan
    assert len(set(threads)) == 1
    assert threading.current_thread().name not in threads
    for batch in batches:
        for name, frames in plain(boundary, [manifest.utterances[n] for n in batch.rows]).items():
            assert torch.equal(batch.states[name].values, frames.values)
    left = load_batches(manifest.utterances, plan, audio=True, boundary=boundary)
    next(left)
    left.close()  # type: ignore[attr-defined]
    assert not any(one.name.startswith("states") for one in threading.enumerate())
