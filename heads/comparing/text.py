"""What a comparison found, for a terminal."""

from __future__ import annotations

import shlex

from corpora.text_table import aligned, wrapped
from heads.comparing.report import CompareReport
from heads.comparing.tables import cells, finetuned_cells, notes_of, right_columns


def terminal_text(report: CompareReport) -> str:
    """Its introduction, tables, how to read them, what was written, and what comes next."""
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
    return "\n".join([*parts, *_next(report)])


def _next(report: CompareReport) -> list[str]:
    work = shlex.quote(str(report.folder.parent))
    if report.name == "layers":
        return ["", f"Next: python cli.py compare --work {work}"]
    lines = []
    if "grid" not in {table.name for table in report.tables}:
        lines.append(
            f"Next: python cli.py compare --tables grid --work {work}"
            "   (every Q, H and depth n, un-mixed)"
        )
    if report.heads:
        key = report.tables[0].best_head
        lines.append(
            f"{'  or' if lines else 'Next'}: python cli.py compare --finetune "
            f"{shlex.quote(key)} --work {work}"
        )
    return ["", *lines] if lines else []
