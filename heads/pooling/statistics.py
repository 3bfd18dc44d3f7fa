"""Statistics pooling: [μ, σ] with σ² = mean_t (X_t − μ)²."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from heads.pooling.fixed import FixedPooling, uniform_weights
from heads.pooling.layer_weights import LayerWeightedPooling, check_layers, features_of_a_layer
from heads.pooling.registry import register


@register("statistics")
@dataclass(frozen=True)
class Statistics:
    """Mean and standard deviation over all frames.

    Attributes:
        layers: how many layers lie beside one another in the frames; of more than one a weighted
            sum is pooled, with learnt weights (`heads.pooling.layer_weights`).
    """

    needs_speech: ClassVar[bool] = False

    layers: int = 1

    def __post_init__(self) -> None:
        check_layers(self.layers)

    def out_dim(self, dim: int) -> int:
        """2K values, K those of one layer."""
        return 2 * features_of_a_layer(dim, self.layers)

    def build(self, dim: int, stack: int) -> FixedPooling | LayerWeightedPooling:
        """The module; of one layer it has no parameters."""
        if self.layers > 1:
            return LayerWeightedPooling(self, self.layers, dim, stack, deviation=True)
        return FixedPooling(self, ["mean", "deviation"], stack, uniform_weights)
