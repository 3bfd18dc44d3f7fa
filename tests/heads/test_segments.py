"""Moments and scores of a batch, padded or cut, are those of single utterances in NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from heads.pooling.attentive import network_scores
from heads.pooling.segments import MOST_PADDING, attentive_moments

LENGTHS = [3, 1, 9, 4, 4, 7, 2]
FRAMES, DIM = sum(LENGTHS), 12


def one_by_one(
    scores: NDArray[np.float64], frames: NDArray[np.float64], lengths: list[int]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """`[B, C, S, D/S]` twice from the equations, one utterance after the other."""
    slices = len(scores)
    mean, deviation = [], []
    for end, length in zip(np.cumsum(lengths), lengths, strict=True):
        own = scores[:, :, end - length : end]
        weight = np.exp(own - own.max(axis=2, keepdims=True))
        weight /= weight.sum(axis=2, keepdims=True)
        parts = frames[end - length : end].reshape(length, slices, -1)
        first = np.einsum("sct,tsd->csd", weight, parts)
        around = (parts[None] - first[:, None]) ** 2  # [C, T, S, D/S]
        mean.append(first)
        deviation.append(np.sqrt(np.einsum("sct,ctsd->csd", weight, around)))
    return np.stack(mean), np.stack(deviation)


@pytest.mark.parametrize("lengths", [LENGTHS, [4] * 7 + [2], [30]])
@pytest.mark.parametrize("slices", [1, 2, 4])
def test_moments_are_those_of_single_utterances(slices: int, lengths: list[int]) -> None:
    assert max(LENGTHS) * len(LENGTHS) > MOST_PADDING * FRAMES, "the first is cut"
    generator = torch.Generator().manual_seed(slices)
    scores = torch.randn(slices, 3, sum(lengths), generator=generator, dtype=torch.float64)
    frames = torch.randn(sum(lengths), DIM, generator=generator, dtype=torch.float64)
    found = attentive_moments(scores.requires_grad_(), frames.requires_grad_(), lengths)
    expected = one_by_one(scores.detach().numpy(), frames.detach().numpy(), lengths)
    # An utterance of one frame has no deviation, but the floor: √1e-7 of what it is.
    for values, right in zip(found, expected, strict=True):
        np.testing.assert_allclose(values.detach().numpy(), right, atol=1e-3, rtol=1e-9)
    np.testing.assert_allclose(found[0].detach().numpy(), expected[0], rtol=1e-9, atol=1e-12)
    long = [k for k, length in enumerate(lengths) if length > 1]
    np.testing.assert_allclose(found[1].detach()[long], expected[1][long], rtol=1e-9)
    assert torch.autograd.gradcheck(
        lambda a, b: [one[long] for one in attentive_moments(a, b, lengths)], (scores, frames)
    )


def test_a_constant_frame_has_the_floor_as_deviation_and_no_gradient() -> None:
    scores = torch.zeros(1, 1, 4, requires_grad=True)
    mean, deviation = attentive_moments(scores, torch.zeros(4, 2), [4])
    assert torch.equal(mean, torch.zeros(1, 1, 1, 2))
    torch.testing.assert_close(deviation, torch.full((1, 1, 1, 2), 1e-5))
    deviation.sum().backward()
    assert scores.grad is not None
    assert torch.equal(scores.grad, torch.zeros_like(scores))


@pytest.mark.parametrize("lengths", [LENGTHS, [5] * 6])
def test_network_scores_are_those_of_single_utterances(lengths: list[int]) -> None:
    generator = torch.Generator().manual_seed(3)
    # Two slices of 5 hidden units, and three scorers.
    shapes = ((2, 5, DIM // 2), (2, 5, len(lengths)), (2, 3, 5), (sum(lengths), DIM))
    inputs = [torch.randn(own, generator=generator, dtype=torch.float64) for own in shapes]
    weight, bias, output, frames = (one.numpy() for one in inputs)
    expected = np.empty((2, 3, sum(lengths)))
    for t, b in enumerate(np.repeat(np.arange(len(lengths)), lengths)):
        for s, part in enumerate(np.split(frames[t], 2)):
            expected[s, :, t] = output[s] @ np.maximum(weight[s] @ part + bias[s, :, b], 0)
    found = network_scores(inputs[0], inputs[1], inputs[2], inputs[3], lengths)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-9, atol=1e-12)
    leaves = [one.requires_grad_() for one in inputs]
    assert torch.autograd.gradcheck(lambda w, b, v, x: network_scores(w, b, v, x, lengths), leaves)
