"""The outside reference for attributes: ridge regression on mean and deviation vectors.

What the logistic regression (`heads.reference`) is for classes: layer, modalities and strength of
the penalty are chosen on the development set, or on the folds, by the mean CCC.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from heads.attributes import AttributeScores
from heads.bootstrap import Floats
from heads.dataset import Dataset
from heads.folds import Selection
from heads.gold import Gold
from heads.reference import Columns, Regression, answered, chosen_layers, layers_read
from heads.vector_store import VectorStore

# Of the penalty for each row that is fitted, on columns of deviation 1; the strongest first.
STRENGTHS = (1000.0, 100.0, 10.0, 1.0, 0.1, 0.01, 0.001)
# By which the layer of each modality is chosen.
LAYER_STRENGTH = 1.0


@dataclass(frozen=True)
class Ridge(Regression):
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

    format = ("emopool-ridge", 1)

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


def ridge_reference(
    store: VectorStore,
    selection: Selection | None = None,
    *,
    modalities: Sequence[str] | None = None,
) -> Ridge:
    """Choose a regression, and fit it.

    First the layer of each modality is chosen with one strength, then which modalities, and the
    strength.

    Args:
        store: the data.
        selection: the rows that it is chosen by and trained on; by default dev and train.
        modalities: which it has to read; None: it may read any.
    """
    selection = selection or Selection.of(store.dataset, None)
    dataset, gold = _rated(store, selection)
    read = Columns(store, best_ridge_layers(store, selection))
    candidates = {
        (names, strength): said
        for names in read.combinations(modalities)
        for strength, said in zip(
            STRENGTHS, _judged(dataset, selection, read.of(names), STRENGTHS), strict=True
        )
    }
    # The first of equals reads all modalities, and is the most strongly regularised.
    names, strength = best = max(candidates, key=lambda one: gold.score(candidates[one]))
    path = _Path(dataset, selection.kept(store.dataset), read.of(names))
    answers = answered(
        store.dataset, selection, candidates[best], lambda rows: path.said(rows, strength)
    )
    return Ridge(
        {name: read.layers[name] for name in names},
        strength,
        selection.trained_on,
        {
            split: report
            for split, (rows, said) in answers.items()
            if (report := Gold.of(dataset, rows).attribute_scores(said)) is not None
        },
        {split: tuple(map(tuple, said.tolist())) for split, (_, said) in answers.items()},
        len(candidates),
    )


def best_ridge_layers(store: VectorStore, selection: Selection) -> dict[str, int | None]:
    """As `heads.reference.best_layers`, by a regression of one strength."""
    dataset, gold = _rated(store, selection)

    def score(columns: Tensor) -> float:
        [said] = _judged(dataset, selection, columns, [LAYER_STRENGTH])
        return gold.score(said)

    return chosen_layers(store, score)


def _rated(store: VectorStore, selection: Selection) -> tuple[Dataset, Gold]:
    """The data set with its ratings alone, and the truth about the rows of the choice."""
    dataset = replace(store.dataset, labels=())
    return dataset, Gold.of(dataset, selection.scored)


def _judged(
    dataset: Dataset, selection: Selection, columns: Tensor, strengths: Sequence[float]
) -> list[Floats]:
    """What regressions on `[N, D]` with each of these strengths say of the rows of the choice."""
    scored = selection.scored
    found = [np.empty((len(scored), len(dataset.attributes))) for _ in strengths]
    for own, at in selection.parts():
        path = _Path(dataset, own, columns)
        for said, strength in zip(found, strengths, strict=True):
            said[at.numpy()] = path.said(scored[at], strength)
    return found


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
