"""A search of 100 trials on 10,000 generated utterances, in a process of its own for its memory."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import torch

from bench.frames import LABELS
from bench.table import Outcome, Settings
from heads.config import SearchConfig
from heads.dataset import Dataset
from heads.head import HeadConfig
from heads.pooling.registry import pooling_config
from heads.records import Origin
from heads.search.rounds import Candidates
from heads.search.search import search_heads

SIZE, REPEATS = 2048, 5
COPIED = 2**28  # bytes


def head_epoch_flops(config: HeadConfig, utterances: int, frames: float) -> float:
    """Operations of the matrix products that one head's training over so many frames needs.

    Two a multiplication; a product costs as much again for the gradient of its weights and, where
    one is needed, of its input. Frames have no gradient.
    """
    total, pooled = 0.0, 0
    for name, dim in config.dims.items():
        pooling = pooling_config(config.pooling[name])
        pooled += pooling.out_dim(dim)
        total += 2 * 2 * utterances * frames * dim * pooling.cost
    width = config.mlp_width or len(config.labels)
    return total + 3 * 2 * utterances * pooled * width


def peak_flops(device: str) -> float:
    """Operations a second of a large square product, in bfloat16 or fp32, whichever is faster."""
    return max(_product(torch.bfloat16, device), _product(torch.float32, device))


def copy_bandwidth(device: str) -> float:
    """Bytes a second that copying within the device's memory reads and writes."""
    values = torch.empty(COPIED, dtype=torch.uint8, device=device)
    other = torch.empty_like(values)
    return 2 * COPIED / _fastest(lambda: other.copy_(values), device)


def _product(dtype: torch.dtype, device: str) -> float:
    size = SIZE if device == "cpu" else 4 * SIZE
    one, other = (torch.randn(size, size).to(device, dtype) for _ in range(2))
    return 2 * size**3 / _fastest(lambda: one @ other, device)


def _fastest(action: Callable[[], object], device: str) -> float:
    times = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        action()
        if device != "cpu":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
    return min(times)


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


UTTERANCES, FRAMES, DIM = 10_000, 250, 1024
MOST_SECONDS, MOST_BYTES = 1800.0, 12e9


def large_search(settings: Settings) -> Outcome:
    """Time, memory and matrix throughput of `heads.search.search.search_heads`."""
    utterances, trials = settings.scaled(UTTERANCES, 200), settings.scaled(100, 8)
    done = subprocess.run(
        [sys.executable, "-m", "bench.large_search", str(utterances), str(trials)],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    found = json.loads(done.stdout.splitlines()[-1])
    share = found["achieved"] / found["peak"]
    return Outcome(
        f"{found['seconds'] / 60:.1f} min, {found['bytes'] / 1e9:.1f} GB, "
        f"{found['achieved'] / 1e9:.0f} GFLOP/s",
        f"{found['peak'] / 1e9:.0f} GFLOP/s",
        f"{share:.0%} of peak",
        found["seconds"] < MOST_SECONDS and found["bytes"] < MOST_BYTES,
    )


def main(utterances: int, trials: int) -> None:
    """Search, and print what it took as JSON."""
    from bench.frames import generated
    from bench.peak import peak_bytes

    took = searched(generated(utterances, DIM, FRAMES, FRAMES), trials, "cpu")
    sys.stderr.write(took.text + "\n")
    found = {
        "seconds": took.seconds,
        "bytes": peak_bytes(),
        "achieved": took.flop / took.seconds,
        "peak": peak_flops("cpu"),
    }
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main(*(int(argument) for argument in sys.argv[1:3]))
