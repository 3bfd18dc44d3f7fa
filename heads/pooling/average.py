"""Average pooling: μ = mean_t X_t."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from heads.pooling.fixed import FixedPooling, uniform_weights
from heads.pooling.layer_weights import LayerWeightedPooling, check_layers, features_of_a_layer
from heads.pooling.registry import register


@register("average")
@dataclass(frozen=True)
class Average:
    """The mean over all frames.

    Attributes:
        layers: how many layers lie beside one another in the frames; of more than one a weighted
            sum is pooled, with learnt weights (`heads.pooling.layer_weights`).
    """

    needs_speech: ClassVar[bool] = False

    layers: int = 1

    def __post_init__(self) -> None:
        check_layers(self.layers)

    def out_dim(self, dim: int) -> int:
        """K values, K those of one layer."""
        return features_of_a_layer(dim, self.layers)

    def build(self, dim: int, stack: int) -> FixedPooling | LayerWeightedPooling:
        """The module; of one layer it has no parameters."""
        if self.layers > 1:
            return LayerWeightedPooling(self, self.layers, dim, stack, deviation=False)
        return FixedPooling(self, ["mean"], stack, uniform_weights)
