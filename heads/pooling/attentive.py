"""Attentive statistics pooling with Q queries and H heads (AS, SA, MHA, MQMHA).

Leygue et al., Interspeech 2025, after Okabe et al. 2018 and Leygue's multi-query multi-head form:
the K features are split into H slices X^(h); each query q and head h scores its slice,
e_t = F^(q,h)(X_t^(h)), ω = softmax over t, μ = Σ ω X and σ = sqrt(Σ ω X² − μ²). The output is
query-major, then head, then [μ, σ]: 2·Q·K values. F is linear (n = 1) or a two-layer ReLU network
with p hidden units (n = 2), without an output bias: the softmax ignores it.

Scorers of attentive pooling: what gives each frame its score, for many poolings at once.

Linear scorers of all poolings are rows of shared products, one product for each slice of the
features. Two-layer scorers that read the same slice are rows of one product as well. Both read
frames centred around their utterance's mean: a linear scorer's score then moves by a constant an
utterance, which the softmax does not see, and a two-layer scorer gets what the mean would have
given its hidden units as a bias of the utterance.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from corpora.base.errors import ConfigError
from heads.axes import Axis, Choice
from heads.pooling.pooling import AttentionPooling, Pooling, PoolingConfig
from heads.pooling.registry import register
from heads.pooling.segments import (
    Place,
    attentive_moments,
    share_utterances,
    shared_product,
    together,
)
from heads.pooling.view import Affine, View


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


# AS, SA and MHA are points of what a search draws as `attentive`.
@register("as", searched=False, queries=1, heads=1, scorer_layers=2)
@register("sa", searched=False, queries=2, heads=1, scorer_layers=2)
@register("mha", searched=False, queries=1, heads=2, scorer_layers=1)
@register("mqmha", searched="attentive", queries=2, heads=2, scorer_layers=1)
@dataclass(frozen=True)
class Attentive(PoolingConfig):
    """Learnt weights over frames; mean and deviation under each.

    Attributes:
        queries: Q, sets of weights over all features.
        heads: H, slices the features are split into, each with weights of its own.
        scorer_layers: n, 1 (linear) or 2 (ReLU network).
        hidden: p, hidden units of a two-layer scorer.
        shared_scorer: one scorer for all heads of a query instead of one each.
    """

    learns_weights: ClassVar[bool] = True
    deviations: ClassVar[bool] = True
    axes: ClassVar[Mapping[str, Axis]] = {
        "queries": Choice((1, 2, 4)),
        "heads": Choice((1, 2, 4)),
        "scorer_layers": Choice((1, 2)),
        "hidden": Choice((64, 128, 256)),
    }

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

    def build(self, dim: int, stack: int) -> Pooling:
        """The module with fresh parameters."""
        return AttentivePooling(self, dim, stack)

    @property
    def cost(self) -> float:
        """Of a query its scorers' units, and two moments."""
        units = 1 if self.scorer_layers == 1 else self.hidden
        return self.queries * (units + 2)

    @property
    def hidden_values(self) -> int:
        """The hidden units of networks."""
        return self.queries * self.heads * self.hidden if self.scorer_layers == 2 else 0

    @classmethod
    def draw_options(cls, draw: Callable[[str], Any]) -> dict[str, Any]:
        """`hidden` for networks only."""
        drawn = {name: draw(name) for name in cls.axes if name != "hidden"}
        return drawn if drawn["scorer_layers"] == 1 else {**drawn, "hidden": draw("hidden")}


class AttentivePooling(AttentionPooling):
    """The parameters of `stack` attentive poolings of one configuration.

    The arithmetic is in `attend`, which serves any number of such modules in one pass.
    """

    config: Attentive

    def __init__(self, config: Attentive, dim: int, stack: int) -> None:
        config.out_dim(dim)
        super().__init__(config, stack, config.heads)
        self.dim = dim
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
        """Output weights of scorers are 0, hidden units drawn as `torch.nn.Linear` does.

        All scores are then equal: attention starts uniform, and the head as `statistics`. With
        output weights drawn too, attention starts arbitrary and moves faster than the classifier
        can follow it (EMO-DB, Whisper: AS .57 instead of .89; docs/results.md).
        """
        bound = 1 / math.sqrt(self.dim // self.config.heads)
        with torch.no_grad():
            for name, parameter in self.named_parameters():
                if name == "weight":
                    parameter.zero_()
                else:
                    parameter.uniform_(-bound, bound, generator=generator)

    def scores(self, view: View, affine: Affine | None = None) -> Tensor:
        """`[H, stack·Q, N]`, what the softmax over an utterance's frames is taken of."""
        return _scores(view, [(self, affine)], self.slices)[0]

    @staticmethod
    def pool_together(
        view: View, requests: Sequence[tuple[Pooling, Affine | None]]
    ) -> list[Tensor]:
        """As that of every pooling, sharing the products with frames."""
        return attend(view, cast(Sequence[Request], requests))


Request = tuple[AttentivePooling, Affine | None]


def attend(view: View, requests: Sequence[Request]) -> list[Tensor]:
    """Pool one batch with many attentive poolings, sharing the frame-level products.

    Args:
        view: the batch.
        requests: poolings, each with the affine its head puts on the input.

    Returns:
        For each request `[stack, B, out_dim]`.
    """
    results: dict[int, Tensor] = {}
    for slices, members in _companies(requests).items():
        group = [requests[i] for i in members]
        scores = torch.cat(_scores(view, group, slices), dim=1)
        mean, deviation = attentive_moments(scores, view.centred, view.lengths)
        mean = mean + view.vector("mean")[:, None]
        sizes = [module.stack * module.config.queries for module, _ in group]
        moments = zip(mean.split(sizes, 1), deviation.split(sizes, 1), strict=True)
        for i, (module, affine), (mu, sigma) in zip(members, group, moments, strict=True):
            results[i] = module.lay_out(mu, sigma, affine, module.stack)
    return [results[i] for i in range(len(requests))]


def _companies(requests: Sequence[Request]) -> dict[int, list[int]]:
    """Which requests share their products: by the number of slices the features are cut into.

    Poolings whose numbers of heads divide the largest one are served with it: a head of theirs is
    then several slices with the same weights. Others (3 heads beside 4) are served by themselves.
    """
    companies: dict[int, list[int]] = {}
    counts = [module.config.heads for module, _ in requests]
    for i in sorted(range(len(requests)), key=lambda i: -counts[i]):
        home = next((slices for slices in companies if slices % counts[i] == 0), counts[i])
        companies.setdefault(home, []).append(i)
    return {slices: sorted(members) for slices, members in companies.items()}


def _scores(view: View, requests: Sequence[Request], slices: int) -> list[Tensor]:
    """Scores of each request, `[slices, stack·Q, N]`."""
    scores: dict[int, Tensor] = {}
    linear = [i for i, (module, _) in enumerate(requests) if module.config.scorer_layers == 1]
    if linear:
        matrices = [_scorer_matrix(*requests[i], slices) for i in linear]
        sizes = [matrix.shape[1] for matrix in matrices]
        together = linear_scores(torch.cat(matrices, dim=1), view.centred)
        for i, part in zip(linear, together.split(sizes, dim=1), strict=True):
            # A head's score is the sum over the slices it reads.
            heads = requests[i][0].config.heads
            scores[i] = part.unflatten(0, (heads, -1)).sum(dim=1)
    networks = [i for i in range(len(requests)) if i not in scores]
    for heads in sorted({requests[i][0].config.heads for i in networks}):
        members = [i for i in networks if requests[i][0].config.heads == heads]
        found = _network_scores(view, [requests[i] for i in members], heads)
        scores |= dict(zip(members, found, strict=True))
    return [
        scores[i].repeat_interleave(slices // len(scores[i]), dim=0) for i in range(len(requests))
    ]


def _scorer_matrix(module: AttentivePooling, affine: Affine | None, slices: int) -> Tensor:
    """`[slices, stack·Q, K/slices]`, the rows of linear scorers, cut into slices."""
    weight = module.weight.expand(-1, -1, module.config.heads, -1).flatten(0, 1).flatten(1)
    if affine is not None:
        weight = weight / affine.scale
    cut: Tensor = weight.unflatten(1, (slices, -1))
    return cut.transpose(0, 1)


def _network_scores(view: View, requests: Sequence[Request], heads: int) -> list[Tensor]:
    """Scores of two-layer scorers with so many heads, for each request `[H, stack·Q, N]`.

    Those with equally many hidden units are rows of the same products.
    """
    found: dict[int, Tensor] = {}
    centred, means = view.centred, view.vector("mean")
    width = centred.shape[1] // heads
    for hidden in sorted({module.config.hidden for module, _ in requests}):
        members = [i for i, (module, _) in enumerate(requests) if module.config.hidden == hidden]
        sizes = [requests[i][0].stack * requests[i][0].config.queries for i in members]
        by_head = []
        for h in range(heads):
            part = slice(h * width, (h + 1) * width)
            layers = [_network(*requests[i], h, part) for i in members]
            weight = torch.cat([layer[0] for layer in layers])
            bias = torch.cat([layer[1] for layer in layers])
            output = torch.cat([layer[2] for layer in layers])
            # What the utterance's mean, taken out of its frames, gives the hidden units.
            # In fp64: means are large beside what frames differ by, and weights cancel in the sum.
            moved = means[:, part].double() @ weight.flatten(0, 1).double().t()
            moved = (moved.unflatten(1, bias.shape) + bias).to(weight.dtype)
            by_head.append(network_scores(weight, moved, output, centred[:, part], view.lengths))
        together = torch.stack(by_head)
        found |= dict(zip(members, together.split(sizes, dim=1), strict=True))
    return [found[i] for i in range(len(requests))]


def _network(
    module: AttentivePooling, affine: Affine | None, head: int, part: slice
) -> tuple[Tensor, Tensor, Tensor]:
    """The layers of one head's scorers: `[C, P, K/H]`, `[C, P]` and `[C, P]`, C = stack·Q."""
    own = 0 if module.config.shared_scorer else head
    weight = module.hidden_weight[:, :, own].flatten(0, 1)
    bias = module.hidden_bias[:, :, own].flatten(0, 1)
    if affine is not None:
        weight = weight / affine.scale[part]
        bias = bias - weight @ affine.shift[part]
    return weight, bias, module.weight[:, :, own].flatten(0, 1)
