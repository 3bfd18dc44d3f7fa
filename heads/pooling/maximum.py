"""Max pooling: max_t X_t, over valid frames only.

As printed in Leygue et al. 2025 the frames are multiplied by the mask first, which turns a channel
that is negative in every valid frame into 0 once the item is padded. Ragged frames cannot do that.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from corpora.errors import ConfigError
from heads.pooling.fixed import FixedPooling
from heads.pooling.registry import register
from heads.pooling.view import View


@register("max")
@dataclass(frozen=True)
class Maximum:
    """The largest value of each feature."""

    needs_speech: ClassVar[bool] = False

    def out_dim(self, dim: int) -> int:
        """K values."""
        return dim

    def build(self, dim: int, stack: int) -> FixedPooling:
        """The module; it has no parameters."""
        return FixedPooling(self, ["max"], stack, _no_weights)


def _no_weights(view: View) -> Tensor:
    raise ConfigError(
        "max pooling takes each feature from another frame: it has no attention weights. "
        "Choose an average or an attentive pooling."
    )
