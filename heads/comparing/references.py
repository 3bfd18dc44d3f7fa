"""The outside reference of a comparison: the logistic regression, on the same rows and parts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from heads.comparing.division import Division, as_splits
from heads.comparing.units import Kept
from heads.dataset import Dataset, VectorStore
from heads.reference import logistic_reference


@dataclass(frozen=True)
class Answered:
    """What the logistic regression said.

    Attributes:
        strengths: C of each part, chosen by macro-F1 on its development set.
        converged: whether the solver came to its end in every part.
        predicted: by split the classes, in the order of `Division.scored`.
    """

    strengths: tuple[float, ...]
    converged: bool
    predicted: Mapping[str, tuple[int, ...]]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        predicted = {split: list(classes) for split, classes in self.predicted.items()}
        return {
            "strengths": list(self.strengths),
            "converged": self.converged,
            "predicted": predicted,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Answered:
        """The inverse of `to_json`."""
        predicted = {split: tuple(classes) for split, classes in value["predicted"].items()}
        return cls(tuple(value["strengths"]), value["converged"], predicted)


def fit_reference(
    kept: Kept,
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
    found = [
        logistic_reference(
            VectorStore(as_splits(_with_moments(store, modalities), part)), modalities=modalities
        )
        for part in division.parts
    ]
    answered = Answered(
        tuple(reference.strength for reference in found),
        all(reference.converged for reference in found),
        {
            split: tuple(c for reference in found for c in reference.predicted[split])
            for split in division.splits
        },
    )
    kept.save_note(key, answered.to_json())
    return answered


def kept_reference(kept: Kept, key: str) -> Answered | None:
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
