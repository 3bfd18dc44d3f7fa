"""The files of a comparison: Markdown, CSV, JSON and the picture."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path

from corpora.base.files import write_json, write_text
from corpora.base.terminal import aligned, wrapped
from corpora.base.work import command_line
from heads.compare.comparison import CompareReport
from heads.compare.passes import FORMAT, VERSION
from heads.compare.tables import cells, csv_text, finetuned_cells, markdown, notes_of, right_columns


def terminal_text(report: CompareReport, manifest: Path | None = None) -> str:
    """Its introduction, tables, how to read them, what was written, and what comes next.

    Args:
        report: the comparison.
        manifest: named in place of the work folder's own; the next command gets it too.
    """
    paragraphs = [*report.introduction, *(f"Note: {note}" for note in report.notes)]
    parts = [line for paragraph in paragraphs for line in wrapped(paragraph)]
    for table in report.tables:
        rows = cells(report, table)
        parts += ["", f"{table.title}:", *aligned(rows, right=right_columns(rows))]
    parts += ["", *(line for note in notes_of(report) for line in wrapped(note))]
    if report.finetuned:
        parts += ["", "Fine-tuned with their encoders:", *aligned(finetuned_cells(report))]
        parts += [f"Note: {note}" for row in report.finetuned for note in row.notes]
    parts += ["", "Wrote:", *(f"  {path}" for path in report.files)]
    return "\n".join([*parts, *_next(report, manifest)])


def _next(report: CompareReport, manifest: Path | None) -> list[str]:
    work = report.folder.parent
    if report.name == "layers":
        return ["", f"Next: {command_line('compare', work, manifest)}"]
    lines = []
    if "grid" not in {table.name for table in report.tables}:
        lines.append(
            f"Next: {command_line('compare --tables grid', work, manifest)}"
            "   (every Q, H and depth n, un-mixed)"
        )
    if report.heads:
        key = report.tables[0].best_head
        step = command_line(f"compare --finetune {shlex.quote(key)}", work, manifest)
        lines.append(f"{'  or' if lines else 'Next'}: {step}")
    return ["", *lines] if lines else []


#: The picture of each report.
PICTURES = {"compare": "poolings.png", "layers": "layers.png"}


def write_report(report: CompareReport, *, plot: bool) -> CompareReport:
    """Write a report's files.

    Args:
        report: what was found.
        plot: whether to draw the picture.

    Returns:
        The report, with the files it names.
    """
    folder, name = report.folder, report.name
    picture = PICTURES[name] if plot else ""
    if plot:
        from heads.compare.tables import draw

        draw(folder / picture, report)
    names = [f"{name}.md", f"{name}.csv", f"{name}.json", *([picture] if plot else [])]
    files = [folder / own for own in names]
    if report.heads:
        files.append(next(iter(report.heads.values())).parent.parent)
    files += [row.directory for row in report.finetuned]
    report = replace(report, files=tuple(files))
    write_text(folder / f"{name}.md", markdown(report, picture))
    write_text(folder / f"{name}.csv", csv_text(report))
    write_json(folder / f"{name}.json", {"format": FORMAT, "version": VERSION, **report.to_json()})
    return report


def clear_reports(folder: Path, name: str) -> None:
    """Remove a report's files."""
    for own in (f"{name}.md", f"{name}.csv", f"{name}.json", PICTURES[name]):
        (folder / own).unlink(missing_ok=True)
