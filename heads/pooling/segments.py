"""Arithmetic over the utterances of a ragged batch: softmax, maxima and weighted moments."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def segment_softmax(scores: Tensor, lengths: Sequence[int]) -> Tensor:
    """Softmax over the frames of each utterance: `[N, C] -> [N, C]`."""
    return torch.cat([torch.softmax(part, dim=0) for part in scores.split(list(lengths))])


def segment_max(values: Tensor, lengths: Sequence[int]) -> Tensor:
    """Maximum over the frames of each utterance: `[N, D] -> [B, D]`."""
    return torch.stack([part.amax(dim=0) for part in values.split(list(lengths))])


def segment_mean(values: Tensor, lengths: Sequence[int]) -> Tensor:
    """Mean over the frames of each utterance: `[N, D] -> [B, D]`."""
    return torch.stack([part.mean(dim=0) for part in values.split(list(lengths))])


def segment_moments(
    weights: Tensor, values: Tensor, lengths: Sequence[int]
) -> tuple[Tensor, Tensor]:
    """First and second weighted moments of each utterance, for all columns at once.

    Args:
        weights: `[N, C]`.
        values: `[N, D]`; a view with strided rows is fine.
        lengths: frames per utterance.

    Returns:
        `[B, C, D]` twice: Σ_t ω_t x_t and Σ_t ω_t x_t².
    """
    moments = _SegmentMoments.apply(weights, values, tuple(lengths))  # type: ignore[no-untyped-call]
    first, second = moments
    return first, second


class _SegmentMoments(torch.autograd.Function):
    """One small product an utterance, squares made while its frames are in the processor's cache.

    Written out because autograd over slices would keep the squared frames of the whole batch and
    add up a full-size gradient for every utterance.
    """

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401 - torch's own type is not public
        weights: Tensor,
        values: Tensor,
        lengths: tuple[int, ...],
    ) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(weights, values)
        ctx.lengths = lengths
        shape = (len(lengths), weights.shape[1], values.shape[1])
        first, second = values.new_empty(shape), values.new_empty(shape)
        for b, (w, v) in enumerate(zip(weights.split(lengths), values.split(lengths), strict=True)):
            torch.mm(w.t(), v, out=first[b])
            torch.mm(w.t(), v * v, out=second[b])
        return first, second

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, None]:  # noqa: ANN401
        weights, values = ctx.saved_tensors
        first, second = gradients
        for_weights = torch.empty_like(weights) if ctx.needs_input_grad[0] else None
        for_values = values.new_empty(values.shape) if ctx.needs_input_grad[1] else None
        start = 0
        for b, length in enumerate(ctx.lengths):
            rows = slice(start, start + length)
            start += length
            w, v = weights[rows], values[rows]
            if for_weights is not None:
                torch.addmm(v @ first[b].t(), v * v, second[b].t(), out=for_weights[rows])
            if for_values is not None:
                torch.addcmul(w @ first[b], v, w @ second[b], value=2, out=for_values[rows])
        return for_weights, for_values, None
