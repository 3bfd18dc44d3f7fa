"""Which hidden states of an encoder something reads: one, or several beside one another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

#: A hidden-state number; or several, ascending, whose frames lie beside one another in this order.
LayersRead = int | tuple[int, ...]


def layer_numbers(read: int | Sequence[int]) -> tuple[int, ...]:
    """The numbers, ascending."""
    return (read,) if isinstance(read, int) else tuple(sorted(read))


def layers_from_json(value: Any) -> LayersRead:  # noqa: ANN401 - a number or a list of such
    """What JSON holds: a number, or a list of at least two.

    Raises:
        ValueError, TypeError: something else.
    """
    if not isinstance(value, list):
        return int(value)
    numbers = tuple(int(number) for number in value)
    if len(numbers) < 2 or numbers != tuple(sorted(set(numbers))):
        raise ValueError(f"layers {value}: expected one number, or several that ascend")
    return numbers


def layers_to_json(read: LayersRead) -> int | list[int]:
    """The inverse of `layers_from_json`."""
    return list(read) if isinstance(read, tuple) else read


def layers_text(read: LayersRead) -> str:
    """Such as `layer 24`, or `layers 8, 16 and 24`."""
    numbers = layer_numbers(read)
    if len(numbers) == 1:
        return f"layer {numbers[0]}"
    return f"layers {', '.join(map(str, numbers[:-1]))} and {numbers[-1]}"
