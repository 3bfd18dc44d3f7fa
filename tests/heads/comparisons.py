"""Small comparisons: seconds, on the synthetic data set."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from heads.compare.compare import compare_heads
from heads.compare.comparison import CompareReport
from heads.config import CompareConfig
from heads.dataset import Dataset
from tests.heads.searches import make_origin, small_dataset

RATES = (1e-3, 1e-2)
SEEDS = 2
EPOCHS = 2


def many_speakers() -> Dataset:
    """The small data set with a speaker of each of 8 or more utterances in dev and test."""
    dataset = small_dataset()
    utterances = tuple(
        replace(u, speaker=f"s{number}") for number, u in enumerate(dataset.utterances)
    )
    return replace(dataset, utterances=utterances)


def in_folds(dataset: Dataset, folds: int = 4) -> Dataset:
    """A protocol of folds, each of several speakers with all labels, and no splits."""
    utterances = tuple(
        replace(u, fold=str(number // 3 % folds), split="")
        for number, u in enumerate(dataset.utterances)
    )
    return replace(dataset, utterances=utterances)


def small_comparison(folder: Path, **options: Any) -> CompareReport:
    dataset = options.pop("dataset", None) or many_speakers()
    origin = options.pop("origin", None) or make_origin()
    fresh = options.pop("fresh", False)
    defaults: dict[str, Any] = {
        "seeds": SEEDS,
        "learning_rates": RATES,
        "epochs": EPOCHS,
        "batch_size": 16,
        "tables": ("poolings", "modalities"),
        "poolings": ("average", "statistics", "MHA"),
        "plot": False,
    }
    config = CompareConfig(**{**defaults, **options})
    return compare_heads(dataset, folder, origin, config, fresh=fresh)
