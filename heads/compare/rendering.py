"""The files of a comparison: Markdown, CSV, JSON and the picture."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from corpora.base.files import write_json, write_text
from corpora.base.report import Figure, Part, Report, write_figure
from corpora.base.work import command_line
from heads.compare.comparison import CompareReport
from heads.compare.passes import FORMAT, VERSION
from heads.compare.tables import (
    PICTURES,
    comparison_figure,
    csv_of,
    finetuned_table,
    notes_of,
    shown_table,
)


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
