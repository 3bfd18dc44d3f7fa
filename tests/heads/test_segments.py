"""The two ways through a batch, one utterance after the other and padded, are one arithmetic."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import heads.pooling.segments
from heads.pooling.attentive import network_scores, whole_network_scores
from heads.pooling.segments import attentive_moments, padded_moments

LENGTHS = [3, 1, 9, 4, 4, 7, 2]
FRAMES, DIM = sum(LENGTHS), 12


def gradients(outputs: tuple[Tensor, ...], inputs: list[Tensor]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(9)
    total = torch.stack(
        [
            (out * torch.randn(out.shape, generator=generator, dtype=out.dtype)).sum()
            for out in outputs
        ]
    ).sum()
    return list(torch.autograd.grad(total, inputs))


@pytest.fixture(autouse=True)
def one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Utterances this small would be worked on together in both ways."""
    monkeypatch.setattr(heads.pooling.segments, "SMALL_VALUES", 0)


@pytest.mark.parametrize("slices", [1, 2, 4])
def test_padded_moments_are_those_of_single_utterances(slices: int) -> None:
    generator = torch.Generator().manual_seed(slices)

    def run(function: Callable[..., tuple[Tensor, Tensor]]) -> tuple[list[Tensor], list[Tensor]]:
        generator.manual_seed(slices)
        scores = torch.randn(slices, 3, FRAMES, generator=generator, dtype=torch.float64)
        frames = torch.randn(FRAMES, DIM, generator=generator, dtype=torch.float64)
        inputs = [scores.requires_grad_(), frames.requires_grad_()]
        found = function(*inputs, LENGTHS)
        return list(found), gradients(found, inputs)

    one, other = run(attentive_moments), run(padded_moments)
    for values, expected in zip(one[0] + one[1], other[0] + other[1], strict=True):
        torch.testing.assert_close(values, expected, atol=1e-10, rtol=1e-8)


def test_a_constant_frame_has_the_floor_as_deviation_and_no_gradient() -> None:
    scores = torch.zeros(1, 1, 4, requires_grad=True)
    mean, deviation = attentive_moments(scores, torch.zeros(4, 2), [4])
    assert torch.equal(mean, torch.zeros(1, 1, 1, 2))
    torch.testing.assert_close(deviation, torch.full((1, 1, 1, 2), 1e-5))
    deviation.sum().backward()
    assert scores.grad is not None
    assert torch.equal(scores.grad, torch.zeros_like(scores))


def test_network_scores_of_a_whole_batch_are_those_of_single_utterances() -> None:
    def run(function: Callable[..., Tensor]) -> tuple[Tensor, list[Tensor]]:
        generator = torch.Generator().manual_seed(3)

        def draw(*shape: int) -> Tensor:
            drawn = torch.randn(*shape, generator=generator, dtype=torch.float64)
            return drawn.requires_grad_()

        # Two slices of 5 hidden units, and three scorers.
        shapes = ((2, 5, DIM // 2), (2, 5, len(LENGTHS)), (2, 3, 5), (FRAMES, DIM))
        inputs = [draw(*shape) for shape in shapes]
        found = function(*inputs, LENGTHS)
        return found, gradients((found,), inputs)

    one, other = run(network_scores), run(whole_network_scores)
    torch.testing.assert_close(one[0], other[0], atol=1e-10, rtol=1e-8)
    for values, expected in zip(one[1], other[1], strict=True):
        torch.testing.assert_close(values, expected, atol=1e-10, rtol=1e-8)
