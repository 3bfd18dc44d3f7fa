"""A search whose heads read 48 frames of an utterance a step, against one whose heads read all.

Both draw the same trials, by chance. What may not differ: which of them lead at the last rung, and
what the winner scores on the test set, which neither has seen.
"""

from __future__ import annotations

import csv
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from unittest.mock import patch

from scipy.stats import spearmanr

from corpora.base.terminal import aligned
from heads.config import SearchConfig
from heads.dataset import Dataset
from heads.records import Origin
from heads.search.search import search_heads
from heads.training import TRAINED_FRAMES, Schedule


@dataclass(frozen=True)
class Searched:
    """One search.

    Attributes:
        seconds: in all.
        values: by trial that was trained to the end, what it was compared by.
        chosen: the winner's number.
        compared: its score on what it was chosen by.
        test: on the test set.
    """

    seconds: float
    values: dict[int, float]
    chosen: int
    compared: float
    test: float


def thinned_lines(
    dataset: Dataset, origin: Origin, trials: int, seeds: Sequence[int]
) -> list[tuple[Searched, Searched]]:
    """For each seed the search that reads some frames, and the one that reads all."""
    return [
        (
            _search(dataset, origin, trials, seed, thinned=True),
            _search(dataset, origin, trials, seed, thinned=False),
        )
        for seed in seeds
    ]


def thinned_text(lines: Sequence[tuple[Searched, Searched]]) -> str:
    """A line a seed, and the means."""
    rows = [("seed", "agreement at the last rung", "winner", "test macro-F1", "minutes", "")]
    for seed, (some, every) in enumerate(lines):
        common = sorted(some.values.keys() & every.values.keys())
        rank = spearmanr([some.values[k] for k in common], [every.values[k] for k in common])
        rows.append(
            (
                str(seed),
                f"{len(common)} of {len(every.values)} the same, rank correlation "
                f"{rank.statistic:.2f}",
                f"{some.chosen}, {every.chosen}",
                f"{some.test:.3f}, {every.test:.3f}",
                f"{some.seconds / 60:.1f}, {every.seconds / 60:.1f}",
                f"{every.seconds / some.seconds:.1f}×",
            )
        )
    each = [mean(own.test for own in side) for side in zip(*lines, strict=True)]
    compared = [mean(own.compared for own in side) for side in zip(*lines, strict=True)]
    return "\n".join(
        [
            *aligned(rows),
            f"Pairs: {TRAINED_FRAMES} frames a step, and all. Means: test "
            f"{each[0]:.3f} and {each[1]:.3f}; what they were chosen by {compared[0]:.3f} and "
            f"{compared[1]:.3f}.",
        ]
    )


def _whole(epochs: int, batch_size: int, *, data_seed: int) -> Schedule:
    """A search's schedule that reads all frames."""
    return Schedule(epochs, batch_size, data_seed=data_seed, frames=None)


def _search(dataset: Dataset, origin: Origin, trials: int, seed: int, *, thinned: bool) -> Searched:
    config = SearchConfig(trials=trials, seed=seed, sampler="random", device="cpu")
    with tempfile.TemporaryDirectory(prefix="emopool-bench-") as name:
        folder = Path(name)
        started = time.perf_counter()
        schedule = Schedule if thinned else _whole
        with patch("heads.search.search.Schedule", schedule):
            report = search_heads(dataset, folder, origin, config, show_progress=True)
        seconds = time.perf_counter() - started
        with (folder / "trials.csv").open(newline="", encoding="utf-8") as file:
            values = {
                int(row["number"]): float(row["dev_macro_f1"])
                for row in csv.DictReader(file)
                if row["state"] == "complete"
            }
    scores = report.best.scores
    return Searched(
        seconds,
        values,
        report.best.trial,
        scores[report.selected_on].macro_f1,
        scores["test"].macro_f1,
    )
