"""Writing a report: `report.html`, `figures/*.png` and `.svg`, `tables/*.csv`, `summary.json`."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from corpora.base.files import write_json, write_text
from corpora.base.report import Report, cell_text, csv_text, fill_template, write_figure
from corpora.base.terminal import progress_bar
from explain.item import Item
from explain.picture import file_name
from explain.report.rows import rows_json, safe_json

FORMAT, VERSION = "emopool-explanation", 1
PAGE, SUMMARY = "report.html", "summary.json"
FIGURES, TABLES = "figures", "tables"
# Longer tables are cut in the page, not in their CSV; those with more than the second are folded.
MOST_ROWS, OPEN_ROWS = 60, 15


@dataclass(frozen=True, eq=False)
class Contents:
    """What a report says.

    Attributes:
        title: of the page.
        intro: sentences under it.
        sections: in order.
        items: all utterances.
        embedded: numbers of those whose sound goes into the page.
        summary: JSON values for `summary.json`.
    """

    title: str
    intro: Sequence[str]
    sections: Sequence[Report]
    items: Sequence[Item]
    embedded: Sequence[int]
    summary: Mapping[str, Any]


def write_report(
    folder: Path, contents: Contents, *, figures: bool = True, title: str = ""
) -> list[Path]:
    """Write all of it; an earlier report in the folder is replaced.

    Args:
        folder: where to.
        contents: what it says.
        figures: whether to draw.
        title: of the progress bar; "" for none.

    Returns:
        What to name to the user: the page, and the folders of figures and tables.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    _clear(folder)
    drawn = [f for section in contents.sections for f in section.figures] if figures else []
    pictures: dict[str, bytes] = {}
    with progress_bar(title, len(drawn), "figure", show=bool(title)) as bar:
        for figure in drawn:
            pictures[figure.name] = write_figure(folder / FIGURES, figure)[f"{figure.name}.svg"]
            bar.update(1)
    for section in contents.sections:
        for table in section.tables:
            write_text(folder / TABLES / f"{table.name}.csv", csv_text(table.columns, table.rows))
    rows = rows_json(
        contents.items,
        folder,
        embedded=set(contents.embedded),
        pictures=_linked(contents.items, pictures),
    )
    page = page_html(contents, pictures, rows)
    write_json(folder / SUMMARY, {"format": FORMAT, "version": VERSION, **contents.summary})
    write_text(folder / PAGE, page)
    made = [folder / PAGE, folder / SUMMARY]
    return made + [folder / name for name in (FIGURES, TABLES) if any((folder / name).glob("*"))]


def page_html(contents: Contents, pictures: Mapping[str, bytes], rows: str) -> str:
    """The whole page: head, sections, utterances, style and script in one file.

    Args:
        contents: what it says.
        pictures: SVG files by figure name; a figure without one is left out.
        rows: from `rows_json`.
    """
    own = files("explain.report")
    return fill_template(
        "explain.report",
        "page.html",
        title=contents.title,
        intro=contents.intro,
        sections=contents.sections,
        pictures={name: base64.b64encode(svg).decode("ascii") for name, svg in pictures.items()},
        browsing=_browsing(len(contents.items), len(contents.embedded)),
        ranked=any(item.strengths for item in contents.items),
        labels=safe_json(list(contents.items[0].labels) if contents.items else []),
        rows_json=rows,
        style=own.joinpath("page.css").read_text(encoding="utf-8"),
        script=own.joinpath("page.js").read_text(encoding="utf-8"),
        cell_text=cell_text,
        most_rows=MOST_ROWS,
        open_rows=OPEN_ROWS,
    )


def _linked(items: Sequence[Item], pictures: Mapping[str, bytes]) -> dict[str, str]:
    """By utterance id, its picture's file seen from the page."""
    names = {item.utterance.id: f"utterance-{file_name(item.utterance.id)}" for item in items}
    return {key: f"{FIGURES}/{name}.svg" for key, name in names.items() if name in pictures}


def _browsing(utterances: int, embedded: int) -> list[str]:
    if embedded >= utterances:
        return ["Open an utterance to hear it and to see which frames count."]
    return [
        f"Open an utterance to hear it and to see which frames count. The sound of {embedded:,}"
        f" of {utterances:,} utterances is in this page; the others are links to the corpus's own "
        "files and play only while those are there."
    ]


def _clear(folder: Path) -> None:
    """Remove what an earlier report wrote there, and nothing else."""
    for name, suffixes in ((FIGURES, (".png", ".svg")), (TABLES, (".csv",))):
        for path in (folder / name).glob("*"):
            if path.suffix in suffixes:
                path.unlink()
