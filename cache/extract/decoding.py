"""Recordings on their way to the encoder: how long they are, which go together, decoded ahead."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cache.audio import audio_seconds, load_audio
from cache.batches import batches, decode_ahead, each_in_threads
from cache.encoders.grid import SAMPLE_RATE, Grid, energy
from cache.extract.targets import Item
from corpora.base.errors import AudioError
from corpora.utterance import where_of


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
