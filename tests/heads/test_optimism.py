"""The printed optimism against the simulated one of best-of-N."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from heads.confusion import confusion_by_cluster, confusion_matrix, macro_f1
from heads.gold import Optimism, optimism

CLASSES = 4


def equal_heads(
    seed: int, heads: int, size: int, right: float = 0.5
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Gold `[N]` and the answers `[T, N]` of heads that are all equally good."""
    random = np.random.default_rng(seed)
    gold = np.arange(size) % CLASSES
    guesses = (gold + random.integers(1, CLASSES, (heads, size))) % CLASSES
    return gold, np.where(random.random((heads, size)) < right, gold, guesses)


def of_classes(
    gold: NDArray[np.int64], predicted: NDArray[np.int64], names: list[str], draws: int = 500
) -> Optimism | None:
    def tables(clusters: NDArray[np.int64]) -> list[NDArray[np.int64]]:
        return [confusion_by_cluster(gold, own, clusters, CLASSES) for own in predicted]

    return optimism(tables, macro_f1, names, draws=draws)


def found(seed: int, heads: int, size: int, speakers: int = 0) -> Optimism:
    gold, predicted = equal_heads(seed, heads, size)
    names = [f"s{k % speakers}" if speakers else "" for k in range(size)]
    result = of_classes(gold, predicted, names, draws=100)
    assert result is not None
    return result


@pytest.mark.parametrize(("heads", "size", "speakers"), [(30, 72, 0), (10, 200, 0), (30, 240, 24)])
def test_the_printed_optimism_is_that_of_the_best_of_equal_heads(
    heads: int, size: int, speakers: int
) -> None:
    results = [found(seed, heads, size, speakers) for seed in range(25)]
    # Heads are right half of the time, their misses spread evenly: macro-F1 is .5 in truth.
    true = float(np.mean([result.selected for result in results])) - 0.5
    printed = np.mean([result.value for result in results])
    assert true > 0.03
    assert printed == pytest.approx(true, abs=0.3 * true)
    assert np.mean([result.nested for result in results]) == pytest.approx(0.5, abs=0.015)


def test_a_head_that_is_truly_better_owes_little_to_luck() -> None:
    gold, predicted = equal_heads(0, 10, 200, right=0.3)
    predicted[4] = np.where(np.random.default_rng(1).random(200) < 0.9, gold, predicted[4])
    result = of_classes(gold, predicted, [""] * 200)
    assert result is not None
    assert result.selected == pytest.approx(
        float(macro_f1(confusion_matrix(gold, predicted[4], CLASSES)))
    )
    assert abs(result.value) < 0.01


def test_utterances_are_drawn_where_speakers_are_few() -> None:
    few = found(0, 5, 80, speakers=3)
    assert (few.unit, few.units) == ("utterance", 80)
    assert few.reason == "3 speakers"
    many = found(0, 5, 80, speakers=10)
    assert (many.unit, many.units, many.reason) == ("speaker", 10, "")


def test_there_is_nothing_to_say_about_a_single_head() -> None:
    gold, predicted = equal_heads(0, 1, 80)
    assert of_classes(gold, predicted, [""] * 80) is None


def test_equal_seeds_give_equal_estimates() -> None:
    assert found(3, 5, 80) == found(3, 5, 80)
