"""Training the runs of a comparison: side by side, one pass a seed, what is finished is kept.

All rows and rates of a seed see the same batches in the same order; they are divided into
companies only to bound memory. A company is written when it is through: a stopped comparison loses
the one in hand. Nothing is halved: every run has the whole schedule.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from heads.comparing.division import Division, Part
from heads.comparing.grid import Row
from heads.comparing.units import Kept, Unit
from heads.dataset import VectorStore
from heads.head import Head
from heads.pooling.attentive import Attentive
from heads.pooling.registry import pooling_config
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


def units_of(rows: Sequence[str], rates: Sequence[float], seeds: int) -> list[Unit]:
    """Every run, a seed after the other."""
    return [Unit(row, rate, seed) for seed in range(seeds) for row in rows for rate in rates]


def training_config(row: Row, rate: float, seed: int, part: int) -> TrainingConfig:
    """How a run is trained. All rows and rates of a seed start from the same one."""
    return TrainingConfig(
        learning_rate=rate,
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
        units: of these rows, all that there are to be.
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
    for seed in dict.fromkeys(unit.seed for unit in missing):
        schedule = Schedule(epochs, batch_size, data_seed=seed)
        own = [unit for unit in missing if unit.seed == seed]
        for company in companies(own, job.rows, store, batch_size):
            rows = [job.rows[unit.row] for unit in company]
            rates = [unit.rate for unit in company]
            answers: list[list[dict[str, Tensor]]] = []
            heads: list[Head] = []
            for number, part in enumerate(division.parts):
                training = [
                    training_config(row, rate, seed, number)
                    for row, rate in zip(rows, rates, strict=True)
                ]
                heads = _train(rows, training, store, part, schedule, bar)
                answers.append(_answers(heads, store, part))
            for position, unit in enumerate(company):
                said = {
                    split: torch.cat([part[position][split] for part in answers])
                    for split in division.splits
                }
                # Heads of folds are not kept: there is no one head of a row then.
                keep = unit.seed == 0 and not division.folded
                kept.save(unit, said, heads[position] if keep else None)
    return len(missing)


def _train(
    rows: Sequence[Row],
    training: Sequence[TrainingConfig],
    store: VectorStore,
    part: Part,
    schedule: Schedule,
    bar: Any,  # noqa: ANN401 - tqdm
) -> list[Head]:
    heads = [Head(row.head, own.seed) for row, own in zip(rows, training, strict=True)]
    cohort = Cohort(heads, training, store, part.rows["train"], schedule)
    for _ in range(schedule.epochs):
        cohort.run_epoch()
        bar.update(len(heads))
    return list(cohort.heads)


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
        attentive[key], hidden[key] = False, 0.0
        for name in head.modalities:
            own = pooling_config(head.pooling[name])
            if isinstance(own, Attentive):
                attentive[key] = True
                wide = own.hidden if own.scorer_layers == 2 else 0
                hidden[key] += own.queries * own.heads * wide * lengths[name] * batch_size
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
