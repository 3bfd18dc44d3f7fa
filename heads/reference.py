"""An outside reference for a head: logistic regression on mean and deviation vectors.

The same frames, rows and input normalisation as the head's; its one free choice, the strength of
the regularisation, is made on the development set, or on folds, as the head's were.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
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

from corpora.files import read_json, write_json
from heads.dataset import VectorStore
from heads.folds import Folds
from heads.head import MODALITIES, view_name
from heads.metrics import Report, classification_report
from heads.origin import Origin
from heads.results import report_from_json

FORMAT, VERSION = "emopool-reference", 2
# Inverse strengths of the L2 penalty that are tried.
STRENGTHS = (0.001, 0.01, 0.1, 1.0, 10.0)
# More does not move the scores; it bounds the time on unscaled vectors, which converge slowly.
MAX_ITERATIONS = 1000
# Values from which a fit gains from more threads than one.
_SHARED_FROM = 4_000_000

Vectors = NDArray[np.float32]


@dataclass(frozen=True)
class Reference:
    """Scores of the logistic regression.

    Attributes:
        modalities: whose vectors, one after the other.
        input_norm: as in `HeadConfig`; `standardise` scales each column by the training rows.
        strength: C, chosen by macro-F1 on the development set, or on folds.
        converged: whether the solver came to its end.
        dev: on the development set.
        test: on the test set, where there is one.
        folds: on the folds of train and dev, where C was chosen on them.
        predicted: classes by split (dev, test, folds), for comparisons.
    """

    modalities: tuple[str, ...]
    input_norm: str
    strength: float
    converged: bool
    dev: Report
    test: Report | None
    folds: Report | None = None
    predicted: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    @property
    def scores(self) -> dict[str, Report]:
        """Reports by split, those there are."""
        found = {"folds": self.folds, "dev": self.dev, "test": self.test}
        return {split: report for split, report in found.items() if report is not None}

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        reports = {
            split: report and report.to_json()
            for split, report in (("dev", self.dev), ("test", self.test), ("folds", self.folds))
        }
        predicted = {split: list(classes) for split, classes in self.predicted.items()}
        return {
            **asdict(self),
            "modalities": list(self.modalities),
            **reports,
            "predicted": predicted,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Reference:
        """The inverse of `to_json`; other entries are left alone."""
        return cls(
            modalities=tuple(value["modalities"]),
            input_norm=value["input_norm"],
            strength=value["strength"],
            converged=value["converged"],
            dev=report_from_json(value["dev"]),
            test=value["test"] and report_from_json(value["test"]),
            folds=value["folds"] and report_from_json(value["folds"]),
            predicted={split: tuple(classes) for split, classes in value["predicted"].items()},
        )


def write_reference(path: Path, reference: Reference, origin: Origin) -> None:
    """Write a reference as JSON, with the rows and streams it was fitted on."""
    fitted_on = {"manifest_sha256": origin.manifest_sha256, "streams": dict(origin.streams)}
    write_json(
        path, {"format": FORMAT, "version": VERSION, **reference.to_json(), "fitted_on": fitted_on}
    )


def read_reference(path: Path, origin: Origin | None = None) -> Reference | None:
    """Read a reference back; None where there is none, or one of other rows than `origin`'s."""
    if not path.is_file():
        return None
    value = read_json(path, kind=FORMAT, version=VERSION)
    if origin is not None:
        wanted = {"manifest_sha256": origin.manifest_sha256, "streams": dict(origin.streams)}
        if value.get("fitted_on") != wanted:
            return None
    return Reference.from_json(value)


def logistic_reference(
    store: VectorStore,
    modalities: Sequence[str],
    input_norm: str = "none",
    folds: Folds | None = None,
) -> Reference:
    """Fit on the training rows, with classes weighted inversely to their frequency.

    Args:
        store: the data.
        modalities: which of its modalities.
        input_norm: `none`, `layernorm` (of the frames), or `standardise`.
        folds: what C is chosen on instead of the development set.
    """
    dataset = store.dataset
    names = tuple(name for name in MODALITIES if name in modalities)
    rows = {split: dataset.rows(split) for split in ("train", "dev", "test")}
    columns = torch.cat(
        [
            store.vectors(modality, view_name(input_norm), name)
            for modality in names
            for name in ("mean", "deviation")
        ],
        dim=1,
    ).cpu()
    scale = input_norm == "standardise"

    def fit(numbers: Tensor, strength: float) -> tuple[Pipeline, bool]:
        targets = dataset.targets(numbers).numpy()
        return fit_logistic(columns[numbers].numpy(), targets, strength, scale=scale)

    def chosen_by(strength: float) -> tuple[Tensor, NDArray[np.int64]]:
        """The rows that a strength is judged by, and the classes they get."""
        if folds is None:
            model = fit(rows["train"], strength)[0]
            return rows["dev"], model.predict(columns[rows["dev"]].numpy())
        predicted = np.empty(len(folds.rows), dtype=np.int64)
        for fold in range(folds.count):
            out = folds.numbers == fold
            model = fit(folds.rows[~out], strength)[0]
            predicted[out.numpy()] = model.predict(columns[folds.rows[out]].numpy())
        return folds.rows, predicted

    def report(numbers: Tensor, predicted: NDArray[np.int64]) -> Report:
        gold, speakers = dataset.targets(numbers).numpy(), dataset.speakers(numbers)
        return classification_report(gold, predicted, dataset.labels, speakers)

    judged = [(strength, *chosen_by(strength)) for strength in STRENGTHS]
    # The first of equals is the most strongly regularised.
    strength, scored, said = max(judged, key=lambda entry: report(*entry[1:]).macro_f1)
    model, converged = fit(rows["train"], strength)
    answers = {
        split: model.predict(columns[rows[split]].numpy())
        for split in ("dev", "test")
        if len(rows[split])
    }
    reports = {split: report(rows[split], found) for split, found in answers.items()}
    if folds is not None:
        answers["folds"], reports["folds"] = said, report(scored, said)
    return Reference(
        names,
        input_norm,
        strength,
        converged,
        reports["dev"],
        reports.get("test"),
        reports.get("folds"),
        {split: tuple(found.tolist()) for split, found in answers.items()},
    )


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
    # Products of small matrices take longer on two threads than on one, many times longer where the
    # other core is busy.
    threads = 1 if x.size < _SHARED_FROM else None
    with warnings.catch_warnings(record=True) as caught, threadpool_limits(threads):
        warnings.simplefilter("always", ConvergenceWarning)
        pipeline.fit(x, target)
    converged = not any(issubclass(entry.category, ConvergenceWarning) for entry in caught)
    return pipeline, converged
