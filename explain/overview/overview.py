"""`report` as one call: a work folder as one page, in `WORK/report.html`.

It says first how good what the folder holds is, ahead of what, and what may be believed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

from corpora.base.codec import plain
from corpora.base.files import read_json, write_text
from corpora.base.page import Card, Line, fill_page
from corpora.base.report import Figure, Report, render
from corpora.base.terminal import count_text
from corpora.base.work import Work
from corpora.manifest import read_manifest
from corpora.utterance import split_name
from explain.finding import ends_text
from explain.overview.stages import DAMAGED, MISSING, Stage, read_stages, tested
from explain.overview.standing import HEAD, MODEL, REGRESSION, Standing, attempt, read_standing
from explain.report.answers import (
    NO,
    OPEN,
    YES,
    believed,
    score_card,
    strongest_findings,
    tested_lines,
)
from explain.report.write import FORMAT, PAGE, SUMMARY, VERSION
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
    stages = read_stages(standing, show_progress=show_progress)
    explained = attempt(lambda: _explained(work)) or []
    cards = [_quality(standing), *_leads(standing), *explained, _missing(stages)]
    cards = [card for card in cards if card.answer or card.lines]
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
        hints={one.title: f"{one.hint}{' (out of date)' * bool(one.late)}" for one in stages},
    )
    write_text(path, page)
    said = [
        Report(
            f"{one.question} {one.answer}{f' ({one.beside})' if one.beside else ''}".strip(),
            [line.text for line in one.lines],
        )
        for one in cards
    ]
    states = {one.title: {"state": one.state, "out_of_date": [*one.late]} for one in stages}
    data = {"page": str(path), "cards": plain(cards), "stages": states}
    return Report("", said, (path,), data=data)


def _pictures(stages: Sequence[Stage], *, drawn: bool) -> dict[str, bytes]:
    """Those that were kept, and the others as SVG."""
    kept = {name: path for stage in stages for name, path in stage.pictures.items()}
    found = {name: path.read_bytes() for name, path in kept.items() if path.is_file()}
    for figure in (one for stage in stages if drawn for one in _figures(stage.report)):
        if figure.name not in kept:
            found[figure.name] = render(figure, [".svg"])[".svg"]
    return found


def _figures(report: Report) -> Iterator[Figure]:
    yield from report.figures
    for part in report.parts:
        if isinstance(part, Report):
            yield from _figures(part)


def _where(split: str) -> str:
    return "in folds of train and dev" if split == "folds" else f"on {split_name(split)}"


def _quality(standing: Standing) -> Card:
    """The score of the fine-tuned model where it is known, else of the searched head."""
    question = "How good is it?"
    who = next((name for name in (MODEL, HEAD) if name in standing.known), "")
    if not who:
        none = [Line("No head was searched yet, or what was found cannot be read.")]
        return Card(question, "Not known yet", lines=none, tone=OPEN)
    own, beside = standing.known[who], standing.known.get(REGRESSION)
    more = [Line("These are the rows it was chosen by, which flatters it.")]
    more *= standing.split != "test"
    for one in own.attributes.per_attribute if own.attributes else ():
        ccc = "not rated" if one.ccc is None else f"CCC {one.ccc:.3f}"
        more.append(Line(f"{one.name}: {ccc}{ends_text(one.ccc_interval, 3)}."))
    if own.classes:
        where = f"The {who}, {_where(standing.split)}, is"
        return score_card(question, own.classes, where, beside.classes if beside else None, more)
    return Card(question, f"{own.value:.3f}", f"mean CCC of {who}", more)


def _leads(standing: Standing) -> list[Card]:
    """Whether head and model are ahead of the regression, and the model of the head."""
    name = "ridge regression" if standing.ridge else "logistic regression"
    name = "regressions" if standing.logistic and standing.ridge else name
    split = standing.split
    pairs = [(MODEL, REGRESSION, split), (HEAD, REGRESSION, split), (HEAD, REGRESSION, "folds")]
    return [
        *_lead(f"Is it ahead of the {name}?", standing, pairs),
        *_lead("Did fine-tuning gain?", standing, [(MODEL, HEAD, split)]),
    ]


def _lead(question: str, standing: Standing, pairs: Sequence[tuple[str, str, str]]) -> list[Card]:
    """A card on differences by names and split; the first that is known decides its answer."""
    lines, reasons = [], {}
    answer, tone = "", ""
    for one, other, split in dict.fromkeys(pairs):
        held = standing.rows.get(split, {})
        if one not in held or other not in held:
            continue
        found, reason = standing.ahead(one, other, split)
        own, beside = held[one].value, held[other].value
        by = str(found) if found else f"{own - beside:+.3f}"
        text = f"{one.capitalize()} {own:.3f}, {other} {beside:.3f} {_where(split)}: {by}."
        lines.append(Line(text, section="Fine-tuning" if one == MODEL else "Search"))
        if reason:
            reasons[reason] = Line(f"{reason[0].upper()}{reason[1:]}.")
        if not answer:
            low, high = found.interval if found else (0.0, 0.0)
            answer, tone = ("Yes", YES) if low > 0 else ("No", NO) if high < 0 else ("", OPEN)
            answer = answer or ("Not shown" if found else "Cannot be told")
    card = Card(question, answer, standing.objective, [*lines, *reasons.values()], tone=tone)
    return [card] if lines else []


def _explained(work: Work) -> list[Card]:
    """Whether attention may be believed, and what was found."""
    found = read_json(work.explain / SUMMARY, kind=FORMAT, version=VERSION)
    cards = []
    for name, own in tested(found).items():
        method = found["methods"][name]
        answer, tone = believed(own)
        lines = tested_lines(name, own, method, lead="")
        lines = [Line(line.text, section="Explanation") for line in lines]
        question = f"May the {method} on {name} be believed?"
        cards.append(Card(question, answer, f"of the {found['subject']}", lines, tone=tone))
    card = strongest_findings([Report(t, data=data) for t, data in found["sections"].items()])
    # Their tables are on the page of `explain`.
    return [*cards, replace(card, lines=[Line(line.text) for line in card.lines])]


def _missing(stages: Sequence[Stage]) -> Card:
    """Stages that were not run, cannot be read, or are out of date."""
    question = "What is missing?"
    missing = [Line(f"{one.title}: {one.command}") for one in stages if one.state == MISSING]
    lines = list(missing)
    for stage in stages:
        if stage.state == DAMAGED:
            lines.append(Line(f"{stage.title} cannot be read in part.", section=stage.title))
        if stage.late:
            text = f"{stage.title} is out of date: {stage.late[0]}."
            lines.append(Line(text, section=stage.title))
    if not lines:
        return Card(question, "Nothing", tone=YES)
    answer = count_text(len(missing), "stage") if missing else "Something to mend"
    return Card(question, answer, lines=lines, tone=OPEN)
