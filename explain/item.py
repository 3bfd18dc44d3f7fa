"""One utterance with all that its picture and its row in the report show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from corpora.alignments import Aligned, Alignment
from corpora.base.errors import AudioError
from corpora.utterance import Utterance
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
    """An utterance and what the subject says about it; T frames in time.

    They are audio frames where the head reads such that have times, else the first others that do.

    Attributes:
        utterance: as in the manifest.
        labels: of the subject.
        probabilities: `[C]`.
        hop: seconds from one frame to the next (see `Subject.step`).
        times: `[T]`, the middles of the frames, seconds.
        attention: `[T]`, what `frame_attention` returns; None where no frames have times.
        beside: by further modality the times `[U]` and attention `[U]` of its frames.
        method: what attention is (see `Subject.methods`); without any, that of what is read first.
        columns: `[T, queries · heads]`; None without attention.
        energy: `[T]` dB; None where not known.
        speech: `[T]` probability; None where not known.
        alignment: words and phones; None without.
        reading: words of the text with their attention; None without.
        tokens: attention of each text token, where it is not known which words they are.
        evidence: a sentence (`explain.evidence_section`), or why there is none; "" where neither.
        stretches: start and end, in seconds, of what the sentence is about.
        strengths: of each emotion, above 0 and below 1; empty where it is not known.
        answer: of an attribute, what is said of it; "" for classes.
    """

    utterance: Utterance
    labels: tuple[str, ...]
    probabilities: Floats
    hop: float = 0.02
    times: Floats = field(default_factory=lambda: np.zeros(0))
    attention: Floats | None = None
    beside: Mapping[str, tuple[Floats, Floats]] = field(default_factory=dict)
    method: str = ""
    columns: Floats | None = None
    energy: Floats | None = None
    speech: Floats | None = None
    alignment: Alignment | None = None
    reading: Reading | None = None
    tokens: Floats | None = None
    evidence: str = ""
    stretches: Sequence[tuple[float, float]] = ()
    strengths: Mapping[str, float] = field(default_factory=dict)
    answer: str = ""

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
    def seconds(self) -> float:
        """About how long it is, from its frames."""
        return float(self.times[-1] + self.times[0]) if len(self.times) else 0.0


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
    timed = subject.timed
    shared: dict[str, object] = {"method": subject.methods[timed or next(iter(subject.methods))]}
    rows: list[dict[str, Any]] = [{} for _ in subject.utterances]
    for modality, times in subject.times.items():
        lengths = subject.frames[modality].lengths.tolist()
        attention = frame_attention(subject, modality).split(lengths)
        laid = torch.from_numpy(times).split(lengths)
        for row, at, own in zip(rows, laid, attention, strict=True):
            if modality == timed:
                row |= {"times": floats(at), "attention": floats(own), "beside": {}}
            else:
                row["beside"][modality] = floats(at), floats(own)
    if timed:
        frames = subject.frames[timed]
        lengths = frames.lengths.tolist()
        tensors = {"speech": frames.speech, "columns": subject.weights.get(timed)}
        tensors |= {"energy": subject.energy if timed == "audio" else None}
        for name, values in tensors.items():
            if values is not None:
                for row, part in zip(rows, values.split(lengths), strict=True):
                    row[name] = floats(part)
        shared["hop"] = subject.step(timed)
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
            answer="" if subject.attribute is None else subject.attribute.answer(number),
            **rows[number],
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
    timed = subject.timed
    if not timed:
        return Sound(waveform, problem)
    one = {name: batch.select([number]) for name, batch in subject.frames.items()}
    saliency = {"gradient × (frame − mean)": floats(gradient_saliency(subject.head, one)[timed])}
    notes = []
    occluded = floats(occlusion_saliency(subject.head, one, timed))
    if np.isnan(occluded).any():
        notes.append(
            f"Occlusion needs more than the {OCCLUSION_FRAMES} frames of its window; this "
            f"utterance has {len(occluded)}."
        )
    else:
        saliency["occlusion (fall of probability)"] = occluded
    if has_captum():
        found = integrated_gradients(subject.head, one)[timed]
        saliency["integrated gradients"] = floats(found)
    else:
        notes.append("Integrated gradients need captum: pip install 'emopool[explain]'.")
    return Sound(waveform, problem, saliency, tuple(notes))
