"""Average pooling: μ = mean_t X_t."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from heads.pooling.fixed import FixedPooling, uniform_weights
from heads.pooling.registry import register


@register("average")
@dataclass(frozen=True)
class Average:
    """The mean over all frames."""

    needs_speech: ClassVar[bool] = False

    def out_dim(self, dim: int) -> int:
        """K values."""
        return dim

    def build(self, dim: int, stack: int) -> FixedPooling:
        """The module; it has no parameters."""
        return FixedPooling(self, ["mean"], stack, uniform_weights)
