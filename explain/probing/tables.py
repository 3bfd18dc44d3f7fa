"""Probes in the report: a table, the dimensions that matter, and the layer sweep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from corpora.base.report import Cell, Figure, Table
from explain.probing.probe import Probe
from explain.probing.vectors import MEAN
from explain.ragged import Floats
from explain.style import BLUE, GREEN, GREY, ORANGE, PURPLE, RED

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

COLOURS = (BLUE, ORANGE, GREEN, RED, PURPLE)
MARKS = "os^Dv"
EMOTION = "emotion (UA)"
# More lines than colours and marks tell apart are not drawn.
MOST_LINES = len(COLOURS)


@dataclass(frozen=True, eq=False)
class ProbeRow:
    """A probe and the vectors it read."""

    layer: int | None
    pooling: str
    probe: Probe

    @property
    def name(self) -> str:
        """Such as `layer 24, mean`."""
        return self.pooling if self.layer is None else f"layer {self.layer}, {self.pooling}"


def probe_table(rows: Sequence[ProbeRow], cues: Sequence[str], classes: int) -> Table:
    """R² of each cue with its control; the emotion last, with what chance gives."""
    cells: list[list[Cell]] = []
    for row in rows:
        for number, cue in enumerate(cues):
            interval = row.probe.intervals[number]
            low, high = (None, None) if interval is None else interval
            r2, control = _number(row.probe.r2[number]), _number(row.probe.control[number])
            cells.append([row.layer, row.pooling, cue, r2, low, high, control])
        cells.append([row.layer, row.pooling, EMOTION, row.probe.recall, None, None, 1 / classes])
    columns = ("layer", "pooling", "target", "R²", "low", "high", "control")
    title = "What a linear probe reads from utterance vectors, on unheard speakers"
    return Table("probing", columns, cells, title)


def dimension_table(
    every: Probe, parts: Mapping[str, Floats], cues: Sequence[str], layer: int | None
) -> Table:
    """R² from all dimensions, the tenth that tells emotions apart, and as many random ones."""
    cells: list[list[Cell]] = [
        [cue, _number(every.r2[number]), *(_number(part[number]) for part in parts.values())]
        for number, cue in enumerate(cues)
    ]
    where = "" if layer is None else f" of layer {layer}"
    return Table(
        "probing-dimensions",
        ("cue", "all dimensions", *(f"{name} tenth" for name in parts)),
        cells,
        f"R² from all dimensions of the mean{where}, and from a tenth of them",
    )


def probe_figure(rows: Sequence[ProbeRow], cues: Sequence[str], classes: int) -> Figure:
    """The sweep over layers; with one layer, its poolings side by side."""
    layers = sorted({row.layer for row in rows if row.layer is not None})

    def draw(canvas: Canvas) -> None:
        axes = canvas.add_subplot()
        if len(layers) > 1:
            _draw_sweep(axes, [row for row in rows if row.pooling == MEAN], cues)
        else:
            _draw_poolings(axes, rows, cues)
        axes.axhline(0, color=GREY, lw=0.6)
        axes.axhline(1 / classes, color="black", lw=0.6, ls=":")
        axes.set_ylabel(f"R²; black: UA of the emotion (dotted: chance, {1 / classes:.2f})")
        drawn = np.concatenate(
            [values for row in rows for values in (row.probe.r2, row.probe.control)]
        )
        lowest = min(0.0, float(np.nanmin(drawn)))
        axes.set_ylim(max(lowest, -0.5) - 0.05, 1.2)  # room for the legend
        axes.legend(fontsize="small", ncols=3, loc="upper left")

    title = "Cues and emotion in each layer" if len(layers) > 1 else "Cues and emotion by pooling"
    return Figure("probing", draw, title, (8.0, 4.2))


def _draw_sweep(axes: Axes, rows: Sequence[ProbeRow], cues: Sequence[str]) -> None:
    layers = [row.layer or 0 for row in rows]
    for number, cue in enumerate(cues[:MOST_LINES]):
        colour, mark = COLOURS[number], MARKS[number]
        r2 = [row.probe.r2[number] for row in rows]
        axes.plot(layers, r2, color=colour, marker=mark, label=cue)
        control = [row.probe.control[number] for row in rows]
        axes.plot(layers, control, color=colour, marker=mark, ms=3, lw=0.7, ls="--")
    axes.plot(layers, [row.probe.recall for row in rows], color="black", lw=2, label="emotion (UA)")
    axes.set_xticks(layers)
    axes.set(xlabel="layer (mean over the utterance); dashed: shuffled control")


def _draw_poolings(axes: Axes, rows: Sequence[ProbeRow], cues: Sequence[str]) -> None:
    place = np.arange(len(rows))
    shown = list(cues[:MOST_LINES])
    width = 0.8 / (len(shown) + 1)
    for number, cue in enumerate(shown):
        at = place + (number - len(shown) / 2) * width
        r2 = [row.probe.r2[number] for row in rows]
        axes.bar(at, r2, width, color=COLOURS[number], label=cue)
        control = [row.probe.control[number] for row in rows]
        axes.hlines(control, at - width / 2, at + width / 2, color="black", lw=1.2)
    recall = [row.probe.recall for row in rows]
    axes.bar(place + len(shown) / 2 * width, recall, width, color="black", label="emotion (UA)")
    axes.set_xticks(place, [row.name for row in rows])
    axes.set(xlabel="utterance vector; line in a bar: shuffled control")


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
