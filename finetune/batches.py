"""Batches of raw recordings: planned by length, decoded ahead of use.

A plan depends on the lengths, the seed and the epoch alone, so that a run can be repeated, shared
among processes and taken up again in the middle.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from cache.audio import load_audio
from cache.frames import Frames
from corpora.base.errors import AudioError, ConfigError
from corpora.manifest import Utterance

if TYPE_CHECKING:  # it knows the model, which itself makes batches to predict
    from finetune.engine.boundary import Boundary

# Lengths are perturbed by up to this part before they are sorted: batches then differ between
# epochs, and a batch's longest utterance is padded to by at most about as much.
LENGTH_NOISE = 0.05
# Batches decoded before they are needed: one being used, one ready, one in the making.
AHEAD = 2
# Decoding keeps up with an encoder by far; more threads would only take its cores.
DECODERS = 4

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


def load_batches(
    utterances: Sequence[Utterance],
    plan: Sequence[Sequence[int]],
    *,
    audio: bool,
    skipped: dict[str, str] | None = None,
    boundary: Boundary | None = None,
) -> Iterator[Batch]:
    """Yield the batches of a plan, decoded in threads a little ahead of use.

    At most `AHEAD` batches wait decoded. Closing the generator ends the threads.

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
        for batch in load_batches(utterances, plan, audio=needs, skipped=skipped):
            members = [utterances[row] for row in batch.rows]
            yield replace(batch, states=boundary.states(members), lengths=boundary.lengths(members))
        return
    if not audio:
        for rows in plan:
            yield _batch(utterances, rows, None)
        return
    threads = min(DECODERS, os.cpu_count() or 1)
    with ThreadPoolExecutor(threads, thread_name_prefix="decode") as pool:
        waiting: deque[tuple[Sequence[int], list[Future[Waveform]]]] = deque()
        remaining = list(reversed(plan))
        try:
            while remaining or waiting:
                while remaining and len(waiting) <= AHEAD:
                    rows = remaining.pop()
                    waiting.append((rows, [pool.submit(decode, utterances[row]) for row in rows]))
                rows, futures = waiting.popleft()
                read = list(_results(utterances, rows, futures, skipped))
                if read:
                    yield _batch(utterances, [row for row, _ in read], [wave for _, wave in read])
        finally:
            for _, futures in waiting:
                for future in futures:
                    future.cancel()


def decode(utterance: Utterance) -> Waveform:
    """One utterance's samples at 16 kHz (AudioError naming it and its manifest line)."""
    where = f"utterance {utterance.id}"
    if utterance.line:
        where = f"line {utterance.line}, {where}"
    return load_audio(utterance.audio, utterance.start, utterance.end, where=where)


def _results(
    utterances: Sequence[Utterance],
    rows: Sequence[int],
    futures: Sequence[Future[Waveform]],
    skipped: dict[str, str] | None,
) -> Iterator[tuple[int, Waveform]]:
    for row, future in zip(rows, futures, strict=True):
        try:
            yield row, future.result()
        except AudioError as error:
            if skipped is None:
                raise
            skipped[utterances[row].id] = str(error)


def _batch(
    utterances: Sequence[Utterance], rows: Sequence[int], waveforms: Sequence[Waveform] | None
) -> Batch:
    return Batch(
        tuple(rows),
        None if waveforms is None else tuple(waveforms),
        tuple(utterances[row].text for row in rows),
    )
