"""The picture of a comparison: every row's macro-F1 with its interval; of a sweep, its curve."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from corpora.base.files import atomic_path
from corpora.base.plots import DOTS_PER_INCH
from heads.comparing.lines import Line, Table
from heads.comparing.outcomes import Score
from heads.comparing.report import CompareReport

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH = 7.5
# Inches a row, and for title and axis of a panel.
ROW, MARGIN = 0.3, 1.1
CURVE = 3.6
DEV, TEST, BEST = "0.6", "tab:blue", "tab:red"


def draw(path: Path, report: CompareReport) -> None:
    """Draw one panel a table.

    Args:
        path: the PNG file.
        report: with at least one table.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    from corpora.base.plots import require_matplotlib

    require_matplotlib("compare with --no-plots")
    from matplotlib.figure import Figure

    sweep = report.name == "layers"
    heights = [CURVE if sweep else ROW * len(table.lines) + MARGIN for table in report.tables]
    # Not pyplot: it keeps figures in a global list, and may look for a screen.
    figure = Figure(figsize=(WIDTH, sum(heights)), layout="constrained")
    grid = figure.add_gridspec(len(heights), 1, height_ratios=heights)
    for number, table in enumerate(report.tables):
        axes = figure.add_subplot(grid[number])
        (_draw_curve if sweep else _draw_rows)(axes, report, table)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=DOTS_PER_INCH)


def _draw_rows(axes: Axes, report: CompareReport, table: Table) -> None:
    """Points in the table's order from the top; the bar is the interval, else the deviation."""
    scored = [split for split in ("dev", "test") if split in report.sizes]
    offset = 0.14 if len(scored) == 2 else 0.0
    bars = set()
    for split, shift, colour, marker in (("dev", -offset, DEV, "o"), ("test", offset, TEST, "s")):
        if split not in scored:
            continue
        for row, line in enumerate(table.lines):
            score = line.outcomes[split].scores["macro_f1"]
            low, high, kind = _reach(score)
            bars.add((split, kind))
            own = BEST if line.title == table.best and split == "test" else colour
            axes.hlines(row + shift, low, high, color=own, linewidth=1.4)
            axes.plot(score.mean, row + shift, marker, color=own, markersize=4.5)
        label = f"{_named(report, split)}, bar: {_kinds(bars, split)}"
        axes.plot([], [], marker, color=colour, markersize=4.5, label=label)
    axes.plot([], [], "s", color=BEST, markersize=4.5, label=f"{table.best}: best on dev")
    axes.set_yticks(range(len(table.lines)), [line.title for line in table.lines])
    axes.invert_yaxis()
    axes.grid(axis="x", color="0.9")
    axes.set_axisbelow(True)
    axes.set(xlabel="macro-F1, mean over seeds")
    axes.set_title(table.title, fontsize="medium")
    axes.legend(fontsize="x-small", loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)


def _draw_curve(axes: Axes, report: CompareReport, table: Table) -> None:
    """Macro-F1 over layers: the statistics head and the reference, on the last split scored."""
    split = "test" if "test" in report.sizes else "dev"
    for reference, colour, marker, name in (
        (False, TEST, "o", "statistics head"),
        (True, "tab:orange", "s", "logistic regression"),
    ):
        lines = [line for line in table.lines if line.is_reference == reference]
        layers = [_layer(line) for line in lines]
        scores = [line.outcomes[split].scores["macro_f1"] for line in lines]
        axes.plot(layers, [s.mean for s in scores], marker + "-", color=colour, label=name)
        reaches = [_reach(score) for score in scores]
        axes.vlines(
            layers, [r[0] for r in reaches], [r[1] for r in reaches], color=colour, alpha=0.5
        )
        kinds = {kind for _, _, kind in reaches} - {""}
        if kinds:
            axes.plot([], [], "-", color=colour, alpha=0.5, label=f"bar: {', '.join(kinds)}")
    axes.set_xticks(sorted({_layer(line) for line in table.lines}))
    axes.grid(axis="y", color="0.9")
    axes.set(xlabel="hidden state", ylabel=f"macro-F1, {_named(report, split)}")
    axes.set_title(table.title, fontsize="medium")
    axes.legend(fontsize="x-small")


def _reach(score: Score) -> tuple[float, float, str]:
    """The ends of a bar, and what it shows."""
    if score.interval is not None:
        return score.interval.low, score.interval.high, "95 % interval"
    if score.deviation is not None:
        return score.mean - score.deviation, score.mean + score.deviation, "± seeds"
    return score.mean, score.mean, ""


def _kinds(bars: set[tuple[str, str]], split: str) -> str:
    return ", ".join(sorted(kind for own, kind in bars if own == split and kind)) or "none"


def _named(report: CompareReport, split: str) -> str:
    if split == "dev":
        return "dev (tuning chosen by it)"
    return "folds" if report.folded else "test"


def _layer(line: Line) -> int:
    assert line.layer is not None  # a line of a sweep
    return line.layer
