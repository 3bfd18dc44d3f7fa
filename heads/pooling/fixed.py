"""Poolings without scorers: average, maximum, statistics, averages over speech.

Each is one or two of the vectors that a view makes of an utterance, one after the other. The mean
over speech frames is our reading of segmental average pooling (Hyeon et al., arXiv 2410.12416): a
global average treats silence as speech. Max pooling is over valid frames only; as printed in
Leygue et al. 2025 the frames are multiplied by the mask first, which turns a channel that is
negative in every valid frame into 0 once the item is padded. Ragged frames cannot do that.

Poolings of a weighted sum of several layers: average and statistics with learnt layer weights.

The frames of L layers lie beside one another, `[N, L·D]`, lowest layer first, and the head reads
x_t = Σ_l w_l x_t^l with w = softmax(a), as SUPERB does (Yang et al. 2021, "SUPERB: speech
processing universal performance benchmark", section 3.1); a starts at 0, so at the plain mean.

The sum commutes with the mean over frames, and the variance is a form in the weights:
σ² = Σ_lm w_l w_m cov_lm. So utterances are read once, for their layers' means and the covariances
between layers, and heads train on these. Frames were centred for them: nothing cancels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor, nn

from cache.frames import Frames
from corpora.base.errors import ConfigError
from heads.axes import Axis, Choice
from heads.pooling.pooling import Pooling, PoolingConfig, register, uniform_weights
from heads.pooling.segments import VARIANCE_FLOOR
from heads.pooling.view import (
    DEFAULT_THRESHOLD,
    INFORMATIVE,
    LAYER_COVARIANCE,
    RANDOM,
    Affine,
    View,
    as_view,
    layer_pairs,
)


def features_of_a_layer(dim: int, layers: int) -> int:
    """D of L layers of D features beside one another.

    Raises:
        ConfigError: the layers do not divide the features.
    """
    if dim % layers:
        raise ConfigError(
            f"{layers} layers do not divide {dim} features; the frames of all layers lie beside "
            "one another, each with as many features"
        )
    return dim // layers


class LayerWeightedPooling(Pooling):
    """Mean, and where the config has it deviation, of the weighted sum of layers.

    Args:
        config: the kind's configuration.
        layers: L.
        dim: L·D.
        stack: how many heads, each with weights of its own.
    """

    first: Tensor
    second: Tensor
    times: Tensor

    def __init__(self, config: PoolingConfig, layers: int, dim: int, stack: int) -> None:
        covariances = (f"{LAYER_COVARIANCE}{layers}",) if config.deviations else ()
        super().__init__(config, stack, ("mean", *covariances))
        features_of_a_layer(dim, layers)
        self.layers = layers
        self._covariances = covariances
        self.layer_scores = nn.Parameter(torch.zeros(stack, layers))
        # Of each pair the layers, and how often it counts: two layers stand for both orders.
        pairs = torch.tensor(layer_pairs(layers))
        self.register_buffer("first", pairs[:, 0], persistent=False)
        self.register_buffer("second", pairs[:, 1], persistent=False)
        times = torch.where(pairs[:, 0] == pairs[:, 1], 1.0, 2.0)
        self.register_buffer("times", times, persistent=False)

    def reset(self, generator: torch.Generator | None) -> None:
        """Every layer counts the same; nothing is drawn."""
        with torch.no_grad():
            self.layer_scores.zero_()

    @property
    def layer_shares(self) -> Tensor:
        """`[stack, L]`, the weights; each row sums to 1."""
        return torch.softmax(self.layer_scores, dim=1)

    def pool(self, view: View, affine: Affine | None = None) -> Tensor:
        """`[stack, B, out_dim]` from frames or vectors seen through an input affine."""
        if view.frames is None:
            return self._from_vectors(view, affine)
        # Where frames are at hand, one pass sums the layers; the covariances would take L²/2.
        names = ("mean", "deviation") if self._covariances else ("mean",)
        views = [View(self._weighted(view, affine, head)) for head in range(self.stack)]
        return torch.stack([torch.cat([v.vector(name) for name in names], dim=1) for v in views])

    def read(self, view: View, affine: Affine | None = None) -> Frames:
        """Frames `[N, D]`: the sum that the first head of the stack pools."""
        return self._weighted(view, affine, 0)

    def _weighted(self, view: View, affine: Affine | None, head: int) -> Frames:
        assert view.frames is not None, "there are no frames to sum"
        layers = view.values.unflatten(1, (self.layers, -1))
        if affine is not None:
            layers = (layers - self._cut(affine.shift)) / self._cut(affine.scale)
        share = self.layer_shares[head]
        first, *others = layers.unbind(dim=1)
        total = share[0] * first
        for weight, layer in zip(share[1:], others, strict=True):
            total = torch.addcmul(total, weight, layer)
        return replace(view.frames, values=total)

    def _from_vectors(self, view: View, affine: Affine | None) -> Tensor:
        shares = self.layer_shares
        means = view.vector("mean").unflatten(1, (self.layers, -1))
        if affine is not None:
            means = (means - self._cut(affine.shift)) / self._cut(affine.scale)
        parts = [shares @ means]  # [B, stack, D]
        for name in self._covariances:
            pairs = view.vector(name).unflatten(1, (len(self.times), -1))
            if affine is not None:
                scale = self._cut(affine.scale)
                pairs = pairs / (scale[self.first] * scale[self.second])
            variance = (self.times * shares[:, self.first] * shares[:, self.second]) @ pairs
            parts.append(variance.clamp_min(VARIANCE_FLOOR).sqrt())
        return torch.cat(parts, dim=2).transpose(0, 1)

    def _cut(self, values: Tensor) -> Tensor:
        """`[L·D]` as `[L, D]`."""
        cut: Tensor = values.unflatten(0, (self.layers, -1))
        return cut


# Deviations do not move with a shift of the input; all other vectors do.
UNSHIFTED = frozenset({"deviation"})


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
        self._weights = weights

    def pool(self, view: View, affine: Affine | None = None) -> Tensor:
        """`[stack, B, out_dim]`, with an input affine applied to the vectors (they commute)."""
        return self.pool_together(view, [(self, affine)])[0]

    @staticmethod
    def pool_together(
        view: View, requests: Sequence[tuple[Pooling, Affine | None]]
    ) -> list[Tensor]:
        """As that of every pooling; the same vectors are made once, and moved for all heads."""
        moved: dict[tuple[str, int], Tensor] = {}
        made: dict[tuple[Sequence[str], int], Tensor] = {}
        results = []
        for module, affine in requests:
            # Heads that share their statistics have one affine.
            names, own = module.needs or (), 0 if affine is None else id(affine.shift)
            for name in names:
                if (name, own) not in moved:
                    moved[name, own] = _moved(view, name, affine)
            if (names, own) not in made:
                parts = [moved[name, own] for name in names]
                made[names, own] = torch.cat(parts, dim=1) if len(parts) > 1 else parts[0]
            pooled = made[names, own]
            results.append(pooled.expand(module.stack, *pooled.shape))
        return results

    def attention(self, frames: Frames | View, affine: Affine | None = None) -> Tensor:
        """`[stack, N, columns]`, the fixed share of each frame in the pooled mean."""
        del affine
        weights = self._weights(as_view(frames))
        return weights.expand(self.stack, *weights.shape)


def _moved(view: View, name: str, affine: Affine | None) -> Tensor:
    vector = view.vector(name)
    if affine is None:
        return vector
    return (vector if name in UNSHIFTED else vector - affine.shift) / affine.scale


@register("average")
@dataclass(frozen=True)
class Average(PoolingConfig):
    """The mean over all frames: μ = mean_t X_t.

    Attributes:
        layers: how many layers lie beside one another in the frames; of more than one a weighted
            sum is pooled, with learnt weights (`heads.pooling.fixed`).
    """

    layers: int = 1

    def __post_init__(self) -> None:
        if self.layers < 1:
            raise ConfigError(f"pooling layers must be at least 1, got {self.layers}")

    def out_dim(self, dim: int) -> int:
        """K values, K those of one layer; with deviations 2K."""
        return (1 + self.deviations) * features_of_a_layer(dim, self.layers)

    def build(self, dim: int, stack: int) -> Pooling:
        """The module; of one layer it has no parameters."""
        if self.layers > 1:
            return LayerWeightedPooling(self, self.layers, dim, stack)
        return FixedPooling(self, ["mean", *["deviation"] * self.deviations], stack)


@register("statistics")
@dataclass(frozen=True)
class Statistics(Average):
    """Mean and standard deviation over all frames: [μ, σ] with σ² = mean_t (X_t − μ)².

    Options as `Average`.
    """

    deviations: ClassVar[bool] = True


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


@register("informative_average")
@dataclass(frozen=True)
class InformativeAverage(PoolingConfig):
    """The mean over the frames of the most informative words, those of the highest surprisal.

    Kakouros, Interspeech 2025, "Investigating the impact of word informativeness on speech emotion
    recognition". An utterance of which no word is known is averaged as a whole.

    Attributes:
        share: of the utterance's words, above 0 to 1; rounded up to whole words.
        random: read as many frames of random words instead: the control.
    """

    needs_words: ClassVar[bool] = True
    axes: ClassVar[Mapping[str, Axis]] = {"share": Choice((0.25, 0.5, 0.75))}

    share: float = 0.5
    random: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise ConfigError(f"the share of words is above 0 and at most 1; got {self.share}")

    def out_dim(self, dim: int) -> int:
        """K values."""
        return dim

    def build(self, dim: int, stack: int) -> Pooling:
        """The module; it has no parameters."""

        def weights(view: View) -> Tensor:
            return view.word_weights(self.share, random=self.random)[:, None]

        kind = RANDOM if self.random else INFORMATIVE
        return FixedPooling(self, [f"{kind}@{self.share}"], stack, weights)


def _no_weights(view: View) -> Tensor:
    raise ConfigError(
        "max pooling takes each feature from another frame: it has no attention weights. "
        "Choose an average or an attentive pooling."
    )
