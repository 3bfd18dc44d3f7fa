"""Scores that follow from a confusion matrix, for any number of matrices at once.

Nothing is averaged over batches or folds: counts are added first, scores follow from the sum.

Macro-averages (macro-F1, UA) run over the classes that occur in the gold labels, as
`sklearn.metrics.f1_score(..., labels=present, average="macro", zero_division=0)` does. A class
without a gold utterance has no recall to measure; predictions of it still cost, as misses of the
classes the utterances do have. A class that occurs but is never predicted has F1 = 0.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Counts = NDArray[np.int64] | NDArray[np.float64]
Floats = NDArray[np.float64]


def confusion_matrix(gold: ArrayLike, predicted: ArrayLike, classes: int) -> NDArray[np.int64]:
    """Count utterances by gold and predicted class.

    Args:
        gold: `[N]` class indices.
        predicted: `[..., N]` class indices; leading dimensions are systems, such as trials.
        classes: number of classes C; every index is below it.

    Returns:
        `[..., C, C]`: gold class by row, predicted class by column.
    """
    cells = np.asarray(gold) * classes + np.asarray(predicted)
    systems = cells.reshape(-1, cells.shape[-1])
    counted = [np.bincount(row, minlength=classes * classes) for row in systems]
    return np.stack(counted).reshape(*cells.shape[:-1], classes, classes)


def class_scores(confusion: Counts) -> tuple[Floats, Floats, Floats]:
    """Precision, recall and F1 of each class (0/0 is 0), each `[..., C]` from `[..., C, C]`."""
    hits = np.diagonal(confusion, axis1=-2, axis2=-1).astype(np.float64)
    support, predicted = confusion.sum(axis=-1), confusion.sum(axis=-2)
    return (
        _ratio(hits, predicted),
        _ratio(hits, support),
        _ratio(2 * hits, support + predicted),
    )


def macro_f1(confusion: Counts) -> Floats:
    """Mean F1 of the classes that occur, `[...]` from `[..., C, C]`."""
    return _mean_over_present(class_scores(confusion)[2], confusion)


def weighted_f1(confusion: Counts) -> Floats:
    """Mean F1 of the classes, each weighted by its gold utterances, `[...]` from `[..., C, C]`."""
    support = confusion.sum(axis=-1)
    return _ratio((class_scores(confusion)[2] * support).sum(axis=-1), support.sum(axis=-1))


def uar(confusion: Counts) -> Floats:
    """Mean recall of the classes that occur (the field's UA), `[...]` from `[..., C, C]`."""
    return _mean_over_present(class_scores(confusion)[1], confusion)


def accuracy(confusion: Counts) -> Floats:
    """Share of utterances that are right (the field's WA), `[...]` from `[..., C, C]`."""
    hits = np.trace(confusion, axis1=-2, axis2=-1).astype(np.float64)
    return _ratio(hits, confusion.sum(axis=(-2, -1)))


def auc(upper: Floats, lower: Floats) -> Floats:
    """The probability that one of `upper` is at a higher level than one of `lower`; ties count ½.

    Args:
        upper: `[..., L]`, how many there are at each level, the lowest level first.
        lower: likewise.

    Returns:
        `[...]`; nan where there is none of one of them.
    """
    below = np.cumsum(lower, axis=-1) - lower / 2
    won, pairs = (upper * below).sum(axis=-1), upper.sum(axis=-1) * lower.sum(axis=-1)
    return np.asarray(np.divide(won, pairs, out=np.full_like(won, np.nan), where=pairs > 0))


def _ratio(top: Floats, bottom: Counts) -> Floats:
    return np.divide(top, bottom, out=np.zeros_like(top), where=bottom > 0)


def _mean_over_present(scores: Floats, confusion: Counts) -> Floats:
    present = confusion.sum(axis=-1) > 0
    return _ratio((scores * present).sum(axis=-1), present.sum(axis=-1))


def confusion_by_cluster(
    gold: NDArray[np.int64],
    predicted: NDArray[np.int64],
    clusters: NDArray[np.int64],
    classes: int,
    count: int | None = None,
) -> NDArray[np.int64]:
    """One confusion matrix a cluster, `[S, C, C]`; of many systems `[..., N]`: `[S, ..., C, C]`.

    S is `count`; by default the clusters that there are.
    """
    count = int(clusters.max()) + 1 if count is None else count
    cells = (clusters * classes + gold) * classes + predicted
    systems = cells.reshape(-1, cells.shape[-1])
    size = count * classes * classes
    counted = np.stack([np.bincount(row, minlength=size) for row in systems], axis=1)
    shape = (count, classes, classes, *predicted.shape[:-1])
    return np.moveaxis(counted.reshape(shape), (1, 2), (-2, -1))
