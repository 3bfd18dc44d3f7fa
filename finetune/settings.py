"""How phases are trained."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from corpora.base.errors import ConfigError
from heads.losses import LossConfig

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
        phase: 1, 2 or 3.
        learning_rate: at the peak of the schedule, for all that is trainable.
        epochs: the most passes over the training rows.
        patience: evaluations (one an epoch) without a better one after which the phase ends.
        unfreeze_layers: see `finetune.phases.trainable_parts`.
        layer_decay: see `finetune.phases`; 1 is none.
        spec_augment: share of each utterance's frames, and of its mel bands, that are masked while
            its encoder is trained (`finetune.engine.augment`).
        layerdrop: probability that a layer that is trained is passed over.
    """

    phase: int
    learning_rate: float
    epochs: int = EPOCHS
    patience: int = PATIENCE
    unfreeze_layers: int | None = None
    layer_decay: float = 1.0
    spec_augment: float = 0.0
    layerdrop: float = 0.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.learning_rate) and self.learning_rate > 0):
            raise ConfigError(f"learning rate {self.learning_rate}: expected a positive number.")
        if self.epochs < 1 or self.patience < 1:
            raise ConfigError(
                f"epochs and patience must be at least 1, got {self.epochs} and {self.patience}."
            )
        if not 0 < self.layer_decay <= 1:
            raise ConfigError(f"layer decay {self.layer_decay}: expected more than 0, at most 1.")
        for name in ("spec_augment", "layerdrop"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(
                    f"{name} {getattr(self, name)}: expected at least 0 and less than 1."
                )


@dataclass(frozen=True)
class StepConfig:
    """What the steps of all phases have in common.

    Attributes:
        frame_budget: largest number of frames that go through the encoders together, padding
            included.
        accumulate: batches of a step, over all processes together.
        loss: the loss; class weights are the training rows' inverse frequencies.
        weight_decay: of AdamW.
        warmup: share of a phase's steps with a rising learning rate; a cosine to 0 follows.
        clip: largest gradient norm.
        seed: for batches and dropout.
    """

    frame_budget: int = FRAME_BUDGET
    accumulate: int = 1
    loss: LossConfig = field(default_factory=LossConfig)
    weight_decay: float = 0.01
    warmup: float = 0.1
    clip: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.seed < 0 or self.frame_budget < 1 or self.accumulate < 1:
            raise ConfigError(
                f"seed {self.seed}, frame budget {self.frame_budget}, {self.accumulate} batches a "
                "step: expected a seed of 0 or more, and the others 1 or more."
            )
