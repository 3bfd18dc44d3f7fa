"""The pooling kinds by name: a kind is a frozen config class that can build its module."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any, ClassVar, Protocol, TypeVar

from torch import Tensor, nn

from corpora.errors import ConfigError, did_you_mean
from heads.pooling.view import Affine, View


class PoolingConfig(Protocol):
    """What a registered config class offers; instances are frozen dataclasses.

    Attributes:
        needs_speech: whether the speech probability of each audio frame is used.
    """

    needs_speech: ClassVar[bool]

    def out_dim(self, dim: int) -> int:
        """Size of the pooled vector of frames of size `dim`; ConfigError if they do not fit."""

    def build(self, dim: int, stack: int) -> Pooling:
        """The module, for `stack` heads at once."""


class Pooling(Protocol):
    """What a pooling module offers besides being an `nn.Module`.

    Attributes:
        config: what it was built from.
        learns_weights: whether its parameters decide which frames count.
    """

    config: PoolingConfig
    learns_weights: ClassVar[bool]

    def pool(self, view: View, affine: Affine | None = None) -> Tensor:
        """`[stack, B, out_dim]` from frames seen through an optional input affine."""

    def attention(self, frames: Any) -> Tensor:  # noqa: ANN401 - Frames or View
        """`[stack, N, queries*heads]`, each column summing to 1 over each utterance."""

    def reset(self, generator: Any) -> None:  # noqa: ANN401 - torch.Generator
        """Draw fresh parameters, if there are any."""


Config = TypeVar("Config")

_KINDS: dict[str, tuple[type, Mapping[str, Any]]] = {}


def register(name: str, **defaults: Any) -> Callable[[type[Config]], type[Config]]:  # noqa: ANN401
    """Register a config class under `name`, with defaults that belong to this name.

    Raises:
        ConfigError: the name is taken.
    """

    def decorate(config_class: type[Config]) -> type[Config]:
        if name in _KINDS:
            raise ConfigError(f"pooling kind '{name}' is registered twice")
        _KINDS[name] = (config_class, defaults)
        return config_class

    return decorate


def pooling_kinds() -> tuple[str, ...]:
    """The registered names, sorted."""
    return tuple(sorted(_KINDS))


def pooling_config(description: Mapping[str, Any]) -> PoolingConfig:
    """The config object of a description such as `{"kind": "mqmha", "queries": 2}`.

    Raises:
        ConfigError: unknown kind or option (close matches are named), or a value of another type or
            out of range.
    """
    options = dict(description)
    kind = options.pop("kind", None)
    if kind not in _KINDS:
        raise ConfigError(
            f"unknown pooling kind {kind!r}.{did_you_mean(str(kind), _KINDS)} "
            f"Known: {', '.join(pooling_kinds())}."
        )
    config_class, defaults = _KINDS[kind]
    known = {field.name: field.default for field in fields(config_class)}
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
    config: PoolingConfig = config_class(**{**defaults, **options})
    return config


def _of_the_kind(value: object, default: object) -> bool:
    """Whether an option's value is of the type of its default; a whole number is a number too."""
    if isinstance(default, float):
        return isinstance(value, int | float) and not isinstance(value, bool)
    return type(value) is type(default)


def _named(default: object) -> str:
    names = {bool: "true or false", int: "a whole number", float: "a number"}
    return names[type(default)]


def build_pooling(description: Mapping[str, Any], dim: int, stack: int = 1) -> nn.Module:
    """Build a pooling module.

    `module(frames) -> [stack, B, out_dim]`; `module.attention(frames) -> [stack, N, columns]`.

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
    module = pooling_config(description).build(dim, stack)
    assert isinstance(module, nn.Module)
    return module
