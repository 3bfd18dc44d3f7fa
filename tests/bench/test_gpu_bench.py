"""`bench/gpu.sh`: it runs at toy size, and says what it measured or why it cannot."""

import json
import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch

from bench.gpu import NO_DEVICE, PARTS, TABLE, findings, run_part, table
from bench.gpu_counts import _REGION, Finding, Roofline, Setup, counts, first_wait
from bench.gpu_extraction import Figures
from bench.large_search import read_frames, search_config, search_steps
from heads.batches import Thinning
from heads.training import TRAINED_FRAMES

ROOT = Path(__file__).parents[2]
FIGURES = Figures(
    device="a GPU",
    hours=8.0,
    recordings=5_236,
    audio_seconds=22.0,
    text_seconds=4.0,
    audio_seconds_an_hour=2.0,
    text_seconds_an_hour=0.25,
    once_seconds=8.0,
    peak_bytes=30 * 10**9,
    device_bytes=150 * 10**9,
    encoder_an_hour=1.8,
    front_end_an_hour=0.2,
    detector_an_hour=0.1,
    text_encoder_an_hour=0.2,
    flop_a_second=7e10,
)


def test_the_figures_are_said_with_their_units() -> None:
    text = FIGURES.to_text()
    for words in (
        "18.5; 26.7 without the 8.0 s a run takes once",
        "Time in the encoders: 89% (audio 90% of its pass, text 80%)",
        "70.0 GFLOP a second of audio, 140 TFLOP/s alone, 126 TFLOP/s over its pass",
        "GPU memory: 30.0 GB of 150 GB",
        "3.1 minutes (goal on one H200: under 4)",
    ):
        assert words in text
    assert "not measured" in replace(FIGURES, device_bytes=0).to_text()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_gpu_the_script_says_so() -> None:
    environment = {**os.environ, "PYTHON": sys.executable}
    script = str(ROOT / "bench" / "gpu.sh")
    done = subprocess.run([script], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == NO_DEVICE
    assert "No CUDA device" in done.stderr


def event(category: str, name: str, start: float, duration: float) -> dict[str, Any]:
    return {"ph": "X", "cat": category, "name": name, "ts": start, "dur": duration}


def test_kernels_waits_and_busy_time_are_read_from_a_trace() -> None:
    """Two steps from 10 to 30 µs; the last kernel runs on behind them."""
    trace = [
        event("cuda_runtime", "cudaDeviceSynchronize", 2, 1),
        event("user_annotation", _REGION, 10, 20),
        event("cuda_runtime", "cudaLaunchKernel", 11, 1),
        event("cuda_driver", "cuLaunchKernelEx", 12, 1),
        event("cuda_runtime", "cudaMemcpyAsync", 14, 1),
        event("cuda_runtime", "cudaStreamSynchronize", 15, 3),
        event("cuda_runtime", "cudaDeviceSynchronize", 31, 9),
        event("kernel", "one", 12, 4),
        event("kernel", "other", 14, 4),
        event("gpu_memcpy", "Memcpy HtoD (Pageable -> Device)", 20, 2),
        event("kernel", "last", 29, 8),
        {"ph": "f", "cat": "ac2g", "name": "flow", "ts": 12},
    ]
    found = counts(trace, 2)
    assert (found.kernels, found.copies, found.launches) == (1.5, 0.5, 1.5)
    assert (found.waits, found.pageable) == (0.5, 0.5)
    assert found.busy == pytest.approx(16e-6 / 2)


def test_the_line_of_a_wait_is_named() -> None:
    def waits() -> None:
        raise RuntimeError("called a synchronizing CUDA operation")

    def warns() -> None:
        for _ in range(2):
            warnings.warn("called a synchronizing CUDA operation", stacklevel=1)

    def step() -> None:
        if modes[-1] == "error":
            waits()
        warns()

    modes: list[str] = []
    with (
        patch("torch.cuda.set_sync_debug_mode", modes.append),
        patch("torch.cuda.synchronize"),
    ):
        assert first_wait(lambda: None, "cuda") == "no wait"
        assert modes == ["error", "default"]
        found = first_wait(step, "cuda")
    assert modes[2:] == ["error", "default", "warn", "default"]
    here = f"tests/bench/{Path(__file__).name}"
    raised, warned = (
        f"{here}:{one.__code__.co_firstlineno + n}" for one, n in ((waits, 1), (warns, 2))
    )
    assert found == f"raises at {raised}; 2 × {warned}"
    assert first_wait(step, "cpu") == "not asked (no GPU)"


def test_the_roofline_is_the_slower_of_products_and_bytes() -> None:
    with patch("bench.gpu_counts.peaks", lambda _: (100.0, 10.0)):
        assert Roofline(flop=200, nbytes=10).seconds("cuda") == 2
        assert Roofline(flop=200, nbytes=50).seconds("cuda") == 5


def test_frames_that_training_reads_are_counted() -> None:
    lengths = [1, 48, 49, 100, 517]
    assert read_frames(torch.tensor(lengths), None) == sum(lengths)
    drawn = [
        sum(len(range(length)[own]) for length, own in zip(lengths, slices, strict=True))
        for slices in (Thinning(TRAINED_FRAMES, seed).slices(lengths) for seed in range(500))
    ]
    expected = read_frames(torch.tensor(lengths), TRAINED_FRAMES)
    assert sum(drawn) / len(drawn) == pytest.approx(expected, abs=0.5)


def test_a_search_of_the_published_size_has_so_many_steps() -> None:
    """4 cohorts of 25, 9 epochs, 770 batches."""
    assert search_steps(49_248, search_config(100, "cuda")) == 27_720


def test_what_one_measure_breaks_the_others_do_not_miss(tmp_path: Path) -> None:
    def broken(_: Setup) -> Iterator[Finding]:
        yield Finding("before", "1 s")
        raise RuntimeError("no kernel image is available")

    def whole(_: Setup) -> Iterator[Finding]:
        yield Finding("after", "a|b")

    setup = Setup(tmp_path, "cpu", small=True, hours=0.01, seconds=60)
    found = list(findings([broken, whole], setup))
    assert [one.what for one in found] == ["before", "FAILED: broken", "after"]
    assert "no kernel image" in found[1].found
    with patch.dict(PARTS, {"heads": ((broken, whole), 1.0)}):
        assert not run_part("heads", setup, tmp_path)
    written = (tmp_path / "heads.jsonl").read_text().splitlines()
    assert [json.loads(line)["what"] for line in written] == [one.what for one in found]
    text = table(tmp_path, ["heads"])
    assert "| before | 1 s |" in text
    assert "| after | a\\|b |" in text
    assert text.endswith("in time: heads.\n")


@pytest.mark.slow
def test_every_part_runs_at_toy_size(tmp_path: Path) -> None:
    script = str(ROOT / "bench" / "gpu.sh")
    done = subprocess.run(
        [script, "--toy", "--hours", "0.01", "--out", str(tmp_path), "--minutes", "30"],
        env={**os.environ, "PYTHON": sys.executable},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    text = (tmp_path / TABLE).read_text()
    for what in (
        "a training step of 25 heads",
        "logits of 25 heads",
        "audio frames in fp32",
        "78 hours",
        "a step of phase 3",
        "explain --subject model",
        "14 trials",
    ):
        assert what in text
