"""Predicting: recordings and texts in, answers out, in their order and as they come.

Recordings are taken some hundred at a time: their headers are read, those of like length go through
the encoders together, and their answers come out in the order given. So a list may be as long as
one likes, and a program that reads the answers need not wait for its end.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cache.audio import audio_seconds, batches, decode_ahead, each_in_threads, load_audio
from cache.encoders.audio_encoder import AudioEncoder
from cache.encoders.budget import Budget, batch_budget
from cache.encoders.grid import SAMPLE_RATE
from cache.encoders.text_encoder import TextEncoder
from cache.frames import Frames
from corpora.base.errors import AudioError, ConfigError
from corpora.label_map import chosen_labels
from corpora.utterance import Utterance, plain_name, where_of
from finetune.config import PredictConfig
from finetune.evaluate.calibration import renormalised
from finetune.predict.prediction import Answer, AttendedFrame, Prediction, Unusable
from heads.head import Head, as_inputs, classify, pooled_vectors
from heads.head import answers as answers_of
from heads.strength import Strength


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


# Recordings that are planned together: enough for batches of like length, and a second's work.
AT_ONCE = 256
# Frames of a batch, padding included, as in scoring.
FRAME_BUDGET = 8_000
# Frames of 20 ms, of whatever is measured in seconds.
_FRAME_RATE = 50

Waveform = NDArray[np.float32]


class Hears(Protocol):
    """Writes down what is said; see `finetune.predict.predict.Transcriber`."""

    @property
    def source(self) -> str:
        """Its name."""

    def __call__(self, waveforms: Sequence[Waveform]) -> list[str]:
        """A text for each."""


@dataclass(frozen=True)
class _Job:
    """An utterance to be predicted.

    Attributes:
        place: in the sequence.
        utterance: which.
        seconds: by its header; 0 where no recording is needed.
    """

    place: int
    utterance: Utterance
    seconds: float


def predict(
    models: Sequence[Model],
    utterances: Sequence[Utterance],
    *,
    top_frames: int = PredictConfig.top_frames,
    hears: Hears | None = None,
    max_seconds: float = PredictConfig.max_seconds,
    labels: Sequence[str] = (),
    embeddings: bool = False,
    strength: Strength | None = None,
    frame_budget: int = FRAME_BUDGET,
    load: Callable[[Utterance], Waveform] | None = None,
) -> Iterator[Answer]:
    """Yield an answer for each utterance, in their order.

    Args:
        models: put in eval mode; of several the mean probability counts.
        utterances: labels play no part; an empty text is a missing one.
        top_frames: how many of the frames attended most are named.
        hears: fills in missing texts.
        max_seconds: longer recordings are refused.
        labels: only these: each model's probabilities are renormalised over them; none: all.
        embeddings: whether answers hold what the classifier reads.
        strength: of a single model's emotions; None: it is not said.
        frame_budget: largest number of frames of a batch, padding included.
        load: gives the sound of an utterance with bounds, of a length that the models take; by
            default its recording is decoded.

    Raises:
        ConfigError: the models' labels differ, one does not know those asked for, or a number is
            out of range.
    """
    asked = [
        chosen_labels(one.labels, labels, "the model") if labels else one.labels for one in models
    ]
    if not models or any(
        set(own) != set(asked[0]) or one.head.config.attributes != models[0].head.config.attributes
        for one, own in zip(models, asked, strict=True)
    ):
        raise ConfigError(
            "an ensemble needs models of the same labels and attributes; these differ, or are none."
        )
    if top_frames < 0 or max_seconds <= 0:
        raise ConfigError(
            f"top frames {top_frames}, longest recording {max_seconds:g} s: expected 0 or more, "
            "and more than 0."
        )
    for model in models:
        model.eval()
    budgets = [
        batch_budget(frame_budget, audio=one.audio_encoder, text=one.text_encoder) for one in models
    ]
    run = _Run(
        models, asked[0], embeddings, strength, top_frames, hears, max_seconds, budgets, load
    )
    for first in range(0, len(utterances), AT_ONCE):
        yield from run(utterances[first : first + AT_ONCE])


@dataclass(frozen=True, eq=False)
class _Run:
    """What stays the same from one lot of recordings to the next."""

    models: Sequence[Model]
    labels: Sequence[str]
    embeddings: bool
    strength: Strength | None
    top_frames: int
    hears: Hears | None
    max_seconds: float
    budgets: Sequence[Budget]
    load: Callable[[Utterance], Waveform] | None = None

    def __call__(self, utterances: Sequence[Utterance]) -> list[Answer]:
        answers: dict[int, Answer] = {}

        def fail(job: _Job, reason: str) -> None:
            answers[job.place] = _unusable(job.utterance, reason)

        jobs = self._measured(utterances, fail)
        plan = batches(
            sorted(jobs, key=self._frames, reverse=True), self._counted, self.budgets[0].frames
        )
        with closing(decode_ahead(plan, self._decode, fail)) as stream, torch.no_grad():
            for _, batch in stream:
                answers |= self._answer(batch)
        return [answers[place] for place in sorted(answers)]

    @property
    def narrowed(self) -> bool:
        """Whether a model tells more labels apart than are asked for."""
        return any(len(self.labels) < len(one.labels) for one in self.models)

    @property
    def _listens(self) -> bool:
        return self.hears is not None or any(one.audio_encoder is not None for one in self.models)

    def _measured(
        self, utterances: Sequence[Utterance], fail: Callable[[_Job, str], None]
    ) -> list[_Job]:
        """Lengths by header; what cannot be used is told."""
        jobs = []
        found = each_in_threads(self._seconds, utterances)
        for place, (utterance, seconds) in enumerate(zip(utterances, found, strict=True)):
            job = _Job(place, utterance, 0.0 if isinstance(seconds, str) else seconds)
            if isinstance(seconds, str):
                fail(job, seconds)
            else:
                jobs.append(job)
        return jobs

    def _seconds(self, utterance: Utterance) -> float | str:
        if not self._listens:
            if utterance.text:
                return 0.0
            return f"{_where(utterance)}: this model reads text alone, and none is given."
        if self.load is not None and utterance.end is not None:
            return utterance.end - (utterance.start or 0.0)
        if not utterance.audio.is_file():
            return f"{_where(utterance)}: no such file."
        try:
            end = utterance.end
            if end is None:
                end = audio_seconds(utterance.audio, where=_prefix(utterance))
        except AudioError as error:
            return str(error)
        seconds = end - (utterance.start or 0.0)
        limit = encoded_at_once(self.models)
        if seconds > limit:
            return (
                f"{_where(utterance)}: {seconds:.1f} s, more than the {limit:g} s "
                "that the model's encoder takes at once. Cut it into utterances, or give --every "
                "or --segments vad."
            )
        if seconds > self.max_seconds:
            return (
                f"{_where(utterance)}: {seconds:.0f} s, more than {self.max_seconds:g} s. Models "
                "hear utterances: cut it into such, or give --every, --segments vad or "
                "--max-seconds."
            )
        return seconds

    def _frames(self, job: _Job) -> int:
        """About how many there are: of 20 ms of sound, or else of letters."""
        if self._listens:
            return max(1, round(job.seconds * _FRAME_RATE))
        return 1 + len(job.utterance.text)

    def _counted(self, job: _Job) -> int:
        """As how many frames it counts in a batch, for the model that takes the most memory."""
        return max(budget.size(self._frames(job)) for budget in self.budgets)

    def _decode(self, job: _Job) -> tuple[_Job, Waveform]:
        one = job.utterance
        if not self._listens:
            return job, np.zeros(0, dtype=np.float32)
        if self.load is not None:
            return job, self.load(one)
        minimum = fewest_samples(self.models)
        return job, load_audio(
            one.audio, one.start, one.end, where=_prefix(one), minimum_samples=minimum
        )

    def _answer(self, batch: Sequence[tuple[_Job, Waveform]]) -> dict[int, Answer]:
        """The answers to one batch by their place."""
        if not batch:
            return {}
        batch, sources, refused = self._with_texts(batch)
        answers: dict[int, Answer] = dict(refused)
        if not batch:
            return answers
        waveforms = [waveform for _, waveform in batch]
        texts = [job.utterance.text for job, _ in batch]
        labels, attributes = self.labels, list(self.models[0].head.config.attributes)
        total = torch.zeros(len(batch), len(labels) + len(attributes), dtype=torch.float64)
        others = torch.zeros(len(batch), dtype=torch.float64)
        read: dict[str, Tensor] = {}
        strengths: list[dict[str, float]] = [{}] * len(batch)
        top: list[tuple[AttendedFrame, ...]] = [()] * len(batch)
        for number, model in enumerate(self.models, start=1):
            frames = model.encode(waveforms if model.audio_encoder else None, texts)
            [vectors] = pooled_vectors([model.head], as_inputs(frames))
            [logits] = classify([model.head], [vectors])
            said = answers_of(model.head.config, logits.double().cpu())
            classes = len(model.labels)
            probabilities = said[:, :classes]
            kept = probabilities[:, [model.labels.index(label) for label in labels]]
            narrowed = len(labels) < classes
            others += (1 - kept.sum(dim=1)).clamp_min(0) if narrowed else 0
            kept = renormalised(probabilities, model.labels, labels) if narrowed else kept
            order = [classes + list(model.head.config.attributes).index(a) for a in attributes]
            total += torch.cat([kept, said[:, order]], dim=1)
            if self.embeddings:
                prefix = f"model{number}." * (len(self.models) > 1)
                for name, vector in zip(model.head.config.modalities, vectors, strict=True):
                    read[prefix + name] = vector.float().cpu()
            if self.strength is not None:
                own = self.strength(torch.cat(vectors, dim=1).double().cpu().numpy())
                strengths = [dict(zip(self.strength.labels, row, strict=True)) for row in own]
            if len(self.models) == 1 and self.top_frames:
                top = most_attended(model, frames, self.top_frames)
        for row, (job, _) in enumerate(batch):
            values = (total[row] / len(self.models)).tolist()
            chosen = dict(zip(labels, values[: len(labels)], strict=True))
            answers[job.place] = Prediction(
                id=job.utterance.id,
                audio=str(job.utterance.audio) if self._listens else "",
                label=max(chosen, key=lambda label: chosen[label], default=""),
                probabilities=chosen,
                text=job.utterance.text if sources[row] else "",
                text_source=sources[row],
                top_frames=tuple(one.moved(job.utterance.start or 0.0) for one in top[row]),
                other_labels=float(others[row]) / len(self.models) if self.narrowed else None,
                embedding={name: own[row].numpy().copy() for name, own in read.items()},
                attributes=dict(zip(attributes, values[len(labels) :], strict=True)),
                strengths={
                    label: strengths[row][label] for label in labels if label in strengths[row]
                },
            )
        return answers

    def _with_texts(
        self, batch: Sequence[tuple[_Job, Waveform]]
    ) -> tuple[list[tuple[_Job, Waveform]], list[str], dict[int, Answer]]:
        """The batch with texts where there are such, where these are from, and what is refused."""
        if not any(model.text_encoder for model in self.models):
            return list(batch), [""] * len(batch), {}
        sources = ["given" if job.utterance.text else "none" for job, _ in batch]
        texts = [job.utterance.text for job, _ in batch]
        lacking = [row for row, source in enumerate(sources) if source == "none"]
        if self.hears is not None and lacking:
            heard = self.hears([batch[row][1] for row in lacking])
            for row, text in zip(lacking, heard, strict=True):
                texts[row], sources[row] = text, self.hears.source
        kept, kept_sources = [], []
        refused: dict[int, Answer] = {}
        reads_alone = not any(model.audio_encoder for model in self.models)
        for (job, waveform), text, source in zip(batch, texts, sources, strict=True):
            if reads_alone and not text:
                reason = "this model reads text alone, and no words were heard."
                refused[job.place] = _unusable(job.utterance, f"{_where(job.utterance)}: {reason}")
                continue
            utterance = replace(job.utterance, text=text)
            kept.append((replace(job, utterance=utterance), waveform))
            kept_sources.append(source)
        return kept, kept_sources, refused


def encoded_at_once(models: Sequence[Model]) -> float:
    """Seconds of the longest recording that every model's speech encoder takes."""
    limits = [one.audio_encoder.front_end.limit for one in models if one.audio_encoder]
    return min((one for one in limits if one is not None), default=math.inf) / SAMPLE_RATE


def fewest_samples(models: Sequence[Model]) -> int:
    """Of the shortest recording that every model's speech encoder takes."""
    grids = [one.audio_encoder.grid for one in models if one.audio_encoder]
    return max((grid.minimum_samples for grid in grids), default=1)


def _unusable(utterance: Utterance, reason: str) -> Unusable:
    return Unusable(utterance.id, str(utterance.audio), reason)


def _prefix(utterance: Utterance) -> str:
    """What a recording belongs to, for messages: nothing, if it was named by itself."""
    own = Path(plain_name(str(utterance.audio)))  # as ids are spelled
    return "" if Path(utterance.id) == own else where_of(utterance)


def _where(utterance: Utterance) -> str:
    prefix = _prefix(utterance)
    return f"{prefix}: {utterance.audio}" if prefix else utterance.id
