"""Statistics pooling: [μ, σ] with σ² = mean_t (X_t − μ)²."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from heads.pooling.fixed import FixedPooling, uniform_weights
from heads.pooling.registry import register


@register("statistics")
@dataclass(frozen=True)
class Statistics:
    """Mean and standard deviation over all frames."""

    needs_speech: ClassVar[bool] = False

    def out_dim(self, dim: int) -> int:
        """2K values."""
        return 2 * dim

    def build(self, dim: int, stack: int) -> FixedPooling:
        """The module; it has no parameters."""
        return FixedPooling(self, ["mean", "deviation"], stack, uniform_weights)
