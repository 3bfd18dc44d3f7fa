"""Synthetic utterances whose class is carried by a known tenth of the frames, and heads on them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from cache.encoders.grid import Grid
from cache.frames import Frames
from cache.mapped import MappedFrames
from corpora.utterance import Utterance
from explain.load import LoadedRows, build_subject
from explain.subject import Subject
from heads.dataset import Dataset
from heads.head import Head, HeadConfig
from heads.training import Cohort, Schedule, TrainingConfig
from heads.vector_store import VectorStore

LABELS = ("anger", "sadness", "neutral")
# So many that an untrained scorer sees little of one direction, which a trained one sees well.
DIM = 64


@dataclass(frozen=True, eq=False)
class Planted:
    """Utterances, and which of their frames carry the class: `[N]` bool."""

    material: LoadedRows
    carries: NDArray[np.bool_]


def in_memory(frames: Mapping[str, Frames | MappedFrames]) -> dict[str, Frames]:
    """The frames of all utterances."""
    return {name: batch.select(range(len(batch))) for name, batch in frames.items()}


def plant(
    count: int = 120,
    speakers: int = 12,
    seed: int = 0,
    strength: float = 7.0,
    *,
    everywhere: bool = False,
) -> Planted:
    """Noise, and in one run of a tenth of the frames the class's direction, `strength` long.

    Everywhere: in all frames alike, a tenth as long, so that the mean frame is as telling.
    """
    generator = torch.Generator().manual_seed(seed)
    directions = torch.randn(len(LABELS), DIM, generator=torch.Generator().manual_seed(99))
    directions /= directions.norm(dim=1, keepdim=True)
    utterances, frames, carries = [], [], []
    for number in range(count):
        length = int(torch.randint(40, 90, (1,), generator=generator))
        planted = length if everywhere else max(1, length // 10)
        start = int(torch.randint(0, length - planted + everywhere, (1,), generator=generator))
        values = torch.randn(length, DIM, generator=generator)
        values[start : start + planted] += (strength / (10 if everywhere else 1)) * directions[
            number % len(LABELS)
        ]
        there = np.zeros(length, dtype=np.bool_)
        there[start : start + planted] = True
        frames.append(values)
        carries.append(there)
        utterances.append(
            Utterance(
                id=f"u{number:03}",
                audio=Path(f"u{number:03}.wav"),
                label=LABELS[number % len(LABELS)],
                speaker=f"s{number % speakers:02}",
                split="test",
            )
        )
    total = sum(len(part) for part in frames)
    audio = Frames.from_list(frames).with_speech(torch.ones(total))
    energy = torch.randn(total, generator=generator)
    material = LoadedRows(tuple(utterances), {"audio": audio}, Grid(320, 560), energy)
    return Planted(material, np.concatenate(carries))


def trained_head(planted: Planted, pooling: dict[str, object], epochs: int = 12) -> Head:
    """A head trained on planted utterances."""
    config = HeadConfig(LABELS, {"audio": DIM}, {"audio": pooling}, mlp_width=16, dropout=0.0)
    head = Head(config, 3)
    material = planted.material
    dataset = Dataset(material.utterances, LABELS, dict(material.frames))
    rows = torch.arange(len(dataset))
    schedule = Schedule(epochs=epochs, batch_size=24)
    # Attention starts even: at its usual rate it would not be on the planted frames that soon.
    training = TrainingConfig(1e-2, scorer_rate=1.0)
    cohort = Cohort([head], [training], VectorStore(dataset), rows, schedule)
    for _ in range(epochs):
        cohort.run_epoch()
    return head


def planted_subject(
    pooling: dict[str, object] | None = None, *, everywhere: bool = False
) -> tuple[Subject, Planted]:
    """A head trained on some utterances, and others to explain it on."""
    pooling = pooling or {"kind": "as", "hidden": 16}
    head = trained_head(plant(seed=1, everywhere=everywhere), pooling)
    unseen = plant(seed=2, everywhere=everywhere)
    return build_subject(head, unseen.material, split="test"), unseen
