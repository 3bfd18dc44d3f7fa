"""One utterance with all that its picture and its row in the report show."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from corpora.base.errors import AudioError
from corpora.utterance import Utterance
from explain.alignments import Aligned, Alignment
from explain.pooled import (
    OCCLUSION_FRAMES,
    gradient_saliency,
    has_captum,
    integrated_gradients,
    occlusion_saliency,
)
from explain.ragged import Floats, floats
from explain.subject import Reading, Subject, frame_attention
from finetune.batches import decode


@dataclass(frozen=True, eq=False)
class Item:
    """An utterance and what the subject says about it; T audio frames.

    Attributes:
        utterance: as in the manifest.
        labels: of the subject.
        probabilities: `[C]`.
        hop: seconds from one audio frame to the next.
        centre: of the first audio frame, seconds.
        attention: `[T]`, what `frame_attention` returns; None for a head that reads text alone.
        method: what that is (see `Subject.methods`); of text in a head that reads text alone.
        columns: `[T, queries · heads]`; None without attention.
        energy: `[T]` dB; None where not known.
        speech: `[T]` probability; None where not known.
        alignment: words and phones; None without.
        reading: words of the text with their attention; None without.
        tokens: attention of each text token, where it is not known which words they are.
        evidence: a sentence (`explain.evidence_section`); "" where none may be made.
        strengths: of each emotion, above 0 and below 1; empty where it is not known.
    """

    utterance: Utterance
    labels: tuple[str, ...]
    probabilities: Floats
    hop: float = 0.02
    centre: float = 0.0
    attention: Floats | None = None
    method: str = ""
    columns: Floats | None = None
    energy: Floats | None = None
    speech: Floats | None = None
    alignment: Alignment | None = None
    reading: Reading | None = None
    tokens: Floats | None = None
    evidence: str = ""
    strengths: Mapping[str, float] = field(default_factory=dict)

    @property
    def predicted(self) -> str:
        """The most probable label."""
        return self.labels[int(self.probabilities.argmax())]

    @property
    def confidence(self) -> float:
        """Its probability."""
        return float(self.probabilities.max())

    @property
    def strength(self) -> float | None:
        """Of the most probable label; None where it is not known, or there is none of it."""
        return self.strengths.get(self.predicted)

    @property
    def right(self) -> bool | None:
        """Whether that is the label; None for an utterance without one."""
        return None if not self.utterance.label else self.predicted == self.utterance.label

    @property
    def times(self) -> Floats:
        """`[T]`, the centres of the audio frames, seconds."""
        count = 0 if self.attention is None else len(self.attention)
        return self.centre + self.hop * np.arange(count, dtype=np.float64)

    @property
    def seconds(self) -> float:
        """About how long it is, from its frames."""
        return float(self.times[-1] + self.centre) if len(self.times) else 0.0


@dataclass(frozen=True, eq=False)
class Sound:
    """What is only computed for utterances that are pictured.

    Attributes:
        waveform: `[samples]` at 16 kHz; None where the recording cannot be read.
        problem: why it cannot; "" where it can.
        saliency: by method `[T]`, signed, in units of the method.
        notes: what could not be computed.
    """

    waveform: NDArray[np.float32] | None = None
    problem: str = ""
    saliency: dict[str, Floats] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def collect_items(subject: Subject, aligned: Aligned, readings: list[Reading] | None) -> list[Item]:
    """All utterances of a subject."""
    listens = "audio" in subject.frames
    shared: dict[str, object] = {"method": next(iter(subject.methods.values()))}
    rows: list[dict[str, Floats]] = [{} for _ in subject.utterances]
    if listens:
        frames = subject.frames["audio"]
        lengths = frames.lengths.tolist()
        tensors = {"attention": frame_attention(subject, "audio"), "energy": subject.energy}
        tensors |= {"speech": frames.speech, "columns": subject.weights.get("audio")}
        for name, values in tensors.items():
            if values is not None:
                for row, part in zip(rows, values.split(lengths), strict=True):
                    row[name] = floats(part)
        shared |= {"hop": subject.hop_seconds, "centre": subject.centre_seconds}
    if "text" in subject.frames and readings is None:
        lengths = subject.frames["text"].lengths.tolist()
        read = frame_attention(subject, "text").split(lengths)
        for row, part in zip(rows, read, strict=True):
            row["tokens"] = floats(part)
    probabilities = floats(subject.probabilities)
    strengths: list[dict[str, float]] = [{} for _ in subject.utterances]
    if subject.strength is not None:
        vectors = floats(torch.cat(list(subject.vectors.values()), dim=1))
        for own, told in zip(strengths, subject.strength(vectors).tolist(), strict=True):
            own.update(zip(subject.strength.labels, told, strict=True))
    return [
        Item(
            utterance=utterance,
            labels=subject.labels,
            probabilities=probabilities[number],
            alignment=aligned.alignments[number],
            reading=None if readings is None else readings[number],
            strengths=strengths[number],
            **rows[number],  # type: ignore[arg-type]
            **shared,  # type: ignore[arg-type]
        )
        for number, utterance in enumerate(subject.utterances)
    ]


def listen(subject: Subject, number: int) -> Sound:
    """Decode an utterance and compute its saliencies."""
    try:
        waveform, problem = decode(subject.utterances[number]), ""
    except AudioError as error:
        waveform, problem = None, str(error)
    if "audio" not in subject.frames:
        return Sound(waveform, problem)
    one = {name: batch.select([number]) for name, batch in subject.frames.items()}
    saliency = {"gradient × (frame − mean)": floats(gradient_saliency(subject.head, one)["audio"])}
    notes = []
    occluded = floats(occlusion_saliency(subject.head, one, "audio"))
    if np.isnan(occluded).any():
        notes.append(
            f"Occlusion needs more than the {OCCLUSION_FRAMES} frames of its window; this "
            f"utterance has {len(occluded)}."
        )
    else:
        saliency["occlusion (fall of probability)"] = occluded
    if has_captum():
        found = integrated_gradients(subject.head, one)["audio"]
        saliency["integrated gradients"] = floats(found)
    else:
        notes.append("Integrated gradients need captum: pip install 'emopool[explain]'.")
    return Sound(waveform, problem, saliency, tuple(notes))
