"""Folds: whole speakers, every labelled row tested once, the next fold for development."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corpora.base.errors import ConfigError, ManifestError
from corpora.splits import deal, divide, folds_by, folds_of_count, folds_of_groups
from tests.corpora.people import people

NAMES = [f"s{number}" for number in range(10)]


def test_one_fold_is_tested_on_and_the_next_selects() -> None:
    rows = people(["1", "2", "10"])
    made = divide(rows, folds_by(rows, "speaker"), "10")
    assert made.folds == ("1", "2", "10")
    homes = {u.speaker: u.split for u in made.utterances}
    assert homes == {"10": "test", "1": "dev", "2": "train"}
    assert all(u.fold == u.speaker for u in made.utterances)


def test_the_first_fold_is_tested_on_by_default() -> None:
    rows = people(["b", "a", "c"])
    assert divide(rows, folds_by(rows, "speaker")).test_fold == "a"


def test_an_unknown_fold_names_those_there_are() -> None:
    rows = people(["ann", "bob", "cyd"])
    with pytest.raises(ConfigError, match=r"no fold 'bop'\. Did you mean 'bob'\?"):
        divide(rows, folds_by(rows, "speaker"), "bop")


def test_two_folds_are_too_few() -> None:
    rows = people(["ann", "bob"])
    with pytest.raises(ManifestError, match="at least 3 folds"):
        divide(rows, folds_by(rows, "speaker"))


def test_unlabelled_rows_have_no_fold_and_no_split() -> None:
    rows = [*people(["ann", "bob", "cyd"]), replace(people(["ann"])[0], id="x", label="")]
    made = divide(rows, folds_by(rows, "speaker"))
    assert (made.utterances[-1].fold, made.utterances[-1].split) == ("", "")


def test_folds_by_speaker_need_every_speaker() -> None:
    rows = [*people(["ann", "bob", "cyd"]), *people(["Unknown"], each=1)]
    with pytest.raises(ManifestError, match="3 of 39 labelled utterances have none"):
        folds_by(rows, "speaker")


def test_speakers_of_two_corpora_with_one_name_are_two_folds() -> None:
    rows = [*people(["ann", "bob"]), *people(["ann"], corpus="d")]
    assert set(folds_by(rows, "speaker")) == {"c/ann", "c/bob", "d/ann"}


def test_published_groups_are_read_by_name_and_by_range() -> None:
    rows = people(["1001", "1018", "1019", "07"])
    folds = folds_of_groups(rows, [["1001-1018"], ["1019-1036", "07"]])
    assert {u.speaker: fold for u, fold in zip(rows, folds, strict=True)} == {
        "1001": "1",
        "1018": "1",
        "1019": "2",
        "07": "2",
    }


def test_a_speaker_outside_the_published_groups_is_refused() -> None:
    with pytest.raises(ManifestError, match="name no speaker 1037"):
        folds_of_groups(people(["1001", "1037"]), [["1001-1018"]])


@pytest.mark.parametrize("count", [3, 5])
def test_folds_of_a_number_are_whole_speakers_of_equal_size(count: int) -> None:
    rows = people(NAMES)
    folds = folds_of_count(rows, count, seed=1)
    homes: dict[str, str] = {}
    for utterance, fold in zip(rows, folds, strict=True):
        assert homes.setdefault(utterance.speaker, fold) == fold
    sizes = [list(homes.values()).count(str(k + 1)) for k in range(count)]
    assert max(sizes) - min(sizes) <= 1


def test_the_seed_decides_who_is_in_which_fold() -> None:
    rows = people(NAMES)
    first = folds_of_count(rows, 5, seed=1)
    assert folds_of_count(rows, 5, seed=1) == first
    assert any(folds_of_count(rows, 5, seed=seed) != first for seed in range(2, 6))


def test_more_folds_than_speakers_are_refused() -> None:
    with pytest.raises(ManifestError, match="there are 3 speakers"):
        folds_of_count(people(["ann", "bob", "cyd"]), 4, seed=0)


@given(st.lists(st.integers(1, 9), min_size=3, max_size=30), st.integers(2, 3))
def test_every_row_of_a_group_is_dealt_to_one_fold(sizes: list[int], count: int) -> None:
    groups, rows = [], 0
    for size in sizes:
        groups.append(list(range(rows, rows + size)))
        rows += size
    dealt = deal(groups, ["x"] * rows, count)
    assert sorted(dealt) == list(range(rows))
    assert all(len({dealt[row] for row in group}) == 1 for group in groups)
    held = [sum(home == fold for home in dealt.values()) for fold in range(count)]
    assert max(held) - min(held) <= max(sizes)
