"""What the page says first: the score that is kept, the verdict, the strongest findings."""

from __future__ import annotations

import pytest

from corpora.base.page import Card
from corpora.base.report import Report
from explain.curves import ATTENTION, EXCHANGED, RANDOM
from explain.finding import Finding, strength, strongest
from explain.report.answers import Known, answers
from explain.subject import Subject
from explain.trust import FAITHFULNESS, Trust
from heads.metrics import Scores, classification_report
from tests.explain.planted import LABELS, planted_subject


@pytest.fixture(scope="module")
def subject() -> Subject:
    return planted_subject()[0]


def scores(right: int) -> Scores:
    gold = [number % 3 for number in range(90)]
    said = [one if number < right else (one + 1) % 3 for number, one in enumerate(gold)]
    speakers = [f"s{number % 9}" for number in range(90)]
    return classification_report(gold, said, LABELS, speakers)


def faithful(low: float | None, *, tells: bool) -> Report:
    gain = {"value": 0.05, "low": low, "high": None if low is None else 0.1}
    kept = {"value": -0.02, "low": None, "high": None}
    gains = [
        {"order": ATTENTION, "rival": rival, "deletion": gain, "insertion": kept}
        for rival in (EXCHANGED, RANDOM)
    ]
    own = {"utterances": 9, "verdict": "v", "dropping_tells": tells, "gains": gains}
    return Report(FAITHFULNESS, (), data={"audio": own})


def cards(subject: Subject, *sections: Report, known: Known | None = None) -> list[Card]:
    trust = Trust(bool(sections) and "Yes" in sections[0].text, "Because.")
    return answers(subject, sections, trust, known or Known({}, {}, {}))


def test_the_score_of_the_page_s_split_is_the_kept_one(subject: Subject) -> None:
    known = Known({"test": scores(80), "folds": scores(70)}, {"test": scores(60)}, {})
    [score, *_] = cards(subject, known=known)
    text = " ".join(line.text for line in score.lines)
    assert score.answer == f"{scores(80).macro_f1:.3f}"
    assert "On the test split it is right in 80 of 90 utterances of 9 speakers." in text
    chosen = f"In folds of train and dev it reaches {scores(70).macro_f1:.3f}"
    assert chosen in text
    assert "It was chosen by this score, which flatters it." in text
    beside = f"on the same frames reaches {scores(60).macro_f1:.3f}: below the interval."
    assert beside in text
    assert score.scale is not None
    assert score.scale.marks == {
        "guessing": 1 / 3,
        "logistic regression": scores(60).macro_f1,
    }
    assert score.scale.low is not None


def test_where_none_is_kept_the_utterances_of_the_page_are_scored(subject: Subject) -> None:
    [score, *_] = cards(subject)
    right = int((subject.predicted == subject.targets).sum())
    assert (
        f"On the utterances below it is right in {right} of {len(subject)}" in score.lines[0].text
    )


@pytest.mark.parametrize(
    ("low", "tells", "answer", "tone", "sure", "todo"),
    [
        (0.01, True, "Yes", "yes", "leaves out 0, so it is more than chance", ""),
        (-0.01, False, "Not shown", "no", "includes 0, so it may be", "where the head looks"),
        (None, False, "Cannot be told", "open", "too few speakers", "with more speakers"),
    ],
)
def test_the_verdict_is_that_of_the_tests(
    subject: Subject, low: float | None, tells: bool, answer: str, tone: str, sure: str, todo: str
) -> None:
    """With what was found, how sure that is, and what to do."""
    belief = cards(subject, faithful(low, tells=tells))[1]
    assert (belief.question, belief.answer) == ("May the attention be believed?", answer)
    assert belief.tone == tone
    assert belief.lines[0].table == "faithfulness-gains-audio"
    found, other_way, *rest = [line.text for line in belief.lines]
    assert "probability falls by 0.050" in found
    assert sure in found.partition("How sure: ")[2]
    # Both halves of the test are told, also the one that speaks against.
    assert "keeps 0.020 less than with the other's, and 0.020 less than with" in other_way
    assert (rest != []) == (todo != "")
    assert todo in " ".join(rest)


def test_the_three_strongest_findings_come_first() -> None:
    assert strength(3.0, (2.0, 4.0)) == 3.0
    assert strength(0.9, (0.8, 1.0), chance=0.5) == pytest.approx(4.0)
    assert strength(3.0, None) == 0.0
    # One that may be chance is none; one without an interval stands behind.
    assert strongest([Finding("chance", "t", 0.7)]) == {}
    kept = strongest([Finding("first", "t"), Finding("sure", "t", 2.0), Finding("no", "t", 0.9)])
    assert kept["finding"]["text"] == "sure"
    subject = planted_subject()[0]
    sections = [
        Report(f"S{number}", (), data=strongest([Finding(f"f{number}", "t", float(number))]))
        for number in (2, 5, 0, 3)
    ]
    found = cards(subject, *sections)[-1]
    assert [line.text for line in found.lines] == ["f5", "f3", "f2"]
