"""What the user asks of a fine-tuning."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from corpora.base.errors import ConfigError
from finetune.phases import (
    ENCODER_PHASES,
    EPOCHS,
    FRAME_BUDGET,
    LEARNING_RATES,
    PATIENCE,
    PHASES,
    PhaseConfig,
    StepConfig,
)
from heads.losses import LossConfig

# The published rates are for encoders that know speech; at them, tiny ones do not move within some
# hundred steps. Measured on the sample corpus and on EMO-DB: at three times these rates the first
# epochs undo what the head had learnt.
TINY_LEARNING_RATES = {2: 1e-4, 3: 3e-5}
# How the hidden states below phase 2 are kept in the cache, if at all.
BOUNDARIES = ("float16", "float32", "off")
# A checkpoint of the full encoders in phase 3 is 12 GB and takes a minute; so many steps take a
# GPU several.
CHECKPOINT_EVERY = 1_000


@dataclass(frozen=True)
class FinetuneConfig:
    """What the user asks of a fine-tuning.

    Attributes:
        phases: in this order.
        learning_rates: by phase; what is not given is the published rate, or, for tiny encoders,
            one of `TINY_LEARNING_RATES`; in phase 1 the searched one.
        epochs: the most passes of phases 2 and 3 over the training rows (phase 1 makes as many as
            the search).
        patience: evaluations without a better one that end phase 2 or 3.
        head_patience: the same for phase 1; 0: it makes all its epochs, as the search does.
        unfreeze_layers: upper layers of each encoder trained in phase 2; None is a quarter of those
            the head reads.
        frame_budget: largest number of frames of a batch, padding included.
        seed: for batches and dropout.
        device: `auto`, `cpu` or `cuda`.
        accumulate: batches of a step in each process.
        layer_decay, spec_augment, layerdrop: see `finetune.phases.PhaseConfig`.
        gradient_checkpointing: compute activations again instead of keeping them.
        precision: see `finetune.launch.compute_dtype`.
        boundary: see `BOUNDARIES`.
        checkpoint_every: steps between two checkpoints.
        fresh: forget an unfinished fine-tuning.
        tensorboard: whether to write curves for TensorBoard too.
    """

    phases: tuple[int, ...] = ENCODER_PHASES
    learning_rates: Mapping[int, float] = field(default_factory=dict)
    epochs: int = EPOCHS
    patience: int = PATIENCE
    head_patience: int = 0
    unfreeze_layers: int | None = None
    frame_budget: int = FRAME_BUDGET
    seed: int = 0
    device: str = "auto"
    accumulate: int = 1
    layer_decay: float = 1.0
    spec_augment: float = 0.0
    layerdrop: float = 0.0
    gradient_checkpointing: bool = False
    precision: str = "auto"
    boundary: str = "float16"
    checkpoint_every: int = CHECKPOINT_EVERY
    fresh: bool = False
    tensorboard: bool = False

    def __post_init__(self) -> None:
        unknown = [p for p in (*self.phases, *self.learning_rates) if p not in PHASES]
        if unknown or not self.phases or list(self.phases) != sorted(set(self.phases)):
            raise ConfigError(
                f"phases {', '.join(map(str, self.phases)) or 'none'} with learning rates for "
                f"{', '.join(map(str, self.learning_rates)) or 'none'}: expected some of 1, 2 and "
                "3, in this order."
            )
        if self.boundary not in BOUNDARIES or self.checkpoint_every < 1 or self.head_patience < 0:
            raise ConfigError(
                f"boundary {self.boundary}, a checkpoint every {self.checkpoint_every} steps, "
                f"patience {self.head_patience} in phase 1: expected one of "
                f"{', '.join(BOUNDARIES)}, 1 or more, and 0 or more."
            )
        for number in ENCODER_PHASES:
            self.phase(number, tiny=False)
        self.steps(LossConfig(), 1)

    def phase(self, number: int, *, tiny: bool) -> PhaseConfig:
        """How phase 2 or 3 is trained, with the rate that holds for these encoders."""
        usual = TINY_LEARNING_RATES if tiny else LEARNING_RATES
        return PhaseConfig(
            phase=number,
            learning_rate=self.learning_rates.get(number, usual[number]),
            epochs=self.epochs,
            patience=self.patience,
            unfreeze_layers=self.unfreeze_layers,
            layer_decay=self.layer_decay,
            spec_augment=self.spec_augment,
            layerdrop=self.layerdrop,
        )

    def steps(self, loss: LossConfig, world: int) -> StepConfig:
        """What the steps have in common, for so many processes."""
        return StepConfig(self.frame_budget, self.accumulate * world, loss=loss, seed=self.seed)


def parse_phases(text: str) -> tuple[int, ...]:
    """Read phases such as `2,3`.

    Raises:
        ConfigError: something in it is not a number.
    """
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise ConfigError(f"--phases {text}: expected numbers such as 2,3.") from error
