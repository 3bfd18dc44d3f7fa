"""The pooling kinds by name: a kind is a frozen config class that can build its module."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, TypeVar

from corpora.base.errors import ConfigError, did_you_mean
from heads.pooling.pooling import Pooling, PoolingConfig


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
