"""Strength against planted strength, scikit-learn's regression on differences, and controls."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import spearmanr
from sklearn.linear_model import LogisticRegression

from corpora.base.errors import ConfigError
from corpora.utterance import Utterance
from heads.confusion import auc
from heads.strength import MOST_UTTERANCES, PENALTY, Strength, enough_utterances, fit_strength

LABELS = ("anger", "neutral", "sadness")
DIM = 40
Floats = NDArray[np.float64]


def plain_auc(upper: list[float], lower: list[float]) -> float:
    """All pairs, one by one."""
    won = 0.0
    for one in upper:
        for other in lower:
            won += 1.0 if one > other else 0.5 if one == other else 0.0
    return won / (len(upper) * len(lower))


@dataclass(frozen=True, eq=False)
class Planted:
    """Vectors in which an emotion lies along a direction of its own, as far as it is strong."""

    vectors: Floats
    labels: list[str]
    speakers: list[str]
    strength: Floats

    def fit(self, speakers: list[str] | None = None) -> Strength:
        return fit_strength(self.vectors, self.labels, speakers or self.speakers, LABELS, "neutral")


DIRECTIONS = np.random.default_rng(9).standard_normal((len(LABELS), DIM))


def planted(seed: int, speakers: int = 12, size: int = 5, gain: float = 1.0) -> Planted:
    """`size` utterances a label and speaker; each speaker's vectors lie elsewhere."""
    random = np.random.default_rng(seed)
    rows, labels, names, strengths = [], [], [], []
    for speaker in range(speakers):
        place = 0.5 * random.standard_normal(DIM)
        for number, label in enumerate(LABELS):
            for strength in random.uniform(0.5, 2.0, size) * (label != "neutral"):
                noise = 0.4 * random.standard_normal(DIM)
                rows.append(place + noise + gain * strength * DIRECTIONS[number])
                labels.append(label)
                names.append(f"s{speaker}")
                strengths.append(float(strength))
    return Planted(np.array(rows), labels, names, np.array(strengths))


def of(data: Planted, label: str) -> NDArray[np.int64]:
    return np.flatnonzero(np.array(data.labels) == label)


def test_planted_strength_is_found_in_unseen_speakers() -> None:
    found, unseen = planted(0).fit(), planted(1, speakers=20)
    told = found(unseen.vectors)
    assert found.labels == ("anger", "sadness")
    assert not found.notes
    assert (told > 0).all()
    assert (told < 1).all()
    for column, label in enumerate(found.labels):
        own, base = of(unseen, label), of(unseen, "neutral")
        assert plain_auc(told[own, column].tolist(), told[base, column].tolist()) > 0.95
        strong = unseen.strength[own] > 1.25
        score = plain_auc(told[own[strong], column].tolist(), told[own[~strong], column].tolist())
        assert score > 0.97
        assert spearmanr(told[own, column], unseen.strength[own]).statistic > 0.9
        # Half of them are stronger than half of those that were ranked.
        assert told[own, column].mean() == pytest.approx(0.5, abs=0.06)


def test_where_there_is_no_emotion_there_is_no_strength() -> None:
    scores, within = [], []
    for seed in range(12):
        data, unseen = planted(seed, gain=0.0), planted(100 + seed, speakers=20, gain=0.0)
        told = data.fit()(unseen.vectors)
        own, base = of(unseen, "anger"), of(unseen, "neutral")
        scores.append(plain_auc(told[own, 0].tolist(), told[base, 0].tolist()))
        within.append(spearmanr(told[own, 0], unseen.strength[own]).statistic)
    assert np.mean(scores) == pytest.approx(0.5, abs=0.03)
    assert np.mean(within) == pytest.approx(0.0, abs=0.05)


def test_labels_dealt_out_anew_give_no_strength() -> None:
    scores = []
    for seed in range(12):
        data, unseen = planted(seed), planted(100 + seed, speakers=20)
        random = np.random.default_rng(seed)
        labels = np.array(data.labels)
        for name in set(data.speakers):  # within speakers
            rows = np.flatnonzero(np.array(data.speakers) == name)
            labels[rows] = random.permutation(labels[rows])
        shuffled = fit_strength(data.vectors, list(labels), data.speakers, LABELS, "neutral")
        told = shuffled(unseen.vectors)[:, 0]
        own = of(unseen, "anger")
        strong = unseen.strength[own] > 1.25
        scores.append(plain_auc(told[own[strong]].tolist(), told[own[~strong]].tolist()))
    assert np.mean(scores) == pytest.approx(0.5, abs=0.12)


def regression(data: Planted, label: str, same_speaker: bool) -> Floats:
    """Scikit-learn's logistic regression on differences and their negatives, of scaled columns."""
    scaled = data.vectors / data.vectors.std(axis=0)
    differences = np.array(
        [
            scaled[i] - scaled[j]
            for i in of(data, label)
            for j in of(data, "neutral")
            if not same_speaker or data.speakers[i] == data.speakers[j]
        ]
    )
    both = np.concatenate([differences, -differences])
    gold = np.repeat([1, 0], len(differences))
    model = LogisticRegression(
        C=1 / (PENALTY * len(both)), fit_intercept=False, tol=1e-10, max_iter=10_000
    )
    return np.asarray(model.fit(both, gold).coef_[0] / data.vectors.std(axis=0))


@pytest.mark.parametrize("known", [True, False])
def test_weights_are_those_of_a_regression_on_differences(known: bool) -> None:
    data = planted(3, speakers=5, size=3)
    found = data.fit(data.speakers if known else [""] * len(data.speakers))
    for label, weights, offset in zip(found.labels, found.weights, found.offsets, strict=True):
        expected = regression(data, label, same_speaker=known)
        assert weights == pytest.approx(expected, abs=2e-4 * np.abs(expected).max())
        base = data.vectors[of(data, "neutral")]
        assert offset == pytest.approx(float((base @ weights).mean()))


def test_the_objective_is_at_its_least() -> None:
    data = planted(4, speakers=4, size=4)
    found = data.fit()
    scale = data.vectors.std(axis=0)
    own, base = of(data, "sadness"), of(data, "neutral")
    weights = found.weights[1] * scale
    gradient, pairs = PENALTY * weights, 0
    slopes = np.zeros(DIM)
    for i in own:
        for j in base:
            if data.speakers[i] == data.speakers[j]:
                difference = (data.vectors[i] - data.vectors[j]) / scale
                slopes -= difference / (1 + np.exp(difference @ weights))
                pairs += 1
    assert gradient + slopes / pairs == pytest.approx(np.zeros(DIM), abs=2e-5)


def test_differences_within_speakers_leave_out_what_sets_speakers_apart() -> None:
    data = planted(5, speakers=20, size=4)
    random = np.random.default_rng(0)
    voice = random.standard_normal(DIM)
    loud = np.array([int(name[1:]) % 2 for name in data.speakers])
    vectors = data.vectors + 6 * loud[:, None] * voice
    # Speakers of that kind are angry often, and seldom neutral.
    angry, neutral = np.array(data.labels) == "anger", np.array(data.labels) == "neutral"
    rare = np.where(loud == 1, neutral, angry) & (random.random(len(loud)) < 0.7)
    kept = np.flatnonzero(~rare)

    def along_voice(speakers: list[str]) -> float:
        labels = [data.labels[row] for row in kept]
        found = fit_strength(vectors[kept], labels, speakers, LABELS, "neutral")
        weights = found.weights[0]
        return float(abs(weights @ voice) / np.linalg.norm(weights) / np.linalg.norm(voice))

    within = along_voice([data.speakers[row] for row in kept])
    assert within < along_voice([""] * len(kept)) / 2


def test_strength_is_the_share_of_training_utterances_below() -> None:
    levels = (np.array([1.0, 2.0, 4.0, 8.0]), np.array([0.0, 1.0]))
    found = Strength(("anger", "sadness"), np.eye(2), levels, np.array([0.0, -1.0]), ())
    scores = np.array([-9.0, 1.0, 1.5, 2.0, 3.0, 4.0, 8.0, 99.0])
    told = found(np.column_stack([scores, scores - 1]))
    assert told[:, 0] == pytest.approx([0.125, 0.125, 0.25, 0.375, 0.5, 0.625, 0.875, 0.875])
    assert told[:, 1] == pytest.approx([0.25, 0.75, 0.75, 0.75, 0.75, 0.75, 0.75, 0.75])


def test_strength_never_falls_where_the_score_rises() -> None:
    data = planted(6)
    found, unseen = data.fit(), planted(7)
    scores = unseen.vectors @ found.weights.T
    told = found(unseen.vectors)
    for column in range(2):
        order = scores[:, column].argsort()
        assert (np.diff(told[order, column]) >= 0).all()


def test_a_column_that_never_changes_says_nothing() -> None:
    data = planted(8)
    wider = np.column_stack([data.vectors, np.full(len(data.vectors), 7.0)])
    found = fit_strength(wider, data.labels, data.speakers, LABELS, "neutral")
    assert found.weights[:, -1] == pytest.approx([0, 0], abs=1e-9)
    assert found.weights[:, :-1] == pytest.approx(data.fit().weights, abs=1e-5)


def test_a_label_that_is_not_there_is_named_with_those_that_are() -> None:
    data = planted(0)
    with pytest.raises(ConfigError, match=r"0 of those .* 'calm'.*--reference \(there are anger,"):
        fit_strength(data.vectors, data.labels, data.speakers, LABELS, "calm")


def test_an_emotion_with_too_few_utterances_is_left_out_with_a_sentence() -> None:
    data = planted(0)
    kept = [*of(data, "anger"), *of(data, "neutral"), *of(data, "sadness")[:4]]
    labels, speakers = [data.labels[row] for row in kept], [data.speakers[row] for row in kept]
    found = fit_strength(data.vectors[kept], labels, speakers, LABELS, "neutral")
    assert found.labels == ("anger",)
    assert found.notes == (
        "No strength of sadness: 4 utterances by 1 speaker were trained on, too few to rank.",
    )
    few = [row for row in range(len(kept)) if labels[row] != "anger"]
    with pytest.raises(ConfigError, match=r"no emotion can be ranked above neutral\. No strength"):
        fit_strength(
            data.vectors[kept][few],
            [labels[row] for row in few],
            [speakers[row] for row in few],
            LABELS,
            "neutral",
        )


def test_an_emotion_of_one_speaker_among_several_has_no_scale() -> None:
    data = planted(0, size=8)
    own = [row for row in of(data, "sadness") if data.speakers[row] == "s0"]
    kept = [*of(data, "anger"), *of(data, "neutral"), *own]
    found = fit_strength(
        data.vectors[kept],
        [data.labels[row] for row in kept],
        [data.speakers[row] for row in kept],
        LABELS,
        "neutral",
    )
    assert found.labels == ("anger",)
    assert "8 utterances by 1 speaker" in found.notes[0]


def test_one_speaker_is_ranked_and_said() -> None:
    data = planted(0, speakers=1, size=40)
    found = data.fit()
    assert found.labels == ("anger", "sadness")
    assert found.notes == (
        "Strength: all utterances trained on are by one speaker, so it need not hold for other "
        "voices.",
    )
    own = of(data, "anger")
    assert spearmanr(found(data.vectors)[own, 0], data.strength[own]).statistic > 0.8


def test_at_most_so_many_utterances_of_a_label_and_whole_speakers_of_them() -> None:
    rows = [
        Utterance(f"u{number}", Path("a.wav"), LABELS[number % 2], speaker=f"s{number // 20}")
        for number in range(4 * MOST_UTTERANCES)
    ]
    chosen = enough_utterances(rows)
    assert Counter(u.label for u in chosen) == dict.fromkeys(LABELS[:2], MOST_UTTERANCES)
    assert set(Counter(u.speaker for u in chosen).values()) == {20}
    assert [u.id for u in chosen] == [u.id for u in rows if u in set(chosen)]
    assert enough_utterances(rows[:50]) == tuple(rows[:50])


def test_auc_is_the_share_of_pairs_that_are_in_order() -> None:
    random = np.random.default_rng(0)
    for _ in range(20):
        upper, lower = random.integers(0, 6, 9), random.integers(0, 6, 13)
        counts = [np.bincount(one, minlength=6).astype(np.float64) for one in (upper, lower)]
        assert float(auc(*counts)) == pytest.approx(plain_auc(upper.tolist(), lower.tolist()))
    assert np.isnan(auc(np.zeros(3), np.ones(3)))
    several = auc(np.array([[0.0, 1.0], [1.0, 0.0]]), np.array([[1.0, 0.0], [0.0, 1.0]]))
    assert several.tolist() == [1, 0]
