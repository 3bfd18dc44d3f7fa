"""The options of a comparison, checked once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from corpora.errors import ConfigError, did_you_mean
from heads.head import INPUT_NORMS
from heads.precision import PRECISIONS
from heads.search.space import PUBLISHED_REST

TABLES = ("poolings", "modalities", "grid")
# Around AdamW's usual 1e-3, half a decade each way. The published 1e-5 is for heads whose encoders
# are trained next, over many more steps: at the few hundred of a comparison it stays at its start.
LEARNING_RATES = (3e-4, 1e-3, 3e-3)
MOST_SEEDS = 100
# What a protocol may set for all rows. Its rate is one of many here, its poolings are rows.
FIXABLE = ("loss", "weight_decay", "mlp_width", "dropout")


@dataclass(frozen=True)
class CompareConfig:
    """How to compare.

    Attributes:
        seeds: runs of each row and rate: of first parameters, dropout and batch order.
        learning_rates: tried for every row alike, ascending; the best on dev is taken.
        epochs: of every run; by default 9, or on a small corpus a multiple of it that gives 200
            steps.
        batch_size: utterances a step.
        tables: which of `poolings`, `modalities` and `grid`.
        poolings: names of the rows of the table of poolings to keep; empty for all.
        input_norm: as in `HeadConfig`, the reference's too; the published protocol has none.
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
    epochs: int | None = None
    batch_size: int = 64
    tables: tuple[str, ...] = ("poolings", "modalities")
    poolings: tuple[str, ...] = ()
    input_norm: str = "none"
    precision: str = "auto"
    folds: bool = True
    plot: bool = True
    device: str = "auto"
    fixed: Mapping[str, Any] = field(default_factory=dict)

    @property
    def shared(self) -> dict[str, Any]:
        """Values of the search's axes that all rows have: published, or set by a protocol."""
        fixed = {name: value for name, value in self.fixed.items() if name in FIXABLE}
        return {**PUBLISHED_REST, **fixed, "input_norm": self.input_norm}

    def __post_init__(self) -> None:
        if not 1 <= self.seeds <= MOST_SEEDS:
            raise ConfigError(f"seeds must be 1 to {MOST_SEEDS}, got {self.seeds}")
        if self.batch_size < 1 or (self.epochs is not None and self.epochs < 1):
            raise ConfigError(
                f"batch size and epochs must be at least 1, got {self.batch_size} and {self.epochs}"
            )
        rates = self.learning_rates
        if not rates or not all(0 < rate < 1 for rate in rates):
            raise ConfigError(
                f"learning rates must lie between 0 and 1, got {', '.join(map(str, rates)) or '-'}"
            )
        object.__setattr__(self, "learning_rates", tuple(sorted(set(rates))))
        for table in self.tables:
            if table not in TABLES:
                raise ConfigError(
                    f"Unknown table {table!r}, expected {', '.join(TABLES)}."
                    f"{did_you_mean(table, TABLES)}"
                )
        if not self.tables:
            raise ConfigError(f"No table was asked for, expected {', '.join(TABLES)}.")
        if self.input_norm not in INPUT_NORMS:
            raise ConfigError(
                f"input_norm must be one of {', '.join(INPUT_NORMS)}; got {self.input_norm!r}"
            )
        if self.precision not in PRECISIONS:
            raise ConfigError(
                f"precision must be one of {', '.join(PRECISIONS)}; got {self.precision!r}"
            )


def parse_rates(text: str) -> tuple[float, ...]:
    """Read rates such as `3e-4,1e-3`.

    Raises:
        ConfigError: something in it is not a number.
    """
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise ConfigError(
            f"--learning-rates {text}: expected numbers such as 3e-4,1e-3."
        ) from error


def parse_names(text: str) -> tuple[str, ...]:
    """Read comma-separated names; white space around them does not count."""
    return tuple(part.strip() for part in text.split(",") if part.strip())
