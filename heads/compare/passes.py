"""Training the runs of a comparison: side by side, what is finished is kept.

All runs of a seed and a part see the same batches in the same order; they are divided into
groups only to bound memory. A group is written when it is through: a stopped comparison loses the
one in hand. Nothing is halved: every run has the whole schedule.

What a comparison keeps of each run, so that a stopped one goes on: a file for each.

`rows/<row>/<tuning>-seed<k>-part<p>.safetensors` holds the probabilities `[n, C]` of every scored
split of a part of the division, and without folds of the first seed the head's weights too.
`rows/identity.json` says what they all come from: runs over other data or settings are never mixed
with them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from corpora.base.codec import Jsonable
from corpora.base.files import read_json, write_json
from heads.compare.division import Division, Part, as_splits
from heads.compare.rows import Row
from heads.config import Tuning
from heads.dataset import Dataset
from heads.head import Head, HeadConfig
from heads.predict import predict
from heads.records import load_tensors, save_tensors
from heads.reference import logistic_reference
from heads.ridge import ridge_reference
from heads.runs import Run, Runs, bounded_groups, seed_from
from heads.search.space import LOSSES, attribute_weight
from heads.search.storage import refuse_differences
from heads.training import Schedule, TrainingConfig
from heads.vector_store import VectorStore

FORMAT, VERSION = "emopool-compare", 2
IDENTITY = "identity.json"
HEAD, HEAD_WEIGHTS = "head.json", "head.safetensors"
REMEDY = "Compare with --fresh, which removes it, use another --work, or go back to these settings."
_WEIGHTS = "weights."


@dataclass(frozen=True)
class RunKey:
    """One run.

    Attributes:
        row: key of the row.
        tuning: its rates and normalisation.
        seed: of first parameters, dropout and batch order.
        part: number of the part of the division.
    """

    row: str
    tuning: Tuning
    seed: int
    part: int = 0


class KeptRuns:
    """The runs in a folder.

    Args:
        folder: `rows`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def claim(self, identity: Mapping[str, Any]) -> None:
        """Note what the runs come from, or check it.

        Raises:
            ConfigError: those in the folder come from something else; each difference is shown.
        """
        path = self.folder / IDENTITY
        if not path.is_file():
            write_json(path, {"format": FORMAT, "version": VERSION, "identity": dict(identity)})
            return
        known = read_json(path, kind=FORMAT, version=VERSION).get("identity", {})
        refuse_differences(known, identity, f"{self.folder.parent} holds a comparison", REMEDY)

    def path(self, unit: RunKey) -> Path:
        """The file of a run."""
        name = f"{unit.tuning.key}-seed{unit.seed}-part{unit.part}.safetensors"
        return self.folder / unit.row / name

    def __contains__(self, unit: object) -> bool:
        return isinstance(unit, RunKey) and self.path(unit).is_file()

    def save(self, unit: RunKey, answers: Mapping[str, Tensor], head: Head | None) -> None:
        """Keep a run.

        Args:
            unit: which one.
            answers: by split the probabilities `[n, C]`.
            head: its trained head, where that is kept.
        """
        state = {} if head is None else head.state_dict()
        weights = {f"{_WEIGHTS}{name}": value.detach().cpu() for name, value in state.items()}
        save_tensors(self.path(unit), {**answers, **weights})

    def answers(self, unit: RunKey) -> dict[str, Tensor]:
        """By split the probabilities `[n, C]` of a run."""
        return dict(self._tensors(unit, weights=False))

    def weights(self, unit: RunKey) -> dict[str, Tensor]:
        """The head of a run, empty where it was not kept."""
        found = self._tensors(unit, weights=True)
        return {name.removeprefix(_WEIGHTS): value for name, value in found}

    def _tensors(self, unit: RunKey, *, weights: bool) -> Iterator[tuple[str, Tensor]]:
        tensors = load_tensors(
            self.path(unit),
            "Delete it and run `compare` again: this run of the comparison is then trained anew.",
        )
        for name, value in tensors.items():
            if name.startswith(_WEIGHTS) == weights:
                yield name, value

    def save_note(self, name: str, value: Mapping[str, Any]) -> None:
        """Keep JSON beside the runs, under a name of its own."""
        write_json(self.folder / f"{name}.json", {"format": FORMAT, "version": VERSION, **value})

    def note(self, name: str) -> dict[str, Any] | None:
        """JSON kept under a name; None where there is none."""
        path = self.folder / f"{name}.json"
        return read_json(path, kind=FORMAT, version=VERSION) if path.is_file() else None

    def clear(self) -> None:
        """Remove all runs, and nothing else."""
        for pattern in ("*/*-seed*.safetensors", "*.json", f"*/{HEAD}", f"*/{HEAD_WEIGHTS}"):
            for path in self.folder.glob(pattern):
                path.unlink()


@dataclass(frozen=True)
class Answered(Jsonable):
    """What the logistic regression said; of attributes, what ridge regression said.

    Attributes:
        strengths: C of each part, chosen by macro-F1 on its development set.
        converged: whether the solver came to its end in every part.
        predicted: by split the classes, in the order of `Division.scored`.
        penalties: λ of each part, chosen by the mean CCC.
        rated: by split the attributes of each utterance.
    """

    json_optional = "penalties rated"

    strengths: tuple[float, ...]
    converged: bool
    predicted: Mapping[str, tuple[int, ...]]
    penalties: tuple[float, ...] = ()
    rated: Mapping[str, tuple[tuple[float, ...], ...]] = field(default_factory=dict)

    @property
    def splits(self) -> tuple[str, ...]:
        """Those that are scored."""
        return tuple({**self.predicted, **self.rated})

    def said(self, split: str, labels: int) -> NDArray[np.float64]:
        """`[n, C + A]`, as a head says it."""
        parts = []
        if split in self.predicted:
            parts.append(np.eye(labels)[list(self.predicted[split])])
        if split in self.rated:
            parts.append(np.array(self.rated[split]))
        return np.concatenate(parts, axis=1)


def fit_reference(
    kept: KeptRuns,
    key: str,
    store: VectorStore,
    modalities: tuple[str, ...],
    division: Division,
) -> Answered:
    """Fit a reference in every part, and keep what it says.

    Args:
        kept: where it is kept.
        key: its name there.
        store: the data.
        modalities: which of its modalities.
        division: the parts.
    """
    dataset = _with_moments(store, modalities)
    stores = [VectorStore(as_splits(dataset, part)) for part in division.parts]
    found, rated = [], []
    if dataset.labels:
        found = [logistic_reference(own, modalities=modalities) for own in stores]
    if dataset.attributes:
        rated = [ridge_reference(own, modalities=modalities) for own in stores]
    answered = Answered(
        tuple(reference.strength for reference in found),
        all(reference.converged for reference in found),
        {
            split: tuple(c for reference in found for c in reference.predicted[split])
            for split in division.splits
            if found
        },
        tuple(ridge.strength for ridge in rated),
        {
            split: tuple(row for ridge in rated for row in ridge.predicted[split])
            for split in division.splits
            if rated
        },
    )
    kept.save_note(key, answered.to_json())
    return answered


def kept_reference(kept: KeptRuns, key: str) -> Answered | None:
    """A reference that was fitted before."""
    value = kept.note(key)
    return None if value is None else Answered.from_json(value)


def _with_moments(store: VectorStore, modalities: tuple[str, ...]) -> Dataset:
    """The data set with its means and deviations, so that no part computes them again."""
    moments = {
        name: (
            store.vectors(name, "none", "mean").cpu(),
            store.vectors(name, "none", "deviation").cpu(),
        )
        for name in modalities
    }
    return replace(store.dataset, moments={**store.dataset.moments, **moments})


# Keeps these seeds apart from other numbers drawn from the same seed.
_COMPARE_DOMAIN = 7


@dataclass(frozen=True, eq=False)
class RowGroup:
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
        attribute_weight=attribute_weight(row.head),
    )


def train_missing(
    job: RowGroup,
    units: Sequence[RunKey],
    kept: KeptRuns,
    division: Division,
    epochs: int,
    batch_size: int,
    bar: Any,  # noqa: ANN401 - tqdm
) -> None:
    """Train the runs that are not kept yet, and keep them.

    Args:
        job: rows and data.
        units: of these rows.
        kept: the finished ones.
        division: what is trained on and scored.
        epochs: of each run.
        batch_size: utterances a step.
        bar: counts heads × epochs.
    """
    missing = [unit for unit in units if unit not in kept]
    if not missing:
        return
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
