"""Checkpoints: where a fine-tuning stands, so that a killed one goes on to the same end.

    WORK/finetune/checkpoint-000007/
        state.json              what it belongs to, position, scores and log so far, and the SHA-256
                                of each file
        weights.safetensors     what the phases so far have changed
        best.safetensors        the best weights of the phase so far
        first.safetensors       those that it started from
        moments.safetensors     the optimiser's, by parameter

A checkpoint is built beside, fsynced and renamed into place: what is not renamed does not exist.
The newest two are kept. Random numbers follow from seed and position, and so need no file.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from cache.encoders.files import hash_files
from cache.store.layout import publish
from corpora.base.errors import FormatVersionError
from corpora.base.files import new_stamp, read_json, sweep, under_way, write_json, writing
from finetune.model_files import fsync
from finetune.objective import Score
from finetune.steps import LogRow, Trainer
from finetune.training import PhaseResult, Progress
from heads.bootstrap import Floats
from heads.search.storage import refuse_differences

FORMAT, VERSION = "emopool-checkpoint", 1
STATE = "state.json"
KEPT = 2
_NAME = re.compile(r"checkpoint-(\d{6})")


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A checkpoint as it was read.

    Attributes:
        state: JSON values.
        tensors: by file and name; whoever has used a file takes it out, for they are large.
    """

    state: Mapping[str, Any]
    tensors: dict[str, dict[str, Tensor]]


class _DamagedError(Exception):
    """A checkpoint's files are not those that were written."""


class Checkpoints:
    """The checkpoints of one fine-tuning.

    Args:
        folder: where they are.
        identity: all that decides what comes out, JSON values; others are refused.

    Attributes:
        damaged: what `latest` passed over, in words.
    """

    def __init__(self, folder: Path, identity: Mapping[str, Any]) -> None:
        self.folder = folder
        self.damaged: list[str] = []
        self._identity = identity
        self._unchanged: Mapping[str, str] = {}  # what files of the newest checkpoint hold

    def save(
        self,
        state: Mapping[str, Any],
        tensors: Mapping[str, Mapping[str, Tensor]],
        unchanged: Mapping[str, str] | None = None,
    ) -> None:
        """Write a checkpoint, then remove those behind the newest two.

        Args:
            state: JSON values.
            tensors: by file and name, on the CPU.
            unchanged: names what some of the files hold: as long as it stays, they are not written
                again.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        earlier = self._found()
        sweep(self.folder)
        site = under_way(self.folder / "checkpoint", new_stamp())
        site.mkdir()
        try:
            with writing(self.folder):
                for name, named in tensors.items():
                    path = site / f"{name}.safetensors"
                    holds = (unchanged or {}).get(name)
                    same = holds is not None and holds == self._unchanged.get(name)
                    before = self.folder / earlier[-1] / path.name if earlier else None
                    if not (same and before is not None and _link(before, path)):
                        _write(path, named)
                head = {"format": FORMAT, "version": VERSION, "identity": dict(self._identity)}
                write_json(site / STATE, {**head, **state, "files": _digests(site)})
                number = int(earlier[-1].rpartition("-")[2]) + 1 if earlier else 1
                publish(site, self.folder / f"checkpoint-{number:06}")
        finally:
            shutil.rmtree(site, ignore_errors=True)  # gone already when it was put in place
        self._unchanged = dict(unchanged or {})
        for name in earlier[: 1 - KEPT]:
            shutil.rmtree(self.folder / name, ignore_errors=True)

    def latest(self) -> Checkpoint | None:
        """The newest checkpoint that can be read; None where there is none.

        Raises:
            ConfigError: it is of a fine-tuning with other settings; each difference is named.
        """
        for name in reversed(self._found()):
            try:
                state = read_json(self.folder / name / STATE, kind=FORMAT, version=VERSION)
                refuse_differences(
                    state["identity"],
                    self._identity,
                    f"{self.folder} holds an unfinished fine-tuning",
                    "Restore what changed to go on with it, or start over with --fresh.",
                )
                _compare(self.folder / name, state["files"])
                return Checkpoint(
                    state,
                    {p.stem: load_file(p) for p in (self.folder / name).glob("*.safetensors")},
                )
            except (FormatVersionError, SafetensorError, KeyError, OSError, _DamagedError) as error:
                # Damaged after it was written: the one before it will do.
                self.damaged.append(f"{self.folder / name} is damaged and passed over ({error}).")
        return None

    def clear(self) -> None:
        """Remove all of them, and what killed runs left behind (OSError where the disk fails)."""
        for name in self._found():
            shutil.rmtree(self.folder / name)
        sweep(self.folder)

    def _found(self) -> list[str]:
        """Names, the oldest first."""
        if not self.folder.is_dir():
            return []
        return sorted(name for name in os.listdir(self.folder) if _NAME.fullmatch(name))


def _digests(folder: Path) -> dict[str, str]:
    paths = sorted(folder.glob("*.safetensors"))
    return {path.name: digest for path, digest in hash_files(paths).items()}


def _compare(folder: Path, expected: Mapping[str, str]) -> None:
    found = _digests(folder)
    wrong = sorted(n for n in {*found, *expected} if found.get(n) != expected.get(n))
    if wrong:
        raise _DamagedError(f"{', '.join(wrong)}: SHA-256 differs")


def _write(path: Path, tensors: Mapping[str, Tensor]) -> None:
    save_file({name: value.contiguous() for name, value in tensors.items()}, path)
    fsync(path)


def _link(source: Path, target: Path) -> bool:
    """Whether a second name for a file could be made; some file systems have none."""
    try:
        os.link(source, target)
    except OSError:
        return False
    return True


class CheckpointManager:
    """Writes and reads the checkpoints of one fine-tuning.

    Args:
        checkpoints: where they go.
        every: steps between two of them.
        writes: whether this process is the one that writes.
    """

    def __init__(self, checkpoints: Checkpoints, every: int, *, writes: bool = True) -> None:
        self._checkpoints = checkpoints
        self._every = every
        self._writes = writes
        self._resumed = checkpoints.latest()
        self.results: list[PhaseResult] = []
        if self._resumed is not None:
            self.results = [_result(value) for value in self._resumed.state["results"]]

    @property
    def damaged(self) -> Sequence[str]:
        """What to tell about checkpoints that could not be taken up."""
        return self._checkpoints.damaged

    @property
    def resumes(self) -> str:
        """What to tell about the run that is taken up; "" where there is none."""
        if self._resumed is None:
            return ""
        progress = self._resumed.state["progress"]
        if progress is None:
            return f"Goes on after phase {self.results[-1].config.phase}."
        return (
            f"Goes on in phase {self._resumed.state['phase']}, epoch {progress['epoch']}, after "
            f"step {progress['step']}."
        )

    def finished(self, phase: int) -> bool:
        """Whether a phase was finished before."""
        return any(result.config.phase == phase for result in self.results)

    def weights(self) -> dict[str, Tensor]:
        """What the finished phases, or the one under way, had made of the model."""
        return {} if self._resumed is None else self._resumed.tensors["weights"]

    def resume(self, phase: int) -> Callable[[Trainer], Progress] | None:
        """How a phase is taken up in its midst; None where it starts."""
        found = self._resumed
        if found is None or found.state["progress"] is None or found.state["phase"] != phase:
            return None
        self._resumed = None
        return lambda trainer: _resume(trainer, found)

    def after_step(self, trainer: Trainer, now: Progress) -> None:
        """Write a checkpoint where one is due."""
        if not self._writes or now.step % self._every:
            return
        phase = trainer.config.phase
        self._save(
            phase,
            {
                "start": now.start.to_json(),
                "best": now.best.to_json(),
                "best_epoch": now.best_epoch,
                "epoch": now.epoch,
                "done": now.done,
                "step": now.step,
                **_said_json(now.said, len(trainer.train.labels)),
                "log": _rows(now.log),
            },
            {
                "weights": trainer.weights(),
                "best": now.kept,
                "first": now.first,
                "moments": trainer.moments(),
            },
            unchanged={"best": f"{phase}/{now.best_epoch}", "first": str(phase)},
        )

    def end_phase(self, result: PhaseResult, weights: Mapping[str, Tensor]) -> None:
        """Write the checkpoint of a phase's end.

        Args:
            result: what it did.
            weights: all that the phases so far can have changed.
        """
        self.results.append(result)
        self._resumed = None
        if self._writes:
            self._save(result.config.phase, None, {"weights": weights})

    def _save(
        self,
        phase: int,
        progress: Mapping[str, Any] | None,
        tensors: Mapping[str, Mapping[str, Tensor]],
        unchanged: Mapping[str, str] | None = None,
    ) -> None:
        results = [{**done.to_json(), "log": _rows(done.log)} for done in self.results]
        self._checkpoints.save(
            {"phase": phase, "progress": progress, "results": results}, tensors, unchanged
        )


def _resume(trainer: Trainer, found: Checkpoint) -> Progress:
    value = found.state["progress"]
    trainer.restore(found.tensors.pop("weights"))
    trainer.load_moments(found.tensors.pop("moments"))
    trainer.step = value["step"]
    return Progress(
        start=Score.from_json(value["start"]),
        first=found.tensors.pop("first"),
        best=Score.from_json(value["best"]),
        kept=found.tensors.pop("best"),
        best_epoch=value["best_epoch"],
        epoch=value["epoch"],
        done=value["done"],
        step=value["step"],
        said=_said(value, len(trainer.train.labels)),
        log=list(_log(value["log"])),
        scored=False,
    )


def _said_json(said: Sequence[Floats], classes: int) -> dict[str, Any]:
    """What was said after each epoch: the most probable class of each row, and its attributes."""
    found: dict[str, Any] = {}
    if classes:
        found["said"] = [one[:, :classes].argmax(axis=1).tolist() for one in said]
    attributes = [one[:, classes:].tolist() for one in said]
    if any(row for one in attributes for row in one):
        found["attributes"] = attributes
    return found


def _said(value: Mapping[str, Any], classes: int) -> list[Floats]:
    """The inverse: `[n, C + A]` of each epoch, all of a class for the most probable one."""
    kept = [[np.eye(classes)[rows] for rows in value.get("said", ())]] if classes else []
    if "attributes" in value:
        kept.append([np.array(rows) for rows in value["attributes"]])
    return [np.concatenate(parts, axis=1) for parts in zip(*kept, strict=True)]


def _result(value: Mapping[str, Any]) -> PhaseResult:
    own = {"table": value["trainable"], "log": _log(value["log"])}
    return PhaseResult.from_json({**value, **own})


def _rows(log: Sequence[LogRow]) -> list[list[Any]]:
    """Rows as lists: a long run has a hundred thousand."""
    return [
        [row.phase, row.epoch, row.step, row.learning_rate, row.loss]
        + ([] if row.dev is None else _score_row(row.dev))
        for row in log
    ]


def _score_row(score: Score) -> list[float | None]:
    more = [] if score.mean_ccc is None else [score.mean_ccc]
    return [score.macro_f1, score.loss, *more]


def _log(rows: Sequence[Sequence[Any]]) -> tuple[LogRow, ...]:
    found = []
    for phase, epoch, step, rate, loss, *dev in rows:
        found.append(LogRow(phase, epoch, step, rate, loss, Score(*dev) if dev else None))
    return tuple(found)
