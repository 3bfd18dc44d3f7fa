"""Scorers of attentive pooling: what gives each frame its score, for many poolings at once.

Linear scorers of all poolings are rows of shared products, one product for each slice of the
features. Two-layer scorers that read the same slice are rows of one product as well. Both read
frames centred around their utterance's mean: a linear scorer's score then moves by a constant an
utterance, which the softmax does not see, and a two-layer scorer gets what the mean would have
given its hidden units as a bias of the utterance.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from heads.pooling.segments import together
from heads.sharing import Place, share_utterances, shared_product


def linear_scores(weight: Tensor, centred: Tensor) -> Tensor:
    """Scores of linear scorers, slice by slice.

    Args:
        weight: `[S, C, D/S]`, row c of slice s reads the slice's features.
        centred: `[N, D]`.

    Returns:
        `[S, C, N]` in the dtype of the weights: what each slice adds to the scores.
    """
    width = weight.shape[2]
    low = weight.to(centred.dtype)
    parts = [low[s] @ part.t() for s, part in enumerate(centred.split(width, dim=1))]
    return torch.stack(parts).to(weight.dtype)


def network_scores(
    weight: Tensor, bias: Tensor, output: Tensor, frames: Tensor, lengths: Sequence[int]
) -> Tensor:
    """Scores of two-layer scorers, Σ_p v_p ReLU(w_p·x + b_p), that read the same features.

    Args:
        weight: `[C, P, W]`: for C scorers, P hidden units over W features.
        bias: `[B, C, P]`, one for each utterance.
        output: `[C, P]`.
        frames: `[N, W]`, centred; a slice of wider frames is fine.
        lengths: frames per utterance.

    Returns:
        `[C, N]` in the dtype of the weights.
    """
    if together(len(frames) * weight.shape[0] * weight.shape[1], lengths, frames.device):
        return whole_network_scores(weight, bias, output, frames, lengths)
    scores: Tensor = _NetworkScores.apply(weight, bias, output, frames, tuple(lengths))  # type: ignore[no-untyped-call]
    return scores


def whole_network_scores(
    weight: Tensor, bias: Tensor, output: Tensor, frames: Tensor, lengths: Sequence[int]
) -> Tensor:
    """`network_scores` with all utterances in one product."""
    own = torch.tensor(lengths).to(frames.device)
    spread = bias.repeat_interleave(own, dim=0, output_size=len(frames))
    linear = (frames @ weight.flatten(0, 1).to(frames.dtype).t()).to(weight.dtype)
    hidden = (linear.unflatten(1, bias.shape[1:]) + spread).relu()
    scores: Tensor = (hidden * output).sum(dim=2)
    return scores.t()


class _NetworkScores(torch.autograd.Function):
    """Written out so that nothing as large as the hidden units is kept but themselves."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401 - torch's own type is not public
        weight: Tensor,
        bias: Tensor,
        output: Tensor,
        frames: Tensor,
        lengths: tuple[int, ...],
    ) -> Tensor:
        count, units, _ = weight.shape
        low = weight.flatten(0, 1).to(frames.dtype).t()
        biases = bias.flatten(1).to(frames.dtype)
        spread = _spread(output).to(frames.dtype)
        hidden = frames.new_empty(len(frames), count * units)
        scores = weight.new_empty(count, len(frames))

        def score(run: Sequence[Place]) -> None:
            for b, own in run:
                part = hidden[own]
                torch.mm(frames[own], low, out=part).add_(biases[b]).relu_()
                scores[:, own] = (part @ spread).t()

        share_utterances(score, lengths)
        ctx.save_for_backward(weight, output, frames, hidden)
        ctx.lengths = lengths
        return scores

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        weight, output, frames, hidden = ctx.saved_tensors
        count, units, _ = weight.shape
        spread = _spread(output).to(frames.dtype)
        moved = gradient.t().to(frames.dtype)  # [N, C]
        # All scorers against all hidden units in one product; each keeps its own.
        crossed = (moved.t() @ hidden).unflatten(1, (count, units))
        for_output = crossed.diagonal(dim1=0, dim2=1).t().to(output.dtype)
        for_hidden = torch.empty_like(hidden)
        for_bias = weight.new_empty(len(ctx.lengths), count * units)

        def differentiate(run: Sequence[Place]) -> None:
            for b, own in run:
                through = torch.mm(moved[own], spread.t(), out=for_hidden[own])
                torch.ops.aten.threshold_backward.grad_input(
                    through, hidden[own], 0, grad_input=through
                )
                for_bias[b] = through.sum(dim=0, dtype=weight.dtype)

        share_utterances(differentiate, ctx.lengths)
        for_weight = shared_product(for_hidden, frames).to(weight.dtype).view_as(weight)
        for_frames = None
        if ctx.needs_input_grad[3]:
            for_frames = for_hidden @ weight.flatten(0, 1).to(frames.dtype)
        return for_weight, for_bias.unflatten(1, (count, units)), for_output, for_frames, None


def _spread(output: Tensor) -> Tensor:
    """`[C, P]` output weights as `[C·P, C]`, zero outside each scorer's own units."""
    blocks: Tensor = torch.block_diag(*output.unsqueeze(2))
    return blocks
