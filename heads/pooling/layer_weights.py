"""Poolings of a weighted sum of several layers: average and statistics with learnt layer weights.

The frames of L layers lie beside one another, `[N, L·D]`, lowest layer first, and the head reads
x_t = Σ_l w_l x_t^l with w = softmax(a), as SUPERB does (Yang et al. 2021, "SUPERB: speech
processing universal performance benchmark", section 3.1); a starts at 0, so at the plain mean.

The sum commutes with the mean over frames, and the variance is a form in the weights:
σ² = Σ_lm w_l w_m cov_lm. So utterances are read once, for their layers' means and the covariances
between layers, and heads train on these. Frames were centred for them: nothing cancels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cache.frames import Frames
from corpora.base.errors import ConfigError
from heads.pooling.pooling import Pooling, PoolingConfig
from heads.pooling.segments import VARIANCE_FLOOR
from heads.pooling.view import LAYER_COVARIANCE, Affine, View, layer_pairs


def check_layers(layers: int) -> None:
    """Refuse a number of layers below 1 (ConfigError)."""
    if layers < 1:
        raise ConfigError(f"pooling layers must be at least 1, got {layers}")


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
        return Frames(total, view.frames.offsets, view.frames.speech)

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
