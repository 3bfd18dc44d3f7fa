"""Recordings and manifests made up for benchmarks: nobody's voice, any amount of it."""

from __future__ import annotations

import os
import wave
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from cache.encoders.grid import SAMPLE_RATE
from corpora.manifest import Manifest, Utterance

LABELS = ("anger", "neutral")
_WORDS = (
    "the",
    "a",
    "of",
    "to",
    "and",
    "in",
    "that",
    "it",
    "was",
    "he",
    "said",
    "her",
    "she",
    "had",
    "with",
    "for",
    "you",
    "they",
    "we",
    "not",
    "but",
    "this",
    "at",
    "from",
    "one",
    "were",
)
_THREADS = min(16, os.cpu_count() or 1)


def make_manifest(folder: Path, seconds: Sequence[float], *, seed: int = 0) -> Manifest:
    """WAV files of these lengths in `folder`, each with a text of about its length.

    Args:
        folder: made if it is not there.
        seconds: of each recording.
        seed: of what is in them; two recordings are never the same.
    """
    folder.mkdir(parents=True, exist_ok=True)
    carrier = _babble(seed)

    def utterance(number: int) -> Utterance:
        path = folder / f"{seed:03d}-{number:06d}.wav"
        random = np.random.default_rng([seed, number])
        _write(path, carrier, round(seconds[number] * SAMPLE_RATE), random)
        words = random.choice(_WORDS, max(1, round(2.5 * seconds[number])))
        return Utterance(
            id=f"u{seed:03d}-{number:06d}",
            audio=path,
            label=LABELS[number % len(LABELS)],
            text=f"{' '.join(words)} {number}",
            speaker=f"s{number % 12}",
            split=("train", "dev", "test")[number % 3],
        )

    with ThreadPoolExecutor(_THREADS) as threads:
        utterances = tuple(threads.map(utterance, range(len(seconds))))
    return Manifest(utterances, LABELS, corpus="made up", synthetic=True)


def _babble(seed: int) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    """A minute of harmonics and noise, switched on and off four times a second as syllables are."""
    random = np.random.default_rng(seed)
    time = np.arange(60 * SAMPLE_RATE) / SAMPLE_RATE
    phase = 2 * np.pi * np.cumsum(140 + 30 * np.sin(2 * np.pi * 0.3 * time)) / SAMPLE_RATE
    voice = sum(np.sin(harmonic * phase) / harmonic for harmonic in range(1, 12))
    sound = 0.15 * voice + 0.05 * random.standard_normal(len(time))
    envelope = np.maximum(0.0, np.sin(2 * np.pi * 4 * time)) + 0.01
    return (sound * envelope).astype(np.float32)


def _write(
    path: Path,
    carrier: np.ndarray[tuple[int], np.dtype[np.float32]],
    samples: int,
    random: np.random.Generator,
) -> None:
    """Some stretch of the carrier at some loudness."""
    start = int(random.integers(len(carrier)))
    stretch = np.take(carrier, np.arange(start, start + samples), mode="wrap")
    whole = np.clip(stretch * random.uniform(0.2, 1.0) * 32_767, -32_767, 32_767)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes(whole.astype("<i2").tobytes())
