"""The module behind the poolings without parameters: named vectors, one after the other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from cache.frames import Frames
from heads.pooling.registry import PoolingConfig
from heads.pooling.view import Affine, View, as_view

# Deviations do not move with a shift of the input; all other vectors do.
UNSHIFTED = frozenset({"deviation"})


class FixedPooling(nn.Module):
    """Concatenates parameter-free vectors of the view; the same for every head of the stack.

    Args:
        config: the kind's configuration.
        names: the vectors (see `View.vector`).
        stack: leading size of the output.
        weights: gives `[N, columns]`, the share of each frame, for kinds that are weighted means.
    """

    learns_weights: ClassVar[bool] = False

    def __init__(
        self,
        config: PoolingConfig,
        names: Sequence[str],
        stack: int,
        weights: Callable[[View], Tensor],
    ) -> None:
        super().__init__()
        self.config = config
        self.names = tuple(names)
        self.stack = stack
        self._weights = weights

    def forward(self, frames: Frames | View) -> Tensor:
        """`[stack, B, out_dim]`."""
        return self.pool(as_view(frames))

    def pool(self, view: View, affine: Affine | None = None) -> Tensor:
        """`[stack, B, out_dim]`, with an input affine applied to the vectors (they commute)."""
        parts = []
        for name in self.names:
            vector = view.vector(name)
            if affine is not None:
                moved = vector if name in UNSHIFTED else vector - affine.shift
                vector = moved / affine.scale
            parts.append(vector)
        pooled = torch.cat(parts, dim=1)
        return pooled.expand(self.stack, *pooled.shape)

    def attention(self, frames: Frames | View) -> Tensor:
        """`[stack, N, columns]`, the fixed share of each frame in the pooled mean."""
        weights = self._weights(as_view(frames))
        return weights.expand(self.stack, *weights.shape)

    def reset(self, generator: torch.Generator) -> None:
        """There is nothing to draw."""


def uniform_weights(view: View) -> Tensor:
    """`[N, 1]`, 1/T for each frame of an utterance of T frames."""
    lengths = torch.tensor(view.lengths, device=view.values.device, dtype=view.values.dtype)
    return view.per_frame(1 / lengths)[:, None]
