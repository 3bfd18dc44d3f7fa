"""One probe: how well cues, and the emotion, can be read from one kind of utterance vector.

Ridge regression with folds of whole speakers: what vectors say of voices never heard.

Each fold is predicted by a regression on the others. Its penalty is chosen for each target by the
leave-one-out error on the training rows, which ridge has in closed form (Hastie et al. 2009, 7.52):
one decomposition serves all penalties and all targets.

Utterance vectors to probe: mean and deviation of every cached layer, and what a head attends to.

Layers that only moments were kept of are probed like all others.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from cache.frames import Frames
from cache.lookup import FrameCache
from cache.mapped import MappedFrames
from cache.moments import frame_moments, moments_of_keys
from cache.recipe import LayersRead
from corpora.base.errors import MissingStepError
from corpora.utterance import Utterance
from explain.ragged import Floats, Ints, floats
from explain.subject import Subject, frame_attention
from heads.bootstrap import (
    Interval,
    bootstrap,
    cluster_numbers,
    judge_clusters,
    known_speakers,
    t_interval,
)
from heads.confusion import confusion_matrix, uar
from heads.head import Inputs

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


MEAN, DEVIATION, ATTENDED = "mean", "deviation", "attended mean"


@dataclass(frozen=True, eq=False)
class Vectors:
    """One vector an utterance.

    Attributes:
        layer: the hidden state; None where it is not known.
        pooling: `mean`, `deviation` or `attended mean`.
        values: `[n, D]`.
    """

    layer: int | None
    pooling: str
    values: Floats


def cached_vectors(cache: FrameCache, utterances: Sequence[Utterance]) -> Iterator[Vectors]:
    """Mean and deviation of every cached layer of the audio encoder, the lowest layer first.

    Raises:
        MissingStepError: nothing was extracted, or an utterance is not in the cache.
    """
    source = cache.extraction.source("audio")
    found = cache.keys(utterances)
    keys = [found[u.id].get("audio", "") for u in utterances]
    for layer in sorted({*source.layers, *source.moments}):
        mean, deviation = moments_of_keys(cache.features, source, layer, keys)
        yield Vectors(layer, MEAN, floats(mean))
        yield Vectors(layer, DEVIATION, floats(deviation))


def has_cached_vectors(cache: FrameCache, utterances: Sequence[Utterance]) -> bool:
    """Whether `cached_vectors` has something to give."""
    try:
        next(cached_vectors(cache, utterances))
    except MissingStepError:
        return False
    return True


def subject_vectors(
    subject: Subject, layers: Mapping[str, LayersRead], *, moments: bool = True
) -> list[Vectors]:
    """Attention-weighted mean of the frames the head reads, and their mean and deviation.

    Of a head that weighs layers these are of the weighted sum, which is no one layer's.

    Args:
        subject: with audio frames.
        layers: the hidden state of each modality, or those weighed.
        moments: whether mean and deviation are wanted too.
    """
    frames = _read_frames(subject)
    weights = frame_attention(subject, "audio").float()
    bounds = frames.offsets.tolist()
    # One utterance after the other: its frames stay in the processor's cache.
    attended = [
        weights[start:end] @ frames.utterance(row).float()
        for row, (start, end) in enumerate(pairwise(bounds))
    ]
    read = layers.get("audio")
    layer = read if isinstance(read, int) else None
    found = [Vectors(layer, ATTENDED, floats(torch.stack(attended)))]
    if moments:
        parts = [frame_moments(frames.select([row])) for row in range(len(frames))]
        both = torch.cat(parts)
        found += [
            Vectors(layer, MEAN, floats(both[:, 0])),
            Vectors(layer, DEVIATION, floats(both[:, 1])),
        ]
    return found


def _read_frames(subject: Subject) -> Frames | MappedFrames:
    """The audio frames as the pooling reads them: those of one layer, or the sum of several."""
    frames, head = subject.frames["audio"], subject.head
    pooling = head.pooling("audio")
    if pooling.layer_shares is None:
        return frames
    summed = []
    with torch.no_grad():
        for row in range(len(frames)):  # all layers of one utterance at a time, in float32
            view = Inputs.from_frames(frames.select([row])).view(*head.config.view("audio"))
            summed.append(pooling.read(view, head.affine("audio")).values)
    return Frames.from_list(summed)


RELEVANT_SHARE, FEWEST_DIMENSIONS = 0.1, 4
DRAWS = 1000


@dataclass(frozen=True, eq=False)
class Targets:
    """What is probed for, of n utterances.

    Attributes:
        cues: names of the columns.
        values: `[n, K]`, utterance means of cues.
        shuffled: `[n, K]`, the same, dealt out anew among the utterances of a speaker.
        classes: `[n]`, emotions.
        folds: `[n]`, of whole speakers.
        speakers: `[n]`, "" where unknown.
    """

    cues: tuple[str, ...]
    values: Floats
    shuffled: Floats
    classes: Ints
    folds: Ints
    speakers: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Probe:
    """What came out.

    Attributes:
        r2: `[K]`, of each cue, on speakers the regression never heard.
        intervals: 95 % over speakers for each cue; None where there are too few.
        control: `[K]`, the same for shuffled cues: what the speaker's voice alone gives.
        recall: unweighted average recall (UA) of the emotion.
    """

    r2: Floats
    intervals: tuple[Interval | None, ...]
    control: Floats
    recall: float


def probe(features: Floats, targets: Targets, *, seed: int = 0) -> Probe:
    """Probe one kind of vector `[n, D]` for cues, shuffled cues and the emotion."""
    count = len(targets.cues)
    labels = int(targets.classes.max()) + 1
    everything = np.concatenate(
        [targets.values, targets.shuffled, np.eye(labels)[targets.classes]], axis=1
    )
    predicted = held_out_predictions(features, everything, targets.folds)
    guessed = predicted[:, 2 * count :].argmax(axis=1)
    return Probe(
        explained(targets.values, predicted[:, :count]),
        _intervals(targets, predicted[:, :count], seed),
        explained(targets.shuffled, predicted[:, count : 2 * count]),
        float(uar(confusion_matrix(targets.classes, guessed, labels))),
    )


def probe_dimensions(features: Floats, targets: Targets, *, seed: int = 0) -> dict[str, Floats]:
    """R² `[K]` from the tenth of the dimensions that tell emotions apart, and from random ones.

    The dimensions are chosen anew in each fold, on its training rows.
    """
    count = min(
        features.shape[1],
        max(FEWEST_DIMENSIONS, round(RELEVANT_SHARE * features.shape[1])),
    )
    random = np.random.default_rng(seed)
    predicted = {name: np.empty_like(targets.values) for name in ("emotion-relevant", "random")}
    for fold in np.unique(targets.folds):
        inside = targets.folds != fold
        chosen = {
            "emotion-relevant": relevant_dimensions(
                features[inside], targets.classes[inside], count
            ),
            "random": random.permutation(features.shape[1])[:count],
        }
        for name, columns in chosen.items():
            known, asked = features[inside][:, columns], features[~inside][:, columns]
            predicted[name][~inside] = ridge(known, targets.values[inside], asked)
    return {name: explained(targets.values, values) for name, values in predicted.items()}


def shuffled_within(values: Floats, speakers: Sequence[str], seed: int) -> Floats:
    """Rows dealt out anew among the utterances of each speaker (strangers among one another)."""
    random = np.random.default_rng(seed)
    names = np.array(known_speakers(speakers))
    result = values.copy()
    for name in np.unique(names):
        own = np.flatnonzero(names == name)
        result[own] = values[random.permutation(own)]
    return result


def _intervals(targets: Targets, predicted: Floats, seed: int) -> tuple[Interval | None, ...]:
    known = known_speakers(targets.speakers)
    if not judge_clusters(known)[1]:
        return (None,) * len(targets.cues)
    sums = error_sums(targets.values, predicted, cluster_numbers(known))
    drawn = bootstrap(sums, explained_from, draws=DRAWS, seed=seed)
    values = explained_from(sums.sum(axis=0)[None])[0]
    return tuple(
        None
        if np.isnan(column).any()
        else t_interval(float(value), column, len(sums), bounds=(-math.inf, 1))
        for value, column in zip(values, drawn.T, strict=True)
    )
