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
from itertools import groupby
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from cache.encoders.device import to_device
from corpora.base.errors import ConfigError
from heads.axes import Axis, Choice
from heads.pooling.pooling import (
    AttentionPooling,
    Pooling,
    PoolingConfig,
    moved,
    register,
    weighted_moments,
    with_mean,
)
from heads.pooling.segments import layout
from heads.pooling.view import Affine, View
from heads.step import constants


def linear_scores(weight: Tensor, centred: Tensor) -> Tensor:
    """Scores of linear scorers, slice by slice.

    Args:
        weight: `[S, C, D/S]`, row c of slice s reads the slice's features.
        centred: `[N, D]`.

    Returns:
        `[S, C, N]` in the dtype of the weights: what each slice adds to the scores.
    """
    parts = centred.unflatten(1, (len(weight), -1)).permute(1, 2, 0)
    return torch.bmm(weight.to(centred.dtype), parts).to(weight.dtype)


def network_scores(
    weight: Tensor, bias: Tensor, output: Tensor, centred: Tensor, lengths: Sequence[int]
) -> Tensor:
    """Scores of two-layer scorers on slices of the features, Σ_p v_p ReLU(w_p·x + b_p).

    The hidden units of all scorers of a slice, however many each has, are rows of one product.

    Args:
        weight: `[S, R, D/S]`: for each slice R hidden units over its features.
        bias: `[S, R, B]`, one for each utterance.
        output: `[S, C, R]`, zero outside each scorer's own units.
        centred: `[N, D]`.
        lengths: frames per utterance.

    Returns:
        `[S, C, N]` in the dtype of the weights.
    """
    parts = centred.unflatten(1, (len(weight), -1)).permute(1, 2, 0)
    linear = torch.bmm(weight.to(centred.dtype), parts).to(weight.dtype)
    own = layout(tuple(lengths), centred.device) if len(lengths) > 1 else None
    if own is None or own.slot is None:
        units = (linear.unflatten(2, (len(lengths), -1)) + bias[..., None]).flatten(2)
    elif centred.is_cuda:
        units = linear + bias.index_select(2, own.owner)
    else:
        # Picked by a product, whose gradient is one too: a CPU adds up slowly by index.
        each = torch.arange(len(lengths))[:, None] == own.owner
        units = torch.baddbmm(linear, bias, each.to(bias.dtype).expand(len(bias), -1, -1))
    return torch.bmm(output, units.relu())


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

    takes_padding: ClassVar[bool] = True

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
        can follow it (EMO-DB, Whisper: AS .57 instead of .89; docs/studies.md).
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
        return _scores(view, [(self, affine)], self.slices)

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
        # Those that are laid out alike lie beside one another.
        order = sorted(members, key=lambda i: _kind(requests[i]))
        group = [requests[i] for i in order]
        scores = _scores(view, group, slices)
        mean, deviation = weighted_moments(view, scores)
        mean, deviation = moved(with_mean(mean, view), deviation, _affine(group))
        alike = [list(own) for _, own in groupby(order, lambda i: _kind(requests[i])[0])]
        counts = [sum(_sets(requests[i]) for i in own) for own in alike]
        moments = zip(mean.split(counts, 1), deviation.split(counts, 1), strict=True)
        for own, (mu, sigma) in zip(alike, moments, strict=True):
            modules = [requests[i][0] for i in own]
            vectors = modules[0].lay_out(mu, sigma, None, 1).squeeze(0)
            sizes = [module.stack * module.config.out_dim(module.dim) for module in modules]
            parts = zip(own, modules, vectors.split(sizes, dim=1), strict=True)
            for i, module, part in parts:
                results[i] = part.unflatten(1, (module.stack, -1)).transpose(0, 1)
    return [results[i] for i in range(len(requests))]


def _kind(request: Request) -> tuple[int, int]:
    """Heads and layers of the scorer: poolings that agree are rows of one product."""
    return request[0].config.heads, request[0].config.scorer_layers


def _sets(request: Request) -> int:
    """Sets of weights of a pooling, stack·Q."""
    return request[0].stack * request[0].config.queries


def _affine(requests: Sequence[Request]) -> Affine | None:
    """The affines of all sets of weights: `[C, D]`, or `[1, D]` where heads share theirs."""
    given = {id(affine and affine.shift): affine for _, affine in requests}
    first = next((affine for affine in given.values() if affine is not None), None)
    if first is None:
        return None
    if len(given) == 1:
        return Affine(first.shift[None], first.scale[None])
    none = _no_affine(len(first.shift), first.shift.device)
    each = [(affine or none, _sets((module, affine))) for module, affine in requests]
    return Affine(
        torch.cat([own.shift.expand(sets, -1) for own, sets in each]),
        torch.cat([own.scale.expand(sets, -1) for own, sets in each]),
    )


@constants(maxsize=8)
def _no_affine(dim: int, device: torch.device) -> Affine:
    with torch.inference_mode(mode=False):  # a later caller may want gradients
        return Affine(torch.zeros(dim, device=device), torch.ones(dim, device=device))


def _joined(parts: Sequence[Tensor], dim: int) -> Tensor:
    return torch.cat(list(parts), dim=dim) if len(parts) > 1 else parts[0]


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


def _scores(view: View, requests: Sequence[Request], slices: int) -> Tensor:
    """Scores of the requests, sorted by kind, one after the other: `[slices, C, N]`."""
    kinds = {kind: list(own) for kind, own in groupby(requests, _kind)}
    found: dict[tuple[int, int], Tensor] = {}
    linear = {kind: own for kind, own in kinds.items() if kind[1] == 1}
    if linear:
        matrix = _scorer_matrix([one for own in linear.values() for one in own], slices)
        counts = [sum(map(_sets, own)) for own in linear.values()]
        parts = linear_scores(matrix, view.centred).split(counts, dim=1)
        for kind, part in zip(linear, parts, strict=True):
            # A head's score is the sum over the slices it reads.
            each = part.unflatten(0, (kind[0], -1))
            found[kind] = each.squeeze(1) if each.shape[1] == 1 else each.sum(dim=1)
    for kind, own in kinds.items():
        if kind not in found:
            found[kind] = _network_scores(view, own, kind[0])
    ready = [found[kind] for kind in kinds]
    return _joined(
        [
            one if len(one) == slices else one.repeat_interleave(slices // len(one), dim=0)
            for one in ready
        ],
        dim=1,
    )


def _scorer_matrix(requests: Sequence[Request], slices: int) -> Tensor:
    """`[slices, C, K/slices]`, the rows of linear scorers, cut into slices."""
    weights = [module.weight.expand(-1, -1, module.config.heads, -1) for module, _ in requests]
    rows = _joined([weight.flatten(0, 1).flatten(1) for weight in weights], dim=0)
    affine = _affine(requests)
    if affine is not None:
        rows = rows / affine.scale
    cut: Tensor = rows.unflatten(1, (slices, -1))
    return cut.transpose(0, 1)


def _network_scores(view: View, requests: Sequence[Request], heads: int) -> Tensor:
    """Scores of two-layer scorers with so many heads, `[H, C, N]`."""
    # [H, R, K/H], [H, R] and [H, R]: R counts the hidden units of all of them, Σ stack·Q·P.
    weight, bias, output = (
        _joined([_by_head(getattr(module, name), heads) for module, _ in requests], dim=1)
        for name in ("hidden_weight", "hidden_bias", "weight")
    )
    units = [one[0].config.hidden for one in requests for _ in range(_sets(one))]
    owners = _own_units(tuple(units), output.device)
    affine, means = _affine(requests), view.vector("mean").double()
    if affine is not None:
        shift, scale = affine.shift, affine.scale
        if len(shift) == 1:
            means = means - shift
        else:
            shift, scale = (
                one.index_select(0, owners.argmax(dim=0)).unflatten(1, (heads, -1)).transpose(0, 1)
                for one in (shift, scale)
            )
            bias = bias - (weight / scale * shift).sum(dim=2)
        weight = weight / (scale.view(heads, 1, -1) if len(affine.scale) == 1 else scale)
    # What the utterance's mean, taken out of its frames, gives the hidden units.
    # In fp64: means are large beside what frames differ by, and weights cancel in the sum.
    means = means.unflatten(1, (heads, -1)).permute(1, 2, 0)
    from_mean = torch.baddbmm(bias.double()[:, :, None], weight.double(), means).to(weight.dtype)
    return network_scores(weight, from_mean, output[:, None] * owners, view.centred, view.lengths)


def _by_head(parameter: Tensor, heads: int) -> Tensor:
    """`[stack, Q, slices, P, …]` as `[H, stack·Q·P, …]`."""
    each = parameter.expand(-1, -1, heads, *parameter.shape[3:])
    rows: Tensor = each.movedim(2, 0).flatten(1, 3)
    return rows


@constants(maxsize=32)
def _own_units(units: tuple[int, ...], device: torch.device) -> Tensor:
    """`[C, R]`, 1 where a hidden unit is one of a scorer's own; so many of each."""
    with torch.inference_mode(mode=False):  # a later caller may want gradients
        return to_device(torch.block_diag(*(torch.ones(1, own) for own in units)), device)
