"""Where a fine-tuning stands, to and from its checkpoints."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from torch import Tensor

from finetune.engine.checkpoints import Checkpoint, Checkpoints
from finetune.scoring import Score
from finetune.steps import LogRow, Trainer
from finetune.training import PhaseResult, Progress


class Keeper:
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
                "start": asdict(now.start),
                "best": asdict(now.best),
                "best_epoch": now.best_epoch,
                "epoch": now.epoch,
                "done": now.done,
                "step": now.step,
                "said": now.said,
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
        start=Score(**value["start"]),
        first=found.tensors.pop("first"),
        best=Score(**value["best"]),
        kept=found.tensors.pop("best"),
        best_epoch=value["best_epoch"],
        epoch=value["epoch"],
        done=value["done"],
        step=value["step"],
        said=value["said"],
        log=list(_log(value["log"])),
        scored=False,
    )


def _result(value: Mapping[str, Any]) -> PhaseResult:
    return PhaseResult.from_json(value, _log(value["log"]))


def _rows(log: Sequence[LogRow]) -> list[list[Any]]:
    """Rows as lists: a long run has a hundred thousand."""
    return [
        [row.phase, row.epoch, row.step, row.learning_rate, row.loss]
        + ([] if row.dev is None else [row.dev.macro_f1, row.dev.loss])
        for row in log
    ]


def _log(rows: Sequence[Sequence[Any]]) -> tuple[LogRow, ...]:
    found = []
    for phase, epoch, step, rate, loss, *dev in rows:
        found.append(LogRow(phase, epoch, step, rate, loss, Score(*dev) if dev else None))
    return tuple(found)
