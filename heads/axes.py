"""What an axis of the search space is: listed values, or a range of numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, combinations
from typing import Any

#: How frames are normalised (`heads.head.HeadConfig`).
INPUT_NORMS = ("none", "layernorm", "standardise", "speaker")


@dataclass(frozen=True)
class Choice:
    """An axis of listed values.

    Attributes:
        values: those that are drawn.
        on_request: further ones that a space file or a protocol may name.
    """

    values: tuple[Any, ...]
    on_request: tuple[Any, ...] = ()

    @property
    def known(self) -> tuple[Any, ...]:
        """What a space file or a protocol may name."""
        return (*self.values, *self.on_request)


@dataclass(frozen=True)
class Range:
    """An axis of numbers from `low` to `high`, drawn evenly, or evenly in their logarithm.

    Attributes:
        low: the smallest that is drawn.
        high: the largest.
        log: whether in the logarithm.
        least: the smallest that a space file or a protocol may name; None: `low`.
        most: the largest; None: `high`.
    """

    low: float
    high: float
    log: bool = False
    least: float | None = None
    most: float | None = None

    @property
    def limits(self) -> tuple[float, float]:
        """What a space file or a protocol may name."""
        return (
            self.low if self.least is None else self.least,
            self.high if self.most is None else self.most,
        )


Axis = Choice | Range


def selections(modalities: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    """What may be read together, in their order: all first, then fewer, each alone last."""
    sizes = range(len(modalities), 0, -1)
    return tuple(chain.from_iterable(combinations(modalities, size) for size in sizes))


def nearest(axis: Axis, value: Any) -> Any:  # noqa: ANN401 - an axis has its own type
    """The value itself where an axis has it; else its nearest number or its first choice."""
    if isinstance(axis, Range):
        return min(max(value, axis.low), axis.high)
    return value if value in axis.values else axis.values[0]


def choices(axis: Axis) -> tuple[Any, ...]:
    """The listed values; none of a range."""
    return axis.values if isinstance(axis, Choice) else ()
