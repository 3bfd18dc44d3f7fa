"""What a model says about a recording: as data, as JSON lines, as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from torch import Tensor

from cache.encoders.audio_encoder import AudioEncoder
from cache.encoders.grid import SAMPLE_RATE
from cache.encoders.text_encoder import TextEncoder
from cache.frames import Frames
from corpora.base.codec import Jsonable
from corpora.base.terminal import aligned
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


# Of the labels behind the first, those named in a table.
RUNNERS_UP = 2
# Columns of a recording's name in a table; of a longer one the end is kept, which tells more.
NAME_WIDTH = 44


@dataclass(frozen=True)
class AttendedFrame:
    """A stretch of a recording that a frame of the speech encoder sees.

    Attributes:
        start: seconds from the start of the recording.
        end: likewise.
        weight: its share of the attention, the mean over the pooling's queries and heads; the
            frames of an utterance sum to 1.
    """

    start: float
    end: float
    weight: float


@dataclass(frozen=True)
class Prediction(Jsonable):
    """What a model says about one recording.

    Attributes:
        id: the utterance's id in a manifest, else the recording's name as it was given.
        audio: the recording; "" for a model that reads text alone.
        label: the most probable one.
        probabilities: of every label, in the model's order; they sum to 1 and are not calibrated.
        text: what the model read; "" for none.
        text_source: where that is from: `given`, a Whisper's name, `none`, or "" for a model that
            does not read.
        top_frames: the frames attended most, the first the most; empty for a head without
            attention and for an ensemble.
    """

    id: str
    audio: str
    label: str
    probabilities: Mapping[str, float]
    text: str
    text_source: str
    top_frames: tuple[AttendedFrame, ...] = ()

    @property
    def probability(self) -> float:
        """Of the label."""
        return self.probabilities[self.label]


@dataclass(frozen=True)
class Unusable(Jsonable):
    """A recording about which nothing can be said.

    Attributes:
        id: see `Prediction`.
        audio: likewise.
        error: why, and what to do.
    """

    id: str
    audio: str
    error: str


Answer = Prediction | Unusable


def table(predictions: Sequence[Prediction]) -> list[str]:
    """Predictions for a terminal, at least one."""
    attends = any(one.top_frames for one in predictions)
    rows = [("recording", "label", "p", "then", *["attended most (s)"] * attends)]
    for one in predictions:
        ordered = sorted(one.probabilities.items(), key=lambda item: -item[1])
        then = ", ".join(f"{label} {p:.2f}" for label, p in ordered[1 : 1 + RUNNERS_UP])
        row = (_shortened(one.id), one.label, f"{one.probability:.2f}", then)
        rows.append(row + (_times(one.top_frames),) * attends)
    return aligned(rows)


def _times(frames: Sequence[AttendedFrame]) -> str:
    return ", ".join(f"{frame.start:.2f}" for frame in frames)


def _shortened(name: str) -> str:
    return name if len(name) <= NAME_WIDTH else f"…{name[1 - NAME_WIDTH :]}"
