"""What the page says first: is it good, may attention be believed, and what does it go by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from corpora.base.errors import FormatVersionError
from corpora.base.page import Card, Line, Scale
from corpora.base.report import Report
from corpora.base.work import Work
from corpora.manifest import Manifest
from corpora.utterance import split_name
from explain.curves import ATTENTION, RANDOM
from explain.finding import ends_text, findings_of
from explain.subject import Subject
from explain.trust import EVIDENCE, FAITHFULNESS, Trust
from finetune.evaluate.evaluation import read_report
from finetune.evaluate.scored import ScoredHead, ScoredModel
from heads.attributes import AttributeScores, attribute_report
from heads.bootstrap import Interval
from heads.metrics import Scores, classification_report
from heads.records import REFERENCE
from heads.reference import Reference

STRONGEST = 3
YES, NO, OPEN = "yes", "no", "open"


@dataclass(frozen=True)
class Known:
    """The scores that are kept of what is explained, by split, on the manifest at hand.

    Attributes:
        own: of the head or model.
        reference: of the logistic regression.
        attributes: of the head's attributes.
    """

    own: Mapping[str, Scores]
    reference: Mapping[str, Scores]
    attributes: Mapping[str, AttributeScores]


def known_scores(
    opened: ScoredHead | ScoredModel, work: Work, manifest: Manifest | None, split: str
) -> Known:
    """The scores that are kept, of this manifest unless it is None."""
    source = opened.source
    if manifest is not None and source.manifest_sha256 != source.digest(manifest):
        return Known({}, {}, {})
    if isinstance(opened, ScoredModel):
        kept = read_report(work.evaluation, "model", split)
        return Known({} if kept is None else {split: kept}, {}, {})
    record = opened.record
    try:
        reference = Reference.read(work.search / REFERENCE, record.origin)
    except FormatVersionError:
        # An earlier Emopool's search: its head can be explained, beside no regression.
        reference = None
    scores = {} if reference is None else reference.scores
    return Known(record.scores, scores, record.attribute_scores)


def answers(subject: Subject, sections: Sequence[Report], trust: Trust, known: Known) -> list[Card]:
    """The cards, those first that a reader asks for first.

    Args:
        subject: what is explained.
        sections: of the report, with their data.
        trust: whether attention may be believed.
        known: its scores.
    """
    found = next((one.data for one in sections if one.title == FAITHFULNESS), {})
    cards = [_score(subject, known) if subject.attribute is None else _attribute(subject, known)]
    cards.append(_belief(subject, found, trust, sections))
    cards.append(strongest_findings(sections))
    return [card for card in cards if card.answer or card.lines]


def _score(subject: Subject, known: Known) -> Card:
    """The score of the page's split where it is kept, else of test; else of what is shown."""
    question = "Is it good?"
    split = next((name for name in (subject.split, "test") if name in known.own), "")
    scores = known.own.get(split)
    if scores is None:
        rows = (subject.targets >= 0).nonzero().flatten()
        if not subject.split or not len(rows):
            return Card(
                question, "Not known here", tone=OPEN, lines=[Line("No score of it is kept.")]
            )
        scores = classification_report(
            subject.targets[rows].numpy(),
            subject.predicted[rows].numpy(),
            subject.labels,
            [subject.speakers[row] for row in rows.tolist()],
        )
    lines = []
    reference = known.reference.get(split)
    if reference is not None:
        lines.append(_beside(scores, reference))
    if split and subject.split and split != subject.split:
        lines.append(Line(f"Below are {len(subject):,} of {split_name(subject.split)}."))
    folds = known.own.get("folds")
    if folds is not None:
        own = f"{folds.macro_f1:.3f}{ends_text((folds.intervals or {}).get('macro_f1'), 3)}"
        of = f"{folds.n:,} utterances{_who(folds.speakers)}"
        flattered = "It was chosen by this score, which flatters it."
        lines.append(Line(f"In folds of train and dev it reaches {own} on {of}. {flattered}"))
    where = f"{_where(split)} it is"
    return score_card(question, scores, where, reference, lines)


def _beside(scores: Scores, reference: Scores) -> Line:
    """Whether the regression lies inside the interval."""
    ends = (scores.intervals or {}).get("macro_f1")
    value = reference.macro_f1
    if ends is None:
        how = "too few speakers to tell the two apart"
    elif value < ends[0]:
        how = "below the interval"
    else:
        how = "above the interval" if value > ends[1] else "inside the interval"
    return Line(f"A logistic regression on the same frames reaches {value:.3f}: {how}.")


def score_card(
    question: str, scores: Scores, where: str, reference: Scores | None, more: Sequence[Line] = ()
) -> Card:
    """A score with its interval, beside what guessing and the logistic regression reach.

    Args:
        question: of the card.
        scores: on classes.
        where: how the first sentence begins, such as `On the test split it is`.
        reference: of the regression, where it is known.
        more: sentences at the end.
    """
    right = sum(row[number] for number, row in enumerate(scores.confusion))
    ends = (scores.intervals or {}).get("macro_f1")
    lines = [Line(f"{where} right in {right:,} of {scores.n:,} utterances{_who(scores.speakers)}.")]
    if ends is None and scores.interval_reason:
        lines.append(Line(f"No interval: {scores.interval_reason}."))
    ranked = sorted((one for one in scores.per_class if one.support), key=lambda one: -one.f1)
    if len(ranked) > 1:
        best, worst = (f"{one.label} (F1 {one.f1:.2f})" for one in (ranked[0], ranked[-1]))
        lines.append(Line(f"Best at {best}, worst at {worst}."))
    marks = {"guessing": 1 / len(scores.labels)}
    if reference is not None:
        marks["logistic regression"] = reference.macro_f1
    beside = f"macro-F1{ends_text(ends, 3)}; 1 is perfect"
    scale = _scale(scores.macro_f1, ends, marks)
    return Card(question, f"{scores.macro_f1:.3f}", beside, [*lines, *more], scale)


def _attribute(subject: Subject, known: Known) -> Card:
    """The concordance of the attribute that is explained."""
    assert subject.attribute is not None
    own, name = subject.attribute, subject.attribute.name
    question = f"Is it good at {name}?"
    split = next((split for split in (subject.split, "test") if split in known.attributes), "")
    report = known.attributes.get(split)
    if report is None:
        scales = {name: own.scale}
        report = attribute_report(own.rated[:, None], own.said[:, None], scales, subject.speakers)
    one = next(one for one in report.per_attribute if one.name == name)
    if one.ccc is None:
        few = Line("Too few utterances are rated.")
        return Card(question, "Not known here", tone=OPEN, lines=[few])
    ends = one.ccc_interval
    lines = [Line(f"{_where(split)}: {one.n:,} rated utterances{_who(report.speakers)}.")]
    if ends is None and report.interval_reason:
        lines.append(Line(f"No interval: {report.interval_reason}."))
    beside = f"concordance (CCC){ends_text(ends, 3)}"
    marks = {"guessing": 0.0}
    return Card(question, f"{one.ccc:.3f}", beside, lines, _scale(one.ccc, ends, marks))


def _scale(value: float, ends: Interval | None, marks: Mapping[str, float]) -> Scale:
    low, high = ends or (None, None)
    return Scale(value, low, high, marks)


def _where(split: str) -> str:
    return f"On {split_name(split)}" if split else "On the utterances below"


def _who(speakers: int) -> str:
    return f" of {speakers:,} speaker{'' if speakers == 1 else 's'}" if speakers else ""


def _belief(
    subject: Subject, found: Mapping[str, Any], trust: Trust, sections: Sequence[Report]
) -> Card:
    """The verdict of the tests on a split; of single utterances, that of the last split."""
    question = f"May the {subject.weighing} be believed?"
    tested = found or trust.tested
    if not tested:
        return Card(question, "Not known here", lines=[Line(trust.reason)], tone=OPEN)
    lines: list[Line] = []
    verdicts = []
    for modality in subject.frames:
        own, method = tested[modality], subject.methods[modality]
        verdicts.append(believed(own))
        lead = "" if len(subject.frames) == 1 else modality
        lines += tested_lines(modality, own, method, lead=lead)
    if not found:  # the tables are on the page of the split
        there = Line(f"Tested by the last explanation of a split, on {trust.where}.")
        lines = [there, *(Line(line.text) for line in lines)]
    evidence = next((one.data for one in sections if one.title == EVIDENCE), {})
    answer, tone = verdicts[0]
    if trust.tells and evidence:
        told = f"for {evidence['sentences']:,} of {evidence['utterances']:,} answers"
        lines.append(Line(f"What to do: read below, {told}, what they rest on.", "evidence"))
    elif tone != YES:
        more = " To know, explain a split with more speakers." * (tone == OPEN)
        looks = "What to do: read it as where the head looks, not as why it answers."
        lines.append(Line(looks + more))
    if len(set(verdicts)) > 1:
        each = zip(subject.frames, verdicts, strict=True)
        answer = "; ".join(f"{name}: {said}" for name, (said, _) in each)
    return Card(question, answer, lines=lines, tone=tone)


def believed(own: Mapping[str, Any]) -> tuple[str, str]:
    """Whether attention to a modality may be believed, and the tone of that."""
    first = own["gains"][0]["deletion"]
    if own["dropping_tells"]:
        return "Yes", YES
    if first["low"] is None:
        return "Cannot be told", OPEN
    return ("No", NO) if first["high"] < 0 else ("Not shown", NO)


def tested_lines(modality: str, own: Mapping[str, Any], method: str, *, lead: str) -> list[Line]:
    """What was found by cutting frames out, how sure that is, and what leaving them alone keeps.

    Args:
        modality: whose frames.
        own: what faithfulness found there.
        method: what stands for attention.
        lead: a word before each sentence, where there are several modalities; else "".
    """
    first = own["gains"][0]["deletion"]
    value, low, high = first["value"], first["low"], first["high"]
    lead = f"{lead.capitalize()}: " if lead else ""
    if value is None:
        return [Line(f"{lead}{own['verdict']}")]
    what = "words" if modality == "text" else "frames"
    ends = (low, high) if value >= 0 or low is None else (-high, -low)
    if low is None:
        sure = "there are too few speakers to tell this from chance"
    elif low <= 0 <= high:
        sure = "the 95 % interval includes 0, so it may be chance"
    else:
        sure = "the 95 % interval leaves out 0, so it is more than chance"
    text = (
        f"when the {what} that {method} puts first are cut out, the answer's probability falls by "
        f"{abs(value):.3f}{ends_text(ends, 3)} {_than(value)} when those are that another "
        f"utterance's {method} points to ({own['utterances']:,} utterances). How sure: {sure}."
    )
    table = f"faithfulness-gains-{modality}"
    lines = [Line(f"{lead or 'Found: '}{text}", table)]
    chance = next(
        one for one in own["gains"] if (one["order"], one["rival"]) == (ATTENTION, RANDOM)
    )
    others, drawn = (one["insertion"]["value"] for one in (own["gains"][0], chance))
    if None not in (others, drawn):
        kept = (
            f"with nothing left but these {what} it keeps {abs(others):.3f} {_than(others)} with "
            f"the other's, and {abs(drawn):.3f} {_than(drawn)} with as many drawn at random."
        )
        lines.append(Line(f"{lead or 'The other way round: '}{kept}", table))
    return lines


def _than(value: float) -> str:
    return "more than" if value >= 0 else "less than"


def strongest_findings(sections: Sequence[Report]) -> Card:
    """The strongest findings, in their order."""
    ranked = sorted(findings_of(sections).values(), key=lambda one: -one.strength)
    lines = [Line(one.text, one.table) for one in ranked[:STRONGEST]]
    return Card("What is found? The strongest three", lines=lines)
