"""Training the runs of a comparison: side by side, what is finished is kept.

All runs of a seed and a part see the same batches in the same order; they are divided into
companies only to bound memory. A company is written when it is through: a stopped comparison loses
the one in hand. Nothing is halved: every run has the whole schedule.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from heads.comparing.config import Tuning
from heads.comparing.division import Division, Part
from heads.comparing.grid import Row
from heads.comparing.units import Kept, Unit
from heads.dataset import VectorStore
from heads.head import Head, HeadConfig
from heads.pooling import pooling_config
from heads.search.space import LOSSES, seed_from
from heads.training import Cohort, Schedule, TrainingConfig, predict

# Heads side by side: bounds parameters and optimiser state (60 MB a head with 4 queries of 1,792
# features and an MLP of 256), and what a stopped comparison loses.
MOST_HEADS = 32
# Values of hidden scorer units of a batch, all heads together: 0.5 GB, and thrice that in training.
MOST_HIDDEN = 2**27
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


def is_attentive(row: Row) -> bool:
    """Whether a row has scorers, whose rate is tuned."""
    return any(pooling_config(one).learns_weights for one in row.head.pooling.values())


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
        for company in companies(own, job.rows, store, batch_size):
            shapes = [head_config(job.rows[unit.row], unit.tuning) for unit in company]
            training = [
                training_config(job.rows[unit.row], unit.tuning, seed, number) for unit in company
            ]
            heads = [Head(shape, one.seed) for shape, one in zip(shapes, training, strict=True)]
            cohort = Cohort(heads, training, store, part.rows["train"], schedule)
            for _ in range(schedule.epochs):
                cohort.run_epoch()
                bar.update(len(heads))
            answers = _answers(heads, store, part)
            for unit, said, head in zip(company, answers, heads, strict=True):
                # Heads of folds are not kept: there is no one head of a row then.
                keep = unit.seed == 0 and not division.folded
                kept.save(unit, said, head if keep else None)
    return len(missing)


def _answers(heads: Sequence[Head], store: VectorStore, part: Part) -> list[dict[str, Tensor]]:
    """For each head by split the probabilities `[n, C]`."""
    said = {
        split: predict(heads, store, part.rows[split]).cpu()
        for split in ("dev", "test")
        if len(part.rows[split])
    }
    return [{split: values[k] for split, values in said.items()} for k in range(len(heads))]


def companies(
    units: Sequence[Unit], rows: Mapping[str, Row], store: VectorStore, batch_size: int
) -> list[list[Unit]]:
    """The runs of a seed in groups of bounded memory, those of about the same cost together.

    Heads without attention are by themselves: they need no frames after the first pass.
    """
    dataset = store.dataset
    lengths = {n: frames.total / len(dataset) for n, frames in dataset.frames.items()}
    attentive: dict[str, bool] = {}
    hidden: dict[str, float] = {}
    for key in {unit.row for unit in units}:
        head = rows[key].head
        own = {name: pooling_config(head.pooling[name]) for name in head.modalities}
        attentive[key] = any(pooling.learns_weights for pooling in own.values())
        hidden[key] = sum(
            pooling.hidden_values * lengths[name] * batch_size for name, pooling in own.items()
        )
    groups: list[list[Unit]] = []
    held = 0.0
    for unit in sorted(units, key=lambda unit: (attentive[unit.row], hidden[unit.row])):
        full = held + hidden[unit.row] > MOST_HIDDEN or (groups and len(groups[-1]) == MOST_HEADS)
        if not groups or full or attentive[groups[-1][0].row] != attentive[unit.row]:
            groups.append([])
            held = 0.0
        groups[-1].append(unit)
        held += hidden[unit.row]
    return groups
