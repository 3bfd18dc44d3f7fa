"""Training the runs of a comparison: side by side, what is finished is kept.

All runs of a seed and a part see the same batches in the same order; they are divided into
groups only to bound memory. A group is written when it is through: a stopped comparison loses the
one in hand. Nothing is halved: every run has the whole schedule.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from torch import Tensor

from corpora.base.seeds import seed_from
from heads.comparing.config import Tuning
from heads.comparing.division import Division, Part
from heads.comparing.grid import Row
from heads.comparing.units import Kept, Unit
from heads.dataset import VectorStore
from heads.head import Head, HeadConfig
from heads.runs import Run, Runs, bounded_groups
from heads.search.space import LOSSES
from heads.training import Schedule, TrainingConfig, predict

# Keeps these seeds apart from other numbers drawn from the same seed.
_COMPARE_DOMAIN = 7


@dataclass(frozen=True, eq=False)
class Job:
    """Rows that read the same data.

    Attributes:
        rows: by key.
        load: gives the data; called only if there is something to train or fit.
        references: modalities of each logistic regression on it, by key.
    """

    rows: Mapping[str, Row]
    load: Callable[[], VectorStore]
    references: Mapping[str, tuple[str, ...]]


def head_config(row: Row, tuning: Tuning) -> HeadConfig:
    """A row's head with a tuning's normalisation."""
    return replace(row.head, input_norm=tuning.input_norm)


def training_config(row: Row, tuning: Tuning, seed: int, part: int) -> TrainingConfig:
    """How a run is trained. All rows and tunings of a seed start from the same one."""
    return TrainingConfig(
        learning_rate=tuning.learning_rate,
        scorer_rate=tuning.scorer_rate,
        weight_decay=row.params["weight_decay"],
        loss=LOSSES[row.params["loss"]],
        seed=seed_from(seed, _COMPARE_DOMAIN, part),
    )


def train_missing(
    job: Job,
    units: Sequence[Unit],
    kept: Kept,
    division: Division,
    epochs: int,
    batch_size: int,
    bar: Any,  # noqa: ANN401 - tqdm
) -> int:
    """Train the runs that are not kept yet, and keep them.

    Args:
        job: rows and data.
        units: of these rows.
        kept: the finished ones.
        division: what is trained on and scored.
        epochs: of each run.
        batch_size: utterances a step.
        bar: counts heads × epochs.

    Returns:
        How many were trained.
    """
    missing = [unit for unit in units if unit not in kept]
    if not missing:
        return 0
    store = job.load()
    for seed, number in dict.fromkeys((unit.seed, unit.part) for unit in missing):
        schedule, part = Schedule(epochs, batch_size, data_seed=seed), division.parts[number]
        own = [unit for unit in missing if (unit.seed, unit.part) == (seed, number)]
        runs = [
            Run(
                head_config(job.rows[unit.row], unit.tuning),
                training_config(job.rows[unit.row], unit.tuning, seed, number),
            )
            for unit in own
        ]
        for group in bounded_groups([run.head for run in runs], store, batch_size):
            training = Runs([runs[k] for k in group], store, schedule, part.rows["train"])
            heads = training.train(partial(_note, bar, len(group)))
            for k, said, head in zip(group, _answers(heads, store, part), heads, strict=True):
                unit = own[k]
                # Heads of folds are not kept: there is no one head of a row then.
                keep = unit.seed == 0 and not division.folded
                kept.save(unit, said, head if keep else None)
    return len(missing)


def _note(bar: Any, heads: int) -> None:  # noqa: ANN401 - tqdm
    bar.update(heads)


def _answers(heads: Sequence[Head], store: VectorStore, part: Part) -> list[dict[str, Tensor]]:
    """For each head by split the probabilities `[n, C]`."""
    said = {
        split: predict(heads, store, part.rows[split]).cpu()
        for split in ("dev", "test")
        if len(part.rows[split])
    }
    return [{split: values[k] for split, values in said.items()} for k in range(len(heads))]
