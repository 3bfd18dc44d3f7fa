"""The outside reference for attributes: ridge regression on mean and deviation vectors.

What the logistic regression (`heads.reference`) is for classes: layer, modalities and strength of
the penalty are chosen on the development set, or on the folds, by the mean CCC.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cache.keys import MODALITIES
from corpora.base.codec import Jsonable
from corpora.base.files import read_json, write_json
from heads.attributes import AttributeScores
from heads.axes import selections
from heads.bootstrap import Floats
from heads.dataset import Dataset, VectorStore
from heads.folds import Folds
from heads.gold import Gold
from heads.records import Origin
from heads.reference import Judges, fitted_on, layers_read, mean_and_deviation

FORMAT, VERSION = "emopool-ridge", 1
# Of the penalty for each row that is fitted, on columns of deviation 1; the strongest first.
STRENGTHS = (1000.0, 100.0, 10.0, 1.0, 0.1, 0.01, 0.001)
# By which the layer of each modality is chosen.
LAYER_STRENGTH = 1.0


@dataclass(frozen=True)
class Ridge(Jsonable):
    """Scores of the ridge regression.

    Attributes:
        layers: by modality whose vectors it reads, the number of the layer; None where it is not
            known.
        strength: λ: the penalty is λ · rows · |w|².
        trained_on: the splits that it learnt from, `train` or `train+dev`.
        scores: reports by split: folds where it was chosen on them, else dev; test where there is
            one.
        predicted: attributes of each utterance by split, for comparisons.
        candidates: how many combinations of modalities and λ it was chosen from.
    """

    layers: Mapping[str, int | None]
    strength: float
    trained_on: str
    scores: Mapping[str, AttributeScores]
    predicted: Mapping[str, tuple[tuple[float, ...], ...]]
    candidates: int

    def to_text(self) -> str:
        """What was chosen, in a sentence."""
        read = layers_read(self.layers)
        where = "the folds" if "folds" in self.scores else "dev"
        return (
            f"Reference for attributes: ridge regression on scaled mean and deviation of the "
            f"frames ({read}; λ = {self.strength:g}), the best of {self.candidates} on {where}, "
            f"trained on {self.trained_on}."
        )


def write_ridge(path: Path, ridge: Ridge, origin: Origin) -> None:
    """Write a regression as JSON, with the rows and streams it was fitted on."""
    fitted = {**ridge.to_json(), "fitted_on": fitted_on(origin)}
    write_json(path, {"format": FORMAT, "version": VERSION, **fitted})


def read_ridge(path: Path, origin: Origin) -> Ridge | None:
    """Read a regression back; None where there is none, or one of other rows than `origin`'s."""
    if not path.is_file():
        return None
    value = read_json(path, kind=FORMAT, version=VERSION)
    return Ridge.from_json(value) if value.get("fitted_on") == fitted_on(origin) else None


def ridge_reference(
    store: VectorStore,
    folds: Folds | None = None,
    *,
    refit: bool = False,
    modalities: Sequence[str] | None = None,
) -> Ridge:
    """Choose a regression, and fit it.

    First the layer of each modality is chosen with one strength, then which modalities, and the
    strength.

    Args:
        store: the data.
        folds: what it is chosen on instead of the development set.
        refit: with folds, it is trained on train and dev; else on train alone.
        modalities: which it has to read; None: it may read any.
    """
    rows = {split: store.dataset.rows(split) for split in ("train", "dev", "test")}
    judges = _Judges.of(store, folds)
    dataset, gold, scored = judges.dataset, judges.gold, judges.judges.scored
    layers = best_ridge_layers(store, folds)
    vectors = {name: mean_and_deviation(store, name, layer) for name, layer in layers.items()}
    together = selections(tuple(vectors))
    if modalities is not None:
        together = (tuple(name for name in vectors if name in modalities),)
    candidates = {
        (names, strength): said
        for names in together
        for strength, said in zip(
            STRENGTHS, judges(torch.cat([vectors[n] for n in names], dim=1), STRENGTHS), strict=True
        )
    }
    # The first of equals reads all modalities, and is the most strongly regularised.
    names, strength = max(candidates, key=lambda one: gold.score(candidates[one]))
    whole = folds is not None and refit
    own = folds.rows if folds is not None and refit else rows["train"]
    path = _Path(dataset, own, torch.cat([vectors[name] for name in names], dim=1))
    answers = {"dev" if folds is None else "folds": (scored, candidates[names, strength])}
    for split in ("test",) if whole or folds is None else ("dev", "test"):
        if len(rows[split]):
            answers[split] = (rows[split], path.said(rows[split], strength))
    scores = {
        split: Gold.of(dataset, numbers).attribute_scores(said)
        for split, (numbers, said) in answers.items()
    }
    return Ridge(
        {name: layers[name] for name in names},
        strength,
        "train+dev" if whole else "train",
        {split: report for split, report in scores.items() if report is not None},
        {split: tuple(map(tuple, said.tolist())) for split, (_, said) in answers.items()},
        len(candidates),
    )


@dataclass(frozen=True, eq=False)
class _Judges:
    """What regressions are judged by: the ratings of rows that none of them was fitted on."""

    judges: Judges
    dataset: Dataset
    gold: Gold

    @classmethod
    def of(cls, store: VectorStore, folds: Folds | None) -> _Judges:
        """The development set, or each fold by those who were not in it."""
        judges = Judges.of(store.dataset, folds)
        dataset = replace(store.dataset, labels=())
        return cls(judges, dataset, Gold.of(dataset, judges.scored))

    def __call__(self, columns: Tensor, strengths: tuple[float, ...]) -> list[Floats]:
        """What regressions on `[N, D]` with each of these strengths say of these rows."""
        scored = self.judges.scored
        found = [np.empty((len(scored), len(self.dataset.attributes))) for _ in strengths]
        for own, at in self.judges.parts:
            path = _Path(self.dataset, own, columns)
            for said, strength in zip(found, strengths, strict=True):
                said[at.numpy()] = path.said(scored[at], strength)
        return found


def best_ridge_layers(store: VectorStore, folds: Folds | None = None) -> dict[str, int | None]:
    """By modality the cached layer that a regression of one strength does best with.

    Args:
        store: the data; None stands for a layer whose number is not known.
        folds: what it is chosen on instead of the development set.
    """
    judges = _Judges.of(store, folds)

    def score(name: str, layer: int | None) -> float:
        [said] = judges(mean_and_deviation(store, name, layer), (LAYER_STRENGTH,))
        return judges.gold.score(said)

    layers: dict[str, int | None] = {}
    for name in (name for name in MODALITIES if name in store.dataset.frames):
        numbers: tuple[int | None, ...] = store.dataset.numbers(name) or (None,)
        several = len(numbers) > 1
        layers[name] = max(numbers, key=lambda n: score(name, n)) if several else numbers[0]
    return layers


class _Path:
    """Ridge regressions of all attributes on the same rows, of any strength.

    Args:
        dataset: the ratings.
        rows: `[n]` utterance numbers to be fitted on; each attribute by those that were rated.
        columns: `[N, D]` of all utterances.
    """

    def __init__(self, dataset: Dataset, rows: Tensor, columns: Tensor) -> None:
        self._columns = columns
        self._ends = np.array(list(dataset.attributes.values()))
        ratings = dataset.ratings(rows).numpy()
        # The same decomposition serves all attributes that the same rows have.
        self._fits = []
        masks = np.isfinite(ratings)
        for mask in np.unique(masks, axis=1).T:
            if not mask.any():
                continue  # a fold without the attribute: the middle of its scale is said
            own = np.flatnonzero((masks == mask[:, None]).all(axis=0))
            x = columns[rows[torch.from_numpy(mask)]].numpy().astype(np.float64)
            deviation = x.std(axis=0)
            scale = np.where(deviation > 0, deviation, 1.0)
            shift, y = x.mean(axis=0), ratings[mask][:, own]
            x = (x - shift) / scale
            # Of n rows and D columns the smaller one: the directions that the rows span, whose
            # weights are shrunk by e / (e + λ n), with e the squares of the singular values.
            wide = len(x) < x.shape[1]
            squares, turn = np.linalg.eigh(x @ x.T if wide else x.T @ x)
            seen = x.T @ turn if wide else turn
            centred = y - y.mean(axis=0)
            target = turn.T @ (centred if wide else x.T @ centred)
            shrunk = squares.clip(min=0), len(x)
            self._fits.append((own, shift, scale, seen, shrunk, target, y.mean(axis=0)))

    def said(self, rows: Tensor, strength: float) -> Floats:
        """`[m, A]` attributes of these utterances, in the units of their scales."""
        found = np.tile(self._ends.mean(axis=1), (len(rows), 1))
        x = self._columns[rows].numpy().astype(np.float64)
        for own, shift, scale, seen, (squares, count), target, mean in self._fits:
            weight = seen @ (target / (squares + strength * count)[:, None])
            found[:, own] = (x - shift) / scale @ weight + mean
        return found.clip(*self._ends.T)
