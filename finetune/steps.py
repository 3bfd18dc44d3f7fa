"""The optimiser steps of one phase.

Batches depend on the seed, the phase and the epoch; dropout and augmentation on the seed, the
phase, the step and the batch's number in it. So nothing random has to be remembered: where a run
stands says all of it.

A step has `accumulate` batches, shared among the processes. Its loss is the cost of all their
utterances divided by the weight of all of them, which each process knows from the plan: any number
of processes, and any division into batches, gives the same sum (of attributes, which have a loss of
the batch, any number of processes).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cache.encoders.device import is_out_of_memory
from corpora.base.errors import TrainingError
from finetune.batches import Batch, Examples, load_batches, plan_batches
from finetune.launch import Augment, Engine, Trainee, start_engine
from finetune.model import EmotionModel
from finetune.objective import ExampleLoss, Score, StepWeight
from finetune.phases import Part, PhaseConfig, StepConfig
from finetune.upper import Boundary
from heads.runs import seed_from
from heads.training import Schedule

Rows = tuple[int, ...]


@dataclass(frozen=True)
class LogRow:
    """One step, or a phase's start (step 0). Scores are those at the end of an epoch, else None."""

    phase: int
    epoch: int
    step: int
    learning_rate: float
    loss: float | None
    dev: Score | None = None


class Trainer:
    """The optimiser of one phase.

    Args:
        model: changed in place.
        parts: what is trainable in it.
        config: the phase.
        steps: what all phases have in common.
        train: trained on.
        engine: this process among others; the only one by default.
        boundary: hidden states from the cache, where there are.
        augment: noise for the encoders.

    Attributes:
        step: steps made.
        total_steps: steps of all epochs.
        loss: the training loss.
    """

    def __init__(
        self,
        model: EmotionModel,
        parts: Sequence[Part],
        config: PhaseConfig,
        steps: StepConfig,
        train: Examples,
        engine: Engine | None = None,
        boundary: Boundary | None = None,
        augment: Augment | None = None,
    ) -> None:
        self.model = model
        self.config = config
        self.steps = steps
        self.train = train
        self.step = 0
        # How many batches an epoch has varies by one or two with their order.
        self.total_steps = sum(self.steps_of(1 + epoch) for epoch in range(config.epochs))
        self.named = {name: p for part in parts for name, p in part.parameters.items()}
        self._engine = engine or start_engine(model.device)
        self._boundary = boundary
        trainee = Trainee(model, boundary, augment)
        self._module = self._engine.wrapped(trainee, all_used=not (augment and augment.drop))
        self.loss = ExampleLoss(train, steps, model.device)
        self._schedule = Schedule(config.epochs, warmup=steps.warmup, clip=steps.clip)
        groups = [{"params": list(p.parameters.values()), "factor": p.factor} for p in parts]
        # One kernel for many parameters. On a CPU its last digits differ from those of the other.
        self._fused = model.device.type == "cuda"
        self.optimiser = torch.optim.AdamW(
            groups,
            lr=config.learning_rate,
            weight_decay=steps.weight_decay,
            fused=self._fused or None,
        )
        self._largest = 0  # frames of a batch that went through, padding included

    def steps_of(self, epoch: int) -> int:
        """Steps of an epoch."""
        return math.ceil(len(self._plan(epoch)) / self.steps.accumulate)

    def run_epoch(self, epoch: int, done: int = 0) -> Iterator[LogRow]:
        """One pass over the training rows; a row for each step.

        Args:
            epoch: from 1.
            done: steps of it that were made before.
        """
        self.model.train()
        plan, size = self._plan(epoch), self.steps.accumulate
        groups = [plan[start : start + size] for start in range(0, len(plan), size)][done:]
        shares = [_share(len(group), self._engine) for group in groups]
        own = [group[n] for group, share in zip(groups, shares, strict=True) for n, _ in share]
        batches = load_batches(
            self.train.utterances,
            own,
            audio=self.model.audio_encoder is not None,
            boundary=self._boundary,
        )
        for group, share in zip(groups, shares, strict=True):
            rate = self.config.learning_rate * self._schedule.factor(self.step, self.total_steps)
            loss = self._run(group, share, batches, rate)
            yield LogRow(self.config.phase, epoch, self.step, rate, loss)

    def weights(self) -> dict[str, Tensor]:
        """All that this phase can change, on the CPU: there, as it is and not as a copy."""
        frozen = {name for name, _ in self.model.named_parameters()} - self.named.keys()
        return {
            name: value.detach().cpu()
            for name, value in self.model.state_dict().items()
            if name not in frozen
        }

    def copy_weights(self, earlier: dict[str, Tensor] | None = None) -> dict[str, Tensor]:
        """A copy of `weights`, into the memory of an earlier one: the full encoders take 3 GB."""
        now = self.weights()
        if earlier is None:
            return {name: value.clone() for name, value in now.items()}
        for name, value in now.items():
            earlier[name].copy_(value)
        return earlier

    def restore(self, weights: dict[str, Tensor]) -> None:
        """Put a copy back."""
        self.model.load_state_dict(weights, strict=False)

    def moments(self) -> dict[str, Tensor]:
        """The optimiser's state by parameter, as `<parameter>:<entry>`."""
        return {
            f"{name}:{entry}": value.detach().cpu()
            for name, parameter in self.named.items()
            for entry, value in self.optimiser.state.get(parameter, {}).items()
        }

    def load_moments(self, moments: dict[str, Tensor]) -> None:
        """Put the optimiser's state back."""
        for key, value in moments.items():
            name, _, entry = key.rpartition(":")
            parameter = self.named[name]
            # Where it is not fused, the optimiser keeps the count of steps on the CPU.
            here = entry == "step" and not self._fused
            kept = value if here else value.to(parameter.device)
            self.optimiser.state[parameter][entry] = kept

    def _plan(self, epoch: int) -> list[Rows]:
        return plan_batches(
            self.train.lengths,
            self.steps.frame_budget,
            seed=seed_from(self.steps.seed, self.config.phase),
            epoch=epoch,
        )

    def _run(
        self,
        group: Sequence[Rows],
        share: Sequence[tuple[int, bool]],
        batches: Iterator[Batch],
        rate: float,
    ) -> float:
        """One step; returns the loss before it."""
        weight = self.loss.weight(group)
        losses = torch.zeros(len(group), device=self.model.device)
        self.optimiser.zero_grad()
        for position, (number, counts) in enumerate(share):
            last = position == len(share) - 1
            alone = last or self._engine.world == 1
            with nullcontext() if alone else self._engine.accelerator.no_sync(self._module):
                loss = self._backward(next(batches), number, weight, counts=counts)
            losses[number] += loss
        parameters = list(self.named.values())
        norm = nn.utils.clip_grad_norm_(parameters, self.steps.clip, foreach=True)
        # All that the host has to know of a step, in one transfer.
        *found, length = torch.cat([self._engine.sum(losses), norm[None]]).tolist()
        self._check(group, found)
        total = float(torch.tensor(found).sum())
        if not math.isfinite(length):
            rows = [row for rows in group for row in rows]
            raise self._refusal(rows, total, "its gradient is not finite")
        for settings in self.optimiser.param_groups:
            settings["lr"] = rate * settings["factor"]
        self.optimiser.step()
        self.step += 1
        return total

    def _backward(self, batch: Batch, number: int, weight: StepWeight, *, counts: bool) -> Tensor:
        """Add a batch's gradients; returns its part of the loss, on the device."""
        device = self.model.device
        seed = seed_from(self.steps.seed, self.config.phase, self.step, number)
        frames = len(batch.rows) * max(self.train.lengths[row] for row in batch.rows)
        try:
            # Dropout inside the encoders draws from torch's own state: seed it by the step, and
            # leave the caller's as it was.
            with torch.random.fork_rng([device] if device.type == "cuda" else []):
                torch.manual_seed(seed)
                logits = self._module(batch, seed)
            loss = self.loss(logits, batch.rows, weight) * float(counts)
            # The processes' gradients are averaged; the loss is a sum over them.
            self._engine.accelerator.backward(loss * self._engine.world)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise self._too_large(len(batch.rows), frames) from error
        self._largest = max(self._largest, frames)
        return loss.detach()

    def _check(self, group: Sequence[Rows], losses: Sequence[float]) -> None:
        for rows, loss in zip(group, losses, strict=True):
            if not math.isfinite(loss):
                raise self._refusal(rows, loss, "it is not finite")

    def _refusal(self, rows: Sequence[int], loss: float, what: str) -> TrainingError:
        names = ", ".join(self.train.utterances[row].id for row in rows)
        return TrainingError(
            f"phase {self.config.phase}, step {self.step + 1}: the loss is {loss:g} and {what}. "
            f"The batch held {names}. Check these recordings, or lower the learning rate "
            f"({self.config.learning_rate:g})."
        )

    def _too_large(self, utterances: int, frames: int) -> TrainingError:
        fits = self._largest or frames // 2
        seen = "the largest that did had" if self._largest else "half of that is"
        return TrainingError(
            f"phase {self.config.phase}, step {self.step + 1}: a batch of {utterances} utterances, "
            f"{frames:,} frames with padding, does not fit the memory of {self.model.device}; "
            f"{seen} {fits:,}. Start over with --fresh --frame-budget {fits}, with --accumulate to "
            "keep as many utterances in a step, or with --gradient-checkpointing."
        )


def _share(batches: int, engine: Engine) -> list[tuple[int, bool]]:
    """The batches of a step that this process takes, and whether each counts.

    Every process takes as many, for they wait for each other: one that has too few takes the
    first again, for nothing.
    """
    own = [(number, True) for number in range(engine.rank, batches, engine.world)]
    return own + [(0, False)] * (math.ceil(batches / engine.world) - len(own))
