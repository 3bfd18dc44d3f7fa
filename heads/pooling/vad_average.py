"""Averages over the frames that a voice activity detector calls speech.

The idea is segmental average pooling (Hyeon et al., arXiv 2410.12416): a global average treats
silence as speech. A mean over speech frames is our reading of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from corpora.errors import ConfigError
from heads.pooling.fixed import FixedPooling, uniform_weights
from heads.pooling.registry import register
from heads.pooling.view import View

# silero-vad's own default for calling a window speech.
DEFAULT_THRESHOLD = 0.5


@register("vad_average")
@dataclass(frozen=True)
class VadAverage:
    """The mean over speech frames; over all frames where the detector finds no speech.

    Text has no silence: its frames all count.

    Attributes:
        threshold: probability from which a frame is speech, 0 to 1.
    """

    needs_speech: ClassVar[bool] = True

    threshold: float = DEFAULT_THRESHOLD

    def __post_init__(self) -> None:
        _check(self.threshold)

    def out_dim(self, dim: int) -> int:
        """K values."""
        return dim

    def build(self, dim: int, stack: int) -> FixedPooling:
        """The module; it has no parameters."""

        def weights(view: View) -> Tensor:
            return view.speech_weights(self.threshold)[:, None]

        return FixedPooling(self, [f"speech_mean@{self.threshold}"], stack, weights)


@register("average+vad_average")
@dataclass(frozen=True)
class AverageAndVadAverage:
    """The mean over all frames beside the mean over speech frames.

    Attributes:
        threshold: probability from which a frame is speech, 0 to 1.
    """

    needs_speech: ClassVar[bool] = True

    threshold: float = DEFAULT_THRESHOLD

    def __post_init__(self) -> None:
        _check(self.threshold)

    def out_dim(self, dim: int) -> int:
        """2K values."""
        return 2 * dim

    def build(self, dim: int, stack: int) -> FixedPooling:
        """The module; it has no parameters."""

        def weights(view: View) -> Tensor:
            speech = view.speech_weights(self.threshold)[:, None]
            return torch.cat([uniform_weights(view), speech], dim=1)

        return FixedPooling(self, ["mean", f"speech_mean@{self.threshold}"], stack, weights)


def _check(threshold: float) -> None:
    if not 0 <= threshold <= 1:
        raise ConfigError(f"the speech threshold is a probability, 0 to 1; got {threshold}")
