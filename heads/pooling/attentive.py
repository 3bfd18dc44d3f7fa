"""Attentive statistics pooling with Q queries and H heads (AS, SA, MHA, MQMHA).

Leygue et al., Interspeech 2025, after Okabe et al. 2018 and Leygue's multi-query multi-head form:
the K features are split into H slices X^(h); each query q and head h scores its slice,
e_t = F^(q,h)(X_t^(h)), ω = softmax over t, μ = Σ ω X and σ = sqrt(Σ ω X² − μ²). The output is
query-major, then head, then [μ, σ]: 2·Q·K values. F is linear (n = 1) or a two-layer ReLU network
with p hidden units (n = 2), without an output bias: the softmax ignores it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cache.frames import Frames
from corpora.errors import ConfigError
from heads.pooling.registry import register
from heads.pooling.segments import segment_moments, segment_softmax
from heads.pooling.view import RELATIVE_FLOOR, VARIANCE_FLOOR, Affine, View, as_view


@register("as", queries=1, heads=1, scorer_layers=2)
@register("sa", queries=2, heads=1, scorer_layers=2)
@register("mha", queries=1, heads=2, scorer_layers=1)
@register("mqmha", queries=2, heads=2, scorer_layers=1)
@dataclass(frozen=True)
class Attentive:
    """Learnt weights over frames; mean and deviation under each.

    Attributes:
        queries: Q, sets of weights over all features.
        heads: H, slices the features are split into, each with weights of its own.
        scorer_layers: n, 1 (linear) or 2 (ReLU network).
        hidden: p, hidden units of a two-layer scorer.
        shared_scorer: one scorer for all heads of a query instead of one each.
    """

    needs_speech: ClassVar[bool] = False

    queries: int = 1
    heads: int = 1
    scorer_layers: int = 1
    hidden: int = 256
    shared_scorer: bool = False

    def __post_init__(self) -> None:
        for name in ("queries", "heads", "hidden"):
            if getattr(self, name) < 1:
                raise ConfigError(f"pooling {name} must be at least 1, got {getattr(self, name)}")
        if self.scorer_layers not in (1, 2):
            raise ConfigError(f"scorer_layers must be 1 or 2, got {self.scorer_layers}")

    def out_dim(self, dim: int) -> int:
        """2·Q·K values."""
        if dim % self.heads:
            raise ConfigError(
                f"{self.heads} heads do not divide {dim} features; choose a divisor of {dim}"
            )
        return 2 * self.queries * dim

    def build(self, dim: int, stack: int) -> AttentivePooling:
        """The module with fresh parameters."""
        return AttentivePooling(self, dim, stack)


class AttentivePooling(nn.Module):
    """The parameters of `stack` attentive poolings of one configuration.

    The arithmetic is in `attend`, which serves any number of such modules in one pass.
    """

    def __init__(self, config: Attentive, dim: int, stack: int) -> None:
        super().__init__()
        config.out_dim(dim)
        self.config = config
        self.dim = dim
        self.stack = stack
        slices = 1 if config.shared_scorer else config.heads
        shape = (stack, config.queries, slices)
        width = dim // config.heads
        if config.scorer_layers == 1:
            self.weight = nn.Parameter(torch.empty(*shape, width))
        else:
            self.hidden_weight = nn.Parameter(torch.empty(*shape, config.hidden, width))
            self.hidden_bias = nn.Parameter(torch.empty(*shape, config.hidden))
            self.weight = nn.Parameter(torch.empty(*shape, config.hidden))
        self.reset(None)

    def reset(self, generator: torch.Generator | None) -> None:
        """Draw uniformly within ±1/sqrt(inputs), as `torch.nn.Linear` does."""
        with torch.no_grad():
            for name, parameter in self.named_parameters():
                fan_in = self.dim // self.config.heads
                if name == "weight" and self.config.scorer_layers == 2:
                    fan_in = self.config.hidden
                bound = 1 / math.sqrt(fan_in)
                parameter.uniform_(-bound, bound, generator=generator)

    def forward(self, frames: Frames | View) -> Tensor:
        """`[stack, B, 2·Q·K]`."""
        return self.pool(as_view(frames))

    def pool(self, view: View, affine: Affine | None = None) -> Tensor:
        """`[stack, B, 2·Q·K]` from frames seen through an input affine."""
        return attend(view, [(self, affine)])[0]

    def attention(self, frames: Frames | View, affine: Affine | None = None) -> Tensor:
        """`[stack, N, Q·H]`, query-major; each column sums to 1 over each utterance."""
        view = as_view(frames)
        weights = attention_weights(view, [(self, affine)])[0]
        return weights.view(len(weights), self.stack, -1).transpose(0, 1)


Request = tuple[AttentivePooling, Affine | None]


def attend(view: View, requests: Sequence[Request]) -> list[Tensor]:
    """Pool one batch with many attentive poolings, sharing the frame-level products.

    Args:
        view: the batch.
        requests: poolings, each with the affine its head puts on the input.

    Returns:
        For each request `[stack, B, out_dim]`.
    """
    weights = attention_weights(view, requests)
    results: list[Tensor | None] = [None] * len(requests)
    for heads in sorted({module.config.heads for module, _ in requests}):
        members = [i for i, (module, _) in enumerate(requests) if module.config.heads == heads]
        # [N, columns, H]: all queries of all poolings that split the features in the same way
        columns = torch.cat([weights[i].unflatten(1, (-1, heads)) for i in members], dim=1)
        width = view.centred.shape[1] // heads
        first, second = zip(
            *(
                segment_moments(
                    columns[:, :, h].contiguous(),
                    view.centred[:, h * width : (h + 1) * width],
                    view.lengths,
                )
                for h in range(heads)
            ),
            strict=True,
        )
        mean = torch.stack(first, dim=2)  # [B, columns, H, K/H]
        raw = torch.stack(second, dim=2)
        floor = (raw.detach() * RELATIVE_FLOOR).clamp_min(VARIANCE_FLOOR)
        deviation = torch.maximum(raw - mean.square(), floor).sqrt()
        mean = mean + view.vector("mean").unflatten(1, (1, heads, width))
        sizes = [requests[i][0].stack * requests[i][0].config.queries for i in members]
        for i, mu, sigma in zip(
            members, mean.split(sizes, 1), deviation.split(sizes, 1), strict=True
        ):
            module, affine = requests[i]
            if affine is not None:
                mu = (mu - affine.shift.view(heads, width)) / affine.scale.view(heads, width)
                sigma = sigma / affine.scale.view(heads, width)
            pooled = torch.stack([mu, sigma], dim=3)  # [B, stack·Q, H, 2, K/H]
            results[i] = pooled.unflatten(1, (module.stack, -1)).flatten(2).transpose(0, 1)
    return [result for result in results if result is not None]


def attention_weights(view: View, requests: Sequence[Request]) -> list[Tensor]:
    """Softmax weights of many poolings, for each `[N, stack·Q·H]`.

    All linear scorers are columns of one matrix, a column being zero outside its slice. Two-layer
    scorers are evaluated one pooling after the other: their own products are large enough.
    """
    scores: list[Tensor | None] = [None] * len(requests)
    linear = [i for i, (module, _) in enumerate(requests) if module.config.scorer_layers == 1]
    if linear:
        matrices = [_scorer_matrix(*requests[i]) for i in linear]
        # A constant per utterance cancels in the softmax, so centred frames give the same weights.
        together = view.centred @ torch.cat(matrices).t()
        sizes = [len(matrix) for matrix in matrices]
        for i, part in zip(linear, together.split(sizes, dim=1), strict=True):
            scores[i] = part
    for i, (module, affine) in enumerate(requests):
        if module.config.scorer_layers == 2:
            scores[i] = _network_scores(view, module, affine)
    found = [score for score in scores if score is not None]
    weights = segment_softmax(torch.cat(found, dim=1), view.lengths)
    return list(weights.split([score.shape[1] for score in found], dim=1))


def _scorer_matrix(module: AttentivePooling, affine: Affine | None) -> Tensor:
    """`[stack·Q·H, K]`: each row a linear scorer, zero outside its slice of the features."""
    config = module.config
    weight = module.weight.expand(-1, -1, config.heads, -1)
    slices = torch.eye(config.heads, device=weight.device, dtype=weight.dtype)
    matrix = torch.einsum("sqhd,hg->sqhgd", weight, slices).reshape(-1, module.dim)
    return matrix if affine is None else matrix / affine.scale


def _network_scores(view: View, module: AttentivePooling, affine: Affine | None) -> Tensor:
    """`[N, stack·Q·H]` of two-layer scorers, on the frames as they are.

    Unlike a linear scorer they do see a shift of their input, so centred frames would need a bias
    for each utterance, which costs a pass over the hidden units.
    """
    config = module.config
    width = module.dim // config.heads
    columns = []
    for s in range(module.stack):
        for q in range(config.queries):
            for h in range(config.heads):
                own = 0 if config.shared_scorer else h
                part = slice(h * width, (h + 1) * width)
                weight, bias = module.hidden_weight[s, q, own], module.hidden_bias[s, q, own]
                if affine is not None:
                    weight = weight / affine.scale[part]
                    bias = bias - weight @ affine.shift[part]
                hidden = F.linear(view.values[:, part], weight, bias).relu_()
                columns.append(hidden @ module.weight[s, q, own])
    return torch.stack(columns, dim=1)
