"""Frames of one's own to a searched head, without the command line and without the cache.

    python examples/own_features.py FOLDER

The frames here are made up: noise, in which a tenth of an utterance's frames carry its emotion. Put
yours in their place: of each utterance a float array `[frames, features]`, however it was made.
`FOLDER/best.json` and `head.safetensors` are the head; `heads.records.load_head` reads it back.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))  # where `python` looks for the package

from cache.frames import Frames
from corpora.utterance import Utterance
from heads.config import SearchConfig
from heads.dataset import Dataset
from heads.records import Origin
from heads.search.search import search_heads

LABELS = ("anger", "neutral", "sadness")
SPEAKERS, EACH, FEATURES = 24, 6, 16


def made_up_frames(label: int, random: np.random.Generator) -> np.ndarray:
    """`[frames, features]` float32 of one utterance."""
    frames = random.normal(size=(int(random.integers(30, 60)), FEATURES)).astype(np.float32)
    frames[: len(frames) // 10, label] += 4
    return frames


def made_up_dataset() -> Dataset:
    """Utterances of 24 speakers, each in one split, with their frames."""
    random = np.random.default_rng(0)
    utterances, frames = [], []
    for speaker in range(SPEAKERS):
        split = "test" if speaker % 4 == 3 else "dev" if speaker % 4 == 2 else "train"
        for number in range(EACH):
            label = number % len(LABELS)
            name = f"speaker{speaker:02}-{number}"
            utterances.append(
                Utterance(
                    id=name,
                    audio=Path(f"{name}.wav"),  # is not read
                    label=LABELS[label],
                    speaker=f"speaker{speaker:02}",
                    split=split,
                )
            )
            frames.append(made_up_frames(label, random))
    lengths = torch.tensor([0, *map(len, frames)])
    ragged = Frames(torch.from_numpy(np.concatenate(frames)), lengths.cumsum(0))
    return Dataset(tuple(utterances), LABELS, {"audio": ragged})


def main(folder: Path) -> None:
    """Search twenty heads; print the best one's score beside the reference's."""
    origin = Origin(
        corpus="made up",
        synthetic=True,  # which every result says
        labels=LABELS,
        encoders={"audio": "an encoder of one's own"},
        layers={"audio": 0},
        streams={"audio": "none"},
    )
    config = SearchConfig(trials=20, folds="off")
    report = search_heads(made_up_dataset(), folder, origin, config)
    best = report.best
    print(f"best head: trial {best.trial}, {dict(best.head.pooling['audio'])['kind']}")
    print(f"macro-F1 on test: {best.scores['test'].macro_f1:.3f}")
    assert report.reference is not None, "heads of classes have one"
    print(f"logistic regression: {report.reference.scores['test'].macro_f1:.3f}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
