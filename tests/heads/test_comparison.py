"""Differences between heads: paired, corrected, and silent where they cannot speak."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import f1_score

from heads.bootstrap import Difference, Interval, critical, holm, paired_differences, two_sided

CLASSES = 4
SPEAKERS = [f"s{k % 12}" for k in range(240)]


def answers(seed: int, right: float, size: int = 240) -> NDArray[np.int64]:
    """Predicted classes, right with a probability; gold is `gold()`."""
    random = np.random.default_rng(seed)
    guesses = random.integers(0, CLASSES, size)
    return np.where(random.random(size) < right, gold(size), guesses)


def gold(size: int = 240) -> NDArray[np.int64]:
    return np.arange(size) // 3 % CLASSES


def test_holm_is_the_step_down_correction() -> None:
    corrected = holm(np.array([0.01, 0.04, 0.03, 0.005]))
    assert corrected.tolist() == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm(np.array([0.9, 0.8])).tolist() == [1.0, 1.0]
    assert holm(np.array([])).tolist() == []


def test_the_difference_is_that_of_the_scores() -> None:
    heads = np.stack([answers(1, 0.3), answers(2, 0.6)])
    other = answers(3, 0.6)
    found, reason = paired_differences(gold(), heads, other, CLASSES, SPEAKERS)
    assert found is not None
    assert reason == ""
    for difference, head in zip(found, heads, strict=True):
        expected = f1_score(gold(), head, average="macro") - f1_score(
            gold(), other, average="macro"
        )
        assert difference.value == pytest.approx(expected)
        low, high = difference.interval
        assert low < difference.value < high
        # Student's t with 11 degrees of freedom, for 12 speakers.
        reach = difference.error * critical(0.95, 11)
        assert (low, high) == pytest.approx((difference.value - reach, difference.value + reach))
    raised = [two_sided(one.value / one.error, 11) for one in found]
    assert [one.p for one in found] == pytest.approx(holm(np.array(raised)).tolist())


@pytest.mark.slow
def test_the_error_is_that_of_the_paired_resamples_of_speakers() -> None:
    head, other = answers(1, 0.5), answers(3, 0.6)
    found, _ = paired_differences(gold(), head[None], other, CLASSES, SPEAKERS)
    assert found is not None
    rows = [np.flatnonzero(np.array(SPEAKERS) == name) for name in sorted(set(SPEAKERS))]
    random = np.random.default_rng(5)
    values = []
    for _ in range(1500):
        drawn = np.concatenate([rows[k] for k in random.integers(0, 12, 12)])
        scores = [
            f1_score(gold()[drawn], own[drawn], average="macro", labels=range(CLASSES))
            for own in (head, other)
        ]
        values.append(scores[0] - scores[1])
    # Of 1,500 and 2,000 draws: the deviation of a deviation is 1 / sqrt(2 n) of it.
    assert found[0].error == pytest.approx(np.std(values) * np.sqrt(12 / 11), rel=0.1)


def test_a_difference_as_json_holds_every_number() -> None:
    difference = Difference(0.1, Interval(-0.1, 0.3), 0.4, 0.09)
    assert difference.to_json() == {"value": 0.1, "interval": [-0.1, 0.3], "p": 0.4, "error": 0.09}
    assert str(difference) == "+0.100 [-0.100, +0.300], p = 0.400"


def test_a_clearly_worse_head_has_a_small_p_and_an_equal_one_a_large_one() -> None:
    other = answers(3, 0.8)
    found, _ = paired_differences(
        gold(), np.stack([answers(1, 0.2), other]), other, CLASSES, SPEAKERS
    )
    assert found is not None
    assert found[0].p < 0.01
    assert found[0].interval.high < 0
    assert found[1].p == 1.0
    assert found[1].value == found[1].error == 0.0


def test_pairing_sees_a_difference_that_separate_intervals_hide() -> None:
    # Speakers differ a lot; the second head is right wherever the first is, and a little more.
    random = np.random.default_rng(0)
    easy = np.repeat(random.uniform(0.1, 0.9, 12), 20)
    speakers = [f"s{k // 20}" for k in range(240)]
    target = random.integers(0, CLASSES, 240)
    base = np.where(random.random(240) < easy, target, (target + 1) % CLASSES)
    better = np.where(random.random(240) < 0.2, target, base)
    found, _ = paired_differences(target, better[None], base, CLASSES, speakers)
    assert found is not None
    assert found[0].p < 0.01
    assert found[0].interval.high - found[0].interval.low < 0.1


def test_equal_heads_are_seldom_told_apart() -> None:
    small = 0
    for seed in range(100):
        found, _ = paired_differences(
            gold(), answers(2 * seed, 0.5)[None], answers(2 * seed + 1, 0.5), CLASSES, SPEAKERS
        )
        assert found is not None
        small += found[0].p < 0.05
    assert small <= 9  # of 100 at a level of 5 %


def test_few_speakers_give_a_reason_instead_of_a_comparison() -> None:
    few = [f"s{k % 3}" for k in range(240)]
    found, reason = paired_differences(gold(), answers(1, 0.5)[None], answers(2, 0.5), CLASSES, few)
    assert found is None
    assert "3 speakers" in reason
