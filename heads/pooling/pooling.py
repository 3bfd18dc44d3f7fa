"""What every pooling module offers, what all that learn weights over frames share, and their names.

A kind is a frozen config class, registered under a name, that can build its module.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor, nn

from cache.encoders.device import to_device
from cache.frames import Frames
from corpora.base.errors import ConfigError, did_you_mean
from heads.axes import Axis
from heads.pooling.segments import attentive_moments, segment_softmax
from heads.pooling.view import Affine, View, as_view


class PoolingConfig:
    """What a registered config class offers; its instances are frozen dataclasses.

    Attributes:
        needs_speech: whether the speech probability of each audio frame is used.
        needs_words: whether it is used which words audio frames are in (`Frames.words`).
        learns_weights: whether parameters decide which frames count. The module is then an
            `AttentionPooling` (`heads.pooling.pooling`).
        deviations: whether deviations of the frames are among what is pooled.
        axes: the options that a search draws, by name, each with its values.
    """

    needs_speech: ClassVar[bool] = False
    needs_words: ClassVar[bool] = False
    learns_weights: ClassVar[bool] = False
    deviations: ClassVar[bool] = False
    axes: ClassVar[Mapping[str, Axis]] = {}

    def out_dim(self, dim: int) -> int:
        """Size of the pooled vector of frames of size `dim`; ConfigError if they do not fit."""
        raise NotImplementedError

    def build(self, dim: int, stack: int) -> Pooling:
        """The module, for `stack` heads at once."""
        raise NotImplementedError

    @property
    def cost(self) -> float:
        """Outputs that each feature of each frame is multiplied for at every step; 0: no frames."""
        return 0.0

    @property
    def hidden_values(self) -> int:
        """Values of each frame that a step keeps for its gradients, beside the frame."""
        return 0

    @classmethod
    def draw_options(cls, draw: Callable[[str], Any]) -> dict[str, Any]:
        """A configuration's options; `draw` gives a value of one of `axes`.

        A kind some of whose options change nothing under others draws those that do.
        """
        return {name: draw(name) for name in cls.axes}


class Pooling(nn.Module):
    """From the frames of an utterance to one vector, for `stack` heads at once.

    A kind gives `pool`; the other answers hold for one that learns no weights and reads frames.

    Args:
        config: what it is built from.
        stack: how many heads, each with parameters of its own.
        needs: the vectors of a view that are enough to pool (`View.vector`), where they are: they
            are then computed once, and heads train on them. None: frames are read at every step.
    """

    #: Whether frames that are to be left out (`View.padding`) may lie among those that are read:
    #: where what a frame is given depends on no other, and `weighted_moments` does the rest.
    takes_padding: ClassVar[bool] = False

    def __init__(
        self, config: PoolingConfig, stack: int, needs: Sequence[str] | None = None
    ) -> None:
        super().__init__()
        self.config = config
        self.stack = stack
        self.needs = None if needs is None else tuple(needs)

    @property
    def learns_weights(self) -> bool:
        """Whether its parameters decide which frames count."""
        return self.config.learns_weights

    def forward(self, frames: Frames | View) -> Tensor:
        """`[stack, B, out_dim]`."""
        return self.pool(as_view(frames))

    def pool(self, view: View, affine: Affine | None = None) -> Tensor:
        """`[stack, B, out_dim]` from frames seen through an optional input affine."""
        raise NotImplementedError

    def attention(self, frames: Frames | View, affine: Affine | None = None) -> Tensor:
        """`[stack, N, columns]`, the share of each frame; columns sum to 1 over an utterance.

        Raises:
            ConfigError: frames have no shares in what is pooled.
        """
        del affine  # it decides nothing where no weights are learnt
        weights = uniform_weights(as_view(frames))
        return weights.expand(self.stack, *weights.shape)

    def read(self, view: View, affine: Affine | None = None) -> Frames:
        """The frames `[N, D]` that the first head of the stack takes its moments of."""
        del affine
        assert view.frames is not None, "there are no frames, only vectors"
        return view.frames

    @property
    def layer_shares(self) -> Tensor | None:
        """`[stack, L]`, the weights of L layers, where several are weighed."""
        return None

    def reset(self, generator: torch.Generator | None) -> None:
        """Draw fresh parameters; there may be none."""

    @staticmethod
    def pool_together(
        view: View, requests: Sequence[tuple[Pooling, Affine | None]]
    ) -> list[Tensor]:
        """Pool one batch with several poolings of one class, each behind its head's affine.

        Kinds whose members can share work on the frames do so here.

        Returns:
            For each request `[stack, B, out_dim]`.
        """
        return [module.pool(view, affine) for module, affine in requests]


class AttentionPooling(Pooling):
    """Means under learnt weights over frames, and deviations where the config says so.

    A kind gives `scores`. Weights ω are their softmax over an utterance's frames; μ = Σ ω X and
    σ = sqrt(Σ ω X² − μ²) of each of H slices of the features under each of Q sets of weights lie
    query-major, then slice, then [μ, σ].

    Args:
        config: what it is built from.
        stack: how many heads.
        slices: H; 1 where a frame's weights are the same for all features.
    """

    def __init__(self, config: PoolingConfig, stack: int, slices: int = 1) -> None:
        super().__init__(config, stack)
        self.slices = slices

    def scores(self, view: View, affine: Affine | None = None) -> Tensor:
        """`[H, stack·Q, N]`, what the softmax over an utterance's frames is taken of."""
        raise NotImplementedError

    def pool(self, view: View, affine: Affine | None = None) -> Tensor:
        """`[stack, B, out_dim]` from frames seen through an input affine."""
        return self.pool_scored(view, affine, self.scores(view, affine), self.stack)

    def pool_scored(self, view: View, affine: Affine | None, scores: Tensor, stack: int) -> Tensor:
        """`[stack, B, out_dim]` under given scores `[H, stack·Q, N]`; -inf leaves a frame out."""
        mean, deviation = weighted_moments(view, scores)
        return self.lay_out(with_mean(mean, view), deviation, affine, stack)

    def lay_out(self, mean: Tensor, deviation: Tensor, affine: Affine | None, stack: int) -> Tensor:
        """Pooled vectors `[stack, B, out_dim]` from moments of unmoved frames.

        They are `[B, stack·Q, K]`, or cut into slices, `[B, stack·Q, S, K/S]`, which H divides.
        """
        mean, deviation = moved(mean, deviation, affine)
        moments = [mean, deviation] if self.config.deviations else [mean]
        # [B, stack·Q, H, moments, S/H, K/S]
        cut = [one.unflatten(2, (self.slices, -1)) for one in moments]
        vectors: Tensor = torch.stack(cut, dim=3).unflatten(1, (stack, -1))
        return vectors.flatten(2).transpose(0, 1)

    def attention(self, frames: Frames | View, affine: Affine | None = None) -> Tensor:
        """`[stack, N, Q·H]`, query-major; each column sums to 1 over each utterance."""
        view = as_view(frames)
        weights = attention_weights(self.scores(view, affine), view)
        return weights.view(len(weights), self.stack, -1).transpose(0, 1)


def weighted_moments(view: View, scores: Tensor) -> tuple[Tensor, Tensor]:
    """`attentive_moments` of a view under scores `[S, C, N]`; of padding none counts."""
    if view.padding is not None:
        scores = scores.masked_fill(view.padding, float("-inf"))
    return attentive_moments(scores, view.centred, view.lengths)


def with_mean(mean: Tensor, view: View) -> Tensor:
    """Means `[B, C, S, D/S]` of centred frames as those of the frames."""
    return mean + view.vector("mean").view(len(mean), 1, *mean.shape[2:])


def moved(mean: Tensor, deviation: Tensor, affine: Affine | None) -> tuple[Tensor, Tensor]:
    """Moments `[B, C, …]` seen through an affine of one row `[D]`, or of C."""
    if affine is None:
        return mean, deviation
    shift, scale = (
        one.view(*one.shape[:-1], *mean.shape[2:]) for one in (affine.shift, affine.scale)
    )
    return (mean - shift) / scale, deviation / scale


def attention_weights(scores: Tensor, view: View) -> Tensor:
    """`[N, C·H]` from scores `[H, C, N]`; each column sums to 1 over each utterance."""
    return segment_softmax(scores.permute(2, 1, 0).flatten(1), view.lengths)


def uniform_weights(view: View) -> Tensor:
    """`[N, 1]`, 1/T for each frame of an utterance of T frames."""
    lengths = to_device(torch.tensor(view.lengths, dtype=view.values.dtype), view.values.device)
    return view.per_frame(1 / lengths)[:, None]


@dataclass(frozen=True)
class _Kind:
    config: type[PoolingConfig]
    defaults: Mapping[str, Any]
    searched_as: str


Config = TypeVar("Config", bound=PoolingConfig)

_KINDS: dict[str, _Kind] = {}


def register(
    name: str,
    *,
    searched: bool | str = True,
    **defaults: Any,  # noqa: ANN401 - options have types of their own
) -> Callable[[type[Config]], type[Config]]:
    """Register a config class under `name`, with defaults that belong to this name.

    Args:
        name: the kind.
        searched: whether a search draws it: under its own name, or under another one that says
            better what all its options cover. Not for one that is a point of another kind.
        defaults: options' values, in place of the class's own.

    Raises:
        ConfigError: the name is taken.
    """

    def decorate(config_class: type[Config]) -> type[Config]:
        if name in _KINDS:
            raise ConfigError(f"pooling kind '{name}' is registered twice")
        label = searched if isinstance(searched, str) else name if searched else ""
        _KINDS[name] = _Kind(config_class, defaults, label)
        return config_class

    return decorate


def pooling_kinds() -> tuple[str, ...]:
    """The registered names, sorted."""
    return tuple(sorted(_KINDS))


def searched_kinds() -> dict[str, str]:
    """The kinds that a search draws, by the names that it has for them, sorted by these."""
    found = {kind.searched_as: name for name, kind in _KINDS.items() if kind.searched_as}
    return dict(sorted(found.items()))


def pooling_class(kind: str) -> type[PoolingConfig]:
    """The config class of a kind (ConfigError where there is no such kind)."""
    if kind not in _KINDS:
        raise ConfigError(
            f"unknown pooling kind {kind!r}.{did_you_mean(str(kind), _KINDS)} "
            f"Known: {', '.join(pooling_kinds())}."
        )
    return _KINDS[kind].config


def pooling_config(description: Mapping[str, Any]) -> PoolingConfig:
    """The config object of a description such as `{"kind": "mqmha", "queries": 2}`.

    Raises:
        ConfigError: unknown kind or option (close matches are named), or a value of another type or
            out of range.
    """
    options = dict(description)
    kind = options.pop("kind", None)
    config_class = pooling_class(kind)
    known = {field.name: field.default for field in fields(config_class)}  # type: ignore[arg-type]
    for option, value in options.items():
        if option not in known:
            raise ConfigError(
                f"pooling '{kind}' has no option {option!r}.{did_you_mean(option, known)} "
                f"Options: {', '.join(known) or 'none'}."
            )
        if not _of_the_kind(value, known[option]):
            raise ConfigError(
                f"pooling '{kind}': {option} has to be {_named(known[option])}, got {value!r}."
            )
    return config_class(**{**_KINDS[kind].defaults, **options})


def _of_the_kind(value: object, default: object) -> bool:
    """Whether an option's value is of the type of its default; a whole number is a number too."""
    if isinstance(default, float):
        return isinstance(value, int | float) and not isinstance(value, bool)
    return type(value) is type(default)


def _named(default: object) -> str:
    names = {bool: "true or false", int: "a whole number", float: "a number"}
    return names[type(default)]


def build_pooling(description: Mapping[str, Any], dim: int, stack: int = 1) -> Pooling:
    """Build a pooling module.

    `module(frames) -> [stack, B, out_dim]`; `module.attention(frames) -> [stack, N, columns]`.

    >>> from cache.frames import Frames
    >>> frames = Frames.from_list([torch.ones(3, 8), torch.ones(5, 8)])
    >>> pooling = build_pooling({"kind": "mqmha", "queries": 2, "heads": 4}, dim=8)
    >>> pooling(frames).shape, pooling.attention(frames).shape
    (torch.Size([1, 2, 32]), torch.Size([1, 8, 8]))

    Args:
        description: the kind and its options, e.g.
            `{"kind": "mqmha", "queries": 2, "heads": 2, "scorer_layers": 1, "hidden": 256}`.
        dim: features per frame.
        stack: how many heads with parameters of their own are evaluated at once.

    Raises:
        ConfigError: unknown kind or option, or the options do not fit `dim`.
    """
    if dim < 1 or stack < 1:
        raise ConfigError(f"dim and stack must be at least 1, got {dim} and {stack}")
    return pooling_config(description).build(dim, stack)
