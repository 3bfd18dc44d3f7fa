"""Ridge regression with folds of whole speakers: what vectors say of voices never heard.

Each fold is predicted by a regression on the others. Its penalty is chosen for each target by the
leave-one-out error on the training rows, which ridge has in closed form (Hastie et al. 2009, 7.52):
one decomposition serves all penalties and all targets.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from explain.ragged import Floats, Ints, floats

# Relative to the mean eigenvalue of the standardised features' covariance.
PENALTIES = 10.0 ** np.arange(-3, 5)
_CONSTANT = 1e-8
# Of the largest eigenvalue, in float32: half the time of float64, and penalties lie above it.
_RESOLUTION = 1e-6


def held_out_predictions(features: Floats, targets: Floats, folds: Ints) -> Floats:
    """`[n, k]`, each row predicted by a regression on the other folds' rows.

    Args:
        features: `[n, D]`.
        targets: `[n, k]`.
        folds: `[n]`, the fold of each row; at least two.
    """
    predictions = np.empty_like(targets)
    for fold in np.unique(folds):
        inside = folds != fold
        predictions[~inside] = ridge(features[inside], targets[inside], features[~inside])
    return predictions


def ridge(features: Floats, targets: Floats, others: Floats) -> Floats:
    """Predictions `[m, k]` for `others` `[m, D]` from a regression on `[n, D]` and `[n, k]`."""
    mean, deviation = features.mean(axis=0), features.std(axis=0)
    scale = np.where(deviation > _CONSTANT, deviation, 1.0)
    known = torch.from_numpy((features - mean) / scale).float()
    asked = torch.from_numpy((others - mean) / scale).float()
    centre = targets.mean(axis=0)
    around = torch.from_numpy(targets - centre).float()
    left, values, right = _decompose(known)
    along = left.t() @ around  # [r, k]
    squares = values.square()
    size = float(squares.mean()) if len(values) else 1.0
    own = left.square()
    best = torch.full((targets.shape[1],), float("inf"))
    chosen = torch.zeros_like(along)
    for penalty in PENALTIES * size:
        shrink = squares / (squares + penalty)
        # The mean was fitted too: it takes 1/n of every row's leverage.
        leverage = own @ shrink + 1 / len(known)
        residual = around - left @ (shrink[:, None] * along)
        error = (residual / (1 - leverage).clamp_min(1e-6)[:, None]).square().mean(dim=0)
        better = error < best
        best = torch.where(better, error, best)
        weights = (values / (squares + penalty))[:, None] * along
        chosen = torch.where(better, weights, chosen)
    predicted: Floats = floats(asked @ (right @ chosen)) + centre
    return predicted


def _decompose(features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """U `[n, r]`, s `[r]` and V `[D, r]` of `[n, D]`, by the smaller of its two products."""
    count, dim = features.shape
    wide = dim > count
    product = features @ features.t() if wide else features.t() @ features
    squares, vectors = torch.linalg.eigh(product)
    kept = squares > squares[-1].clamp_min(0) * _RESOLUTION
    values, vectors = squares[kept].sqrt(), vectors[:, kept]
    if wide:
        return vectors, values, features.t() @ vectors / values
    return features @ vectors / values, values, vectors


def explained(truth: Floats, predicted: Floats) -> Floats:
    """R² `[k]`: 1 - Σ(y - ŷ)² / Σ(y - ȳ)², over all rows at once; NaN for a constant target."""
    return explained_from(error_sums(truth, predicted, np.zeros(len(truth), dtype=np.int64))[0])


def error_sums(truth: Floats, predicted: Floats, clusters: Ints) -> Floats:
    """`[S, 4, k]`: Σ(y - ŷ)², Σy, Σy² and the number of rows of each cluster."""
    # Around the overall mean, so that the sums of squares do not cancel.
    around = truth - truth.mean(axis=0)
    rows = np.stack(
        [np.square(truth - predicted), around, np.square(around), np.ones_like(truth)], axis=1
    )
    sums = np.zeros((int(clusters.max()) + 1, *rows.shape[1:]))
    np.add.at(sums, clusters, rows)
    return sums


def explained_from(sums: Floats) -> Floats:
    """R² `[…, k]` from sums `[…, 4, k]` of clusters added up."""
    error, total, square, count = np.moveaxis(sums, -2, 0)
    spread = square - np.square(total) / np.maximum(count, 1)
    varies = spread > 1e-12
    return np.where(varies, 1 - error / np.where(varies, spread, 1.0), np.nan)


def relevant_dimensions(features: Floats, classes: Ints, count: int) -> Ints:
    """The `count` features whose means differ most between classes (F of a one-way analysis)."""
    mean = features.mean(axis=0)
    between = np.zeros(features.shape[1])
    within = np.zeros(features.shape[1])
    for label in np.unique(classes):
        own = features[classes == label]
        between += len(own) * np.square(own.mean(axis=0) - mean)
        within += np.square(own - own.mean(axis=0)).sum(axis=0)
    ratio = between / np.maximum(within, 1e-12)
    return np.argsort(-ratio, kind="stable")[:count]
