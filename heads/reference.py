"""An outside reference for a head: logistic regression on mean and deviation vectors.

The simplest thing that a reviewer would try, tried well: layer, modalities, scaling and the
strength of the regularisation are chosen on the development set, or on the folds, as heads are.
The winner of the search has no part in it. Trained on the rows that the winner is trained on.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits
from torch import Tensor

from cache.keys import MODALITIES
from corpora.base.codec import Jsonable
from corpora.base.files import read_json, write_json
from heads.axes import selections
from heads.confusion import confusion_matrix, macro_f1
from heads.dataset import Dataset
from heads.folds import Selection
from heads.gold import Gold
from heads.metrics import Scores
from heads.records import Origin
from heads.vector_store import VectorStore

# Inverse strengths of the L2 penalty that are tried.
STRENGTHS = (0.001, 0.01, 0.1, 1.0, 10.0, 100.0, 1000.0)
# Larger ones are left out after so many in a row that brought nothing: scores rise and fall once.
PATIENCE = 2
# By which the layer of each modality is chosen, on scaled vectors.
LAYER_STRENGTH = 0.01
# More does not move the scores; it bounds the time on unscaled vectors, which converge slowly.
MAX_ITERATIONS = 1000
# Values from which a fit gains from more threads than one.
_SHARED_FROM = 4_000_000

Vectors = NDArray[np.float32]


class Regression(Jsonable):
    """A regression beside the heads, as a file that says which rows and streams it was fitted on.

    Attributes:
        format: name and version of the file.
    """

    format: ClassVar[tuple[str, int]]

    def write(self, path: Path, origin: Origin) -> None:
        """Write it as JSON."""
        kind, version = self.format
        fitted = {**self.to_json(), "fitted_on": _fitted_on(origin)}
        write_json(path, {"format": kind, "version": version, **fitted})

    @classmethod
    def read(cls, path: Path, origin: Origin | None = None) -> Self | None:
        """Read one back; None where there is none, or one of other rows than `origin`'s."""
        if not path.is_file():
            return None
        value = read_json(path, kind=cls.format[0], version=cls.format[1])
        if origin is not None and value.get("fitted_on") != _fitted_on(origin):
            return None
        return cls.from_json(value)


def _fitted_on(origin: Origin) -> dict[str, Any]:
    return {"manifest_sha256": origin.manifest_sha256, "streams": dict(origin.streams)}


@dataclass(frozen=True)
class Reference(Regression):
    """Scores of the logistic regression.

    Attributes:
        layers: by modality whose vectors it reads, the number of the layer; None where it is not
            known.
        scaled: whether each column is scaled to mean 0 and deviation 1 over the training rows.
        strength: C.
        converged: whether the solver came to its end.
        trained_on: the splits that it learnt from, `train` or `train+dev`.
        scores: reports by split: folds where it was chosen on them, else dev; test where there is
            one.
        predicted: classes by split, for comparisons.
        candidates: how many combinations of modalities, scaling and C it was chosen from.
    """

    format = ("emopool-reference", 3)

    layers: Mapping[str, int | None]
    scaled: bool
    strength: float
    converged: bool
    trained_on: str
    scores: Mapping[str, Scores]
    predicted: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    candidates: int = 0

    @property
    def modalities(self) -> tuple[str, ...]:
        """Whose vectors it reads, one after the other."""
        return tuple(self.layers)

    def to_text(self) -> str:
        """What was chosen, in a sentence."""
        read = layers_read(self.layers)
        where = "the folds" if "folds" in self.scores else "dev"
        return (
            f"Reference: scikit-learn logistic regression on mean and deviation of the frames "
            f"({read}; {'scaled' if self.scaled else 'as they are'}; C = {self.strength:g}), the "
            f"best of {self.candidates} on {where}, trained on {self.trained_on}"
            f"{'' if self.converged else '; it stopped before it converged'}."
        )


def layers_read(layers: Mapping[str, int | None]) -> str:
    """Modalities and their layers as a sentence names them, such as `audio layer 2 + text`."""
    return " + ".join(n if own is None else f"{n} layer {own}" for n, own in layers.items())


def device_notes(device: torch.device) -> tuple[str, ...]:
    """Says that the reference is fitted elsewhere, where heads are trained on a GPU."""
    said = f"Heads are trained on {device}; the reference is scikit-learn's, on the CPU."
    return (said,) if device.type == "cuda" else ()


@dataclass(frozen=True, eq=False)
class _Judged:
    """Modalities, scaling and C, and what a regression with them said of the judged rows."""

    modalities: tuple[str, ...]
    scaled: bool
    strength: float
    predicted: NDArray[np.int64]
    score: float


def best_layers(store: VectorStore, selection: Selection) -> dict[str, int | None]:
    """By modality the cached layer that a regression on scaled vectors does best with.

    Args:
        store: the data.
        selection: the rows that it is chosen by.

    Returns:
        None for a layer whose number is not known.
    """
    strength = [LAYER_STRENGTH]
    return chosen_layers(
        store, lambda own: _judged(store.dataset, selection, own, strength, scaled=True)[0].score
    )


def chosen_layers(store: VectorStore, score: Callable[[Tensor], float]) -> dict[str, int | None]:
    """By modality the cached layer whose means and deviations `[n, 2·D]` have the best score."""
    found: dict[str, int | None] = {}
    for name in MODALITIES:
        if name in store.dataset.frames:
            numbers: tuple[int | None, ...] = store.dataset.numbers(name) or (None,)
            found[name] = numbers[0]
            if len(numbers) > 1:
                scores = [score(mean_and_deviation(store, name, number)) for number in numbers]
                found[name] = numbers[scores.index(max(scores))]
    return found


def _judged(
    dataset: Dataset,
    selection: Selection,
    columns: Tensor,
    strengths: Sequence[float],
    *,
    scaled: bool,
) -> list[_Judged]:
    """What a path of rising strengths says, as far as it is worth following."""
    gold = dataset.targets(selection.scored).numpy()
    known = gold >= 0
    paths = [(_path(dataset, own, columns, scaled=scaled), at) for own, at in selection.parts()]
    found: list[_Judged] = []
    for strength in strengths:
        predicted = np.empty(len(gold), dtype=np.int64)
        for path, at in paths:
            path.fit(strength)
            predicted[at.numpy()] = path.predict(columns[selection.scored[at]].numpy())
        confusion = confusion_matrix(gold[known], predicted[known], len(dataset.labels))
        found.append(_Judged((), scaled, strength, predicted, float(macro_f1(confusion))))
        best = max(range(len(found)), key=lambda k: found[k].score)
        if len(found) - 1 - best >= PATIENCE:
            break
    return found


def logistic_reference(
    store: VectorStore,
    selection: Selection | None = None,
    *,
    modalities: Sequence[str] | None = None,
) -> Reference:
    """Choose a regression, and fit it with classes weighted inversely to their frequency.

    First the layer of each modality is chosen with one strength, then which modalities, whether
    scaled, and C.

    Args:
        store: the data.
        selection: the rows that it is chosen by and trained on; by default dev and train.
        modalities: which it has to read; None: it may read any.
    """
    dataset = store.dataset
    selection = selection or Selection.of(dataset, None)
    read = Columns(store, best_layers(store, selection))
    judged = [
        replace(one, modalities=names)
        for names in read.combinations(modalities)
        for scaled in (True, False)
        for one in _judged(dataset, selection, read.of(names), STRENGTHS, scaled=scaled)
    ]
    # The first of equals is scaled, and the most strongly regularised.
    best = max(judged, key=lambda one: one.score)
    columns = read.of(best.modalities)
    path = _path(dataset, selection.kept(dataset), columns, scaled=best.scaled)
    for strength in STRENGTHS[: STRENGTHS.index(best.strength) + 1]:
        path.fit(strength)
    answers = answered(
        dataset, selection, best.predicted, lambda rows: path.predict(columns[rows].numpy())
    )
    one_of_each = np.eye(len(dataset.labels))
    return Reference(
        {name: read.layers[name] for name in best.modalities},
        best.scaled,
        best.strength,
        path.converged,
        selection.trained_on,
        {
            split: report
            for split, (rows, said) in answers.items()
            if (report := Gold.of(dataset, rows).class_scores(one_of_each[said])) is not None
        },
        {split: tuple(said.tolist()) for split, (_, said) in answers.items()},
        len(judged),
    )


class Columns:
    """What regressions read: mean and deviation of one layer of each modality.

    Args:
        store: the data.
        layers: by modality; None for the usual one.
    """

    def __init__(self, store: VectorStore, layers: Mapping[str, int | None]) -> None:
        self.layers = layers
        self._vectors = {n: mean_and_deviation(store, n, layer) for n, layer in layers.items()}

    def combinations(self, modalities: Sequence[str] | None) -> tuple[tuple[str, ...], ...]:
        """The modalities that may be read together: these, or any."""
        if modalities is None:
            return selections(tuple(self.layers))
        return (tuple(name for name in self.layers if name in modalities),)

    def of(self, modalities: Sequence[str]) -> Tensor:
        """`[n, D]` of these, one after the other."""
        return torch.cat([self._vectors[name] for name in modalities], dim=1)


def answered(
    dataset: Dataset,
    selection: Selection,
    judged: NDArray[Any],
    say: Callable[[Tensor], NDArray[Any]],
) -> dict[str, tuple[Tensor, NDArray[Any]]]:
    """By split the rows `[n]`, and what a regression says of them.

    Args:
        dataset: with the splits.
        selection: what it was chosen by.
        judged: what was said of these rows when it was chosen.
        say: from rows to what it says of them, trained.
    """
    answers = {selection.name: (selection.scored, judged)}
    for split in selection.unseen:
        rows = dataset.rows(split)
        if len(rows) and split not in answers:
            answers[split] = (rows, say(rows))
    return answers


def mean_and_deviation(store: VectorStore, modality: str, layer: int | None) -> Tensor:
    """`[n, 2·D]`, mean and deviation of a layer's frames."""
    names = ("mean", "deviation")
    found = [store.vectors(modality, "none", name, layer=layer).cpu() for name in names]
    return torch.cat(found, dim=1)


def _path(dataset: Dataset, rows: Tensor, columns: Tensor, *, scaled: bool) -> _Path:
    """Regressions on those of these rows that have a class."""
    target = dataset.targets(rows)
    own = target >= 0
    return _Path(columns[rows[own]].numpy(), target[own].numpy(), scaled=scaled)


class _Path:
    """Logistic regressions on the same rows with rising C, each from the one before.

    With fewer rows than columns the columns are turned into the space that the rows span, which
    changes nothing but the time: the penalty does not see a rotation, and a weight outside that
    space would only cost.

    Args:
        x: `[n, D]`.
        target: `[n]` class indices.
        scaled: whether each column is scaled by these rows.
    """

    def __init__(self, x: Vectors, target: NDArray[np.int64], *, scaled: bool) -> None:
        self._shift = x.mean(axis=0, dtype=np.float64)
        deviation = x.std(axis=0, dtype=np.float64)
        self._scale = np.where(deviation > 0, deviation, 1.0) if scaled else np.ones(x.shape[1])
        seen = (x - self._shift) / self._scale
        self._turn: NDArray[np.float64] | None = None
        if len(seen) < seen.shape[1]:
            self._turn = np.linalg.svd(seen, full_matrices=False)[2].T
            seen = seen @ self._turn
        self._x, self._target = seen, target
        self._model = LogisticRegression(
            class_weight="balanced", max_iter=MAX_ITERATIONS, warm_start=True
        )
        self.converged = True

    def fit(self, strength: float) -> None:
        """With this C, which is not below the one before."""
        self._model.set_params(C=strength)
        self.converged = _fitted(self._model, self._x, self._target)

    def predict(self, x: Vectors) -> NDArray[np.int64]:
        """`[m]` classes of `[m, D]`."""
        seen = (x - self._shift) / self._scale
        found: NDArray[np.int64] = self._model.predict(
            seen if self._turn is None else seen @ self._turn
        )
        return found


def fit_logistic(x: Vectors, target: NDArray[np.int64], strength: float) -> tuple[Pipeline, bool]:
    """A logistic regression on scaled columns, classes weighted inversely to their frequency.

    Args:
        x: `[n, D]`.
        target: `[n]` class indices.
        strength: C, the inverse of the L2 penalty's.

    Returns:
        The model, and whether its solver came to its end.
    """
    model = LogisticRegression(C=strength, class_weight="balanced", max_iter=MAX_ITERATIONS)
    pipeline = make_pipeline(StandardScaler(), model)
    return pipeline, _fitted(pipeline, x, target)


def _fitted(model: Any, x: NDArray[Any], target: NDArray[np.int64]) -> bool:  # noqa: ANN401 - scikit-learn's own types
    """Fit a model; whether its solver came to its end."""
    # Products of small matrices take longer on two threads than on one, many times longer where the
    # other core is busy.
    threads = 1 if x.size < _SHARED_FROM else None
    with warnings.catch_warnings(record=True) as caught, threadpool_limits(threads):
        warnings.simplefilter("always", ConvergenceWarning)
        model.fit(x, target)
    return not any(issubclass(entry.category, ConvergenceWarning) for entry in caught)
