"""Occlusion of audio finds the sound that a model's answer rests on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from cache.encoders.grid import fbank_grid
from cache.frames import Frames
from explain.curves import CurveConfig
from explain.deletion import random_head
from explain.faithfulness import faithfulness_section
from explain.load import LoadedRows, build_subject, model_material
from explain.occlusion import (
    NOISE,
    SILENCE,
    OcclusionConfig,
    frame_losses,
    occlude,
)
from explain.subject import Subject
from finetune.model import EmotionModel
from tests.explain.conftest import Explained
from tests.finetune.corpus import make_model

GRID = fbank_grid(2)


class Listener:
    """Stands for a model whose answer rests on the loudest stretch: class 1 is "loud"."""

    labels = ("quiet", "loud")
    text_encoder = None

    class audio_encoder:  # noqa: N801 - only its grid is looked at
        grid = GRID

    def listen(self, waveforms: list[NDArray[np.float32]]) -> Frames:
        loudest = [float(np.abs(waveform).max()) for waveform in waveforms]
        return Frames(torch.tensor(loudest)[:, None], torch.arange(len(loudest) + 1))

    def head(self, frames: dict[str, Frames]) -> torch.Tensor:
        return torch.cat([torch.zeros_like(frames["audio"].values), frames["audio"].values], dim=1)


@pytest.fixture(autouse=True)
def _no_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model without an encoder takes as much memory as there is."""
    monkeypatch.setattr("explain.occlusion.counted", lambda model, lengths, budget: list(lengths))


def burst() -> NDArray[np.float32]:
    """Two seconds of hardly anything, loud between 1.0 and 1.1 s."""
    sound = np.full(32_000, 1e-3, dtype=np.float32)
    sound[16_000:17_600] = 5.0
    return sound


@pytest.mark.parametrize("seconds", [0.2, 0.3])
def test_the_loss_is_where_the_sound_matters_and_nowhere_else(seconds: float) -> None:
    lost = frame_losses(
        Listener(),  # type: ignore[arg-type]
        burst(), "", 1, (seconds, SILENCE), np.random.default_rng(0),
    )  # fmt: skip
    at = (np.arange(len(lost)) * GRID.hop + GRID.window / 2) / 16_000
    assert len(lost) == GRID.frames(32_000)
    assert 1.0 - seconds / 2 <= at[lost.argmax()] <= 1.1 + seconds / 2
    assert np.abs(lost[np.abs(at - 1.05) > 0.05 + seconds]).max() == 0


def test_noise_is_as_loud_as_what_it_replaces() -> None:
    """So a model that listens to the level alone loses little."""
    silence, noise = (
        frame_losses(
            Listener(),  # type: ignore[arg-type]
            burst(), "", 1, (0.2, fill), np.random.default_rng(0),
        )
        for fill in (SILENCE, NOISE)
    )  # fmt: skip
    assert noise.max() < silence.max()


def test_a_recording_no_longer_than_a_window_is_not_known() -> None:
    lost = frame_losses(
        Listener(),  # type: ignore[arg-type]
        burst()[:3000], "", 1, (0.2, SILENCE), np.random.default_rng(0),
    )  # fmt: skip
    assert np.isnan(lost).all()


@pytest.fixture(scope="module")
def listening(explained: Explained) -> tuple[Subject, EmotionModel]:
    model = make_model(explained.work.encoders)
    model.head = random_head(model.head, 0)  # a fresh one attends evenly
    rows = explained.manifest.in_split("test")
    return build_subject(model.head, model_material(model, rows), split="test"), model


def test_every_window_and_fill_is_correlated_with_attention(
    listening: tuple[Subject, EmotionModel],
) -> None:
    subject, model = listening
    config = OcclusionConfig(windows=(0.1, 0.2), limit=2)
    found = occlude(subject, model, config)
    assert set(found.agreement) == {(s, f) for s in (0.1, 0.2) for f in (SILENCE, NOISE)}
    values = np.stack(list(found.agreement.values()))
    assert values.shape == (4, 2)
    assert (np.abs(values) <= 1).all()


def test_unreadable_and_short_recordings_are_said(
    listening: tuple[Subject, EmotionModel], tmp_path: Path
) -> None:
    subject, model = listening
    lost = replace(subject.utterances[0], audio=tmp_path / "gone.wav")
    changed = replace(subject, utterances=(lost, *subject.utterances[1:]))
    config = OcclusionConfig(windows=(60.0,), fills=(SILENCE,), limit=len(subject))
    section = faithfulness_section(changed, CurveConfig(gradient_limit=0), model, config)
    said = " ".join(section.text)
    assert "1 recordings cannot be read" in said
    assert f"silence of 60 s: {len(subject) - 1}" in said
    assert section.tables[-1].rows[0][3] is None  # not known, not zero


def test_without_a_model_occlusion_is_left_out_and_it_is_said(
    listening: tuple[Subject, EmotionModel],
) -> None:
    subject, _ = listening
    material = LoadedRows(subject.utterances, dict(subject.frames), subject.grid)
    section = faithfulness_section(
        build_subject(subject.head, material), CurveConfig(gradient_limit=0)
    )
    assert any("Audio occlusion is left out" in line for line in section.text)
