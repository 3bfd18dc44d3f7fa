"""A fine-tuning that was killed ends as one that was not."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from corpora.base.errors import CacheError, ConfigError
from corpora.base.files import under_way
from corpora.base.work import Work, exclusive_lock
from corpora.manifest import Manifest, write_manifest
from finetune.checkpoints import CheckpointManager, Checkpoints
from finetune.config import FinetuneConfig
from finetune.finetune import run_finetune
from finetune.steps import Trainer
from finetune.training import PhaseResult
from tests.finetune.conftest import Searched
from tests.finetune.searched import copy_work

CONFIG = FinetuneConfig(
    epochs=2, patience=2, frame_budget=200, device="cpu", checkpoint_every=3, layerdrop=0.2
)
# Runs the fine-tuning of a work folder and kills itself after as many steps as it is told.
KILLED = """
import os, signal, sys
import torch
torch.set_num_threads(1)
from pathlib import Path
from corpora.manifest import read_manifest
from corpora.base.work import Work
from finetune.checkpoints import CheckpointManager
from finetune.finetune import run_finetune
from tests.finetune.test_resume import CONFIG

after_step, left = CheckpointManager.after_step, int(sys.argv[2])

def count(self, trainer, now):
    global left
    after_step(self, trainer, now)
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)

CheckpointManager.after_step = count
work = Work(Path(sys.argv[1]))
run_finetune(work, read_manifest(work.manifest), CONFIG)
"""


DEAD = "0000000000000000-1-00000000-elsewhere"  # a day ago


class StopError(Exception):
    """Stands for a power cut."""


def no_test_split(manifest: Manifest) -> Manifest:
    """Rows that are trained on and selected by: nothing is scored at the end."""
    rows = tuple(u for u in manifest.utterances if u.split != "test")
    return replace(manifest, utterances=rows)


def digests(work: Work) -> dict[str, str]:
    """Of all weights of the model, and of its log."""
    files = sorted([*work.model.rglob("*.safetensors"), work.model / "training.csv"])
    return {
        str(f.relative_to(work.model)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files
    }


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> None:
    """As in the process that is killed."""
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def uninterrupted(
    searched: Searched, manifest: Manifest, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, str]:
    work = copy_work(searched.work, tmp_path_factory.mktemp("whole") / "work")
    run_finetune(work, no_test_split(manifest), CONFIG)
    return digests(work)


def stop_after(monkeypatch: pytest.MonkeyPatch, steps: int) -> None:
    """Let the run fail after so many steps, before what comes next."""
    after_step, left = CheckpointManager.after_step, [steps]

    def count(self: CheckpointManager, trainer: Trainer, now: object) -> None:
        after_step(self, trainer, now)  # type: ignore[arg-type]
        left[0] -= 1
        if left[0] == 0:
            raise StopError

    monkeypatch.setattr(CheckpointManager, "after_step", count)


@pytest.mark.parametrize("steps", [1, 4, 8, 11])
def test_a_run_that_stopped_goes_on_to_the_same_weights(
    steps: int,
    searched: Searched,
    manifest: Manifest,
    uninterrupted: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    work = copy_work(searched.work, tmp_path / "work")
    rows = no_test_split(manifest)
    stop_after(monkeypatch, steps)
    with pytest.raises(StopError):
        run_finetune(work, rows, CONFIG)
    monkeypatch.undo()
    torch.rand(3)
    said: list[str] = []
    run_finetune(work, rows, CONFIG, tell=said.append)
    assert digests(work) == uninterrupted
    assert ("Goes on" in "\n".join(said)) == (steps >= CONFIG.checkpoint_every)


def test_a_run_that_stopped_behind_its_last_phase_has_all_curves(
    searched: Searched, manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = copy_work(searched.work, tmp_path / "work")
    end_phase = CheckpointManager.end_phase

    def stop(self: CheckpointManager, result: PhaseResult, weights: Mapping[str, Tensor]) -> None:
        end_phase(self, result, weights)
        if result.config.phase == 3:
            raise StopError

    monkeypatch.setattr(CheckpointManager, "end_phase", stop)
    with pytest.raises(StopError):
        run_finetune(work, no_test_split(manifest), CONFIG)
    monkeypatch.undo()
    run_finetune(work, no_test_split(manifest), CONFIG)
    log = (work.model / "training.csv").read_text()
    assert (work.finetune / "curves.csv").read_text() == log


def test_a_killed_process_is_taken_up(
    searched: Searched, manifest: Manifest, uninterrupted: dict[str, str], tmp_path: Path
) -> None:
    work = copy_work(searched.work, tmp_path / "work")
    write_manifest(no_test_split(manifest), work.manifest)
    ended = subprocess.run(
        [sys.executable, "-c", KILLED, str(work.root), "8"],
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert ended.returncode == -signal.SIGKILL
    run_finetune(work, no_test_split(manifest), CONFIG)
    assert digests(work) == uninterrupted


def test_the_newest_two_are_kept_and_none_at_the_end(
    searched: Searched, manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = copy_work(searched.work, tmp_path / "work")
    config = replace(CONFIG, checkpoint_every=1)
    stop_after(monkeypatch, 5)
    with pytest.raises(StopError):
        run_finetune(work, no_test_split(manifest), config)
    found = sorted(path.name for path in work.finetune.glob("checkpoint-*"))
    assert found == ["checkpoint-000004", "checkpoint-000005"]
    files = {path.suffix for path in (work.finetune / found[0]).iterdir()}
    assert files == {".json", ".safetensors"}
    monkeypatch.undo()
    run_finetune(work, no_test_split(manifest), config)
    assert not list(work.finetune.glob("checkpoint-*"))
    assert (work.finetune / "curves.csv").is_file()


def test_other_settings_are_named_and_refused_until_started_over(
    searched: Searched, manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = copy_work(searched.work, tmp_path / "work")
    stop_after(monkeypatch, 4)
    with pytest.raises(StopError):
        run_finetune(work, no_test_split(manifest), CONFIG)
    monkeypatch.undo()
    other = replace(CONFIG, seed=5)
    with pytest.raises(ConfigError, match=r"unfinished fine-tuning[\s\S]*seed: 0 -> 5\n.*--fresh"):
        run_finetune(work, no_test_split(manifest), other)
    run_finetune(work, no_test_split(manifest), replace(other, fresh=True, phases=(2,)))
    assert work.model.is_dir()


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def another_number(path: Path) -> None:
    value = json.loads(path.read_text())
    value["number"] = 7.0
    path.write_text(json.dumps(value))


@pytest.mark.parametrize(
    ("file", "damage"),
    [
        ("weights.safetensors", lambda path: path.write_bytes(b"torn")),
        ("weights.safetensors", flip),
        ("weights.safetensors", Path.unlink),
        ("state.json", another_number),
        ("state.json", Path.unlink),
    ],
)
def test_a_damaged_checkpoint_gives_way_to_the_one_before(
    file: str, damage: Callable[[Path], object], tmp_path: Path
) -> None:
    checkpoints = Checkpoints(tmp_path, {"seed": 1})
    for number in (1.0, 2.0):
        checkpoints.save({"number": number}, {"weights": {"w": torch.tensor([number])}})
    damage(tmp_path / "checkpoint-000002" / file)
    found = checkpoints.latest()
    assert found is not None
    assert found.state["number"] == 1.0
    assert found.tensors["weights"]["w"].tolist() == [1.0]
    (said,) = checkpoints.damaged
    assert "checkpoint-000002 is damaged and passed over" in said
    assert file in said


def test_best_weights_that_stay_are_not_written_again(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, {})
    tensors = {"weights": {"w": torch.ones(2)}, "best": {"w": torch.zeros(2)}}
    for _ in range(2):
        checkpoints.save({}, tensors, unchanged={"best": "2/0"})
    inodes = {path.stat().st_ino for path in tmp_path.glob("*/best.safetensors")}
    assert len(inodes) == 1
    checkpoints.save({}, tensors, unchanged={"best": "2/1"})
    assert len({path.stat().st_ino for path in tmp_path.glob("*/best.safetensors")}) == 2


def test_what_is_not_complete_is_no_checkpoint(tmp_path: Path) -> None:
    under_way(tmp_path / "checkpoint", DEAD).mkdir()
    checkpoints = Checkpoints(tmp_path, {})
    assert checkpoints.latest() is None
    checkpoints.clear()
    assert not list(tmp_path.iterdir())


def test_a_checkpoint_is_json_and_safetensors_alone(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, {"seed": 1})
    checkpoints.save({"step": 3}, {"weights": {"w": torch.ones(2)}})
    state = json.loads((tmp_path / "checkpoint-000001" / "state.json").read_text())
    assert state["identity"] == {"seed": 1}
    assert state["step"] == 3


def test_two_at_once_are_refused(searched: Searched, manifest: Manifest, tmp_path: Path) -> None:
    work = copy_work(searched.work, tmp_path / "work")
    work.finetune.mkdir(exist_ok=True)
    with exclusive_lock(work.finetune), pytest.raises(CacheError):
        run_finetune(work, manifest, CONFIG)
