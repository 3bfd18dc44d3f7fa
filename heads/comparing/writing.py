"""The files of a comparison: Markdown, CSV, JSON and the picture."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from corpora.base.files import write_json, write_text
from heads.comparing.report import CompareReport
from heads.comparing.tables import csv_text, markdown
from heads.comparing.units import FORMAT, VERSION

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
        from heads.comparing.plot import draw

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
