"""The report on a set of predictions: scores, intervals, and both as text.

What a score means, over which classes it is averaged, and how an interval is found stands in
`heads.bootstrap`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from corpora.base.codec import Jsonable
from corpora.base.errors import ConfigError
from corpora.base.report import Cell, Part, Table
from heads.bootstrap import (
    CONFIDENCE,
    DRAWS,
    Interval,
    bootstrap,
    cluster_numbers,
    interval_notes,
    judge_clusters,
    known_speakers,
    t_interval,
    with_interval,
)
from heads.confusion import (
    accuracy,
    class_scores,
    confusion_by_cluster,
    confusion_matrix,
    macro_f1,
    uar,
    weighted_f1,
)

# The scores that tables have, by their name in the report; and all that get an interval there.
HEADLINE = {"macro_f1": macro_f1, "uar": uar, "accuracy": accuracy}
SCORES = {**HEADLINE, "weighted_f1": weighted_f1}


@dataclass(frozen=True)
class ClassScore:
    """Scores of one class; `support` is its number of gold utterances."""

    label: str
    precision: float
    recall: float
    f1: float
    support: int


@dataclass(frozen=True)
class Scores(Jsonable):
    """Scores of one set of predictions.

    Attributes:
        n: utterances scored.
        macro_f1: mean F1 over the classes that occur in gold.
        uar: mean recall over the same classes (UA).
        accuracy: share that is right (WA).
        per_class: one entry a label, in label order.
        confusion: `[C][C]` counts, gold by row, predicted by column.
        speakers: number of known speakers.
        intervals: by name, of `SCORES` as far as they were computed when the report was made;
            None where a bootstrap says nothing.
        interval_reason: why there are none, or what makes them too narrow; else "".
        confidence: coverage the intervals aim at.
    """

    json_entries = "* labels absent weighted_f1"

    n: int
    macro_f1: float
    uar: float
    accuracy: float
    per_class: tuple[ClassScore, ...]
    confusion: tuple[tuple[int, ...], ...]
    speakers: int
    intervals: Mapping[str, Interval] | None
    interval_reason: str
    confidence: float

    @property
    def labels(self) -> tuple[str, ...]:
        """The label order: class index = position."""
        return tuple(score.label for score in self.per_class)

    @property
    def interval_notes(self) -> tuple[str, ...]:
        """What the intervals are, or why there are none."""
        found = bool(self.intervals)
        return interval_notes(self.speakers, self.confidence, self.interval_reason, found=found)

    @property
    def weighted_f1(self) -> float:
        """Mean F1 of the classes, each weighted by its gold utterances."""
        return float(weighted_f1(np.array(self.confusion)))

    @property
    def absent(self) -> tuple[str, ...]:
        """Labels without a gold utterance: not part of the macro-averages."""
        return tuple(score.label for score in self.per_class if score.support == 0)


def classification_report(
    gold: ArrayLike,
    predicted: ArrayLike,
    labels: Sequence[str],
    speakers: Sequence[str] | None = None,
    *,
    seed: int = 0,
    draws: int = DRAWS,
    confidence: float = CONFIDENCE,
) -> Scores:
    """Score predictions against gold labels, with intervals from a bootstrap over speakers.

    >>> scores = classification_report([0, 0, 1], [0, 1, 1], ("anger", "joy"))
    >>> round(scores.macro_f1, 4), scores.uar, round(scores.accuracy, 4)
    (0.6667, 0.75, 0.6667)

    In a resample, too, the macro-averages run over the classes that occur in it.

    Args:
        gold: `[N]` class indices or label names.
        predicted: `[N]` class indices or label names, or scores `[N, C]` (probabilities or
            logits), of which the largest counts and, among equals, the first in label order.
        labels: the label order.
        speakers: `[N]`; "" and "Unknown" are unknown. An unknown speaker is never one speaker: each
            such utterance is resampled by itself. None: all unknown.
        seed: of the bootstrap.
        draws: resamples.
        confidence: coverage of the intervals.

    Raises:
        ConfigError: nothing to score, lengths that differ, an unknown label, an index outside the
            labels, scores that are not finite, or labels that repeat.
    """
    names = tuple(labels)
    if not names or len(set(names)) != len(names):
        raise ConfigError(f"Expected distinct labels and at least one, got {list(names)}.")
    gold_index = _indices(gold, names, "gold")
    given = np.asarray(predicted)
    index = _largest(given, names) if given.ndim == 2 else _indices(given, names, "predicted")
    if len(gold_index) == 0:
        raise ConfigError("There is nothing to score: no gold labels. Is the split empty?")
    known = known_speakers([""] * len(gold_index) if speakers is None else speakers)
    if not len(index) == len(known) == len(gold_index):
        raise ConfigError(
            f"{len(gold_index)} gold labels, {len(index)} predictions and {len(known)} speakers: "
            "expected as many of each."
        )
    confusion = confusion_matrix(gold_index, index, len(names))
    reason, usable = judge_clusters(known)
    intervals = None
    if usable:
        tables = confusion_by_cluster(gold_index, index, cluster_numbers(known), len(names))
        values = bootstrap(
            tables,
            lambda tables: np.stack([score(tables) for score in SCORES.values()], axis=-1),
            draws=draws,
            seed=seed,
        )
        intervals = {
            name: t_interval(
                float(score(confusion)), values[:, column], len(tables), confidence, bounds=(0, 1)
            )
            for column, (name, score) in enumerate(SCORES.items())
        }
    columns = (*class_scores(confusion), confusion.sum(axis=1))
    return Scores(
        n=len(gold_index),
        **{name: float(score(confusion)) for name, score in HEADLINE.items()},
        per_class=tuple(
            ClassScore(name, float(precision), float(recall), float(f1), int(support))
            for name, precision, recall, f1, support in zip(names, *columns, strict=True)
        ),
        confusion=tuple(tuple(int(cell) for cell in row) for row in confusion),
        speakers=len(set(known) - {""}),
        intervals=intervals,
        interval_reason=reason,
        confidence=confidence,
    )


def scores_parts(scores: Scores) -> list[Part]:
    """Scores to read: headlines, a table of classes, the confusion matrix."""
    headlines = []
    for title, name in (
        ("macro-F1", "macro_f1"),
        ("UA (mean recall)", "uar"),
        ("WA (accuracy)", "accuracy"),
        ("weighted F1", "weighted_f1"),
    ):
        low_high = (scores.intervals or {}).get(name)
        interval = "  [{:.3f}, {:.3f}]".format(*low_high) if low_high else ""
        headlines.append(f"{title:<18} {getattr(scores, name):.3f}{interval}")
    classes: list[tuple[Cell, ...]] = [
        (one.label, *(one.precision, one.recall, one.f1), one.support)
        if one.support
        else (one.label, *(None,) * 3, 0)
        for one in scores.per_class
    ]
    measures = ("label", "precision", "recall", "F1", "utterances")
    absent = f"Not in the gold labels, so not averaged: {', '.join(scores.absent)}."
    heads = ("", *scores.labels)
    counts: list[tuple[Cell, ...]] = [
        (label, *row) for label, row in zip(scores.labels, scores.confusion, strict=True)
    ]
    title = "Confusion (rows: gold, columns: predicted)"
    return [
        *headlines,
        *scores.interval_notes,
        Table("", measures, classes, right=range(1, 5), notes=[absent] * bool(scores.absent)),
        # Cut so that eight classes fit on 80 columns; the rows carry the full names.
        Table("", heads, counts, title, right=range(1, len(heads)), letters=7),
    ]


def score_cells(report: Scores) -> tuple[str, ...]:
    """Macro-F1, UA and WA, with their intervals where there are, and the number of utterances."""
    cells = []
    for name in HEADLINE:
        interval = None if report.intervals is None else report.intervals[name]
        cells.append(with_interval(getattr(report, name), interval))
    return (*cells, f"{report.n:,}")


def scores_table(
    name: str,
    reports: Mapping[str, Scores],
    *,
    right: Sequence[int] = (),
    notes: Sequence[str] = (),
) -> Table:
    """Reports beside one another, by title: macro-F1, UA and WA, and the number of utterances.

    Args:
        name: what the titles are.
        reports: in order.
        right: columns whose cells end under one another.
        notes: sentences under it.
    """
    columns = (name, "macro-F1", "UA", "WA", "utterances")
    rows = [(title, *score_cells(report)) for title, report in reports.items()]
    return Table("", columns, rows, right=right, notes=notes)


def _indices(values: ArrayLike, labels: tuple[str, ...], what: str) -> NDArray[np.int64]:
    """Class indices `[N]` from indices or label names."""
    array = np.asarray(values)
    if array.ndim != 1:
        raise ConfigError(f"{what} must be one class an utterance, got {list(array.shape)}.")
    if array.dtype.kind in "UO":
        position = {label: index for index, label in enumerate(labels)}
        for row, name in enumerate(array):
            if name not in position:
                raise ConfigError(
                    f"Unknown label '{name}' at {what}[{row}], expected one of {list(labels)}."
                )
        return np.array([position[name] for name in array], dtype=np.int64)
    if array.size and array.dtype.kind not in "iu":
        raise ConfigError(f"{what} must be class indices or label names, got {array.dtype}.")
    outside = np.flatnonzero((array < 0) | (array >= len(labels)))
    if outside.size:
        raise ConfigError(
            f"Class index {array[outside[0]]} at {what}[{outside[0]}]; the {len(labels)} labels "
            f"have the indices 0 to {len(labels) - 1}."
        )
    return array.astype(np.int64)


def _largest(scores: NDArray[Any], labels: tuple[str, ...]) -> NDArray[np.int64]:
    """The class of the largest score in each row `[N, C]`; the first one among equals."""
    if scores.shape[1] != len(labels):
        raise ConfigError(
            f"predicted has {scores.shape[1]} scores an utterance; there are {len(labels)} labels."
        )
    if scores.dtype.kind not in "fiu":
        raise ConfigError(f"predicted [N, C] must be numbers, got {scores.dtype}.")
    bad = np.flatnonzero(~np.isfinite(scores).all(axis=1))
    if bad.size:
        raise ConfigError(f"The scores of predicted[{bad[0]}] are not finite.")
    return np.asarray(scores.argmax(axis=1), dtype=np.int64)
