"""A pooling of one's own, searched, compared, fine-tuned and explained as all others are.

It is gated attention (Ilse et al. 2018, "Attention-based deep multiple instance learning",
equation 9). This file is the command line with one more pooling:

    python examples/own_pooling.py search --trials 30
    python examples/own_pooling.py compare --poolings statistics,gated

Heads of a kind can be read wherever it is registered: predict and explain with this file, too. To
have it everywhere, put the classes into `heads/pooling/` (CONTRIBUTING.md).
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[1]))  # where `python` looks for the package

from cli import main
from heads.axes import Axis, Choice
from heads.pooling import AttentionPooling, PoolingConfig, register
from heads.pooling.view import Affine, View


@register("gated")
@dataclass(frozen=True)
class Gated(PoolingConfig):
    """The mean under learnt weights, whose scorer has units that open and close others.

    Attributes:
        hidden: P, units of the scorer.
    """

    learns_weights: ClassVar[bool] = True
    axes: ClassVar[Mapping[str, Axis]] = {"hidden": Choice((32, 128))}

    hidden: int = 128

    def out_dim(self, dim: int) -> int:
        """K values."""
        return dim

    def build(self, dim: int, stack: int) -> AttentionPooling:
        """The module with fresh parameters."""
        return GatedPooling(self, dim, stack)

    @property
    def cost(self) -> float:
        """Units and gates, and the mean."""
        return 2 * self.hidden + 1

    @property
    def hidden_values(self) -> int:
        """Units and gates."""
        return 2 * self.hidden


class GatedPooling(AttentionPooling):
    """e_t = w · (tanh(V x_t) ⊙ sigmoid(U x_t)); all else is what attention poolings share."""

    def __init__(self, config: Gated, dim: int, stack: int) -> None:
        super().__init__(config, stack)
        self.units = nn.Parameter(torch.empty(stack, config.hidden, dim))
        self.gates = nn.Parameter(torch.empty(stack, config.hidden, dim))
        self.weight = nn.Parameter(torch.empty(stack, config.hidden))
        self.reset(None)

    def reset(self, generator: torch.Generator | None) -> None:
        """Units and gates as `torch.nn.Linear` draws them; the output at 0: even attention."""
        bound = 1 / math.sqrt(self.units.shape[-1])
        with torch.no_grad():
            for parameter in (self.units, self.gates):
                parameter.uniform_(-bound, bound, generator=generator)
            self.weight.zero_()

    def scores(self, view: View, affine: Affine | None = None) -> Tensor:
        """`[1, stack, N]`: all features of a frame share one weight."""
        frames = view.values if affine is None else (view.values - affine.shift) / affine.scale
        opened = torch.tanh(frames @ self.units.mT) * torch.sigmoid(frames @ self.gates.mT)
        return (opened @ self.weight[:, :, None])[:, :, 0][None]  # [stack, N, P] · [stack, P, 1]


if __name__ == "__main__":
    main()
