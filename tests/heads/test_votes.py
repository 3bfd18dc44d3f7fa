"""Scores as votes against scikit-learn, scipy and plain loops; planted votes, and controls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats
from scipy.spatial.distance import jensenshannon
from sklearn import metrics as oracle

from corpora.base.errors import ConfigError
from corpora.base.report import Report
from corpora.utterance import Utterance
from heads.votes import MAJORITY, TRAINING, UNIFORM, VoteScores, vote_report, votes_tables

LABELS = ("anger", "joy", "neutral", "sadness")
K = len(LABELS)
SPEAKERS = 12
Floats = NDArray[np.float64]


def utterances(votes: NDArray[Any], labels: Sequence[str] = LABELS) -> list[Utterance]:
    """One a row of votes; the label is the first of those with the most."""
    return [
        Utterance(
            f"u{number}",
            Path("a.wav"),
            labels[int(row.argmax())],
            votes={label: float(n) for label, n in zip(labels, row, strict=True) if n},
        )
        for number, row in enumerate(votes)
    ]


def planted(seed: int, size: int = 1500, raters: int = 10) -> tuple[Floats, list[Utterance]]:
    """What raters hear in each utterance, as a distribution, and votes drawn from it."""
    random = np.random.default_rng(seed)
    heard = random.dirichlet(np.full(K, 0.5), size)
    return heard, utterances(random.multinomial(raters, heard))


def report(
    rows: Sequence[Utterance], answer: Floats, training: Sequence[Utterance] = ()
) -> VoteScores:
    speakers = [f"s{number % SPEAKERS}" for number in range(len(rows))]
    return vote_report(rows, answer, LABELS, training or rows, speakers)


def shares_of(rows: Sequence[Utterance]) -> Floats:
    votes = np.array([[(u.votes or {}).get(label, 0.0) for label in LABELS] for u in rows])
    return np.asarray(votes / votes.sum(axis=1, keepdims=True))


def plain_scores(rows: Sequence[Utterance], answer: Floats) -> list[float]:
    """All scores from their equations, an utterance at a time."""
    f1s, second, js, kl, errors, entropies = [], [], [], [], [], []
    shares = shares_of(rows)
    for place in range(K):
        pairs = [
            (int(y[place] > 1 / K), int(p[place] > 1 / K))
            for y, p in zip(shares, answer, strict=True)
        ]
        hits = sum(true * said for true, said in pairs)
        if any(true for true, _ in pairs):
            f1s.append(2 * hits / sum(true + said for true, said in pairs))
    for u, y, p in zip(rows, shares, answer, strict=True):
        ranks = sorted(range(K), key=lambda place, y=y: -y[place])  # type: ignore[misc]
        if y[ranks[0]] > y[ranks[1]] > y[ranks[2]]:
            best = sorted(range(K), key=lambda place, p=p: -p[place])[:2]  # type: ignore[misc]
            second.append(ranks[1] in best)
        middle = (y + p) / 2
        js.append(
            sum(a * np.log(a / m) for a, m in zip(y, middle, strict=True) if a) / 2
            + sum(b * np.log(b / m) for b, m in zip(p, middle, strict=True) if b) / 2
        )
        kl.append(sum(a * np.log(a / b) for a, b in zip(y, p, strict=True) if a))
        errors.append(LABELS[int(p.argmax())] != u.label)
        entropies.append(round(-sum(a * np.log(a) for a in y if a), 9))
    wrong = [h for h, error in zip(entropies, errors, strict=True) if error]
    right = [h for h, error in zip(entropies, errors, strict=True) if not error]
    won = [float(a > b) + float(a == b) / 2 for a in wrong for b in right]
    return [float(np.mean(one)) for one in (f1s, second, js, kl, won)]


def values(scores: object) -> list[float]:
    names = ("macro_f1", "secondary_recall", "js", "kl", "error_auc")
    return [getattr(scores, name) for name in names]


@pytest.mark.parametrize("seed", range(4))
def test_scores_are_those_of_their_equations_and_of_the_oracles(seed: int) -> None:
    heard, rows = planted(seed, size=120, raters=5)
    random = np.random.default_rng(seed)
    answer = 0.6 * heard + 0.4 * random.dirichlet(np.ones(K), len(rows))
    found = report(rows, answer).scores
    np.testing.assert_allclose(values(found), plain_scores(rows, answer), rtol=1e-12)
    shares = shares_of(rows)
    expected = oracle.f1_score(shares > 1 / K, answer > 1 / K, average="macro")
    assert found.macro_f1 == pytest.approx(expected)
    assert found.js == pytest.approx(np.mean(jensenshannon(shares, answer, axis=1) ** 2))
    assert found.kl == pytest.approx(np.mean(stats.entropy(shares, answer, axis=1)))
    gold = [LABELS.index(u.label) for u in rows]
    entropy = np.round(stats.entropy(shares, axis=1), 9)
    assert found.error_auc == pytest.approx(
        oracle.roc_auc_score(answer.argmax(axis=1) != gold, entropy)
    )


def test_a_share_of_exactly_one_in_k_is_not_true_and_absent_labels_are_not_averaged() -> None:
    rows = utterances(np.array([[2, 1, 1, 0], [4, 0, 0, 0]]))
    answer = np.array([[0.4, 0.3, 0.3, 0.0], [0.7, 0.1, 0.1, 0.1]])
    found = report(rows, answer)
    assert found.scores.macro_f1 == 1  # of anger alone
    assert found.absent == ("joy", "neutral", "sadness")
    assert (found.scores.secondary_recall, found.secondary) == (None, 0)  # joy or neutral
    assert found.scores.error_auc is None  # no error
    assert found.scores.kl == pytest.approx(
        np.mean([stats.entropy([0.5, 0.25, 0.25, 0], answer[0]), -np.log(0.7)])
    )


def test_what_needs_no_recording_gets_what_chance_gives() -> None:
    _, rows = planted(5, size=400)
    training = utterances(np.array([[6, 2, 2, 0], [6, 0, 0, 4], [0, 10, 0, 0]]))
    found = report(rows, shares_of(rows), training)
    assert list(found.others) == [UNIFORM, MAJORITY, TRAINING]
    uniform, majority, shares = found.others.values()
    assert uniform.macro_f1 == 0
    assert uniform.secondary_recall == pytest.approx(2 / K)
    assert uniform.error_auc == pytest.approx(0.5)
    assert uniform.kl == pytest.approx(np.log(K) - np.mean(stats.entropy(shares_of(rows), axis=1)))
    assert found.majority == "anger"
    assert majority.kl is None  # infinite: it rules out all other labels
    constant = np.tile([1.0, 0, 0, 0], (len(rows), 1))
    assert majority.js == pytest.approx(
        np.mean(jensenshannon(shares_of(rows), constant, axis=1) ** 2)
    )
    prior = np.tile([0.4, 0.4, 0.2 / 3, 0.4 / 3], (len(rows), 1))  # of 30 votes 12, 12, 2, 4
    assert shares.kl == pytest.approx(np.mean(stats.entropy(shares_of(rows), prior, axis=1)))
    perfect = found.scores
    assert (perfect.macro_f1, perfect.secondary_recall) == (1, 1)
    assert perfect.js == pytest.approx(0)
    assert perfect.kl == pytest.approx(0)


def test_who_knows_what_raters_hear_is_best_on_every_score() -> None:
    heard, rows = planted(0)
    found = report(rows, heard, planted(1)[1])
    noisy = report(rows, np.sqrt(heard) / np.sqrt(heard).sum(axis=1, keepdims=True))
    truth = found.scores
    assert found.intervals is not None
    for other in found.others.values():
        assert found.intervals["macro_f1"].low > other.macro_f1  # type: ignore[operator]
        assert found.intervals["secondary_recall"].low > other.secondary_recall  # type: ignore[operator]
        assert found.intervals["js"].high < other.js  # type: ignore[operator]
        assert other.kl is None or found.intervals["kl"].high < other.kl
    # A flatter answer of the same order has the same top two, and is further from the shares.
    assert noisy.scores.secondary_recall == truth.secondary_recall
    assert noisy.scores.macro_f1 < truth.macro_f1  # type: ignore[operator]
    assert noisy.scores.js > truth.js  # type: ignore[operator]
    assert noisy.scores.kl > truth.kl  # type: ignore[operator]


def test_answers_dealt_out_anew_say_nothing() -> None:
    heard, rows = planted(0)
    held = {"secondary_recall": 0, "error_auc": 0}
    for seed in range(20):
        dealt = np.random.default_rng(seed).permutation(heard)
        found = report(rows, dealt, planted(1)[1])
        assert found.intervals is not None
        for name, chance in (("secondary_recall", 2 / K), ("error_auc", 0.5)):
            low, high = found.intervals[name]
            held[name] += low < chance < high
        training = found.others[TRAINING]
        assert found.scores.js > training.js  # type: ignore[operator]
        assert found.scores.kl > training.kl  # type: ignore[operator]
    assert min(held.values()) >= 17, held  # of 20 intervals of 95 %


@pytest.mark.parametrize("where", ["where raters disagree", "anywhere"])
def test_errors_are_found_where_raters_disagree_and_nowhere_else(where: str) -> None:
    _, rows = planted(3)
    shares = shares_of(rows)
    random = np.random.default_rng(4)
    entropy = stats.entropy(shares, axis=1) / np.log(K)
    chance = entropy if where == "where raters disagree" else np.full(len(rows), entropy.mean())
    answer = np.full((len(rows), K), 0.1)
    for row, (own, error) in enumerate(zip(rows, random.random(len(rows)) < chance, strict=True)):
        gold = LABELS.index(own.label)
        answer[row, (gold + random.integers(1, K)) % K if error else gold] = 0.7
    found = report(rows, answer)
    assert found.intervals is not None
    low, high = found.intervals["error_auc"]
    accuracy = [one.accuracy for one in found.by_entropy]
    if where == "where raters disagree":
        assert low > 0.7
        assert accuracy[0] > accuracy[1] + 0.1 > accuracy[2] + 0.2
    else:
        assert low < 0.5 < high
        assert max(accuracy) - min(accuracy) < 0.1


def test_thirds_keep_utterances_of_equal_entropy_together() -> None:
    votes = np.array([[5, 0, 0, 0]] * 6 + [[4, 1, 0, 0]] * 2 + [[2, 2, 1, 0]])
    answer = np.tile([0.4, 0.3, 0.2, 0.1], (9, 1))
    answer[8] = [0.1, 0.4, 0.3, 0.2]
    found = report(utterances(votes), answer).by_entropy
    assert [one.n for one in found] == [6, 3]
    assert [one.accuracy for one in found] == [1, pytest.approx(2 / 3)]
    assert (found[0].low, found[0].high) == (0, 0)
    assert found[1].high == pytest.approx(stats.entropy([2, 2, 1]))
    assert found[1].majority_accuracy == 1


def test_intervals_are_those_of_speakers_drawn_one_by_one() -> None:
    heard, rows = planted(6, size=240, raters=5)
    random = np.random.default_rng(7)
    answer = 0.5 * heard + 0.5 * random.dirichlet(np.ones(K), len(rows))
    found = report(rows, answer)
    own = [np.arange(speaker, len(rows), SPEAKERS) for speaker in range(SPEAKERS)]
    drawn = []
    for _ in range(400):
        chosen = np.concatenate([own[s] for s in random.integers(0, SPEAKERS, SPEAKERS)])
        again = [rows[row] for row in chosen]
        one = vote_report(again, answer[chosen], LABELS, [], ["one"] * len(again))
        drawn.append(values(one.scores))
    error = np.std(drawn, axis=0) * np.sqrt(SPEAKERS / (SPEAKERS - 1))
    reach = error * stats.t.ppf(0.975, SPEAKERS - 1)
    assert found.intervals is not None
    widths = [(one.high - one.low) / 2 for one in found.intervals.values()]
    np.testing.assert_allclose(widths, reach, rtol=0.15)  # 400 draws: an error of 4 %


def test_votes_for_other_labels_are_left_out_and_counted() -> None:
    rows = utterances(np.array([[3, 1, 0, 0], [0, 0, 4, 0], [0, 1, 0, 3]]))
    rows[0] = replace(rows[0], votes={**(rows[0].votes or {}), "other": 2.0})
    rows[1] = replace(rows[1], votes={"other": 4.0})
    rows.append(replace(rows[2], votes=None))
    answer = np.array([[0.75, 0.25, 0, 0], [1, 0, 0, 0], [0, 0.25, 0, 0.75], [1, 0, 0, 0]])
    found = vote_report(rows, answer, LABELS, [], [""] * 4, unlabelled=5)
    assert (found.n, found.without, found.unlabelled) == (2, 2, 5)
    assert found.outside == pytest.approx(2 / 10)
    assert (found.scores.kl, found.scores.js) == (0, 0)
    assert (list(found.others), found.majority, found.intervals) == ([UNIFORM], "", None)
    text = " ".join(Report("", votes_tables(found, "head")).to_text().split())
    for said in (
        "As votes: 2 utterances",
        "2 utterances without votes for these labels are left out",
        "5 utterances with votes have no label",
        "Votes for other labels, 20.0 % of all, are left out",
        "there is no majority answer",
        "No intervals:",
    ):
        assert said in text
    with pytest.raises(ConfigError, match="has a vote for any of anger, joy"):
        vote_report(rows[1:2], answer[1:2], LABELS, [], [""])


def test_an_answer_that_rules_out_what_was_heard_has_no_mean_kl() -> None:
    heard, rows = planted(8, size=100)
    answer = heard.copy()
    answer[0] = np.eye(K)[(LABELS.index(rows[0].label) + 1) % K]
    found = report(rows, answer)
    assert found.scores.kl is None
    assert found.intervals is not None
    assert set(found.intervals) == {"macro_f1", "secondary_recall", "js", "error_auc"}
    assert "KL – is infinite" in Report("", votes_tables(found, "head")).to_text()


def test_of_two_labels_there_is_no_secondary_one() -> None:
    rows = utterances(np.array([[3, 1], [1, 3]]), ("anger", "joy"))
    found = vote_report(rows, [[0.7, 0.3], [0.4, 0.6]], ("anger", "joy"), rows, ["", ""])
    assert found.scores.secondary_recall is None
    assert found.scores.macro_f1 == 1


def test_fractional_votes_of_many_levels_and_json_and_back() -> None:
    random = np.random.default_rng(9)
    heard = random.dirichlet(np.ones(K), 600)
    rows = utterances(heard)
    answer = 0.5 * heard + 0.5 * random.dirichlet(np.ones(K), 600)
    found = report(rows, answer)
    np.testing.assert_allclose(values(found.scores), plain_scores(rows, answer), rtol=1e-9)
    assert found.intervals is not None
    low, high = found.intervals["error_auc"]
    assert low < found.scores.error_auc < high  # type: ignore[operator]
    assert VoteScores.from_json(found.to_json()) == found
