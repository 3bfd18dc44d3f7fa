"""What a comparison found, for a terminal."""

from __future__ import annotations

import shlex
from pathlib import Path

from corpora.base.terminal import aligned, wrapped
from corpora.base.work import command_line
from heads.comparing.report import CompareReport
from heads.comparing.tables import cells, finetuned_cells, notes_of, right_columns


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
