"""Scores against scikit-learn; intervals against a plain loop over resampled speakers."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics as reference

from corpora.base.errors import ConfigError
from corpora.base.report import Report
from heads.confusion import accuracy, confusion_matrix, macro_f1, uar, weighted_f1
from heads.metrics import Scores, classification_report, scores_parts

LABELS = ("anger", "sadness", "joy", "neutral")


def case(seed: int, size: int = 300, speakers: int = 12) -> tuple[Any, Any, list[str]]:
    """Gold, predictions that are right two times in five at least, and speakers."""
    random = np.random.default_rng(seed)
    gold = random.integers(0, 4, size)
    guess = random.integers(0, 4, size)
    predicted = np.where(random.random(size) < 0.4, gold, guess)
    return gold, predicted, [f"s{number}" for number in random.integers(0, speakers, size)]


pairs = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=40)


@settings(max_examples=60)
@given(pairs=pairs)
def test_scores_equal_scikit_learn_over_the_classes_that_occur(
    pairs: list[tuple[int, int]],
) -> None:
    gold, predicted = (list(column) for column in zip(*pairs, strict=True))
    report = classification_report(gold, predicted, LABELS, [""] * len(gold), draws=10)
    present = sorted(set(gold))
    macro = {"labels": present, "average": "macro", "zero_division": 0}
    assert report.macro_f1 == pytest.approx(reference.f1_score(gold, predicted, **macro))
    assert report.uar == pytest.approx(reference.recall_score(gold, predicted, **macro))
    assert report.accuracy == pytest.approx(reference.accuracy_score(gold, predicted))
    expected = reference.confusion_matrix(gold, predicted, labels=range(4))
    assert np.array_equal(report.confusion, expected)
    weighted = reference.f1_score(gold, predicted, average="weighted", zero_division=0)
    assert report.weighted_f1 == pytest.approx(weighted)


@settings(max_examples=60)
@given(pairs=pairs)
def test_class_scores_equal_scikit_learn(pairs: list[tuple[int, int]]) -> None:
    gold, predicted = (list(column) for column in zip(*pairs, strict=True))
    report = classification_report(gold, predicted, LABELS, [""] * len(gold), draws=10)
    columns = reference.precision_recall_fscore_support(
        gold, predicted, labels=range(4), zero_division=0
    )
    found = [(s.precision, s.recall, s.f1, s.support) for s in report.per_class]
    np.testing.assert_allclose(found, np.stack(columns, axis=1))
    assert report.labels == LABELS


def test_predictions_of_an_absent_class_cost_recall_and_the_class_is_listed() -> None:
    report = classification_report([0, 0, 1, 1], [0, 2, 1, 1], LABELS)
    assert report.absent == ("joy", "neutral")
    assert report.uar == pytest.approx((0.5 + 1) / 2)
    assert report.macro_f1 == pytest.approx((2 / 3 + 1) / 2)


def test_scores_of_the_whole_are_not_the_mean_over_batches() -> None:
    gold, predicted = np.array([0, 0, 0, 1]), np.array([0, 0, 1, 1])
    halves = [macro_f1(confusion_matrix(gold[h], predicted[h], 2)) for h in ([0, 1], [2, 3])]
    whole = macro_f1(
        confusion_matrix(gold[:2], predicted[:2], 2) + confusion_matrix(gold[2:], predicted[2:], 2)
    )
    expected = reference.f1_score(gold, predicted, average="macro")
    assert float(whole) == pytest.approx(expected)
    assert np.mean(halves) != pytest.approx(expected)


def test_many_systems_are_scored_at_once() -> None:
    gold, _, _ = case(1)
    predicted = np.random.default_rng(2).integers(0, 4, (2, 3, len(gold)))
    confusion = confusion_matrix(gold, predicted, 4)
    assert confusion.shape == (2, 3, 4, 4)
    for place in np.ndindex(2, 3):
        one = classification_report(gold, predicted[place], LABELS)
        assert float(macro_f1(confusion)[place]) == one.macro_f1
        assert float(uar(confusion)[place]) == one.uar
        assert float(accuracy(confusion)[place]) == one.accuracy
        assert float(weighted_f1(confusion)[place]) == one.weighted_f1


def test_indices_names_and_probabilities_give_the_same_report() -> None:
    gold, predicted, speakers = case(3)
    probabilities = np.full((len(gold), 4), 0.1)
    probabilities[np.arange(len(gold)), predicted] = 0.7
    by_index = classification_report(gold, predicted, LABELS, speakers)
    by_name = classification_report(
        [LABELS[i] for i in gold], [LABELS[i] for i in predicted], LABELS, speakers
    )
    assert by_index == by_name
    assert by_index == classification_report(gold, probabilities, LABELS, speakers)


def test_equal_scores_go_to_the_first_label() -> None:
    report = classification_report([1, 1], [[0.1, 0.4, 0.4, 0.1], [0.25] * 4], LABELS)
    assert report.confusion[1] == (1, 1, 0, 0)


def test_intervals_equal_a_plain_loop_over_resampled_speakers() -> None:
    gold, predicted, speakers = case(4)
    report = classification_report(gold, predicted, LABELS, speakers, draws=8000)
    by_speaker = [np.flatnonzero(np.array(speakers) == s) for s in sorted(set(speakers))]
    random = np.random.default_rng(5)
    values = []
    for _ in range(400):
        rows = np.concatenate([by_speaker[i] for i in random.integers(0, len(by_speaker), 12)])
        values.append(
            (
                reference.f1_score(gold[rows], predicted[rows], average="macro"),
                reference.balanced_accuracy_score(gold[rows], predicted[rows]),
                reference.accuracy_score(gold[rows], predicted[rows]),
                reference.f1_score(gold[rows], predicted[rows], average="weighted"),
            )
        )
    # With S - 1 degrees of freedom, and the error that S new speakers would have.
    reach = np.std(values, axis=0) * np.sqrt(12 / 11) * stats.t.ppf(0.975, 11)
    assert report.intervals is not None
    for column, name in enumerate(("macro_f1", "uar", "accuracy", "weighted_f1")):
        low, high = report.intervals[name]
        value = getattr(report, name)
        assert ((low + high) / 2, (high - low) / 2) == pytest.approx(
            (value, reach[column]), abs=0.006
        )


def test_intervals_widen_when_utterances_of_a_speaker_agree() -> None:
    right = np.repeat([1, 0], 100)  # of 20 speakers with 10 utterances, ten are always right
    gold = np.zeros(200, dtype=np.int64)
    speakers = [f"s{i // 10}" for i in range(200)]
    together = classification_report(gold, 1 - right, LABELS, speakers).intervals
    apart = classification_report(gold, 1 - right, LABELS).intervals
    assert together is not None
    assert apart is not None
    reaches = [np.ptp(found["accuracy"]) / 2 for found in (together, apart)]
    # Both in their own degrees of freedom, of 20 speakers and of 200.
    errors = [r / stats.t.ppf(0.975, s - 1) for r, s in zip(reaches, (20, 200), strict=True)]
    expected = [np.sqrt(0.25 / (s - 1)) for s in (20, 200)]  # of a share of one half
    assert errors == pytest.approx(expected, rel=0.1)


def test_a_class_that_one_speaker_alone_has_keeps_the_intervals_finite() -> None:
    gold = [0] * 9 + [1]
    report = classification_report(gold, gold, LABELS, [f"s{i}" for i in range(10)])
    assert report.intervals is not None
    assert report.intervals["macro_f1"] == (1.0, 1.0)


def test_intervals_end_where_scores_do() -> None:
    gold = np.arange(160) % 4
    wrong = np.where(np.arange(160) < 3, (gold + 1) % 4, gold)  # all of one of eight speakers
    speakers = [f"s{n // 20}" for n in range(160)]
    high = classification_report(gold, wrong, LABELS, speakers).intervals
    low = classification_report(
        gold, np.where(wrong == gold, (gold + 1) % 4, gold), LABELS, speakers
    )
    assert high is not None
    assert low.intervals is not None
    for name in ("macro_f1", "uar", "accuracy"):
        assert 0.9 < high[name].low < high[name].high == 1.0
        assert 0.0 == low.intervals[name].low < low.intervals[name].high < 0.1


def test_equal_seeds_give_equal_reports_whatever_the_order_of_rows() -> None:
    gold, predicted, speakers = case(6)
    first = classification_report(gold, predicted, LABELS, speakers, seed=9)
    order = np.random.default_rng(7).permutation(len(gold))
    renamed = [f"new-{speakers[i]}" for i in order]
    assert classification_report(gold[order], predicted[order], LABELS, renamed, seed=9) == first
    assert classification_report(gold, predicted, LABELS, speakers, seed=10) != first


def few(speakers: Sequence[str]) -> Scores:
    return classification_report([0] * len(speakers), [0] * len(speakers), LABELS, speakers)


def test_below_eight_speakers_there_is_a_reason_and_no_interval() -> None:
    report = few(["a", "b", "c", "d", "e"] * 30)
    assert report.intervals is None
    assert report.interval_reason == "5 speakers: a bootstrap over fewer than 8 says nothing"


def test_eight_speakers_have_an_interval_and_nothing_to_add() -> None:
    report = few(list("abcdefgh") * 3)
    assert report.intervals is not None
    assert (report.interval_reason, report.speakers) == ("", 8)


@pytest.mark.parametrize("unknown", ["", "Unknown", "unknown"])
def test_unknown_speakers_count_one_by_one_and_the_reason_says_so(unknown: str) -> None:
    report = few([unknown] * 40 + ["a"] * 10)
    assert report.intervals is not None
    assert report.speakers == 1
    assert "the speaker of 40 of 50 utterances is unknown" in report.interval_reason


def test_a_few_unknown_speakers_do_not_make_up_for_few_known_ones() -> None:
    report = few(["a", "b", "c"] * 50 + [""] * 6)
    assert report.intervals is None
    assert "3 speakers (the speaker of 6 of 156 utterances" in report.interval_reason


@pytest.mark.parametrize(
    ("gold", "predicted", "speakers", "message"),
    [
        ([], [], None, "nothing to score"),
        ([0, 1], [0], None, "2 gold labels, 1 predictions"),
        ([0, 1], [0, 1], ["a"], "1 speakers"),
        ([0, 4], [0, 1], None, r"Class index 4 at gold\[1\]"),
        ([0, 1], [0, -1], None, r"Class index -1 at predicted\[1\]"),
        (["joy", "rage"], ["joy", "joy"], None, r"Unknown label 'rage' at gold\[1\]"),
        ([0.0, 1.0], [0, 1], None, "gold must be class indices"),
        ([[0], [1]], [0, 1], None, "one class an utterance"),
        ([0, 1], [[0.5, 0.5], [0.5, 0.5]], None, "2 scores an utterance; there are 4 labels"),
        ([0], [[0.5, float("nan"), 0.5, 0]], None, r"predicted\[0\] are not finite"),
        ([0], [["a", "b", "c", "d"]], None, "must be numbers"),
    ],
)
def test_input_that_cannot_be_scored_is_named(
    gold: list[Any], predicted: list[Any], speakers: list[str] | None, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        classification_report(gold, predicted, LABELS, speakers)


@pytest.mark.parametrize("labels", [(), ("joy", "joy")])
def test_labels_have_to_be_distinct(labels: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match="distinct labels"):
        classification_report([0], [0], labels)


def test_the_report_as_json_holds_every_number() -> None:
    gold, predicted, speakers = case(8)
    report = classification_report(gold, predicted, LABELS, speakers)
    value = json.loads(json.dumps(report.to_json(), allow_nan=False))
    assert report.intervals is not None
    assert value["intervals"]["macro_f1"] == list(report.intervals["macro_f1"])
    assert value["confusion"] == [list(row) for row in report.confusion]
    assert [entry["label"] for entry in value["per_class"]] == list(LABELS) == value["labels"]
    assert value["macro_f1"] == report.macro_f1
    assert value["weighted_f1"] == report.weighted_f1
    assert few(["a"]).to_json()["intervals"] is None


def text_of(scores: Scores) -> str:
    return Report("", scores_parts(scores)).to_text()


def test_the_text_shows_scores_intervals_classes_and_confusion() -> None:
    gold, predicted, speakers = case(9)
    report = classification_report(gold, predicted, LABELS, speakers)
    text = text_of(report)
    assert report.intervals is not None
    low, high = report.intervals["macro_f1"]
    assert f"{report.macro_f1:.3f}  [{low:.3f}, {high:.3f}]" in text
    low, high = report.intervals["weighted_f1"]
    assert f"weighted F1        {report.weighted_f1:.3f}  [{low:.3f}, {high:.3f}]" in text
    assert "95 % intervals in brackets, bootstrap over 12 speakers" in text
    for score, row in zip(report.per_class, report.confusion, strict=True):
        assert any(
            line.startswith(score.label) and line.split()[1:] == [str(c) for c in row]
            for line in text.splitlines()
        )


def test_the_text_gives_the_reason_for_a_missing_interval() -> None:
    text = text_of(few(["a", "b"]))
    assert "No intervals: 2 speakers" in text
    assert "Not in the gold labels, so not averaged: sadness, joy, neutral." in text


def test_eight_long_labels_fit_on_ninety_columns() -> None:
    labels = [f"disappointed{i}" for i in range(8)]
    text = text_of(classification_report([0, 1], [0, 1], labels))
    assert max(len(line) for line in text.splitlines() if "disapp" in line and ":" not in line) < 90


def test_importing_metrics_imports_neither_torch_nor_sklearn() -> None:
    code = "import sys, heads.metrics; print(sorted({'torch', 'sklearn'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
