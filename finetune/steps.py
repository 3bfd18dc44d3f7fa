"""The optimiser steps of one phase.

Batches depend on the seed, the phase and the epoch, dropout on the seed, the phase and the step.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from corpora.errors import ConfigError, TrainingError
from finetune.batches import Batch, load_batches, plan_batches
from finetune.examples import Examples
from finetune.model import EmotionModel
from finetune.scoring import Score
from heads.losses import Loss, LossConfig, inverse_frequency, loss_function
from heads.search.space import seed_from
from heads.training import Schedule

# Sixteen utterances of three seconds: a step then fits a laptop's memory with the full encoders'
# upper layers, and a corpus of some hundred utterances still has a dozen steps an epoch.
FRAME_BUDGET = 2_400
EPOCHS = 10
# A phase often loses in its first epochs, when parts that never moved begin to, and gains later.
# Seen on EMO-DB with tiny encoders, phase 3 of 8 epochs: .40, .31, .30, .37, .36, .43.
PATIENCE = 5


@dataclass(frozen=True)
class PhaseConfig:
    """How one phase is trained.

    Attributes:
        phase: 2 or 3.
        learning_rate: at the peak of the schedule, for all that is trainable.
        epochs: the most passes over the training rows.
        patience: evaluations (one an epoch) without a better one after which the phase ends.
        unfreeze_layers: see `finetune.phases.trainable_parts`.
    """

    phase: int
    learning_rate: float
    epochs: int = EPOCHS
    patience: int = PATIENCE
    unfreeze_layers: int | None = None

    def __post_init__(self) -> None:
        if not (math.isfinite(self.learning_rate) and self.learning_rate > 0):
            raise ConfigError(f"learning rate {self.learning_rate}: expected a positive number.")
        if self.epochs < 1 or self.patience < 1:
            raise ConfigError(
                f"epochs and patience must be at least 1, got {self.epochs} and {self.patience}."
            )


@dataclass(frozen=True)
class StepConfig:
    """What the steps of all phases have in common.

    Attributes:
        frame_budget: largest number of frames of a batch, padding included.
        loss: the loss; class weights are the training rows' inverse frequencies.
        weight_decay: of AdamW.
        warmup: share of a phase's steps with a rising learning rate; a cosine to 0 follows.
        clip: largest gradient norm.
        seed: for batches and dropout.
    """

    frame_budget: int = FRAME_BUDGET
    loss: LossConfig = field(default_factory=LossConfig)
    weight_decay: float = 0.01
    warmup: float = 0.1
    clip: float = 1.0
    seed: int = 0


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
        parameters: what is trainable in it.
        config: the phase.
        steps: what all phases have in common.
        train: trained on.

    Attributes:
        step: steps made.
        total_steps: steps of all epochs.
        loss: the training loss, with its class weights.
    """

    def __init__(
        self,
        model: EmotionModel,
        parameters: list[nn.Parameter],
        config: PhaseConfig,
        steps: StepConfig,
        train: Examples,
    ) -> None:
        self.model = model
        self.parameters = parameters
        self.config = config
        self.steps = steps
        self.train = train
        self.step = 0
        # How many batches an epoch has varies by one or two with their order.
        self.total_steps = sum(len(self._plan(1 + epoch)) for epoch in range(config.epochs))
        weight = inverse_frequency(train.targets, len(train.labels))
        self.loss: Loss = loss_function(steps.loss, weight)
        self._schedule = Schedule(config.epochs, warmup=steps.warmup, clip=steps.clip)
        self._optimiser = torch.optim.AdamW(
            parameters, lr=config.learning_rate, weight_decay=steps.weight_decay
        )

    def run_epoch(self, epoch: int) -> Iterator[LogRow]:
        """One pass over the training rows; a row for each step."""
        self.model.train()
        batches = load_batches(
            self.train.utterances,
            self._plan(epoch),
            audio=self.model.audio_encoder is not None,
        )
        for batch in batches:
            rate = self._rate()
            loss = self._run(batch, rate)
            yield LogRow(self.config.phase, epoch, self.step, rate, loss)

    def weights(self) -> dict[str, Tensor]:
        """A copy, on the CPU, of all that this phase can change."""
        trainable = {name for name, p in self.model.named_parameters() if p.requires_grad}
        frozen = {name for name, _ in self.model.named_parameters()} - trainable
        return {
            name: value.detach().to("cpu", copy=True)
            for name, value in self.model.state_dict().items()
            if name not in frozen
        }

    def restore(self, weights: dict[str, Tensor]) -> None:
        """Put a copy back."""
        self.model.load_state_dict(weights, strict=False)

    def _plan(self, epoch: int) -> list[tuple[int, ...]]:
        return plan_batches(
            self.train.lengths,
            self.steps.frame_budget,
            seed=seed_from(self.steps.seed, self.config.phase),
            epoch=epoch,
        )

    def _rate(self) -> float:
        return self.config.learning_rate * self._schedule.factor(self.step, self.total_steps)

    def _run(self, batch: Batch, rate: float) -> float:
        """One step; returns the loss before it."""
        device = self.model.device
        seed = seed_from(self.steps.seed, self.config.phase, self.step)
        # Dropout inside the encoders draws from torch's own state: seed it by the step, and leave
        # the caller's as it was.
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            torch.manual_seed(seed)
            logits = self.model(batch.waveforms, batch.texts, dropout_seed=seed)
        loss = self.loss(logits, self.train.targets[list(batch.rows)].to(device))
        self._optimiser.zero_grad()
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.parameters, self.steps.clip)
        value = float(loss.detach())
        if not math.isfinite(value) or not math.isfinite(float(norm)):
            self._refuse(batch, value)
        for group in self._optimiser.param_groups:
            group["lr"] = rate
        self._optimiser.step()
        self.step += 1
        return value

    def _refuse(self, batch: Batch, loss: float) -> None:
        names = ", ".join(self.train.utterances[row].id for row in batch.rows)
        what = "its gradient is not finite" if math.isfinite(loss) else "it is not finite"
        raise TrainingError(
            f"phase {self.config.phase}, step {self.step + 1}: the loss is {loss:g} and {what}. "
            f"The batch held {names}. Check these recordings, or lower the learning rate "
            f"({self.config.learning_rate:g})."
        )
