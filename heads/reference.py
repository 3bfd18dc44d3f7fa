"""An outside reference for a head: logistic regression on mean and deviation vectors.

The same frames, rows and input normalisation as the head's; its one free choice, the strength of
the regularisation, is made on the development set, as the head's were.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from corpora.files import read_json, write_json
from heads.dataset import VectorStore
from heads.head import MODALITIES, view_name
from heads.metrics import Report, classification_report
from heads.results import report_from_json

FORMAT, VERSION = "emopool-reference", 1
# Inverse strengths of the L2 penalty that are tried.
STRENGTHS = (0.001, 0.01, 0.1, 1.0, 10.0)
# More does not move the scores; it bounds the time on unscaled vectors, which converge slowly.
MAX_ITERATIONS = 1000

Vectors = NDArray[np.float32]


@dataclass(frozen=True)
class Reference:
    """Scores of the logistic regression.

    Attributes:
        modalities: whose vectors, one after the other.
        input_norm: as in `HeadConfig`; `standardise` scales each column by the training rows.
        strength: C, chosen by macro-F1 on the development set.
        converged: whether the solver came to its end.
        dev: on the development set; C was selected on it.
        test: on the test set, where there is one.
    """

    modalities: tuple[str, ...]
    input_norm: str
    strength: float
    converged: bool
    dev: Report
    test: Report | None

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        reports = {"dev": self.dev.to_json(), "test": self.test and self.test.to_json()}
        return {**asdict(self), "modalities": list(self.modalities), **reports}

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
        )


def write_reference(path: Path, reference: Reference) -> None:
    """Write a reference as JSON."""
    write_json(path, {"format": FORMAT, "version": VERSION, **reference.to_json()})


def read_reference(path: Path) -> Reference | None:
    """Read a reference back; None where there is no such file."""
    if not path.is_file():
        return None
    return Reference.from_json(read_json(path, kind=FORMAT, version=VERSION))


def logistic_reference(
    store: VectorStore, modalities: Sequence[str], input_norm: str = "none"
) -> Reference:
    """Fit on the training rows, with classes weighted inversely to their frequency.

    Args:
        store: the data.
        modalities: which of its modalities.
        input_norm: `none`, `layernorm` (of the frames), or `standardise`.
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
    )
    vectors: Mapping[str, Vectors] = {
        split: columns[numbers].numpy() for split, numbers in rows.items()
    }
    if input_norm == "standardise":
        scaler = StandardScaler().fit(vectors["train"])
        vectors = {split: scaler.transform(x) for split, x in vectors.items() if len(x)}
    target = dataset.targets(rows["train"]).numpy()

    def score(model: LogisticRegression, split: str) -> Report:
        numbers = rows[split]
        return classification_report(
            dataset.targets(numbers).numpy(),
            model.predict(vectors[split]),
            dataset.labels,
            dataset.speakers(numbers),
        )

    fitted = []
    for strength in STRENGTHS:
        model, converged = _fit(vectors["train"], target, strength)
        fitted.append((score(model, "dev"), strength, model, converged))
    # The first of equals is the most strongly regularised.
    dev, strength, model, converged = max(fitted, key=lambda entry: entry[0].macro_f1)
    test = score(model, "test") if len(rows["test"]) else None
    return Reference(names, input_norm, strength, converged, dev, test)


def _fit(x: Vectors, target: NDArray[np.int64], strength: float) -> tuple[LogisticRegression, bool]:
    model = LogisticRegression(C=strength, class_weight="balanced", max_iter=MAX_ITERATIONS)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ConvergenceWarning)
        model.fit(x, target)
    converged = not any(issubclass(entry.category, ConvergenceWarning) for entry in caught)
    return model, converged
