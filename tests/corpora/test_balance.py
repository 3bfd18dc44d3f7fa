"""Leaving rows out: how many, of which labels, and that chance alone decides which."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corpora.arrangement import balance, limit_imbalance
from corpora.base.errors import ConfigError
from corpora.utterance import Utterance
from tests.corpora.people import people


def rows(counts: dict[str, int], split: str = "train") -> list[Utterance]:
    made = people(["ann"], each=1, labels=("x",))[0]
    return [
        replace(made, id=f"{label}{k}", label=label, split=split)
        for label, count in counts.items()
        for k in range(count)
    ]


def held(utterances: tuple[Utterance, ...], split: str) -> Counter[str]:
    return Counter(u.label for u in utterances if u.split == split)


def test_frequent_labels_are_thinned_out_to_the_ratio() -> None:
    made = limit_imbalance(rows({"a": 100, "b": 5, "c": 30}), 8, seed=0)
    assert held(made.utterances, "train") == {"a": 40, "b": 5, "c": 30}
    assert made.removed == {"a": 60}


def test_rows_left_out_stay_without_a_split() -> None:
    made = limit_imbalance(rows({"a": 10, "b": 2}), 2, seed=0)
    assert len(made.utterances) == 12
    assert sum(u.split == "" for u in made.utterances) == 6


def test_other_splits_and_unlabelled_rows_are_left_alone() -> None:
    given_rows = [*rows({"a": 9, "b": 1}), *rows({"a": 9}, "dev"), *rows({"": 5})]
    made = limit_imbalance(given_rows, 1, seed=0)
    assert held(made.utterances, "dev") == {"a": 9}
    assert held(made.utterances, "train") == {"a": 1, "b": 1, "": 5}


def test_a_balanced_split_has_as_many_of_each_label_as_of_the_rarest() -> None:
    made = balance(rows({"a": 7, "b": 3, "c": 3}, "dev"), seed=0)
    assert held(made.utterances, "dev") == {"a": 3, "b": 3, "c": 3}


def test_the_seed_decides_which_rows_stay() -> None:
    given_rows = rows({"a": 50, "b": 5})
    first = limit_imbalance(given_rows, 2, seed=3)
    assert limit_imbalance(given_rows, 2, seed=3) == first
    assert limit_imbalance(given_rows, 2, seed=4) != first


def test_rows_left_out_are_drawn_from_the_whole_file() -> None:
    made = limit_imbalance(rows({"a": 100, "b": 50}), 1, seed=0)
    kept = [k for k, u in enumerate(made.utterances[:100]) if u.split]
    assert 10 < sum(k < 50 for k in kept) < 40


@pytest.mark.parametrize("ratio", [0.5, float("inf"), float("nan")])
def test_a_ratio_that_is_none_is_refused(ratio: float) -> None:
    with pytest.raises(ConfigError, match="expected 1 or more"):
        limit_imbalance(rows({"a": 2}), ratio, seed=0)


def test_an_empty_split_stays_empty() -> None:
    assert balance(rows({"a": 2}), seed=0).removed == {}


@given(
    st.dictionaries(st.sampled_from("abcd"), st.integers(1, 30), min_size=1),
    st.floats(1, 9),
    st.integers(0, 3),
)
def test_no_label_exceeds_the_ratio_and_the_rarest_is_whole(
    counts: dict[str, int], ratio: float, seed: int
) -> None:
    after = held(limit_imbalance(rows(counts), ratio, seed=seed).utterances, "train")
    rarest = min(counts.values())
    assert max(after.values()) <= ratio * rarest
    assert all(after[label] == min(count, int(ratio * rarest)) for label, count in counts.items())
