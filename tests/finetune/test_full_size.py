"""The full W2V-BERT 2.0 and DeBERTa-v3-base, with random weights, on a CPU in 20 GB."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

MEMORY = 20e9
# Frames of a batch: four utterances of a second.
BUDGET = 200


def run(folder: Path, device: str, budget: int) -> list[int]:
    """Steps of phases 2 and 3, and the most memory in bytes."""
    found = subprocess.run(
        [sys.executable, "-m", "tests.finetune.full_size", str(folder), device, str(budget)],
        check=True,
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    return [int(word) for word in found.stdout.split()]


@pytest.mark.slow
def test_two_steps_of_each_phase_of_the_full_encoders_fit_20_gb(tmp_path: Path) -> None:
    *steps, peak = run(tmp_path, "cpu", BUDGET)
    assert steps == [2, 2]
    assert peak < MEMORY


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_the_full_encoders_are_fine_tuned_on_a_gpu(tmp_path: Path) -> None:
    *steps, _ = run(tmp_path, "cuda", BUDGET)
    assert steps == [2, 2]
