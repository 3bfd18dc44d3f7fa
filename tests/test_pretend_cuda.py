"""CUDA's branches without a GPU: right devices, nothing read early, and what is launched.

Each check is a process of its own on a pretend device (`tests.pretend.device` says how it works and
what it cannot see); `python -m tests.pretend NAME` runs one and names the lines that launch and
wait.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.pretend.guard import compile_guard

ROOT = Path(__file__).parents[1]
# Kernels and host waits at most: what is counted today. To be lowered, never raised. (Some rose
# once, when an H100 showed that a multiple of 16 frames saves a tenth of an encoder's time: a
# recording that is alone is filled up too, and has a mask.)
AT_MOST = {
    # what                                kernels  waits
    "pooling as":                            (67, 3),
    "pooling average":                        (1, 0),
    "pooling average+vad_average":           (19, 0),
    "pooling max":                            (1, 0),
    "pooling mha":                          (43, 1),
    "pooling mqmha":                        (43, 1),
    "pooling sa":                            (65, 3),
    "pooling statistics":                     (8, 0),
    "pooling vad_average":                   (18, 0),
    "pooling mqmha 2 4 2 8":                 (73, 3),
    "pooling mqmha 4 4 1":                  (43, 1),
    "pooling mqmha 4 2 8 True":              (69, 3),
    "pooling statistics 2":                 (124, 4),
    "loss focal":                            (37, 0),
    "loss focal, adjusted":                  (39, 0),
    "loss cross_entropy":                    (20, 0),
    "loss cross_entropy, adjusted":          (22, 0),
    "loss kl":                               (22, 0),
    "loss kl, adjusted":                     (24, 0),
    "a step of 25 heads, fp32":            (376, 0),
    "a step of 25 heads, fp32, sent":      (376, 0),
    "a step of 25 heads, bf16":            (396, 0),
    "a step of 25 heads, recorded":          (3, 0),
    "a step of 25 heads, recorded, sent":    (5, 0),
    "delivery of a stream, 36 times":       (990, 0),
    "W2V-BERT, fp32":                      (193, 1),
    "W2V-BERT, bf16":                      (241, 1),
    "Whisper, fp32":                        (30, 0),
    "Whisper, bf16":                        (40, 0),
    "WavLM, fp32":                         (162, 0),
    "WavLM, bf16":                         (199, 0),
    "HuBERT, fp32":                        (256, 0),
    "HuBERT, bf16":                        (356, 0),
    "front end and frames of W2V-BERT":     (47, 0),
    "front end and frames of Whisper":      (27, 0),
    "front end and frames of WavLM":        (25, 0),
    "front end and frames of HuBERT":       (87, 0),
    "DeBERTa, fp32":                       (172, 1),
    "BERT, fp32":                           (80, 1),
    "speech of 4 recordings":               (30, 1),
    "a batch outside W2V-BERT, fp32":      (109, 1),
    "a batch outside W2V-BERT, bf16":      (110, 1),
    "a batch outside Whisper, fp32":       (250, 0),
    "a batch outside WavLM, fp32":          (88, 0),
    "extract, fp32":                    (1811, 176),
    "extract, bf16":                    (2169, 176),
    "search, on the GPU":                  (1757, 257),
    "search, recorded":                  (2562, 236),
    "search, folds":                       (1050, 123),
    "search, untied":                      (1180, 191),
    "search, in memory":                   (1058, 176),
    "search, on disk":                     (1057, 175),
    "compare":                             (3485, 689),
    "a step of phase 2":                   (928, 3),
    "a step of phase 3":                  (1344, 3),
    "finetune, phase 1":                (2682, 527),
    "finetune, phases 1 to 3":        (14831, 1435),
    "finetune, phase 3, checkpointing":  (9969, 1052),
    "finetune, phase 2, augmented":     (7673, 740),
    "evaluate":                          (994, 165),
    "predict":                           (999, 165),
    "transcribe":                       (1801, 152),
    "explain head, 0 occluded":              (0, 0),
    "explain model, 0 occluded":         (989, 172),
    "explain head, 2 occluded":         (6193, 209),
    "explain model, 2 occluded":        (7019, 220),
}  # fmt: skip
# A kind of pooling without a row of its own may take what the others do; one that needs more gets
# a row, which says so.
KINDS = "pooling "
_ROWS = [most for what, most in AT_MOST.items() if what.startswith(KINDS)]
POOLING_AT_MOST = (max(kernels for kernels, _ in _ROWS), max(waits for _, waits in _ROWS))
QUICK = ("simulator", "poolings", "cohort", "delivery")
LONG = (
    *("devices", "losses", "encoders", "extraction_batch", "extraction", "search", "compare"),
    *(
        "finetune",
        "finetune_step",
        "transcribe",
        "explain_head",
        "explain_model",
        "explain_head_occluded",
    ),
    "explain_model_occluded",
)


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if torch.version.cuda is not None:
        pytest.skip(
            "a PyTorch with CUDA has a device of its own, which leaves no place for another"
        )
    if shutil.which("g++") is None:
        pytest.skip("the pretend device's guard is compiled with g++, which is not installed")
    return compile_guard(tmp_path_factory.mktemp("guard"))


def run(name: str, library: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.pretend", name, library],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    for line in done.stdout.splitlines():
        found = json.loads(line)
        most = dict(AT_MOST)
        if found["what"].startswith(KINDS) and " ".join(found["what"].split()[:2]) not in AT_MOST:
            sys.stdout.write(f"{line} is of a kind without a row; at most {POOLING_AT_MOST}\n")
            most[found["what"]] = POOLING_AT_MOST
        kernels, waits = most[found["what"]]
        assert found["kernels"] <= kernels, f"{found}, at most {kernels}\n{done.stderr}"
        assert found["waits"] <= waits, f"{found}, at most {waits}\n{done.stderr}"


@pytest.mark.parametrize("name", QUICK)
def test_parts(name: str, library: Path) -> None:
    run(name, library)


@pytest.mark.slow
@pytest.mark.parametrize("name", LONG)
def test_encoders_and_commands(name: str, library: Path) -> None:
    run(name, library)
