"""The files of a comparison: Markdown, CSV, JSON and the picture."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from corpora.base.files import write_json, write_text
from corpora.base.report import Figure, Part, Report, legend_beside, write_figure
from corpora.base.work import command_line
from heads.compare.comparison import CompareReport
from heads.compare.lines import Line, RowTable
from heads.compare.outcomes import Score
from heads.compare.passes import FORMAT, VERSION
from heads.compare.tables import (
    csv_of,
    finetuned_table,
    notes_of,
    shown_table,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

#: The picture of each report.
PICTURES = {"compare": "poolings", "layers": "layers"}
WIDTH = 7.5
# Inches a row, and for title and axis of a panel.
ROW, MARGIN = 0.3, 1.1
CURVE = 3.6
DEV, TEST, BEST = "0.6", "tab:blue", "tab:red"


def terminal_text(report: CompareReport, manifest: Path | None = None) -> str:
    """For a terminal.

    Args:
        report: the comparison.
        manifest: named in place of the work folder's own; the next command gets it too.
    """
    found = readable(report)
    return replace(found, files=report.files, next=_next(report, manifest)).to_text()


def readable(report: CompareReport, pictures: Sequence[Figure] = ()) -> Report:
    """Introduction, tables, and how to read them."""
    parts: list[Part] = [
        *report.introduction,
        *(f"Note: {note}" for note in report.notes),
        *pictures,
    ]
    parts += [shown_table(report, table) for table in report.tables]
    parts += [finetuned_table(report.finetuned)] * bool(report.finetuned)
    parts.append(Report("How to read this", notes_of(report)))
    return Report("Layers" if report.name == "layers" else "Comparison", parts)


def _next(report: CompareReport, manifest: Path | None) -> list[str]:
    work = report.folder.parent
    if report.name == "layers":
        return [command_line("compare", work, manifest)]
    steps = []
    if "grid" not in {table.name for table in report.tables}:
        step = command_line("compare --tables grid", work, manifest)
        steps.append(f"{step}   (every Q, H and depth n, un-mixed)")
    if report.heads:
        key = shlex.quote(report.tables[0].best_head)
        steps.append(command_line(f"compare --finetune {key}", work, manifest))
    return steps


def write_report(report: CompareReport, *, plot: bool) -> CompareReport:
    """Write a report's files.

    Args:
        report: what was found.
        plot: whether to draw the picture.

    Returns:
        The report, with the files it names.
    """
    folder, name = report.folder, report.name
    pictures = [comparison_figure(report)] if plot else []
    names = [f"{name}.md", f"{name}.csv", f"{name}.json"]
    for figure in pictures:
        names += write_figure(folder, figure, [".png"])
    files = [folder / own for own in names]
    if report.heads:
        files.append(next(iter(report.heads.values())).parent.parent)
    files += [row.directory for row in report.finetuned]
    report = replace(report, files=tuple(files))
    write_text(folder / f"{name}.md", readable(report, pictures).to_markdown())
    write_text(folder / f"{name}.csv", csv_of(report))
    write_json(folder / f"{name}.json", {"format": FORMAT, "version": VERSION, **report.to_json()})
    return report


def clear_reports(folder: Path, name: str) -> None:
    """Remove a report's files."""
    for own in (f"{name}.md", f"{name}.csv", f"{name}.json", f"{PICTURES[name]}.png"):
        (folder / own).unlink(missing_ok=True)


def comparison_figure(report: CompareReport) -> Figure:
    """One panel a table, of which there is at least one."""
    sweep = report.name == "layers"
    heights = [CURVE if sweep else ROW * len(table.lines) + MARGIN for table in report.tables]

    def draw(canvas: Canvas) -> None:
        grid = canvas.add_gridspec(len(heights), 1, height_ratios=heights)
        for number, table in enumerate(report.tables):
            axes = canvas.add_subplot(grid[number])
            (_draw_curve if sweep else _draw_rows)(axes, report, table)

    size = (WIDTH, sum(heights))
    return Figure(PICTURES[report.name], draw, f"{report.objective_name} with intervals", size)


def _draw_rows(axes: Axes, report: CompareReport, table: RowTable) -> None:
    """Points in the table's order from the top; the bar is the interval, else the deviation."""
    scored = [split for split in ("dev", "test") if split in report.sizes]
    offset = 0.14 if len(scored) == 2 else 0.0
    bars = set()
    for split, shift, colour, marker in (("dev", -offset, DEV, "o"), ("test", offset, TEST, "s")):
        if split not in scored:
            continue
        for row, line in enumerate(table.lines):
            score = line.outcomes[split].scores[report.objective]
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
    axes.set(xlabel=f"{report.objective_name}, mean over seeds")
    axes.set_title(table.title, fontsize="medium")
    legend_beside(axes)


def _draw_curve(axes: Axes, report: CompareReport, table: RowTable) -> None:
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
    legend_beside(axes)


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
