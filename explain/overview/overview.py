"""`report` as one call: a work folder as one page, in `WORK/report.html`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from corpora.base.codec import plain
from corpora.base.files import write_text
from corpora.base.page import fill_page
from corpora.base.report import Figure, Report, render
from corpora.base.work import Work
from corpora.manifest import read_manifest
from explain.overview.cards import overview_cards
from explain.overview.stages import Place, Stage, read_stages
from explain.overview.standing import read_standing
from explain.report.write import PAGE
from finetune.evaluate.evaluation import caveats, encoders_text


def write_overview(work: Work, path: Path | None = None, *, show_progress: bool = False) -> Report:
    """Write the page from what the commands left; nothing is trained, no frame is read.

    Args:
        work: the work folder.
        path: the page; `WORK/report.html` by default.
        show_progress: whether to draw progress bars.

    Returns:
        What the page says first, and its data.

    Raises:
        MissingStepError: there is no manifest.
    """
    manifest = read_manifest(work.manifest)
    standing = read_standing(work, manifest)
    stages = read_stages(Place(work, manifest, standing, show_progress))
    cards = overview_cards(work, standing, stages)
    path = path or work.root / PAGE
    drawn = find_spec("matplotlib") is not None
    intro = [f"Work folder {work.root}."]
    encoders: dict[str, str] = {}
    if standing.record is not None:
        origin = standing.record.origin
        encoders = {name: origin.encoders[name] for name in standing.record.head.modalities}
        intro[0] += f" Encoders: {encoders_text(encoders, origin.layers)}."
    intro += caveats(
        encoders, synthetic=manifest.synthetic, shared_speakers=manifest.shared_speakers
    )
    intro += ["Without matplotlib (pip install 'emopool[plots]') nothing is drawn."] * (not drawn)
    places = (work.explain / PAGE, work.explain / "items" / PAGE, work.model / "README.md")
    page = fill_page(
        "explain.overview",
        "overview.html",
        title=f"Emotion in speech: {manifest.corpus or work.root.resolve().name}",
        pictures=_pictures(stages, drawn=drawn),
        stored=False,
        intro=intro,
        pages=[os.path.relpath(one, path.parent) for one in places if one.is_file()],
        cards=cards,
        sections=[stage.report for stage in stages],
        hints={stage.report.title: _hint(stage) for stage in stages},
    )
    write_text(path, page)
    said = [
        Report(
            f"{card.question} {card.answer} {card.beside}".strip(), [one.text for one in card.lines]
        )
        for card in cards
    ]
    data = {
        "page": str(path),
        "cards": plain(cards),
        "stages": {
            stage.report.title: {"state": stage.state, "out_of_date": [*stage.late]}
            for stage in stages
        },
    }
    return Report("", said, (path,), data=data)


def _hint(stage: Stage) -> str:
    return f"{stage.hint} (out of date)".strip() if stage.late else stage.hint


def _pictures(stages: Sequence[Stage], *, drawn: bool) -> dict[str, bytes]:
    """Those that were kept, and the others as SVG."""
    found = {name: picture for stage in stages for name, picture in stage.pictures.items()}
    for stage in stages if drawn else ():
        for figure in _figures(stage.report):
            if figure.name not in found:
                found[figure.name] = render(figure, [".svg"])[".svg"]
    return found


def _figures(report: Report) -> list[Figure]:
    inner = [part for part in report.parts if isinstance(part, Report)]
    return [*report.figures, *(figure for part in inner for figure in _figures(part))]
