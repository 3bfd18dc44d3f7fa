"""Scores of a phase on speakers who did not choose its epoch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import f1_score

from finetune.training import crosswise, speaker_halves
from heads.gold import Gold


@given(st.lists(st.sampled_from(["a", "b", "c", "d", ""]), min_size=1, max_size=60))
def test_no_speaker_is_in_both_halves_and_both_are_about_as_large(speakers: list[str]) -> None:
    half = speaker_halves(speakers)
    counts = {name: speakers.count(name) for name in set(speakers) if name}
    if len(set(speakers)) > 1:
        for name in counts:
            assert len({bool(half[n]) for n, own in enumerate(speakers) if own == name}) == 1
    largest = max(counts.values(), default=1) if len(set(speakers)) > 1 else 1
    assert abs(2 * int(half.sum()) - len(speakers)) <= largest


@given(st.integers(1, 6), st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_each_half_is_scored_by_the_epoch_that_the_other_chose(
    epochs: int, count: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    gold = rng.integers(3, size=count)
    predicted = rng.integers(3, size=(epochs, count))
    half = rng.random(count) < 0.5
    said = np.empty(count, dtype=int)
    for side in (half, ~half):
        chooses = side if side.any() else ~side
        scores = [f1(gold[chooses], one[chooses]) for one in predicted]
        said[~side] = predicted[scores.index(max(scores))][~side]
    found = crosswise([*np.eye(3)[predicted]], truth(gold, 3), torch.tensor(half))
    assert found == pytest.approx(f1(gold, said))


def test_the_luckiest_of_many_epochs_is_not_better_for_it() -> None:
    """Two hundred epochs of guesses: the best is far above chance, crosswise they are at it."""
    rng = np.random.default_rng(0)
    gold, predicted = rng.integers(4, size=80), rng.integers(4, size=(200, 80))
    half = speaker_halves([f"s{n // 10}" for n in range(80)])
    assert max(f1(gold, one) for one in predicted) > 0.35
    found = crosswise([*np.eye(4)[predicted]], truth(gold, 4), half)
    assert 0.1 < found < 0.32


def truth(gold: np.ndarray, classes: int) -> Gold:
    return Gold(
        tuple(map(str, range(classes))), gold, {}, np.zeros((len(gold), 0)), [""] * len(gold)
    )


def f1(gold: np.ndarray, predicted: np.ndarray) -> float:
    present = np.unique(gold)
    return float(f1_score(gold, predicted, labels=present, average="macro", zero_division=0))
