"""Saliency: sums, sense and limits; and heads of every kind can be explained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cache.frames import Frames
from corpora.utterance import Utterance
from explain.load import LoadedRows, build_subject
from explain.pooled import (
    as_importance,
    gradient_saliency,
    has_captum,
    integrated_gradients,
    mean_frames,
    occlusion_saliency,
)
from explain.ragged import floats
from explain.subject import ATTENTION, GRADIENT, frame_attention, frame_order
from heads.head import Head, HeadConfig
from tests.explain.planted import LABELS, in_memory, plant, planted_subject


def a_head(pooling: dict[str, Any], norm: str = "none") -> Head:
    config = HeadConfig(LABELS, {"audio": 6, "text": 4}, dict.fromkeys(("audio", "text"), pooling))
    return Head(HeadConfig(**{**vars(config), "input_norm": norm, "mlp_width": 8}), 1).eval()


def a_batch(lengths: tuple[int, ...] = (5, 1, 30), seed: int = 0) -> dict[str, Frames]:
    generator = torch.Generator().manual_seed(seed)
    audio = [torch.randn(length, 6, generator=generator) for length in lengths]
    text = [torch.randn(length + 1, 4, generator=generator) for length in lengths]
    speech = [torch.rand(length, generator=generator) for length in lengths]
    return {"audio": Frames.from_list(audio, speech), "text": Frames.from_list(text)}


@pytest.mark.parametrize("kind", ["average", "max", "statistics", "vad_average", "as", "mqmha"])
@pytest.mark.parametrize("norm", ["none", "layernorm", "standardise"])
def test_gradient_saliency_is_the_derivative_towards_the_mean_frame(kind: str, norm: str) -> None:
    head, batch = a_head({"kind": kind}, norm), a_batch((5, 9))
    # σ has an infinite gradient where nothing varies: 9 frames are enough to vary.
    found = gradient_saliency(head, batch, torch.tensor([1, 1]))["audio"]
    frame, step = 7, 1e-3
    moved = batch["audio"].values.clone()
    direction = moved[frame] - mean_frames(batch["audio"])[frame]

    def logit(factor: float) -> float:
        values = moved.clone()
        values[frame] += factor * direction
        audio = Frames(values, batch["audio"].offsets, batch["audio"].speech)
        return float(head({**batch, "audio": audio})[1, 1].detach())

    numeric = (logit(step) - logit(-step)) / (2 * step)
    assert float(found[frame]) == pytest.approx(numeric, abs=2e-3, rel=2e-2)


@pytest.mark.parametrize(
    ("saliency", "expected"),
    [
        ([3.0, 1.0], [0.75, 0.25]),
        ([-3.0, 1.0], [0.0, 1.0]),  # what speaks against the answer does not count for it
        ([0.0, 0.0], [0.5, 0.5]),
        ([-1.0, -2.0], [0.5, 0.5]),
    ],
)
def test_importance_is_of_frames_that_speak_for_the_answer(
    saliency: list[float], expected: list[float]
) -> None:
    found = as_importance(torch.tensor([*saliency, 1.0, 1.0]), [2, 2])
    torch.testing.assert_close(found, torch.tensor([*expected, 0.5, 0.5], dtype=torch.float64))


def test_the_frames_that_speak_against_the_answer_are_shown_as_nothing() -> None:
    config = HeadConfig(LABELS, {"audio": 1}, {"audio": {"kind": "average"}}, "none", 0)
    head = Head(config, 0).eval()
    with torch.no_grad():
        head.output.weight[:] = torch.tensor([[2.0], [-2.0]] + [[0.0]] * (len(LABELS) - 2))
        head.output.bias.zero_()
    frames = Frames.from_list([torch.tensor([[4.0], [1.0], [-2.0]])])  # mean 1: the first class
    subject = build_subject(
        head, LoadedRows((Utterance("a", Path("a.wav"), ""),), {"audio": frames})
    )
    assert subject.predicted.tolist() == [0]
    assert frame_attention(subject, "audio").tolist() == [1.0, 0.0, 0.0]
    assert frame_order(subject, "audio").tolist() == pytest.approx([2.0, 0.0, -2.0])


def test_occlusion_finds_the_planted_region() -> None:
    subject, truth = planted_subject({"kind": "statistics"})
    hits = 0
    for number in range(10):
        one = {"audio": subject.frames["audio"].select([number])}
        found = floats(occlusion_saliency(subject.head, one, "audio", window=6, step=2))
        start, end = subject.frames["audio"].offsets[number : number + 2].tolist()
        carries = truth.carries[start:end]
        hits += bool(found[carries].mean() > found[~carries].mean())
    assert hits >= 8


def test_an_utterance_no_longer_than_the_window_has_no_occlusion() -> None:
    found = occlusion_saliency(a_head({"kind": "average"}), a_batch((10,)), "audio", window=10)
    assert bool(torch.isnan(found).all())


@pytest.mark.skipif(not has_captum(), reason="captum is not installed (extra explain)")
def test_integrated_gradients_sum_to_the_change_of_the_logit() -> None:
    head, one = a_head({"kind": "as", "hidden": 8}), a_batch((12,))
    found = integrated_gradients(head, one, target=2, steps=200)
    flat = {
        name: Frames(mean_frames(batch), batch.offsets, batch.speech) for name, batch in one.items()
    }
    with torch.no_grad():
        change = float(head(one)[0, 2] - head(flat)[0, 2])
    total = sum(float(part.sum()) for part in found.values())
    assert total == pytest.approx(change, abs=0.02 * max(1, abs(change)))


@pytest.mark.parametrize("kind", ["average", "max", "statistics", "vad_average", "as", "mqmha"])
def test_every_kind_of_head_is_explained_by_weights_that_sum_to_1(kind: str) -> None:
    material = plant(count=6).material
    pooling = {"kind": kind}
    head = Head(HeadConfig(LABELS, {"audio": 64}, {"audio": pooling}, mlp_width=8), 0)
    subject = build_subject(head, material)
    weights = floats(frame_attention(subject, "audio"))
    sums = np.add.reduceat(weights, subject.frames["audio"].offsets[:-1].numpy())
    np.testing.assert_allclose(sums, 1, atol=1e-5)
    assert weights.min() >= 0
    attentive = kind in ("as", "mqmha")
    assert subject.methods["audio"] == (ATTENTION if attentive else GRADIENT)
    assert ("audio" in subject.weights) == attentive


def test_probabilities_and_weights_are_the_heads_own() -> None:
    material = plant(count=9).material
    pooling = {"kind": "mqmha", "queries": 2, "heads": 2}
    head = Head(HeadConfig(LABELS, {"audio": 64}, {"audio": pooling}, mlp_width=8), 0)
    subject = build_subject(head, material)
    with torch.no_grad():
        frames = in_memory(material.frames)
        expected = torch.softmax(head(frames), dim=1)
        weights = head.attention(frames, "audio")
    torch.testing.assert_close(subject.probabilities, expected)
    torch.testing.assert_close(subject.weights["audio"], weights)
    assert subject.weights["audio"].shape[1] == 4


def test_long_utterances_are_covered_by_fewer_wider_windows() -> None:
    found = occlusion_saliency(a_head({"kind": "average"}), a_batch((2_000,)), "audio")
    assert found.shape == (2_000,)
    assert bool(torch.isfinite(found).all())
