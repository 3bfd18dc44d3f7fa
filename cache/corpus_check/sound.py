"""How recordings sound: clipped, silent, or not decodable at all."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from corpora.base.errors import AudioError
from corpora.base.terminal import progress_bar
from corpora.sound_file import SoundFile, open_sound
from corpora.utterance import Utterance

# Decoding runs outside the interpreter's lock; more threads wait for the disk.
THREADS = 4
# Full scale less a hair: files saved from clipped ones are often turned down by less than .01 dB.
FULL_SCALE = 0.999
# So many samples in a row at full scale are a cut-off wave; one or two are a loud one.
CLIPPED_RUN = 3
FRAME_SECONDS = 0.02
# RMS of a frame, dB below full scale: quieter than any room is recorded at 16 bits with speech.
SILENCE_DB = -60.0


@dataclass(frozen=True, slots=True)
class Sound:
    """What was heard in one utterance.

    Attributes:
        peak: largest absolute sample, full scale 1.
        clipped: samples that lie in runs of `CLIPPED_RUN` or more at full scale.
        silent: share of 20 ms frames whose RMS is below `SILENCE_DB`.
        problem: why it cannot be used; "" where it can.
    """

    peak: float = 0.0
    clipped: int = 0
    silent: float = 0.0
    problem: str = ""


def listen(utterances: Sequence[Utterance], *, show_progress: bool = False) -> dict[str, Sound]:
    """Decode every utterance at its own rate; returns what was heard, by id.

    Args:
        utterances: of a manifest.
        show_progress: show a bar on standard error while it takes longer than two seconds.
    """
    by_file: dict[Path, list[Utterance]] = {}
    for utterance in utterances:
        by_file.setdefault(utterance.audio, []).append(utterance)
    heard: dict[str, Sound] = {}
    with (
        ThreadPoolExecutor(THREADS) as pool,
        progress_bar("listening", len(by_file), "file", show=show_progress) as bar,
    ):
        for found in pool.map(_listen_to_file, by_file, by_file.values()):
            heard.update(found)
            bar.update(1)
    return heard


def sound_of(samples: NDArray[np.float32], rate: int) -> Sound:
    """Measure `[samples, channels]` at `rate` Hz.

    Silent is what an encoder hears, the mean of the channels; each channel may be clipped.
    """
    if not samples.size:
        return Sound(problem="it holds no sound")
    loud = np.abs(samples)
    length = max(1, round(FRAME_SECONDS * rate))
    frames = max(1, len(samples) // length)
    power = np.square(samples.mean(axis=1, dtype=np.float64)[: frames * length])
    rms = np.sqrt(power.reshape(frames, -1).mean(axis=1))
    silent = float((rms < 10 ** (SILENCE_DB / 20)).mean())
    clipped = sum(_in_runs(loud[:, channel] >= FULL_SCALE) for channel in range(loud.shape[1]))
    return Sound(float(loud.max()), clipped, silent)


def _in_runs(full: NDArray[np.bool_]) -> int:
    """How many of the set values stand in runs of `CLIPPED_RUN` or more."""
    if not full.any():
        return 0
    edges = np.flatnonzero(np.diff(np.concatenate([[False], full, [False]]).astype(np.int8)))
    lengths = edges[1::2] - edges[::2]
    return int(lengths[lengths >= CLIPPED_RUN].sum())


def _listen_to_file(path: Path, utterances: Sequence[Utterance]) -> dict[str, Sound]:
    try:
        with open_sound(path) as file:
            return {u.id: _listen_to_cut(file, u) for u in utterances}
    except AudioError as error:
        return {u.id: Sound(problem=str(error)) for u in utterances}


def _listen_to_cut(file: SoundFile, utterance: Utterance) -> Sound:
    try:
        return sound_of(file.cut(utterance.start, utterance.end), file.rate)
    except AudioError as error:
        return Sound(problem=str(error))
