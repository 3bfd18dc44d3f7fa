"""The options of a comparison, checked once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from itertools import product
from typing import Any

from corpora.base.errors import ConfigError, did_you_mean
from heads.head import INPUT_NORMS
from heads.precision import PRECISIONS
from heads.search.space import PUBLISHED_REST

TABLES = ("poolings", "modalities", "grid")
# Where heads on real frames do best at some 200 steps (docs/results.md). The published 1e-5 is for
# heads whose encoders are trained next, over many more steps: here it stays at its start.
LEARNING_RATES = (1e-3, 3e-3, 1e-2)
SCORER_RATES = (0.05, 0.3)
NORMS = ("none", "standardise")
MOST_SEEDS = 100
# What a protocol may set for all rows. Its rate is one of many here, its poolings are rows.
FIXABLE = ("loss", "weight_decay", "mlp_width", "dropout")


@dataclass(frozen=True, order=True)
class Tuning:
    """What is tuned for every row alike.

    Attributes:
        learning_rate: of the head.
        scorer_rate: of attention's scorers, relative to it.
        input_norm: as in `HeadConfig`.
    """

    learning_rate: float
    scorer_rate: float
    input_norm: str

    @property
    def key(self) -> str:
        """For names of files, and in JSON."""
        return f"{self.learning_rate:g}-{self.scorer_rate:g}-{self.input_norm}"

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class CompareConfig:
    """How to compare.

    Attributes:
        seeds: runs of each row: of first parameters, dropout and batch order. The first one is
            made with every tuning, the others with the best on dev.
        learning_rates: tried for every row alike, ascending.
        scorer_rates: likewise, for rows with attention, relative to the learning rate.
        input_norms: likewise, as in `HeadConfig`.
        epochs: of every run; by default 9, or on a small corpus a multiple of it that gives 200
            steps.
        batch_size: utterances a step.
        tables: which of `poolings`, `modalities` and `grid`.
        poolings: names of the rows of the table of poolings to keep; empty for all.
        precision: of the frames in training, `auto`, `fp32` or `bf16` (`heads.precision`).
        folds: by the folds of the manifest where it has such; False: by its splits.
        plot: whether to draw the picture.
        device: that heads are trained on, `auto`, `cpu` or `cuda`.
        fixed: a protocol's settings; those of `FIXABLE` hold for every row.

    Raises:
        ConfigError: a value out of range, or an unknown table.
    """

    seeds: int = 5
    learning_rates: tuple[float, ...] = LEARNING_RATES
    scorer_rates: tuple[float, ...] = SCORER_RATES
    input_norms: tuple[str, ...] = NORMS
    epochs: int | None = None
    batch_size: int = 64
    tables: tuple[str, ...] = ("poolings", "modalities")
    poolings: tuple[str, ...] = ()
    precision: str = "auto"
    folds: bool = True
    plot: bool = True
    device: str = "auto"
    fixed: Mapping[str, Any] = field(default_factory=dict)

    @property
    def shared(self) -> dict[str, Any]:
        """Values of the search's axes that all rows have: published, or set by a protocol."""
        fixed = {name: value for name, value in self.fixed.items() if name in FIXABLE}
        return {**PUBLISHED_REST, **fixed}

    def tunings(self, *, attentive: bool) -> list[Tuning]:
        """The same grid for every row; scorer rates where there are scorers."""
        scorers = self.scorer_rates if attentive else self.scorer_rates[:1]
        return [Tuning(*one) for one in product(self.learning_rates, scorers, self.input_norms)]

    def __post_init__(self) -> None:
        if not 1 <= self.seeds <= MOST_SEEDS:
            raise ConfigError(f"seeds must be 1 to {MOST_SEEDS}, got {self.seeds}")
        if self.batch_size < 1 or (self.epochs is not None and self.epochs < 1):
            raise ConfigError(
                f"batch size and epochs must be at least 1, got {self.batch_size} and {self.epochs}"
            )
        for name, most in (("learning_rates", 1.0), ("scorer_rates", 10.0)):
            rates = getattr(self, name)
            if not rates or not all(0 < rate < most for rate in rates):
                raise ConfigError(
                    f"{name.replace('_', ' ')} must lie between 0 and {most:g}, got "
                    f"{', '.join(map(str, rates)) or '-'}"
                )
            object.__setattr__(self, name, tuple(sorted(set(rates))))
        for table in self.tables:
            if table not in TABLES:
                raise ConfigError(
                    f"Unknown table {table!r}, expected {', '.join(TABLES)}."
                    f"{did_you_mean(table, TABLES)}"
                )
        if not self.tables:
            raise ConfigError(f"No table was asked for, expected {', '.join(TABLES)}.")
        for norm in self.input_norms or ("",):
            if norm not in INPUT_NORMS:
                raise ConfigError(
                    f"Unknown input normalisation {norm!r}, expected {', '.join(INPUT_NORMS)}."
                    f"{did_you_mean(norm, INPUT_NORMS)}"
                )
        if self.precision not in PRECISIONS:
            raise ConfigError(
                f"precision must be one of {', '.join(PRECISIONS)}; got {self.precision!r}"
            )


def parse_rates(text: str, option: str) -> tuple[float, ...]:
    """Read rates such as `3e-4,1e-3`.

    Raises:
        ConfigError: something in it is not a number; the option is named.
    """
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise ConfigError(f"{option} {text}: expected numbers such as 3e-4,1e-3.") from error


def parse_names(text: str) -> tuple[str, ...]:
    """Read comma-separated names; white space around them does not count."""
    return tuple(part.strip() for part in text.split(",") if part.strip())
