"""A search with its time, its arithmetic and the frames it read added up."""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

from bench.frames import LABELS
from bench.throughput import head_epoch_flops
from heads.dataset import Dataset
from heads.origin import Origin
from heads.search.candidates import Candidates
from heads.search.config import SearchConfig
from heads.search.run import search_heads


@dataclass(frozen=True)
class Searched:
    """What a search took.

    Attributes:
        seconds: of the whole search, its reference and its reports included.
        flop: operations of the matrix products that its training needs.
        frame_bytes: of frames that training has to read at least: once forward and once backward
            an epoch, for all heads together, in 16 bits.
        text: its report.
    """

    seconds: float
    flop: float
    frame_bytes: float
    text: str


def searched(dataset: Dataset, trials: int, device: str) -> Searched:
    """Search on a generated data set of audio frames, in a folder that is removed."""
    rows = dataset.rows("train")
    frames = int(dataset.frames["audio"].lengths[rows].sum())
    average = frames / len(rows)
    found = {"flop": 0.0, "frame_bytes": 0.0}

    class Counting(Candidates):
        """Adds up every epoch."""

        def run_epoch(self) -> None:
            for head in self.heads:
                found["flop"] += head_epoch_flops(head.config, len(rows), average)
            if any(head.attention_pooling("audio") for head in self.heads):
                found["frame_bytes"] += 2 * frames * dataset.frames["audio"].dim * 2
            super().run_epoch()

    origin = Origin(corpus="generated", synthetic=True, labels=LABELS)
    config = SearchConfig(trials=trials, epochs=9, folds="off", device=device)
    with tempfile.TemporaryDirectory(prefix="emopool-bench-") as folder:
        started = time.perf_counter()
        with patch("heads.search.rounds.Candidates", Counting):
            report = search_heads(dataset, Path(folder), origin, config, show_progress=True)
        took = time.perf_counter() - started
    return Searched(took, found["flop"], found["frame_bytes"], report.to_text())
