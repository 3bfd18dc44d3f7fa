"""An outside reference for a head: logistic regression on mean and deviation vectors.

The simplest thing that a reviewer would try, tried well: layer, modalities, scaling and the
strength of the regularisation are chosen on the development set, or on the folds, as heads are.
The winner of the search has no part in it. Trained on the rows that the winner is trained on.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

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
from heads.bootstrap import confusion_matrix, macro_f1
from heads.dataset import Dataset, VectorStore
from heads.folds import Folds
from heads.gold import Gold
from heads.metrics import Scores
from heads.records import Origin

FORMAT, VERSION = "emopool-reference", 3
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


@dataclass(frozen=True)
class Reference(Jsonable):
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


def write_reference(path: Path, reference: Reference, origin: Origin) -> None:
    """Write a reference as JSON, with the rows and streams it was fitted on."""
    fitted = {**reference.to_json(), "fitted_on": fitted_on(origin)}
    write_json(path, {"format": FORMAT, "version": VERSION, **fitted})


def read_reference(path: Path, origin: Origin | None = None) -> Reference | None:
    """Read a reference back; None where there is none, or one of other rows than `origin`'s."""
    if not path.is_file():
        return None
    value = read_json(path, kind=FORMAT, version=VERSION)
    if origin is not None and value.get("fitted_on") != fitted_on(origin):
        return None
    return Reference.from_json(value)


def fitted_on(origin: Origin) -> dict[str, Any]:
    """The rows and streams that a reference is fitted on."""
    return {"manifest_sha256": origin.manifest_sha256, "streams": dict(origin.streams)}


@dataclass(frozen=True, eq=False)
class _Judged:
    """Modalities, scaling and C, and what a regression with them said of the judged rows."""

    modalities: tuple[str, ...]
    scaled: bool
    strength: float
    predicted: NDArray[np.int64]
    score: float


@dataclass(frozen=True, eq=False)
class Judges:
    """The rows that regressions are chosen by.

    Attributes:
        dataset: the utterances.
        scored: `[m]` utterance numbers.
        parts: for each part of them who is trained on, and which positions of `scored` they are.
    """

    dataset: Dataset
    scored: Tensor
    parts: Sequence[tuple[Tensor, Tensor]]

    @classmethod
    def of(cls, dataset: Dataset, folds: Folds | None) -> Judges:
        """The development set, or each fold by those who were not in it."""
        if folds is None:
            dev = dataset.rows("dev")
            return cls(dataset, dev, [(dataset.rows("train"), torch.arange(len(dev)))])
        outside = [folds.numbers == fold for fold in range(folds.count)]
        parts = [(folds.rows[~out], out.nonzero()[:, 0]) for out in outside]
        return cls(dataset, folds.rows, parts)

    def path(self, columns: Tensor, strengths: Sequence[float], *, scaled: bool) -> list[_Judged]:
        """What a path of rising strengths says, as far as it is worth following."""
        gold = self.dataset.targets(self.scored).numpy()
        known = gold >= 0
        paths = [_path(self.dataset, own, columns, scaled=scaled) for own, _ in self.parts]
        found: list[_Judged] = []
        for strength in strengths:
            predicted = np.empty(len(self.scored), dtype=np.int64)
            for path, (_, at) in zip(paths, self.parts, strict=True):
                path.fit(strength)
                predicted[at.numpy()] = path.predict(columns[self.scored[at]].numpy())
            labels = len(self.dataset.labels)
            confusion = confusion_matrix(gold[known], predicted[known], labels)
            found.append(_Judged((), scaled, strength, predicted, float(macro_f1(confusion))))
            best = max(range(len(found)), key=lambda k: found[k].score)
            if len(found) - 1 - best >= PATIENCE:
                break
        return found


def best_layers(store: VectorStore, folds: Folds | None = None) -> dict[str, int]:
    """By modality the cached layer that a regression on scaled vectors does best with.

    Args:
        store: the data; a modality whose layers have no numbers is left out.
        folds: what it is chosen on instead of the development set.
    """
    found = _best_layers(store, Judges.of(store.dataset, folds))
    return {name: layer for name, layer in found.items() if layer is not None}


def _best_layers(store: VectorStore, judges: Judges) -> dict[str, int | None]:
    def score(name: str, layer: int | None) -> float:
        columns = mean_and_deviation(store, name, layer)
        return judges.path(columns, [LAYER_STRENGTH], scaled=True)[0].score

    found: dict[str, int | None] = {}
    for name in MODALITIES:
        if name in store.dataset.frames:
            numbers: tuple[int | None, ...] = store.dataset.numbers(name) or (None,)
            several = len(numbers) > 1
            found[name] = max(numbers, key=lambda n: score(name, n)) if several else numbers[0]
    return found


def logistic_reference(
    store: VectorStore,
    folds: Folds | None = None,
    *,
    refit: bool = False,
    modalities: Sequence[str] | None = None,
) -> Reference:
    """Choose a regression, and fit it with classes weighted inversely to their frequency.

    First the layer of each modality is chosen with one strength, then which modalities, whether
    scaled, and C.

    Args:
        store: the data.
        folds: what it is chosen on instead of the development set.
        refit: with folds, it is trained on train and dev; else on train alone.
        modalities: which it has to read; None: it may read any.
    """
    dataset = store.dataset
    rows = {split: dataset.rows(split) for split in ("train", "dev", "test")}
    every = [name for name in MODALITIES if name in dataset.frames]
    judges = Judges.of(dataset, folds)
    layers = _best_layers(store, judges)
    vectors = {name: mean_and_deviation(store, name, layers[name]) for name in every}
    together = selections(every)
    if modalities is not None:
        together = (tuple(name for name in every if name in modalities),)
    judged = [
        replace(one, modalities=names)
        for names in together
        for scaled in (True, False)
        for one in judges.path(
            torch.cat([vectors[name] for name in names], dim=1), STRENGTHS, scaled=scaled
        )
    ]
    # The first of equals is scaled, and the most strongly regularised.
    best = max(judged, key=lambda one: one.score)
    columns = torch.cat([vectors[name] for name in best.modalities], dim=1)
    whole = folds is not None and refit
    own = folds.rows if folds is not None and refit else rows["train"]
    path = _path(dataset, own, columns, scaled=best.scaled)
    for strength in STRENGTHS[: STRENGTHS.index(best.strength) + 1]:
        path.fit(strength)
    answers = {"dev" if folds is None else "folds": (judges.scored, best.predicted)}
    for split in ("test",) if whole or folds is None else ("dev", "test"):
        if len(rows[split]):
            answers[split] = (rows[split], path.predict(columns[rows[split]].numpy()))
    one_of_each = np.eye(len(dataset.labels))
    scores = {
        split: Gold.of(dataset, numbers).class_scores(one_of_each[said])
        for split, (numbers, said) in answers.items()
    }
    return Reference(
        {name: layers[name] for name in best.modalities},
        best.scaled,
        best.strength,
        path.converged,
        "train+dev" if whole else "train",
        {split: report for split, report in scores.items() if report is not None},
        {split: tuple(said.tolist()) for split, (_, said) in answers.items()},
        len(judged),
    )


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


def fit_logistic(
    x: Vectors, target: NDArray[np.int64], strength: float, *, scale: bool
) -> tuple[Pipeline, bool]:
    """A logistic regression with classes weighted inversely to their frequency.

    Args:
        x: `[n, D]`.
        target: `[n]` class indices.
        strength: C, the inverse of the L2 penalty's.
        scale: whether each column gets mean 0 and deviation 1 over these rows first.

    Returns:
        The model, and whether its solver came to its end.
    """
    model = LogisticRegression(C=strength, class_weight="balanced", max_iter=MAX_ITERATIONS)
    pipeline = make_pipeline(*([StandardScaler()] * scale), model)
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
