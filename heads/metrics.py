"""The report on a set of predictions: scores, intervals, and both as text.

What a score means, and over which classes it is averaged, stands in
`heads.bootstrap`; how an interval is found in `heads.bootstrap`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from corpora.base.errors import ConfigError
from heads.bootstrap import (
    Interval,
    accuracy,
    bootstrap,
    class_scores,
    cluster_numbers,
    confusion_by_cluster,
    confusion_matrix,
    judge_clusters,
    known_speakers,
    macro_f1,
    t_interval,
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
class Report:
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
    def weighted_f1(self) -> float:
        """Mean F1 of the classes, each weighted by its gold utterances."""
        return float(weighted_f1(np.array(self.confusion)))

    @property
    def absent(self) -> tuple[str, ...]:
        """Labels without a gold utterance: not part of the macro-averages."""
        return tuple(score.label for score in self.per_class if score.support == 0)

    def to_json(self) -> dict[str, Any]:
        """The report as plain JSON values; an interval is `[low, high]`."""
        intervals = self.intervals
        return {
            **asdict(self),
            "per_class": [asdict(score) for score in self.per_class],
            "confusion": [list(row) for row in self.confusion],
            "intervals": intervals and {name: list(pair) for name, pair in intervals.items()},
            "labels": list(self.labels),
            "absent": list(self.absent),
            "weighted_f1": self.weighted_f1,
        }


def classification_report(
    gold: ArrayLike,
    predicted: ArrayLike,
    labels: Sequence[str],
    speakers: Sequence[str] | None = None,
    *,
    seed: int = 0,
    draws: int = 2000,
    confidence: float = 0.95,
) -> Report:
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
    return Report(
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


def format_report(report: Report) -> str:
    """The report as plain text for a terminal: headline, per-class table, confusion matrix."""
    width = max(5, *(len(label) for label in report.labels))
    lines = [
        _headline(report, "macro-F1", "macro_f1"),
        _headline(report, "UA (mean recall)", "uar"),
        _headline(report, "WA (accuracy)", "accuracy"),
        _headline(report, "weighted F1", "weighted_f1"),
    ]
    if report.intervals is not None:
        over = f"{report.speakers} speakers" if report.speakers else "utterances"
        lines.append(f"[{100 * report.confidence:g} % interval, bootstrap over {over}]")
    if report.interval_reason:
        lines.append(f"{'Note' if report.intervals else 'No interval'}: {report.interval_reason}.")
    lines += ["", f"{'label':<{width}}  precision  recall     F1  utterances"]
    for score in report.per_class:
        row = f"{score.precision:9.3f}  {score.recall:6.3f}  {score.f1:5.3f}"
        if score.support == 0:
            row = f"{'-':>9}  {'-':>6}  {'-':>5}"
        lines.append(f"{score.label:<{width}}  {row}  {score.support:10,}")
    if report.absent:
        lines.append(f"Not in the gold labels, so not averaged: {', '.join(report.absent)}.")
    # Column heads are cut so that eight classes fit on 80 columns; the rows carry the full names.
    heads = [label if len(label) <= 7 else label[:6] + "…" for label in report.labels]
    lines += ["", "Confusion (rows: gold, columns: predicted)"]
    lines.append(" " * width + "".join(f"{head:>8}" for head in heads))
    for label, counts in zip(report.labels, report.confusion, strict=True):
        lines.append(f"{label:<{width}}" + "".join(f"{count:>8}" for count in counts))
    return "\n".join(lines)


def score_cells(report: Report) -> tuple[str, ...]:
    """Macro-F1, UA and WA, with their intervals where there are, and the number of utterances."""
    cells = []
    for name in HEADLINE:
        cell = f"{getattr(report, name):.3f}"
        if report.intervals is not None:
            low, high = report.intervals[name]
            cell += f" [{low:.3f}, {high:.3f}]"
        cells.append(cell)
    return (*cells, f"{report.n:,}")


def _headline(report: Report, title: str, name: str) -> str:
    line = f"{title:<18} {getattr(report, name):.3f}"
    interval = (report.intervals or {}).get(name)
    if interval is None:
        return line
    low, high = interval
    return f"{line}  [{low:.3f}, {high:.3f}]"


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
