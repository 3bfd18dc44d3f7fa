"""What the page of a work folder says first: how good, ahead of what, what may be believed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from corpora.base.files import read_json
from corpora.base.page import Card, Line
from corpora.base.report import Report
from corpora.base.terminal import count_text
from corpora.base.work import Work
from corpora.utterance import split_name
from explain.finding import ends_text
from explain.overview.stages import DAMAGED, MISSING, Stage, tested
from explain.overview.standing import HEAD, MODEL, REGRESSION, Standing, attempt
from explain.report.answers import NO, OPEN, YES, believed, score_card, strongest_findings
from explain.report.write import FORMAT, SUMMARY, VERSION


def overview_cards(work: Work, standing: Standing, stages: Sequence[Stage]) -> list[Card]:
    """The cards, those first that a reader asks for first.

    Args:
        work: the work folder.
        standing: how good what it holds is.
        stages: in their order.
    """
    cards = [_quality(standing), *_leads(standing)]
    cards += attempt(lambda: _explained(work)) or []
    cards.append(_missing(stages))
    return [card for card in cards if card.answer or card.lines]


def _explained(work: Work) -> list[Card]:
    """Whether attention may be believed, and what was found."""
    found = read_json(work.explain / SUMMARY, kind=FORMAT, version=VERSION)
    cards = []
    for name, own in tested(found).items():
        question = f"May the {found['methods'][name]} on {name} be believed?"
        answer, tone = believed(own)
        lines = [Line(own["verdict"], section="Explanation")]
        cards.append(Card(question, answer, f"of the {found['subject']}", lines, tone=tone))
    sections = [Report(title, data=data) for title, data in found["sections"].items()]
    card = strongest_findings(sections)
    # Their tables are on the page of `explain`.
    return [*cards, replace(card, lines=[Line(line.text) for line in card.lines])]


def _where(split: str) -> str:
    return "in folds of train and dev" if split == "folds" else f"on {split_name(split)}"


def _quality(standing: Standing) -> Card:
    """The score of the fine-tuned model where it is known, else of the searched head."""
    question = "How good is it?"
    who = next((name for name in (MODEL, HEAD) if name in standing.known), "")
    if not who:
        none = [Line("No head was searched yet, or what was found cannot be read.")]
        return Card(question, "Not known yet", lines=none, tone=OPEN)
    own = standing.known[who]
    where = f"The {who}, {_where(standing.split)},"
    more = [Line("These are the rows it was chosen by, which flatters it.")]
    more *= standing.split != "test"
    if own.attributes:
        for one in own.attributes.per_attribute:
            ccc = "not rated" if one.ccc is None else f"CCC {one.ccc:.3f}"
            more.append(Line(f"{one.name}: {ccc}{ends_text(one.ccc_interval, 3)}."))
    if own.classes:
        beside = standing.known.get(REGRESSION)
        reference = beside.classes if beside else None
        return score_card(question, own.classes, f"{where} is", reference, more)
    return Card(question, f"{own.value:.3f}", f"mean CCC of {who}", more)


def _leads(standing: Standing) -> list[Card]:
    """Whether head and model are ahead of the regression, and the model of the head."""
    both = standing.logistic and standing.ridge
    name = (
        "regressions" if both else "ridge regression" if standing.ridge else "logistic regression"
    )
    split, ahead = standing.split, f"Is it ahead of the {name}?"
    pairs = [(MODEL, REGRESSION, split), (HEAD, REGRESSION, split), (HEAD, REGRESSION, "folds")]
    cards = [
        _lead(ahead, standing, pairs),
        _lead("Did fine-tuning gain?", standing, [(MODEL, HEAD, split)]),
    ]
    return [card for card in cards if card is not None]


def _lead(question: str, standing: Standing, pairs: Sequence[tuple[str, str, str]]) -> Card | None:
    """A card on differences by names and split; the first that is known decides its answer."""
    lines, reasons = [], []
    answer, tone = "", ""
    for one, other, split in dict.fromkeys(pairs):
        held = standing.rows.get(split, {})
        if one not in held or other not in held:
            continue
        found, reason = standing.ahead(one, other, split)
        own, beside = held[one].value, held[other].value
        by = str(found) if found else f"{own - beside:+.3f}"
        section = "Fine-tuning" if one == MODEL else "Search"
        text = f"{one.capitalize()} {own:.3f}, {other} {beside:.3f} {_where(split)}: {by}."
        lines.append(Line(text, section=section))
        reasons += [reason] * bool(reason)
        if not answer:
            low, high = found.interval if found else (0.0, 0.0)
            answer, tone = ("Yes", YES) if low > 0 else ("No", NO) if high < 0 else ("", OPEN)
            answer = answer or ("Not shown" if found else "Cannot be told")
    lines += [Line(f"{one[0].upper()}{one[1:]}.") for one in dict.fromkeys(reasons)]
    return Card(question, answer, standing.objective, lines, tone=tone) if lines else None


def _missing(stages: Sequence[Stage]) -> Card:
    """Stages that were not run, cannot be read, or are out of date."""
    question = "What is missing?"
    lines = []
    for stage in stages:
        title = stage.report.title
        if stage.state == MISSING:
            lines.append(Line(f"{title}: {stage.command}"))
        elif stage.state == DAMAGED:
            lines.append(Line(f"{title} cannot be read in part.", section=title))
        if stage.late:
            lines.append(Line(f"{title} is out of date: {stage.late[0]}.", section=title))
    if not lines:
        return Card(question, "Nothing", tone=YES)
    missing = sum(stage.state == MISSING for stage in stages)
    answer = f"{count_text(missing, 'stage')}" if missing else "Something to mend"
    return Card(question, answer, lines=lines, tone=OPEN)
