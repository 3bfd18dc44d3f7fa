"""A corpus of tones and words in which the class can be heard and read, and its frames."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from cache.config import ExtractConfig
from cache.extract.extract import extract
from corpora.base.work import Work
from corpora.manifest import Manifest, Utterance
from finetune.assembly import assemble
from finetune.model import EmotionModel
from heads.head import Head, HeadConfig

LABELS = ("anger", "neutral", "sadness")
PITCHES = {"anger": 320.0, "neutral": 200.0, "sadness": 110.0}
WORDS = {"anger": "stop that now", "neutral": "it is eight", "sadness": "I miss you"}
RATE = 16_000
DIMS = {"audio": 128, "text": 96}  # of the tiny encoders
LAST = {"audio": 3, "text": 3}


def make_corpus(folder: Path, count: int = 36) -> Manifest:
    """Utterances of 12 speakers, .3 to .8 s; a third of the texts say nothing."""
    generator = np.random.default_rng(0)
    utterances = []
    for number in range(count):
        label, speaker = LABELS[number % 3], number % 12
        seconds = generator.uniform(0.3, 0.8)
        time = np.arange(round(seconds * RATE)) / RATE
        tone = 0.2 * np.sin(2 * np.pi * PITCHES[label] * generator.uniform(0.8, 1.25) * time)
        noise = 0.1 * generator.standard_normal(len(time))
        audio = folder / "audio" / f"u{number:03}.wav"
        audio.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(audio, tone + noise, RATE)
        utterances.append(
            Utterance(
                id=f"u{number:03}",
                audio=audio,
                label=label,
                text=WORDS[label] if number % 9 > 2 else "",
                speaker=f"s{speaker}",
                split="train" if speaker < 6 else "dev" if speaker < 9 else "test",
            )
        )
    return Manifest(tuple(utterances), LABELS, corpus="tones", synthetic=True)


def extract_tiny(work: Work, manifest: Manifest, stored_dtype: str) -> None:
    """All layers of both tiny encoders."""
    layers = tuple(range(4))
    config = ExtractConfig(
        audio_encoder="tiny",
        text_encoder="tiny",
        audio_layers=layers,
        text_layers=layers,
        stored_dtype=stored_dtype,
        device="cpu",
    )
    extract(work, manifest, config)


def make_head(
    pooling: dict[str, Any],
    modalities: tuple[str, ...] = ("audio", "text"),
    input_norm: str = "none",
) -> Head:
    """A head on the tiny encoders."""
    config = HeadConfig(
        labels=LABELS,
        dims={name: DIMS[name] for name in modalities},
        pooling=dict.fromkeys(modalities, pooling),
        input_norm=input_norm,
        mlp_width=16,
    )
    return Head(config, seed=1)


def make_model(
    encoders: Path,
    pooling: dict[str, Any] | None = None,
    layers: dict[str, int] | None = None,
    modalities: tuple[str, ...] = ("audio", "text"),
    **options: Any,
) -> EmotionModel:
    """A head on the tiny encoders in `encoders`."""
    return assemble(
        make_head(pooling or {"kind": "mqmha", "queries": 2, "heads": 2}, modalities),
        {name: encoders / f"tiny-{name}" for name in modalities},
        layers or LAST,
        **options,
    )
