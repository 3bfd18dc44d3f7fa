"""Batches of raw recordings: planned by length, decoded ahead of use.

A plan depends on the lengths, the seed and the epoch alone, so that a run can be repeated, shared
among processes and taken up again in the middle.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cache.audio import audio_seconds, decode_ahead, load_audio
from cache.encoders.budget import batch_budget
from cache.encoders.grid import SAMPLE_RATE
from cache.frames import Frames
from cache.keys import normalise_text
from cache.recipe import layer_numbers
from corpora.base.errors import AudioError, ConfigError, ManifestError
from corpora.manifest import Utterance
from finetune.model import EmotionModel
from finetune.upper import Boundary
from heads.dataset import Dataset
from heads.gold import Gold
from heads.losses import LossConfig
from heads.training import loss_targets


@dataclass(frozen=True, eq=False)
class Examples:
    """Utterances, ready to be planned into batches.

    Attributes:
        utterances: in the manifest's order.
        lengths: frames of each, of audio where the model listens, else of text.
        labels: the model's label order.
        attributes: the lowest and highest value of each that the model says.
    """

    utterances: tuple[Utterance, ...]
    lengths: tuple[int, ...]
    labels: tuple[str, ...]
    attributes: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.utterances)

    @property
    def gold(self) -> Gold:
        """The truth about them."""
        dataset, rows = self._dataset
        return Gold.of(dataset, rows)

    def loss_targets(self, loss: LossConfig) -> Tensor:
        """What a loss learns of them: `[N]` class indices, or `[N, C]` shares of the votes."""
        dataset, rows = self._dataset
        return loss_targets(dataset, rows, [loss])[0]

    @property
    def _dataset(self) -> tuple[Dataset, Tensor]:
        whole = Dataset(self.utterances, self.labels, {}, attributes=self.attributes)
        return whole, torch.arange(len(self))


def gather_examples(
    model: EmotionModel,
    utterances: Sequence[Utterance],
    known: Mapping[str, str],
    *,
    annotated: bool = True,
) -> tuple[Examples, dict[str, str]]:
    """Measure annotated utterances; those that cannot be used are left out.

    Lengths come from headers and transcripts: nothing is decoded.

    Args:
        model: which decides what a frame is.
        utterances: ones without a label (or, of a model that says attributes, a rating) are left
            out silently.
        known: reasons by id of those that failed at extraction.
        annotated: whether only such are wanted; else labels play no part.

    Returns:
        The examples, and reasons by id for what was left out.

    Raises:
        ManifestError: a label that the model does not know.
    """
    kept: list[Utterance] = []
    lengths: list[int] = []
    failed: dict[str, str] = {}
    attributes = model.head.config.attributes
    asked = Dataset((), model.labels, {}, attributes=attributes)
    for utterance in utterances:
        if annotated and not asked.is_annotated(utterance):
            continue
        if annotated and model.labels and utterance.label not in ("", *model.labels):
            raise ManifestError(
                f"line {utterance.line}, utterance {utterance.id}: label {utterance.label!r} is "
                f"not one of the model's: {', '.join(model.labels)}."
            )
        if utterance.id in known:
            failed[utterance.id] = known[utterance.id]
            continue
        try:
            frames = _frames(model, utterance)
        except AudioError as error:
            failed[utterance.id] = str(error)
            continue
        kept.append(utterance)
        lengths.append(frames)
    return Examples(tuple(kept), tuple(lengths), model.labels, attributes), failed


def _frames(model: EmotionModel, utterance: Utterance) -> int:
    """Frames of one utterance (AudioError where there is not one)."""
    if model.audio_encoder is None:
        assert model.text_encoder is not None, "a model listens, reads, or both"
        return len(model.text_encoder.tokenise([normalise_text(utterance.text)])[0].ids)
    end = utterance.end
    if end is None:
        end = audio_seconds(utterance.audio, where=f"utterance {utterance.id}")
    seconds = end - (utterance.start or 0.0)
    frames = model.audio_encoder.grid.frames(round(seconds * SAMPLE_RATE))
    if frames < 1:
        raise AudioError(
            f"utterance {utterance.id}: {utterance.audio}: {seconds:.3f} s is shorter than one "
            "frame. Remove the utterance or widen its segment."
        )
    return frames


# Lengths are perturbed by up to this part before they are sorted: batches then differ between
# epochs, and a batch's longest utterance is padded to by at most about as much.
LENGTH_NOISE = 0.05
# Batches of hidden states read before they are needed: one ready, one in the making.
AHEAD = 2

Waveform = NDArray[np.float32]


@dataclass(frozen=True)
class Batch:
    """Utterances that go through the encoders together.

    Attributes:
        rows: their numbers in the sequence the plan was made for.
        waveforms: `[samples]` at 16 kHz each; None for a model that does not listen.
        texts: what is said, as in the manifest.
        states: by modality, hidden states from the cache that take the place of recordings or
            texts.
        lengths: by modality `[B]`, how many of these are the recordings', where they hold the
            silence behind them too.
    """

    rows: tuple[int, ...]
    waveforms: tuple[Waveform, ...] | None
    texts: tuple[str, ...]
    states: Mapping[str, Frames] = field(default_factory=dict)
    lengths: Mapping[str, Tensor] = field(default_factory=dict)


def plan_batches(
    lengths: Sequence[int], budget: int, *, seed: int | None = None, epoch: int = 0
) -> list[tuple[int, ...]]:
    """Divide utterances into batches of like length.

    Args:
        lengths: frames of each utterance, at least 1.
        budget: largest number of frames of a batch with its padding (an utterance that is longer
            by itself is a batch of its own).
        seed: for the order of utterances and batches; None keeps both by length, for scoring.
        epoch: each one has an order of its own.

    Returns:
        Row numbers by batch; every row is in exactly one.

    Raises:
        ConfigError: a budget below 1.
    """
    if budget < 1:
        raise ConfigError(f"the frame budget of a batch is {budget}; expected at least 1.")
    frames = np.asarray(lengths, dtype=np.int64)
    # Independent streams by construction, where a sum of seed and epoch would share them.
    draw = None if seed is None else np.random.default_rng([seed, epoch])
    noise = 0.0 if draw is None else draw.uniform(0.0, LENGTH_NOISE, len(frames))
    batches: list[tuple[int, ...]] = []
    rows: list[int] = []
    longest = 0
    for row in np.argsort(frames * (1.0 + noise), kind="stable").tolist():
        longest = max(longest, int(frames[row]))
        if rows and longest * (len(rows) + 1) > budget:
            batches.append(tuple(rows))
            rows, longest = [], int(frames[row])
        rows.append(row)
    if rows:
        batches.append(tuple(rows))
    if draw is not None:
        batches = [batches[number] for number in draw.permutation(len(batches)).tolist()]
    return batches


def counted(model: EmotionModel, lengths: Sequence[int], budget: int) -> list[int]:
    """As how many frames utterances count that go through a model's encoders to be scored."""
    states = max(len(layer_numbers(read)) for read in model.layers.values())
    found = batch_budget(budget, audio=model.audio_encoder, text=model.text_encoder, states=states)
    return [found.size(length) for length in lengths]


def load_batches(
    utterances: Sequence[Utterance],
    plan: Sequence[Sequence[int]],
    *,
    audio: bool,
    skipped: dict[str, str] | None = None,
    boundary: Boundary | None = None,
) -> Iterator[Batch]:
    """Yield the batches of a plan, decoded in threads a little ahead of use.

    Closing the generator ends the threads.

    Args:
        utterances: what the plan's rows number.
        plan: rows by batch.
        audio: whether the model listens.
        skipped: where given, an unreadable recording leaves its batch and its reason is noted here
            by utterance id; otherwise it raises.
        boundary: hidden states from the cache, which need no decoding.

    Raises:
        AudioError: a recording cannot be read, and `skipped` is None.
    """
    if boundary is not None:
        needs = audio and "audio" not in boundary.streams
        plain = load_batches(utterances, plan, audio=needs, skipped=skipped)
        yield from _with_states(utterances, plain, boundary)
        return
    if not audio:
        for rows in plan:
            yield _batch(utterances, rows, None)
        return

    def fail(row: int, reason: str) -> None:
        if skipped is None:
            raise AudioError(reason)
        skipped[utterances[row].id] = reason

    def read(row: int) -> tuple[int, Waveform]:
        return row, decode(utterances[row])

    with closing(decode_ahead(map(list, plan), read, fail)) as stream:
        for _, found in stream:
            if found:
                yield _batch(utterances, [row for row, _ in found], [wave for _, wave in found])


def _with_states(
    utterances: Sequence[Utterance], batches: Iterator[Batch], boundary: Boundary
) -> Iterator[Batch]:
    """Batches with their hidden states, which a thread reads ahead: one, as streams ask for."""

    def read(batch: Batch) -> Batch:
        members = [utterances[row] for row in batch.rows]
        return replace(batch, states=boundary.states(members), lengths=boundary.lengths(members))

    with ThreadPoolExecutor(1, thread_name_prefix="states") as pool:
        waiting: deque[Future[Batch]] = deque()
        try:
            for batch in batches:
                waiting.append(pool.submit(read, batch))
                if len(waiting) > AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def decode(utterance: Utterance) -> Waveform:
    """One utterance's samples at 16 kHz (AudioError naming it and its manifest line)."""
    where = f"utterance {utterance.id}"
    if utterance.line:
        where = f"line {utterance.line}, {where}"
    return load_audio(utterance.audio, utterance.start, utterance.end, where=where)


def _batch(
    utterances: Sequence[Utterance], rows: Sequence[int], waveforms: Sequence[Waveform] | None
) -> Batch:
    return Batch(
        tuple(rows),
        None if waveforms is None else tuple(waveforms),
        tuple(utterances[row].text for row in rows),
    )
