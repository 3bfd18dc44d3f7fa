"""Small data sets in which the class can be read from the frames."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from cache.frames import Frames
from corpora.manifest import Utterance
from heads.dataset import Dataset
from heads.head import HeadConfig

LABELS = ("anger", "neutral", "sadness")


def make_dataset(count: int = 90, dim: int = 16, seed: int = 0, signal: float = 1.0) -> Dataset:
    """Utterances of 9 speakers; a third of the frames of both modalities carry the class."""
    generator = torch.Generator().manual_seed(seed)
    utterances = []
    frames: dict[str, list[torch.Tensor]] = {"audio": [], "text": []}
    directions = torch.randn(len(LABELS), dim, generator=generator)
    for number in range(count):
        label = number % len(LABELS)
        for modality, longest in (("audio", 20), ("text", 6)):
            length = int(torch.randint(1, longest, (1,), generator=generator))
            values = torch.randn(length, dim, generator=generator)
            values[: (length + 2) // 3] += signal * directions[label]
            frames[modality].append(values)
        speaker = number % 9
        split = "train" if speaker < 5 else "dev" if speaker < 7 else "test"
        utterances.append(
            Utterance(
                id=f"u{number:03}",
                audio=Path(f"u{number:03}.wav"),
                label=LABELS[label],
                speaker=f"s{speaker}",
                split=split,
            )
        )
    audio = Frames.from_list(frames["audio"])
    speech = torch.rand(audio.values.shape[0], generator=generator)
    return Dataset(
        tuple(utterances),
        LABELS,
        {"audio": audio.with_speech(speech), "text": Frames.from_list(frames["text"])},
    )


def with_lower(dataset: Dataset, layers: tuple[int, ...] = (1, 3), seed: int = 7) -> Dataset:
    """The same with audio layers below the one there is: noise of other sizes and centres."""
    generator = torch.Generator().manual_seed(seed)
    top = dataset.frames["audio"]
    lower = {
        layer: Frames(
            layer + (0.5 + layer) * torch.randn(top.total, top.dim, generator=generator),
            top.offsets,
        )
        for layer in layers
    }
    return replace(dataset, others={"audio": lower}, layers={"audio": 1 + max(layers)})


def in_memory(dataset: Dataset) -> dict[str, Frames]:
    """The frames of all utterances, wherever they are kept."""
    return {name: frames.select(range(len(frames))) for name, frames in dataset.frames.items()}


def make_configs(dim: int = 16) -> list[HeadConfig]:
    """Heads of many shapes: kinds, normalisations, modalities, classifiers."""

    def head(
        pooling: dict[str, object],
        norm: str = "none",
        modalities: tuple[str, ...] = ("audio", "text"),
        width: int = 8,
        dropout: float = 0.2,
    ) -> HeadConfig:
        return HeadConfig(
            labels=LABELS,
            dims=dict.fromkeys(modalities, dim),
            pooling=dict.fromkeys(modalities, pooling),
            input_norm=norm,
            mlp_width=width,
            dropout=dropout,
        )

    return [
        head({"kind": "mqmha", "queries": 2, "heads": 2}),
        head({"kind": "average"}, norm="standardise"),
        head({"kind": "as", "hidden": 4}, norm="layernorm"),
        head({"kind": "mha"}, norm="standardise", modalities=("audio",)),
        head({"kind": "statistics"}, norm="layernorm", width=0, dropout=0),
        head({"kind": "vad_average"}, modalities=("audio",)),
        head({"kind": "sa", "hidden": 4}, norm="standardise"),
        head({"kind": "max"}, modalities=("text",)),
    ]
