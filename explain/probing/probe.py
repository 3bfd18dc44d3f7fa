"""One probe: how well cues, and the emotion, can be read from one kind of utterance vector."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from explain.probing.ridge import (
    error_sums,
    explained,
    explained_from,
    held_out_predictions,
    relevant_dimensions,
    ridge,
)
from explain.ragged import Floats, Ints
from heads.statistics.bootstrap import Interval, bootstrap, t_interval
from heads.statistics.clusters import cluster_numbers, judge_clusters, known_speakers
from heads.statistics.confusion import confusion_matrix, uar

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
