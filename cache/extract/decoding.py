"""Recordings on their way to the encoder: how long they are, which go together, decoded ahead."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from cache.audio import audio_seconds, load_audio
from cache.encoders.grid import SAMPLE_RATE, Grid, energy
from cache.extract.targets import Item
from corpora.base.errors import AudioError
from corpora.manifest import Utterance

# Batches decoded ahead of the encoder: enough to hide one slow file, little enough to hold.
BATCHES_AHEAD = 3
# Items that wait for a thread: each takes 1.3 kB, which a whole corpus should not.
_WAITING = 1024
# Decoding and resampling run outside the interpreter's lock, and reading waits: one thread a core,
# up to what one GPU can take from (a core decodes 3,000 × real time of 16 kHz WAV).
THREADS = max(2, min(16, os.cpu_count() or 1))

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Recording:
    """A recording to be encoded.

    Attributes:
        item: what it is and which streams lack it.
        seconds: by its header or its segment's bounds.
        windowed: whether it is encoded in overlapping windows.
    """

    item: Item
    seconds: float
    windowed: bool = False

    @property
    def samples(self) -> int:
        """About how many there are at 16 kHz."""
        return round(self.seconds * SAMPLE_RATE)


@dataclass(frozen=True, eq=False)
class Decoded:
    """A recording with its samples.

    Attributes:
        recording: which.
        waveform: `[samples]` at 16 kHz.
        energy: `[frames]` in dB.
    """

    recording: Recording
    waveform: NDArray[np.float32]
    energy: NDArray[np.float32]

    @property
    def seconds(self) -> float:
        """As decoded."""
        return len(self.waveform) / SAMPLE_RATE


def measure(items: Sequence[Item]) -> dict[str, float | str]:
    """Seconds of each recording by key, from its header; what is wrong where it has none."""

    def one(item: Item) -> float | str:
        utterance = item.utterance
        start = utterance.start or 0.0
        if utterance.end is not None:
            return utterance.end - start
        try:
            return audio_seconds(utterance.audio, where=where_of(utterance)) - start
        except AudioError as error:
            return str(error)

    return dict(zip((item.key for item in items), each_in_threads(one, items), strict=True))


def each_in_threads(work: Callable[[T], R], items: Sequence[T]) -> Iterator[R]:
    """What `work` makes of each item, in order; called in threads, some ahead."""
    with ThreadPoolExecutor(THREADS) as threads:
        for start in range(0, len(items), _WAITING):
            yield from threads.map(work, items[start : start + _WAITING])


def longest_first(recordings: Iterable[Recording]) -> list[Recording]:
    """Longest first: memory is at its peak at the start, and batches hold like with like."""
    return sorted(recordings, key=lambda one: (-one.seconds, one.item.key))


def audio_batches(
    recordings: Sequence[Recording], size: Callable[[int], int], frames: int
) -> list[list[Recording]]:
    """Recordings in batches of at most `frames` frames, padding included.

    Those encoded in windows go alone: their windows are a batch.

    Args:
        recordings: longest first.
        size: from samples to the frames that are encoded for them.
        frames: see above.
    """
    alone = [[one] for one in recordings if one.windowed]
    whole = [one for one in recordings if not one.windowed]
    return alone + list(batches(whole, lambda one: size(one.samples), frames))


def batches(items: Iterable[T], size: Callable[[T], int], budget: int) -> Iterator[list[T]]:
    """Runs of items of at most `budget`, counted as padded: the largest times their number."""
    batch: list[T] = []
    largest = 0
    for item in items:
        largest = max(largest, size(item))
        if batch and largest * (len(batch) + 1) > budget:
            yield batch
            batch, largest = [], size(item)
        batch.append(item)
    if batch:
        yield batch


def decoded(
    planned: Iterable[list[Recording]], grid: Grid, fail: Callable[[Item, str], None]
) -> Generator[tuple[list[Recording], list[Decoded]], None, None]:
    """Batches as planned, and decoded some batches ahead without those that fail."""

    def decode(recording: Recording) -> Decoded:
        utterance = recording.item.utterance
        waveform = load_audio(
            utterance.audio,
            utterance.start,
            utterance.end,
            where=where_of(utterance),
            minimum_samples=grid.minimum_samples,
        )
        return Decoded(recording, waveform, energy(waveform, grid))

    return decode_ahead(planned, decode, lambda one, reason: fail(one.item, reason))


def decode_ahead(
    planned: Iterable[list[T]], decode: Callable[[T], R], fail: Callable[[T, str], None]
) -> Generator[tuple[list[T], list[R]], None, None]:
    """Batches as planned, and what `decode` makes of them, some batches ahead, without failures.

    Args:
        planned: batches.
        decode: called in threads; an AudioError from it is a failure.
        fail: told of each failure.
    """
    threads = ThreadPoolExecutor(THREADS, thread_name_prefix="decode")
    try:
        waiting = iter(planned)
        ahead: deque[tuple[list[T], list[Future[R]]]] = deque()
        exhausted = False
        while True:
            while not exhausted and len(ahead) < BATCHES_AHEAD:
                batch = next(waiting, None)
                if batch is None:
                    exhausted = True
                else:
                    ahead.append((batch, [threads.submit(decode, one) for one in batch]))
            if not ahead:
                return
            batch, futures = ahead.popleft()
            kept = []
            for one, future in zip(batch, futures, strict=True):
                try:
                    kept.append(future.result())
                except AudioError as error:
                    fail(one, str(error))
            del futures  # they hold the samples
            yield batch, kept
    finally:
        threads.shutdown(wait=True, cancel_futures=True)


def where_of(utterance: Utterance) -> str:
    """Where an utterance comes from, for messages."""
    line = f"manifest line {utterance.line}, " if utterance.line else ""
    return f"{line}utterance {utterance.id}"
