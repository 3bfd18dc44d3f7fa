"""A search of 100 trials on 10,000 generated utterances, in a process of its own for its memory."""

from __future__ import annotations

import json
import math
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import torch
from torch import Tensor

from bench.frames import LABELS
from bench.table import Outcome, Settings
from cache.encoders.device import has_bf16_units
from heads.config import SearchConfig
from heads.dataset import Dataset
from heads.head import HeadConfig
from heads.pooling import pooling_config
from heads.records import Origin
from heads.search.rounds import Candidates, default_epochs
from heads.search.search import search_heads

# AdamW in fp32 for a parameter: it, its gradient and two moments, each read and written.
ADAM_BYTES = 8 * 4
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


def read_frames(lengths: Tensor, most: int | None) -> float:
    """Frames that training reads of utterances of these lengths (`heads.dataset.Thinning`)."""
    return float((lengths / (1 if most is None else (lengths / most).ceil())).sum())


def peak_flops(device: str) -> float:
    """Operations a second of a large square product, in bfloat16 where there are units for it."""
    return _product(torch.bfloat16 if has_bf16_units(device) else torch.float32, device)


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
        steps: optimiser steps, which all heads of a cohort share.
        training_seconds: of these.
        heads_seconds: until the last of them.
        complete: whether it was done in time.
    """

    seconds: float
    flop: float
    frame_bytes: float
    text: str
    steps: int
    training_seconds: float
    heads_seconds: float
    complete: bool


class _TimeIsUpError(Exception):
    """In the middle of a search."""


def _stop(*_: object) -> None:
    raise _TimeIsUpError


def searched(dataset: Dataset, config: SearchConfig, most_seconds: float = math.inf) -> Searched:
    """Search on a generated data set of audio frames, in a folder that is removed.

    It is left where it is when it has taken more than `most_seconds`: its reference alone, which
    is fitted on the CPU, may take longer than all heads.
    """
    rows = dataset.rows("train")
    lengths = dataset.frames["audio"].lengths[rows]
    found = {"flop": 0.0, "frame_bytes": 0.0, "seconds": 0.0, "heads": 0.0}
    steps, text, complete = 0, "", True

    class Counting(Candidates):
        """Adds up every epoch."""

        def run_epoch(self) -> None:
            nonlocal steps
            frames, began = read_frames(lengths, self._schedule.frames), time.perf_counter()
            for head in self.heads:
                found["flop"] += head_epoch_flops(head.config, len(rows), frames / len(rows))
            if any(head.attention_pooling("audio") for head in self.heads):
                found["frame_bytes"] += 2 * frames * dataset.frames["audio"].dim * 2
            super().run_epoch()
            if config.device != "cpu":
                torch.cuda.synchronize()
            ended = time.perf_counter()
            found["seconds"] += ended - began
            found["heads"] = ended - started
            steps += self.steps_per_epoch

    origin = Origin(corpus="generated", synthetic=True, labels=LABELS)
    with tempfile.TemporaryDirectory(prefix="emopool-bench-") as folder:
        started = time.perf_counter()
        if most_seconds < math.inf:
            signal.signal(signal.SIGALRM, _stop)
            signal.setitimer(signal.ITIMER_REAL, most_seconds)
        try:
            with patch("heads.search.rounds.Candidates", Counting):
                report = search_heads(dataset, Path(folder), origin, config, show_progress=True)
            text = report.to_text()
        except _TimeIsUpError:
            complete = False
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        took = time.perf_counter() - started
    flop, nbytes, training = found["flop"], found["frame_bytes"], found["seconds"]
    return Searched(took, flop, nbytes, text, steps, training, found["heads"], complete)


def search_config(trials: int, device: str) -> SearchConfig:
    """The default search, without folds; a full trial has 9 epochs on small data too."""
    return SearchConfig(trials=trials, epochs=9, folds="off", device=device)


def search_steps(trained: int, config: SearchConfig) -> int:
    """Optimiser steps of a search's cohorts; all heads of a cohort share them."""
    steps = math.ceil(trained / config.batch_size)
    cohorts = math.ceil(config.trials / config.cohort)
    return cohorts * (config.epochs or default_epochs(steps)) * steps


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

    took = searched(generated(utterances, DIM, FRAMES, FRAMES), search_config(trials, "cpu"))
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
