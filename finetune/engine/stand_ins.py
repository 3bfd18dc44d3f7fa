"""Layers that stand in for others during one forward pass.

An encoder's list of layers keeps its length and its own forward pass its course, so masks, position
embeddings and a norm behind the last layer are what they are in any pass. The layers themselves are
put back afterwards: parameters keep their names and their place.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn


class PassOn(nn.Module):
    """A layer that does nothing.

    Args:
        outputs: how many values the encoder expects of a layer; 0 for the hidden states as such,
            else a tuple that begins with them.
    """

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self._outputs = outputs

    def forward(self, *inputs: Any, **named: Any) -> Any:  # noqa: ANN401 - as each architecture has it
        """What the layer received."""
        hidden = inputs[0] if inputs else named["hidden_states"]
        return (hidden, *[None] * (self._outputs - 1)) if self._outputs else hidden


class StartFrom(nn.Module):
    """A layer that takes given hidden states instead of what it receives.

    Args:
        layer: the layer.
        states: `[B, T, D]`.
    """

    def __init__(self, layer: nn.Module, states: Tensor) -> None:
        super().__init__()
        # In a tuple: the layer is a module of the encoder, not of this one.
        self._layer = (layer,)
        self._states = states

    def forward(self, *inputs: Any, **named: Any) -> Any:  # noqa: ANN401 - as each architecture has it
        """What the layer makes of the given states."""
        if inputs:
            return self._layer[0](self._states, *inputs[1:], **named)
        return self._layer[0](**{**named, "hidden_states": self._states})


@contextmanager
def standing_in(stack: nn.ModuleList, substitutes: Mapping[int, nn.Module]) -> Iterator[None]:
    """Put modules into a list of layers by their positions, and the layers back at the end."""
    before = {position: stack[position] for position in substitutes}
    try:
        for position, module in substitutes.items():
            stack[position] = module
        yield
    finally:
        for position, module in before.items():
            stack[position] = module
