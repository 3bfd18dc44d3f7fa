"""What is said about one recording: a prediction, or why there is none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from corpora.base.codec import Jsonable
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

    def moved(self, by: float) -> AttendedFrame:
        """That of a segment, in seconds of its recording."""
        return replace(self, start=self.start + by, end=self.end + by)


@dataclass(frozen=True)
class Prediction(Jsonable):
    """What a model says about one recording.

    Attributes:
        id: the utterance's id in a manifest, else the recording's name as it was given.
        audio: the recording; "" for a model that reads text alone.
        label: the most probable one; "" for a model of attributes alone.
        probabilities: of every label, in the model's order; they sum to 1 and are not calibrated.
        text: what the model read; "" for none.
        text_source: where that is from: `given`, a Whisper's name, `none`, or "" for a model that
            does not read.
        top_frames: the frames attended most, the first the most; empty for a head without
            attention and for an ensemble.
        other_labels: where only some labels were asked for, the probability that all others had
            together before those asked for were renormalised; else None.
        embedding: the vector that the classifier reads, by modality (`model2.audio` and so on in an
            ensemble), where it was asked for; not in the JSON.
        attributes: arousal and the like, as far as the model knows them, in the units of their
            scales.
        strengths: of each emotion, above 0 and below 1 (see `heads.strength.Strength`), where it
            was asked for.
    """

    json_entries = "* -embedding strength"
    json_optional = "attributes strengths strength"

    id: str
    audio: str
    label: str
    probabilities: Mapping[str, float]
    text: str
    text_source: str
    top_frames: tuple[AttendedFrame, ...] = ()
    other_labels: float | None = None
    embedding: Mapping[str, NDArray[np.float32]] = field(
        default_factory=dict, repr=False, compare=False
    )
    attributes: Mapping[str, float] = field(default_factory=dict)
    strengths: Mapping[str, float] = field(default_factory=dict)

    @property
    def probability(self) -> float:
        """Of the label."""
        return self.probabilities[self.label]

    @property
    def strength(self) -> float | None:
        """Of the label; None where it is not known, or the label stands for no emotion."""
        return self.strengths.get(self.label)


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
    labelled, narrowed = bool(predictions[0].label), predictions[0].other_labels is not None
    ranked = any(one.strengths for one in predictions)
    columns = ["recording", *["label", "p", "then"] * labelled, *["strength"] * ranked]
    columns += ["other labels"] * narrowed
    columns += [*predictions[0].attributes, *["attended most (s)"] * attends]
    rows = [tuple(columns)]
    for one in predictions:
        row = [_shortened(one.id)]
        if labelled:
            ordered = sorted(one.probabilities.items(), key=lambda item: -item[1])
            then = ", ".join(f"{label} {p:.2f}" for label, p in ordered[1 : 1 + RUNNERS_UP])
            row += [one.label, f"{one.probability:.2f}", then]
        row += ["–" if one.strength is None else f"{one.strength:.2f}"] * ranked
        row += [] if one.other_labels is None else [f"{one.other_labels:.2f}"]
        row += [f"{value:.2f}" for value in one.attributes.values()]
        rows.append((*row, *[_times(one.top_frames)] * attends))
    return aligned(rows)


def _times(frames: Sequence[AttendedFrame]) -> str:
    return ", ".join(f"{frame.start:.2f}" for frame in frames)


def _shortened(name: str) -> str:
    return name if len(name) <= NAME_WIDTH else f"…{name[1 - NAME_WIDTH :]}"
