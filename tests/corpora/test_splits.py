from __future__ import annotations

import itertools
import random
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corpora.base.errors import ManifestError
from corpora.splits import assign_splits
from corpora.utterance import SPLITS, Utterance


def speech(speaker: str, label: str, count: int = 1, sex: str = "") -> list[Utterance]:
    return [
        Utterance(f"{speaker}-{label}-{k}", Path(f"/{speaker}/{label}{k}.wav"), label,
                  speaker=speaker, sex=sex)
        for k in range(count)
    ]  # fmt: skip


def corpus(sizes: dict[str, dict[str, int]]) -> list[Utterance]:
    return [
        u for who, held in sizes.items() for label, n in held.items() for u in speech(who, label, n)
    ]


def homes(utterances: tuple[Utterance, ...]) -> dict[str, set[str]]:
    return {s: {u.speaker for u in utterances if u.split == s} for s in SPLITS}


def objective(utterances: tuple[Utterance, ...]) -> float:
    """The documented objective, from its equation, without the penalties and for no sexes."""
    total = 0.0
    labels = sorted({u.label for u in utterances})
    for wanted, weight in [(None, 1.0), *((label, 1 / len(labels)) for label in labels)]:
        counts = Counter(u.split for u in utterances if wanted in (None, u.label))
        n = sum(counts.values())
        for split, share in zip(SPLITS, (0.6, 0.2, 0.2), strict=True):
            total += weight * (counts[split] - share * n) ** 2 / (share * n**2)
    return total


speaker_sizes = st.dictionaries(
    st.text("abcdefgh", min_size=1, max_size=2),
    st.dictionaries(st.sampled_from(("joy", "fear", "calm")), st.integers(1, 6), min_size=1),
    min_size=3,
    max_size=20,
)


@given(sizes=speaker_sizes, seed=st.integers(0, 3))
def test_no_speaker_stands_in_two_splits_and_none_is_empty(
    sizes: dict[str, dict[str, int]], seed: int
) -> None:
    made, _ = assign_splits(corpus(sizes), seed=seed)
    found = homes(made)
    assert all(found.values())
    assert sum(map(len, found.values())) == len(sizes)


@given(sizes=speaker_sizes, seed=st.integers(0, 3))
def test_only_the_split_changes_and_the_order_is_kept(
    sizes: dict[str, dict[str, int]], seed: int
) -> None:
    given_ = corpus(sizes)
    made, _ = assign_splits(given_, seed=seed)
    assert [u.id for u in made] == [u.id for u in given_]


@given(sizes=speaker_sizes, seed=st.integers(0, 3), order=st.randoms(use_true_random=False))
def test_the_same_seed_gives_the_same_splits_in_any_row_order(
    sizes: dict[str, dict[str, int]], seed: int, order: random.Random
) -> None:
    rows = corpus(sizes)
    shuffled = list(rows)
    order.shuffle(shuffled)
    assert homes(assign_splits(rows, seed=seed)[0]) == homes(assign_splits(shuffled, seed=seed)[0])


def test_up_to_twelve_speakers_no_other_assignment_is_better() -> None:
    sizes = {
        who: {"joy": 1 + k, "fear": 1 + (3 * k) % 5, "calm": 2} for k, who in enumerate("abcdef")
    }
    rows = corpus(sizes)
    losses = []
    for places in itertools.product(SPLITS, repeat=len(sizes)):
        if set(places) == set(SPLITS):
            home = dict(zip(sizes, places, strict=True))
            losses.append(objective(tuple(replace(u, split=home[u.speaker]) for u in rows)))
    assert objective(assign_splits(rows)[0]) == pytest.approx(min(losses))


def test_many_speakers_come_close_to_the_shares() -> None:
    sizes = {f"{k:02d}": {"joy": 3 + k % 7, "fear": 2 + k % 4} for k in range(60)}
    made, _ = assign_splits(corpus(sizes))
    for label in ("joy", "fear"):
        counts = Counter(u.split for u in made if u.label == label)
        shares = [counts[split] / sum(counts.values()) for split in SPLITS]
        assert shares == pytest.approx([0.6, 0.2, 0.2], abs=0.02)


@pytest.mark.parametrize("crowd", [9, 40])
def test_a_rare_label_reaches_every_split_when_three_speakers_have_it(crowd: int) -> None:
    sizes = {f"{k:02d}": {"calm": 5} for k in range(crowd)}
    for who in ("00", "01", "02"):
        sizes[who] = {"calm": 5, "joy": 1}
    made, _ = assign_splits(corpus(sizes))
    assert {u.split for u in made if u.label == "joy"} == set(SPLITS)


def test_both_sexes_reach_every_split_when_they_can() -> None:
    rows = [u for k in range(10) for u in speech(f"s{k}", "joy", 4, ("female", "male")[k % 2])]
    made, _ = assign_splits(rows)
    for split in SPLITS:
        assert {u.sex for u in made if u.split == split} == {"female", "male"}


def test_utterances_of_unknown_speakers_are_spread_and_warned_about() -> None:
    rows = speech("a", "joy", 3) + speech("Unknown", "joy", 20) + speech("", "joy", 2)
    made, notes = assign_splits(rows)
    assert {u.split for u in made if u.speaker == "Unknown"} == set(SPLITS)
    assert any("22 of 25" in note for note in notes)


def test_cuts_of_one_recording_of_an_unknown_speaker_stay_together() -> None:
    rows = [
        Utterance(f"{k}-{cut}", Path(f"/{k}.wav"), "joy", start=float(cut))
        for k in range(9)
        for cut in range(4)
    ]
    made, _ = assign_splits(rows)
    assert all(len({u.split for u in made if u.audio == a}) == 1 for a in {u.audio for u in made})


def test_unlabelled_utterances_are_not_used() -> None:
    rows = speech("a", "joy") + speech("b", "joy") + speech("c", "joy") + speech("a", "")
    made, _ = assign_splits(rows)
    assert [bool(u.split) for u in made] == [True, True, True, False]


def test_fewer_than_three_speakers_are_refused_by_name() -> None:
    with pytest.raises(ManifestError, match=r"found 2 \(ann, bob\).*Fill a column speaker"):
        assign_splits(speech("ann", "joy", 5) + speech("bob", "joy", 5))
