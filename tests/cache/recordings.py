"""Small recordings and manifests made by the tests."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import soundfile

from corpora.manifest import Manifest, Utterance

LABELS = ("anger", "neutral")


def write_tone(path: Path, seconds: float, *, rate: int = 16_000, seed: int = 0) -> Path:
    """A noisy tone whose pitch and loudness depend on the seed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(seed)
    time = np.arange(round(seconds * rate)) / rate
    tone = 0.2 * np.sin(2 * np.pi * (120 + 40 * seed) * time)
    soundfile.write(path, tone + 0.02 * generator.standard_normal(len(time)), rate)
    return path


def make_manifest(folder: Path, count: int = 6) -> Manifest:
    """Utterances of different lengths, with texts, two labels and all three splits."""
    utterances = []
    for number in range(count):
        audio = write_tone(folder / "audio" / f"u{number}.wav", 0.5 + 0.3 * number, seed=number)
        utterances.append(
            Utterance(
                id=f"u{number}",
                audio=audio,
                label=LABELS[number % 2],
                text=f"number {number % 4} is said",
                speaker=f"s{number % 3}",
                split=("train", "dev", "test")[number % 3],
            )
        )
    return Manifest(tuple(utterances), LABELS, corpus="tones")


def change(manifest: Manifest, number: int, **fields: object) -> Manifest:
    """The manifest with some fields of one utterance replaced."""
    utterances = list(manifest.utterances)
    utterances[number] = replace(utterances[number], **fields)  # type: ignore[arg-type]
    return replace(manifest, utterances=tuple(utterances))
