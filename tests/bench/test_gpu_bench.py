"""`bench/gpu.sh`: it runs at toy size, and says what it measured or why it cannot."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from bench.gpu import NO_DEVICE, TOY, Figures, measure

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


@pytest.mark.slow
def test_it_measures_at_toy_size(tmp_path: Path) -> None:
    figures = measure(replace(TOY, hours=0.01), tmp_path)
    assert figures.recordings > 2
    assert figures.hours > 0.005
    assert min(figures.audio_seconds_an_hour, figures.encoder_an_hour, figures.flop_a_second) > 0
    assert "78 hours" in figures.to_text()
