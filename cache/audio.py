"""Recordings: decode, mix down, cut, resample to 16 kHz; and how loud each frame of one is.

Whatever decides the samples is named in `decoder_fields`, which goes into every recipe.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from cache.encoders.grid import SAMPLE_RATE, Grid
from cache.recipe import JSON
from corpora.base.errors import AudioError
from corpora.readers.tree import Spellings
from corpora.sound_file import open_sound, unopenable
from corpora.utterance import Utterance, where_of

# Batches decoded ahead of the encoder: enough to hide one slow file, little enough to hold.
BATCHES_AHEAD = 3
# Items that wait for a thread: each takes 1.3 kB, which a whole corpus should not.
_WAITING = 1024
# Reading waits, for headers alone too: one thread a core.
_THREADS = max(2, min(16, os.cpu_count() or 1))
# Beside an encoder no more than it needs, for each launch of a kernel waits its turn among them: an
# H100 with 16 cores took 2.7 s an hour of audio beside 16 threads, and 1.8 s beside 4. It takes
# 2,000 × real time; a core decodes 5,900 × of 16 kHz WAV, 830 × of 44.1 kHz, 450 × of Opus.
_DECODING = min(4, _THREADS)

# Of a recording that is there but could not be read from its first byte to its last.
_UNREAD = "could not be read. Check its disk, then run the same command again."

T = TypeVar("T")
R = TypeVar("R")


def each_in_threads(work: Callable[[T], R], items: Sequence[T]) -> Iterator[R]:
    """What `work` makes of each item, in order; called in threads, some ahead."""
    with ThreadPoolExecutor(_THREADS) as threads:
        for start in range(0, len(items), _WAITING):
            yield from threads.map(work, items[start : start + _WAITING])


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


def decode_ahead(
    planned: Iterable[list[T]], decode: Callable[[T], R], fail: Callable[[T, str], None]
) -> Generator[tuple[list[T], list[R]], None, None]:
    """Batches as planned, and what `decode` makes of them, some batches ahead, without failures.

    Args:
        planned: batches.
        decode: called in threads; an AudioError from it is a failure.
        fail: told of each failure.
    """
    threads = ThreadPoolExecutor(_DECODING, thread_name_prefix="decode")
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


#: soxr's most careful setting: resampling is a small part of an extraction and done once.
RESAMPLER = "VHQ"
#: Counted up when the samples of some file change by what `corpora.sound_file` does.
READER = "2"


def decoder_fields() -> dict[str, str]:
    """What decides decoded samples besides the file: libraries, mixing and resampling."""
    return {
        "soundfile": soundfile.__version__,
        "libsndfile": soundfile.__libsndfile_version__,
        "soxr": soxr.__version__,
        "reader": READER,
        "resampler": RESAMPLER,
        "channels": "mean",
        "sample_rate": str(SAMPLE_RATE),
    }


def audio_seconds(path: str | Path, *, where: str = "") -> float:
    """Length of a recording in seconds, without decoding it where its file tells.

    Raises:
        AudioError: the file is missing, empty, unreadable or cut short.
    """
    path = Path(path)
    with _named(path, where), open_sound(path) as file:
        return file.seconds


def load_audio(
    path: str | Path,
    start: float | None = None,
    end: float | None = None,
    *,
    where: str = "",
    minimum_samples: int = 1,
) -> NDArray[np.float32]:
    """Decode one utterance: the mean of its channels at 16 kHz.

    The segment is cut at the file's own rate, before resampling.

    Args:
        path: WAV, FLAC, Ogg, MP3 and others (see `corpora.sound_file`), 8 to 192 kHz.
        start: where the segment starts, in seconds; None is the start of the file.
        end: where it ends, in seconds; None is the end of the file. Up to 50 ms past the end
            of the file are taken as rounding.
        where: what the recording belongs to (manifest line, utterance), for messages.
        minimum_samples: the fewest 16 kHz samples that can be used (one encoder frame).

    Returns:
        `[samples]`, full scale ±1.

    Raises:
        AudioError: the file is missing, empty, corrupt, cut short, not finite or too short, or
            the segment does not lie inside it, or its sound is lost in the mean of its channels.
    """
    path = Path(path)
    with _named(path, where):
        with open_sound(path) as file:
            rate, samples = file.rate, file.cut(start, end)
        mono = samples.mean(axis=1) if samples.shape[1] > 1 else samples[:, 0]
        if rate != SAMPLE_RATE:
            mono = soxr.resample(mono, rate, SAMPLE_RATE, quality=RESAMPLER)
        if mono.size < max(1, minimum_samples):
            raise AudioError(
                f"{mono.size / SAMPLE_RATE:.3f} s of audio; the encoder's shortest frame "
                f"needs {minimum_samples / SAMPLE_RATE:.3f} s. Remove the utterance or widen its "
                "segment."
            )
    return np.ascontiguousarray(mono, dtype=np.float32)


def why_absent(utterances: Iterable[Utterance]) -> dict[str, str]:
    """By id, why utterances have no content key: their recording is not there, or not readable."""
    spellings = Spellings()
    return {
        u.id: f"{where_of(u)}: {u.audio}: {unopenable(u.audio, spellings) or _UNREAD}"
        for u in utterances
    }


#: Of a recording that is read as a stream.
BLOCK_SECONDS = 10.0


def stream_audio(path: str | Path, *, where: str = "") -> Iterator[NDArray[np.float32]]:
    """Decode a recording of any length in blocks: the mean of its channels at 16 kHz.

    Laid end to end they are what `load_audio` gives: one resampler goes through all of the file.

    Args:
        path: as in `load_audio`.
        where: as in `load_audio`.

    Yields:
        `[samples]` of about ten seconds, full scale ±1.

    Raises:
        AudioError: as of `load_audio`; what is found late is told late.
    """
    path = Path(path)
    with _named(path, where), open_sound(path) as file:
        resampler = soxr.ResampleStream(
            file.rate, SAMPLE_RATE, 1, dtype="float32", quality=RESAMPLER
        )
        for block in file.blocks(round(BLOCK_SECONDS * file.rate)):
            mono = np.ascontiguousarray(block.mean(axis=1))
            if file.rate != SAMPLE_RATE:
                mono = resampler.resample_chunk(mono)
            yield mono
        if file.rate != SAMPLE_RATE:
            yield resampler.resample_chunk(np.zeros(0, dtype=np.float32), last=True)


@contextmanager
def _named(path: Path, where: str) -> Iterator[None]:
    """Put before the reason what it holds of: where the recording is used, and the file."""
    try:
        yield
    except AudioError as error:
        raise AudioError(f"{where}: {path}: {error}" if where else f"{path}: {error}") from error


#: dB re full scale; below the quietest step of 16-bit audio, so that silence is a finite number.
FLOOR_DB = -120.0


def energy(waveform: NDArray[np.float32], grid: Grid) -> NDArray[np.float32]:
    """RMS level of each frame.

    20 log10 sqrt(mean x²) over the samples of its window, not below -120 dB. A full scale square
    wave is 0 dB.

    Args:
        waveform: `[samples]` at 16 kHz, full scale ±1.
        grid: the audio encoder's grid.

    Returns:
        `[frames]` in dB.
    """
    squares = np.zeros(len(waveform) + 1)
    np.cumsum(np.square(waveform, dtype=np.float64), out=squares[1:])
    starts, stops = grid.bounds(len(waveform))
    # Differences of sums may round to a little below zero in silence.
    power = np.maximum(squares[stops] - squares[starts], 0.0) / (stops - starts)
    floor = 10.0 ** (FLOOR_DB / 10.0)
    level: NDArray[np.float64] = 10.0 * np.log10(np.maximum(power, floor))
    return level.astype(np.float32)


def energy_fields() -> dict[str, JSON]:
    """What decides the numbers besides the samples and the grid."""
    return {"level": "rms", "unit": "dB", "floor": FLOOR_DB}
