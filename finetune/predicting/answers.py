"""What a model says about a recording: as data, as JSON lines, as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from corpora.base.terminal import aligned

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
class Prediction:
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

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {**asdict(self), "top_frames": [asdict(frame) for frame in self.top_frames]}


@dataclass(frozen=True)
class Unusable:
    """A recording about which nothing can be said.

    Attributes:
        id: see `Prediction`.
        audio: likewise.
        error: why, and what to do.
    """

    id: str
    audio: str
    error: str

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; a program tells it from a prediction by `error`."""
        return asdict(self)


Answer = Prediction | Unusable


def table(predictions: Sequence[Prediction]) -> list[str]:
    """Predictions for a terminal, at least one."""
    attends = any(one.top_frames for one in predictions)
    rows: list[tuple[str, ...]] = [("recording", "label", "p", "then")]
    rows[0] += ("attended most (s)",) * attends
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
