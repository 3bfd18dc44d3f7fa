"""The options of a search, checked once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from corpora.base.errors import ConfigError, did_you_mean
from heads.precision import PRECISIONS
from heads.records import KEPT
from heads.search.study import SAMPLERS, STUDY_NAME, SharedStudy

# Trials of a cohort: of 100, three quarters are drawn knowing what came before. Larger cohorts
# share more of their work on frames.
COHORT = 25


@dataclass(frozen=True)
class SearchConfig:
    """How to search.

    Attributes:
        trials: completed and halved ones, in all.
        seed: of the study: equal seeds give equal trials on one machine.
        batch_size: utterances a step.
        epochs: of a completed trial; by default 9, or more on a small corpus (see `halving`).
        cohort: trials trained side by side.
        modalities: `audio` and/or `text`; all extracted ones by default.
        tied: both modalities are pooled in the same way; else each has axes of its own.
        space: a TOML file that narrows the search space (`heads.search.space_file`).
        fixed: what narrows it where the file does not name the axis: a protocol's settings.
        fixed_by: who says so, for messages.
        sampler: `tpe`, which learns from earlier trials, or `random`, as a control.
        folds: `auto`, `off`, `speaker`, `session`, or a number (`heads.folds`).
        refit: with folds, train the chosen head on train and dev; else on train alone.
        ensemble: how many of the best trials are averaged and scored; 0 for none.
        storage: database URL of a study that several machines share; "" for a file of its own.
        study_name: of a shared study.
        plots: whether to draw the study.
        device: `auto`, `cpu` or `cuda`.
        precision: `fp32`, `bf16` (frames centred and in bfloat16; statistics and weights stay in
            fp32) or `auto`: bf16 for large batches where the processor has units for it.

    Raises:
        ConfigError: a value out of range.
    """

    trials: int = 100
    seed: int = 0
    batch_size: int = 64
    epochs: int | None = None
    cohort: int = COHORT
    modalities: Sequence[str] | None = None
    tied: bool = True
    space: Path | None = None
    fixed: Mapping[str, Any] = field(default_factory=dict)
    fixed_by: str = ""
    sampler: str = "tpe"
    folds: str = "auto"
    refit: bool = True
    ensemble: int = 0
    storage: str = ""
    study_name: str = STUDY_NAME
    plots: bool = False
    device: str = "auto"
    precision: str = "auto"

    def __post_init__(self) -> None:
        for name in ("trials", "batch_size", "cohort"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.seed < 0 or (self.epochs is not None and self.epochs < 1):
            raise ConfigError(
                f"seed must be 0 or more and epochs 1 or more, got {self.seed} and {self.epochs}"
            )
        if self.sampler not in SAMPLERS:
            raise ConfigError(
                f"Unknown sampler {self.sampler!r}, expected {' or '.join(SAMPLERS)}."
                f"{did_you_mean(self.sampler, SAMPLERS)}"
            )
        if self.precision not in PRECISIONS:
            raise ConfigError(
                f"Unknown precision {self.precision!r}, expected one of {', '.join(PRECISIONS)}."
                f"{did_you_mean(self.precision, PRECISIONS)}"
            )
        if self.ensemble != 0 and not 2 <= self.ensemble <= KEPT:
            raise ConfigError(
                f"An ensemble is made of 2 to {KEPT} heads (so many are kept), "
                f"got {self.ensemble}. 0 is none."
            )

    @property
    def shared(self) -> SharedStudy | None:
        """The study of several machines, where it is one."""
        return SharedStudy(self.storage, self.study_name) if self.storage else None
