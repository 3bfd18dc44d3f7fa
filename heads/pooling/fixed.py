"""Poolings without scorers: average, maximum, statistics, averages over speech.

Each is one or two of the vectors that a view makes of an utterance, one after the other. The mean
over speech frames is our reading of segmental average pooling (Hyeon et al., arXiv 2410.12416): a
global average treats silence as speech. Max pooling is over valid frames only; as printed in
Leygue et al. 2025 the frames are multiplied by the mask first, which turns a channel that is
negative in every valid frame into 0 once the item is padded. Ragged frames cannot do that.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from cache.frames import Frames
from corpora.base.errors import ConfigError
from heads.pooling.layer_weights import LayerWeightedPooling, check_layers, features_of_a_layer
from heads.pooling.pooling import Pooling, PoolingConfig, uniform_weights
from heads.pooling.registry import register
from heads.pooling.view import Affine, View, as_view

# Deviations do not move with a shift of the input; all other vectors do.
UNSHIFTED = frozenset({"deviation"})
# silero-vad's own default for calling a window speech.
DEFAULT_THRESHOLD = 0.5


class FixedPooling(Pooling):
    """Concatenates parameter-free vectors of the view; the same for every head of the stack.

    Args:
        config: the kind's configuration.
        needs: the vectors (see `View.vector`).
        stack: leading size of the output.
        weights: gives `[N, columns]`, the share of each frame, for kinds that are weighted means.
    """

    def __init__(
        self,
        config: PoolingConfig,
        needs: Sequence[str],
        stack: int,
        weights: Callable[[View], Tensor] = uniform_weights,
    ) -> None:
        super().__init__(config, stack, needs)
        self._names = tuple(needs)
        self._weights = weights

    def pool(self, view: View, affine: Affine | None = None) -> Tensor:
        """`[stack, B, out_dim]`, with an input affine applied to the vectors (they commute)."""
        parts = []
        for name in self._names:
            vector = view.vector(name)
            if affine is not None:
                moved = vector if name in UNSHIFTED else vector - affine.shift
                vector = moved / affine.scale
            parts.append(vector)
        pooled = torch.cat(parts, dim=1)
        return pooled.expand(self.stack, *pooled.shape)

    def attention(self, frames: Frames | View, affine: Affine | None = None) -> Tensor:
        """`[stack, N, columns]`, the fixed share of each frame in the pooled mean."""
        del affine
        weights = self._weights(as_view(frames))
        return weights.expand(self.stack, *weights.shape)


@register("average")
@dataclass(frozen=True)
class Average(PoolingConfig):
    """The mean over all frames: μ = mean_t X_t.

    Attributes:
        layers: how many layers lie beside one another in the frames; of more than one a weighted
            sum is pooled, with learnt weights (`heads.pooling.layer_weights`).
    """

    layers: int = 1

    def __post_init__(self) -> None:
        check_layers(self.layers)

    def out_dim(self, dim: int) -> int:
        """K values, K those of one layer."""
        return features_of_a_layer(dim, self.layers)

    def build(self, dim: int, stack: int) -> Pooling:
        """The module; of one layer it has no parameters."""
        if self.layers > 1:
            return LayerWeightedPooling(self, self.layers, dim, stack)
        return FixedPooling(self, ["mean"], stack)


@register("statistics")
@dataclass(frozen=True)
class Statistics(PoolingConfig):
    """Mean and standard deviation over all frames: [μ, σ] with σ² = mean_t (X_t − μ)².

    Attributes:
        layers: as those of `Average`.
    """

    deviations: ClassVar[bool] = True

    layers: int = 1

    def __post_init__(self) -> None:
        check_layers(self.layers)

    def out_dim(self, dim: int) -> int:
        """2K values, K those of one layer."""
        return 2 * features_of_a_layer(dim, self.layers)

    def build(self, dim: int, stack: int) -> Pooling:
        """The module; of one layer it has no parameters."""
        if self.layers > 1:
            return LayerWeightedPooling(self, self.layers, dim, stack)
        return FixedPooling(self, ["mean", "deviation"], stack)


@register("max")
@dataclass(frozen=True)
class Maximum(PoolingConfig):
    """The largest value of each feature: max_t X_t."""

    def out_dim(self, dim: int) -> int:
        """K values."""
        return dim

    def build(self, dim: int, stack: int) -> Pooling:
        """The module; it has no parameters."""
        return FixedPooling(self, ["max"], stack, _no_weights)


@register("vad_average")
@dataclass(frozen=True)
class VadAverage(PoolingConfig):
    """The mean over speech frames; over all frames where the detector finds no speech.

    Text has no silence: its frames all count.

    Attributes:
        threshold: probability from which a frame is speech, 0 to 1.
    """

    needs_speech: ClassVar[bool] = True

    threshold: float = DEFAULT_THRESHOLD

    def __post_init__(self) -> None:
        if not 0 <= self.threshold <= 1:
            raise ConfigError(
                f"the speech threshold is a probability, 0 to 1; got {self.threshold}"
            )

    def out_dim(self, dim: int) -> int:
        """K values."""
        return dim

    def build(self, dim: int, stack: int) -> Pooling:
        """The module; it has no parameters."""

        def weights(view: View) -> Tensor:
            return view.speech_weights(self.threshold)[:, None]

        return FixedPooling(self, [f"speech_mean@{self.threshold}"], stack, weights)


@register("average+vad_average")
@dataclass(frozen=True)
class AverageAndVadAverage(VadAverage):
    """The mean over all frames beside the mean over speech frames; options as `VadAverage`."""

    def out_dim(self, dim: int) -> int:
        """2K values."""
        return 2 * dim

    def build(self, dim: int, stack: int) -> Pooling:
        """The module; it has no parameters."""

        def weights(view: View) -> Tensor:
            speech = view.speech_weights(self.threshold)[:, None]
            return torch.cat([uniform_weights(view), speech], dim=1)

        return FixedPooling(self, ["mean", f"speech_mean@{self.threshold}"], stack, weights)


def _no_weights(view: View) -> Tensor:
    raise ConfigError(
        "max pooling takes each feature from another frame: it has no attention weights. "
        "Choose an average or an attentive pooling."
    )
