"""Cues in the report: tables and heat maps, emotion by cue, for right and wrong predictions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from corpora.base.report import Cell, Figure, Table
from explain.cues.analysis import OUTCOMES, CueAnalysis
from explain.ragged import Floats

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

SIGNIFICANT = 0.05
# With more cues than this, the maps of right and wrong predictions lie one above the other.
SIDE_BY_SIDE = 8
ARROWS = {1: "↑", -1: "↓"}
WORDS = {1: "up", -1: "down"}


def effect_table(found: CueAnalysis) -> Table:
    """Question (a)."""
    rows: list[list[Cell]] = []
    for (label, outcome, cue), effect in found.effects.items():
        mean = effect.mean
        known = bool(mean.count)
        rows.append(
            [
                label, outcome, cue, mean.count, effect.without,
                mean.value if known else None, mean.low, mean.high,
                _number(effect.p), _number(effect.corrected),
            ]
        )  # fmt: skip
    columns = (
        "predicted", "prediction", "cue", "utterances", "with too few frames",
        "effect (deviations)", "low", "high", "p (exchange)", "p (Holm)",
    )  # fmt: skip
    title = "Within an utterance: cues at attended frames less those at its other speech frames"
    return Table("cues-within", columns, rows, title, digits=4)


def level_table(found: CueAnalysis) -> Table:
    """Question (b)."""
    rows: list[list[Cell]] = []
    for (label, outcome, cue), level in found.levels.items():
        mean, agrees = level.mean, level.agrees
        share = level.agreeing if level.agreeing is not None and level.agreeing.count else None
        rows.append(
            [
                label, outcome, cue, mean.count, mean.value if mean.count else None,
                mean.low, mean.high,
                None if level.expected is None else WORDS[level.expected.sign],
                None if agrees is None else ("yes" if agrees else "no"),
                None if share is None else share.value + 0.5,
                None if share is None or share.low is None else share.low + 0.5,
                None if share is None or share.high is None else share.high + 0.5,
                None if level.expected is None else "; ".join(level.expected.sources),
            ]
        )  # fmt: skip
    columns = (
        "predicted", "prediction", "cue", "utterances", "difference (deviations)", "low", "high",
        "expected", "agrees", "share of utterances that agree", "low ", "high ", "source",
    )  # fmt: skip
    title = "Cues at attended frames, against the same speaker's neutral utterances"
    return Table("cues-levels", columns, rows, title)


def score_table(found: CueAnalysis) -> Table:
    """The published scores."""
    rows: list[list[Cell]] = [
        [
            label, outcome, cue, scores.coverage.count,
            scores.similarity.value if scores.similarity.count else None,
            scores.similarity.low, scores.similarity.high,
            scores.coverage.value, scores.coverage.value - scores.above_chance.value,
            scores.above_chance.low, scores.above_chance.high,
        ]
        for (label, outcome, cue), scores in found.scores.items()
    ]  # fmt: skip
    columns = (
        "predicted", "prediction", "cue", "utterances", "similarity", "low", "high",
        "coverage", "coverage by chance", "above chance: low", "above chance: high",
    )  # fmt: skip
    title = "Five most attended windows of 150 ms against the five most extreme ones"
    return Table("cues-windows", columns, rows, title)


def effect_figure(found: CueAnalysis) -> Figure:
    """Heat maps of question (a)."""

    def cell(label: str, outcome: str, cue: str) -> tuple[float, str]:
        effect = found.effects[label, outcome, cue]
        star = "*" if effect.corrected < SIGNIFICANT else ""
        return effect.mean.value, star

    note = f"attended less other frames, in deviations; * p < {SIGNIFICANT:g} after Holm"
    title = "Cues at attended against other frames of the same utterance"
    return _figure("cues-within", title, note, found, found.labels, cell)


def level_figure(found: CueAnalysis) -> Figure:
    """Heat maps of question (b)."""
    labels = tuple(dict.fromkeys(label for label, _, _ in found.levels))

    def cell(label: str, outcome: str, cue: str) -> tuple[float, str]:
        level = found.levels[label, outcome, cue]
        arrow = "" if level.expected is None else f" {ARROWS[level.expected.sign]}"
        return level.mean.value, arrow

    note = "above the speaker's neutral speech, in deviations; arrow: the expected direction"
    title = "Cues at attended frames against neutral speech"
    return _figure("cues-levels", title, note, found, labels, cell)


def _figure(
    name: str,
    title: str,
    note: str,
    found: CueAnalysis,
    labels: Sequence[str],
    cell: Callable[[str, str, str], tuple[float, str]],
) -> Figure:
    """One heat map an outcome, with the same colours."""
    many = len(found.cues) > SIDE_BY_SIDE

    def draw(canvas: Canvas) -> None:
        every = {
            outcome: [[cell(label, outcome, cue.name) for cue in found.cues] for label in labels]
            for outcome in OUTCOMES
        }
        sizes = [abs(v) for rows in every.values() for row in rows for v, _ in row if v == v]
        limit = max([0.1, *sizes])
        shape = (len(OUTCOMES), 1) if many else (1, len(OUTCOMES))
        panels = canvas.subplots(*shape)
        for axes, (outcome, rows) in zip(panels, every.items(), strict=True):
            counts = [found.counts[label, outcome] for label in labels]
            names = [f"{label} ({count})" for label, count in zip(labels, counts, strict=True)]
            _heat(axes, rows, names, [cue.title for cue in found.cues], limit)
            axes.set_title(f"{outcome} predictions (utterances)")
        canvas.supxlabel(note, fontsize="medium")

    width = 1.1 + max(2.6, 0.62 * len(found.cues))
    height = 1.9 + 0.42 * len(labels)
    return Figure(name, draw, title, (width, 2 * height) if many else (2 * width, height))


def _heat(
    axes: Axes,
    rows: Sequence[Sequence[tuple[float, str]]],
    labels: Sequence[str],
    cues: Sequence[str],
    limit: float,
) -> None:
    values: Floats = np.array([[value for value, _ in row] for row in rows])
    axes.set_facecolor("0.9")
    axes.imshow(np.ma.masked_invalid(values), cmap="RdBu_r", vmin=-limit, vmax=limit, aspect="auto")
    axes.set_xticks(range(len(cues)), cues, rotation=35, ha="right")
    axes.set_yticks(range(len(labels)), labels)
    axes.tick_params(length=0)
    for row, cells in enumerate(rows):
        for column, (value, mark) in enumerate(cells):
            known = not np.isnan(value)
            text = f"{value:+.2f}{mark}" if known else "–"
            dark = known and abs(value) > 0.65 * limit
            colour = "white" if dark else "black"
            axes.text(column, row, text, ha="center", va="center", color=colour, fontsize="small")


def _number(value: float) -> float | None:
    return None if np.isnan(value) else value
