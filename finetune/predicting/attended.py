"""The frames that a head attends most, in seconds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

from torch import Tensor

from cache.encoders.audio_encoder import AudioEncoder
from cache.encoders.grid import SAMPLE_RATE
from cache.encoders.text_encoder import TextEncoder
from cache.frames import Frames
from finetune.predicting.answers import AttendedFrame
from heads.head import Head


class Model(Protocol):
    """What predicting needs of a model; see `finetune.model.EmotionModel`."""

    @property
    def labels(self) -> tuple[str, ...]:
        """Class names, in the order of the logits."""

    @property
    def head(self) -> Head:
        """What reads the frames."""

    @property
    def audio_encoder(self) -> AudioEncoder | None:
        """None for a model that reads text alone."""

    @property
    def text_encoder(self) -> TextEncoder | None:
        """None for a model that listens alone."""

    def encode(
        self, waveforms: Sequence[Any] | None, texts: Sequence[str] | None
    ) -> dict[str, Frames]:
        """Frames of each modality that the head reads."""

    def eval(self) -> object:
        """Switch dropout off."""


def most_attended(
    model: Model, frames: Mapping[str, Frames], count: int
) -> list[tuple[AttendedFrame, ...]]:
    """The speech frames of each utterance that are attended most, the first the most.

    Args:
        model: whose head reads the frames; without attention over speech there are none.
        frames: as `EmotionModel.encode` gave them.
        count: how many at most.
    """
    encoder = model.audio_encoder
    if encoder is None or model.head.attention_pooling("audio") is None:
        return [()] * len(next(iter(frames.values())))
    weights: Tensor = model.head.attention(frames, "audio").mean(dim=1).cpu()
    grid = encoder.grid
    found = []
    for own in weights.split(frames["audio"].lengths.tolist()):
        values, places = own.topk(min(count, len(own)))
        starts, stops = grid.bounds(grid.samples(len(own)))
        found.append(
            tuple(
                AttendedFrame(
                    start=float(starts[place]) / SAMPLE_RATE,
                    end=float(stops[place]) / SAMPLE_RATE,
                    weight=value,
                )
                for value, place in zip(values.tolist(), places.tolist(), strict=True)
            )
        )
    return found


def moved(frames: Sequence[AttendedFrame], by: float) -> tuple[AttendedFrame, ...]:
    """Frames of a segment, in seconds of its recording."""
    return tuple(replace(one, start=one.start + by, end=one.end + by) for one in frames)
