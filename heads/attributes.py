"""How well arousal, valence and dominance are predicted: CCC and MAE, with intervals.

The concordance correlation coefficient (Lin 1989) of predictions x and ratings y,

    CCC = 2 s_xy / (s_x² + s_y² + (x̄ − ȳ)²)

with moments over all rated rows (1/n), never averaged over batches or folds: sums are added first,
scores follow from them. So speakers are resampled as for classes (`heads.bootstrap`), one table of
sums each. A row that was not rated has no part in an attribute, and one in all others.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from corpora.base.codec import Jsonable
from corpora.base.errors import ConfigError, ManifestError
from corpora.base.report import Cell, Table
from corpora.manifest import Manifest
from heads.bootstrap import (
    CONFIDENCE,
    Floats,
    Interval,
    bootstrap,
    cluster_numbers,
    interval_notes,
    judge_clusters,
    known_speakers,
    t_interval,
    with_interval,
)

#: Sums that CCC and MAE follow from: of 1, x, y, x², y², xy and |x − y|, over the rated rows.
SUMS = 7


def sums_by_cluster(ratings: Floats, said: Floats, clusters: NDArray[np.int64]) -> Floats:
    """What adds up, `[S, ..., A, SUMS]`, over each of S clusters of utterances.

    Args:
        ratings: `[n, A]`, not a number where a row was not rated.
        said: `[..., n, A]`.
        clusters: `[n]`, from 0; each number up to the highest occurs.
    """
    rated = np.isfinite(ratings)
    x, y = (np.where(rated, one, 0.0).astype(np.float64) for one in (said, ratings))
    each = (rated, x, y, x * x, y * y, x * y, np.abs(x - y))
    columns = np.stack([np.broadcast_to(one, x.shape) for one in each], axis=-1, dtype=np.float64)
    order = np.argsort(clusters, kind="stable")
    starts = np.searchsorted(clusters[order], np.arange(int(clusters.max()) + 1))
    found = np.add.reduceat(np.take(columns, order, axis=-3), starts, axis=-3)
    return np.moveaxis(found, -3, 0)


def concordance(sums: Floats) -> Floats:
    """CCC `[...]` of sums `[..., SUMS]`; 0 where neither varies and both agree, NaN of no rows."""
    count, x, y, xx, yy, xy, _ = np.moveaxis(np.where(sums[..., :1] > 0, sums, np.nan), -1, 0)
    x, y = x / count, y / count
    together = xy / count - x * y
    apart = xx / count - x * x + yy / count - y * y + (x - y) ** 2
    # Differences of sums: a variance of rounding alone is none.
    flat = apart <= 1e-12 * (xx + yy) / count
    found: Floats = np.where(flat, 0 * count, 2 * together / np.where(flat, 1.0, apart))
    return found


def mean_absolute_error(sums: Floats) -> Floats:
    """MAE `[...]` of sums `[..., SUMS]`; NaN of no rows."""
    found: Floats = sums[..., -1] / np.where(sums[..., 0] > 0, sums[..., 0], np.nan)
    return found


def mean_concordance(sums: Floats) -> Floats:
    """Mean CCC `[...]` of the attributes that were rated, from sums `[..., A, SUMS]`."""
    each = concordance(sums)
    rated = np.isfinite(each)
    total = np.where(rated, each, 0.0).sum(axis=-1)
    count: Floats = rated.sum(axis=-1)
    found: Floats = np.divide(total, count, out=np.zeros_like(total), where=count > 0)
    return found


@dataclass(frozen=True)
class AttributeScore:
    """Scores of one attribute.

    Attributes:
        name: arousal, valence or dominance.
        scale: its lowest and highest value.
        n: rated utterances.
        ccc: over all of them; None where there is none.
        mae: mean absolute error, in the units of the scale; likewise.
        ccc_interval: None where a bootstrap says nothing.
        mae_interval: likewise.
    """

    name: str
    scale: tuple[float, float]
    n: int
    ccc: float | None
    mae: float | None
    ccc_interval: Interval | None = None
    mae_interval: Interval | None = None


@dataclass(frozen=True)
class AttributeScores(Jsonable):
    """Scores of one set of predictions of attributes.

    Attributes:
        mean_ccc: of the attributes that were rated.
        per_attribute: one entry each, in their order.
        speakers: number of known speakers.
        interval: of the mean; None where a bootstrap says nothing.
        interval_reason: why there is none, or what makes it too narrow; else "".
        confidence: coverage the intervals aim at.
    """

    mean_ccc: float
    per_attribute: tuple[AttributeScore, ...]
    speakers: int
    interval: Interval | None
    interval_reason: str
    confidence: float

    @property
    def interval_notes(self) -> tuple[str, ...]:
        """What the intervals are, or why there are none."""
        found = self.interval is not None
        return interval_notes(self.speakers, self.confidence, self.interval_reason, found=found)


def attribute_report(
    ratings: ArrayLike,
    said: ArrayLike,
    scales: Mapping[str, tuple[float, float]],
    speakers: Sequence[str] | None = None,
) -> AttributeScores:
    """Score predicted attributes, with intervals from a bootstrap over speakers.

    >>> scores = attribute_report([[1], [2], [3]], [[1], [2], [4]], {"arousal": (1, 7)})
    >>> round(scores.mean_ccc, 4), round(scores.per_attribute[0].mae, 4)
    (0.8571, 0.3333)

    Args:
        ratings: `[n, A]` in the units of the scales, not a number where a row was not rated.
        said: `[n, A]`, likewise.
        scales: the lowest and highest value of each attribute, in their order.
        speakers: as for `classification_report`.

    Raises:
        ConfigError: nothing to score, shapes that differ, or a prediction that is no number.
    """
    gold, given = np.asarray(ratings, np.float64), np.asarray(said, np.float64)
    known = known_speakers([""] * len(gold) if speakers is None else speakers)
    if gold.shape != given.shape or gold.shape != (len(known), len(scales)):
        raise ConfigError(
            f"Ratings {list(gold.shape)}, predictions {list(given.shape)}, {len(known)} speakers "
            f"and {len(scales)} attributes: expected as many of each."
        )
    if not np.isfinite(gold).any():
        raise ConfigError(f"There is nothing to score: no ratings of {', '.join(scales)}.")
    bad = np.flatnonzero(~np.isfinite(given).all(axis=1))
    if bad.size:
        raise ConfigError(f"The attributes of said[{bad[0]}] are not finite.")
    clusters = cluster_numbers(known)
    tables = sums_by_cluster(gold, given, clusters)
    whole = tables.sum(axis=0)
    reason, usable = judge_clusters(known)
    drawn = bootstrap(tables, _columns) if usable else None
    values = _columns(whole)

    def value(column: int) -> float | None:
        return float(values[column]) if math.isfinite(values[column]) else None

    def interval(column: int, lowest: float, highest: float) -> Interval | None:
        known, ends = value(column), (lowest, highest)
        if drawn is None or known is None:
            return None
        return t_interval(known, drawn[:, column], len(tables), bounds=ends)

    count = len(scales)
    return AttributeScores(
        mean_ccc=float(values[-1]),
        per_attribute=tuple(
            AttributeScore(
                name,
                scale,
                int(whole[at, 0]),
                value(at),
                value(count + at),
                interval(at, -1, 1),
                interval(count + at, 0, scale[1] - scale[0]),
            )
            for at, (name, scale) in enumerate(scales.items())
        ),
        speakers=len(set(known) - {""}),
        interval=interval(2 * count, -1, 1),
        interval_reason=reason,
        confidence=CONFIDENCE,
    )


def _columns(sums: Any) -> Floats:  # noqa: ANN401 - sums of a resample
    """Every score `[..., 2 A + 1]`: CCC and MAE of each attribute, the mean CCC."""
    parts = (concordance(sums), mean_absolute_error(sums), mean_concordance(sums)[..., None])
    return np.concatenate(parts, axis=-1)


def check_scales(manifest: Manifest, attributes: Mapping[str, tuple[float, float]]) -> None:
    """Refuse ratings on another scale than was learnt: they would be taken for those on the same.

    Raises:
        ManifestError: there are such.
    """
    other = [
        f"{name} from {manifest.scales[name][0]:g} to {manifest.scales[name][1]:g} instead of "
        f"{low:g} to {high:g}"
        for name, (low, high) in attributes.items()
        if manifest.scales.get(name, (low, high)) != (low, high)
    ]
    if other:
        raise ManifestError(
            f"{manifest.corpus or 'the manifest'} is rated on another scale than was learnt: "
            f"{', '.join(other)}. Convert its ratings, and the scales in its JSON file."
        )


def attributes_table(
    name: str, reports: Mapping[str, AttributeScores], notes: Sequence[str] = ()
) -> Table:
    """Reports below one another, by title: a row for each attribute, and one for their mean."""

    def cell(value: float | None, interval: Interval | None) -> str:
        return "-" if value is None else with_interval(value, interval)

    rows: list[tuple[Cell, ...]] = []
    for title, report in reports.items():
        for one in report.per_attribute:
            low, high = one.scale
            rows.append(
                (
                    title,
                    one.name,
                    cell(one.ccc, one.ccc_interval),
                    cell(one.mae, one.mae_interval),
                    f"{low:g} to {high:g}",
                    f"{one.n:,}",
                )
            )
        if len(report.per_attribute) > 1:
            rows.append((title, "mean", cell(report.mean_ccc, report.interval), "", "", ""))
    columns = (name, "attribute", "CCC", "MAE", "scale", "utterances")
    return Table("", columns, rows, right=(5,), notes=notes)
