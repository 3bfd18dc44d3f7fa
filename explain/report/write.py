"""Writing a report: `report.html`, `figures/*.png` and `.svg`, `tables/*.csv`, `summary.json`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from corpora.base.files import write_json, write_text
from corpora.base.page import Card, fill_page
from corpora.base.report import Report, csv_text, write_figure
from corpora.base.terminal import progress_bar
from explain.finding import findings_of
from explain.item import Item
from explain.picture import file_name
from explain.report.rows import rows

FORMAT, VERSION = "emopool-explanation", 1
PAGE, SUMMARY = "report.html", "summary.json"
FIGURES, TABLES = "figures", "tables"
# In this order: wavesurfer.js (BSD-3, its licence beside it) draws, plays and zooms a waveform.
FILES = ("player.css", "wavesurfer.min.js", "clip.js", "player.js")


@dataclass(frozen=True, eq=False)
class Contents:
    """What a report says.

    Attributes:
        title: of the page.
        intro: sentences; the first stands under the title, the others below the player.
        cards: what a reader asks first.
        sections: in order.
        items: all utterances.
        embedded: numbers of those whose sound goes into the page.
        caution: what has to be said wherever attention is shown; "" for nothing.
        summary: JSON values for `summary.json`.
    """

    title: str
    intro: Sequence[str]
    cards: Sequence[Card]
    sections: Sequence[Report]
    items: Sequence[Item]
    embedded: Sequence[int]
    summary: Mapping[str, Any]
    caution: str = ""


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
    made = rows(
        contents.items,
        folder,
        embedded=set(contents.embedded),
        pictures=_linked(contents.items, pictures),
    )
    page = page_html(contents, pictures, made)
    write_json(folder / SUMMARY, {"format": FORMAT, "version": VERSION, **contents.summary})
    write_text(folder / PAGE, page)
    written = [folder / PAGE, folder / SUMMARY]
    return written + [folder / name for name in (FIGURES, TABLES) if any((folder / name).glob("*"))]


def page_html(
    contents: Contents, pictures: Mapping[str, bytes], made: Sequence[Mapping[str, Any]]
) -> str:
    """The whole page: answers, player and sections, style and scripts in one file.

    Args:
        contents: what it says.
        pictures: SVG files by figure name; a figure without one is left out.
        made: from `rows`.
    """
    labels = list(contents.items[0].labels) if contents.items else []
    return fill_page(
        "explain.report",
        "report.html",
        title=contents.title,
        pictures=pictures,
        files_of=FILES,
        data={"player-data": {"rows": made, "labels": labels, "caution": contents.caution}},
        intro=contents.intro,
        cards=contents.cards,
        sections=contents.sections,
        hints={title: one.text for title, one in findings_of(contents.sections).items()},
        browsing=_browsing(len(contents.items), len(contents.embedded)),
    )


def _linked(items: Sequence[Item], pictures: Mapping[str, bytes]) -> dict[str, str]:
    """By utterance id, its picture's file seen from the page."""
    names = {item.utterance.id: f"utterance-{file_name(item.utterance.id)}" for item in items}
    return {key: f"{FIGURES}/{name}.svg" for key, name in names.items() if name in pictures}


def _browsing(utterances: int, embedded: int) -> str:
    if embedded >= utterances:
        return ""
    return (
        f"The sound of {embedded:,} of {utterances:,} utterances is in this page; the others are "
        "links to the corpus's own files and play only while those are there."
    )


def _clear(folder: Path) -> None:
    """Remove what an earlier report wrote there, and nothing else."""
    for name, suffixes in ((FIGURES, (".png", ".svg")), (TABLES, (".csv",))):
        for path in (folder / name).glob("*"):
            if path.suffix in suffixes:
                path.unlink()
