"""Two processes make the steps of one."""

from __future__ import annotations

import csv
import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from corpora.base.work import Work
from corpora.manifest import Manifest, write_manifest
from finetune.config import FinetuneConfig
from finetune.finetune import run_finetune
from tests.finetune.conftest import Searched
from tests.finetune.searched import copy_work

# Seven batches an epoch or so: two processes have an odd one at the end.
CONFIG = FinetuneConfig(
    epochs=1, frame_budget=90, device="cpu", boundary_dtype="float32", lr2=1e-3, lr3=1e-3
)
ONE_OF_TWO = """
import sys
from pathlib import Path
from corpora.manifest import read_manifest
from corpora.base.work import Work
from finetune.finetune import run_finetune
from tests.finetune.test_processes import CONFIG

work = Work(Path(sys.argv[1]))
run_finetune(work, read_manifest(work.manifest), CONFIG)
"""


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def numbers(work: Work) -> list[list[float]]:
    """Learning rates, losses and scores by step."""
    with (work.finetune / "curves.csv").open() as file:
        return [[float(cell or 0) for cell in row] for row in list(csv.reader(file))[1:]]


def test_two_processes_give_the_losses_and_weights_of_one_on_the_same_batches(
    searched: Searched, manifest: Manifest, tmp_path: Path
) -> None:
    rows = tuple(u for u in manifest.utterances if u.split != "test")
    one, two = (copy_work(searched.work, tmp_path / name) for name in ("one", "two"))
    write_manifest(replace(manifest, utterances=rows), two.manifest)
    shared = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(sys.path),
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
        "OMP_NUM_THREADS": "1",
    }
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", ONE_OF_TWO, str(two.root)],
            env={**shared, "RANK": rank, "LOCAL_RANK": rank},
        )
        for rank in ("0", "1")
    ]
    run_finetune(one, replace(manifest, utterances=rows), replace(CONFIG, accumulate=2))
    assert [process.wait(timeout=300) for process in processes] == [0, 0]
    expected, found = numbers(one), numbers(two)
    assert len(found) == len(expected) > 6
    for mine, theirs in zip(found, expected, strict=True):
        assert mine == pytest.approx(theirs, abs=1e-5)
    for path in one.model.rglob("*.safetensors"):
        theirs = load_file(two.model / path.relative_to(one.model))
        for name, value in load_file(path).items():
            torch.testing.assert_close(theirs[name], value, atol=2e-4, rtol=0)
