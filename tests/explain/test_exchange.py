"""Attention exchanged between utterances, at the same relative place within speech."""

from __future__ import annotations

import numpy as np

from explain.ragged import Bools, Floats, Ints
from explain.subject import draw_donors, exchanged, usable_counts


def made(seed: int = 0) -> tuple[Floats, Ints, Bools]:
    """Values of six utterances, the third without a usable frame, the fourth of one frame."""
    random = np.random.default_rng(seed)
    offsets = np.array([0, 9, 40, 46, 47, 70, 101])
    usable = random.random(101) < 0.7
    usable[40:46] = False
    usable[46] = True
    return random.random(101), offsets, usable


def test_values_are_those_of_the_donor_at_the_same_place() -> None:
    values, offsets, usable = made()
    for seed in range(10):
        donors = np.random.default_rng(seed).integers(0, 6, 6)
        got = exchanged(values, offsets, usable, donors)
        for row, donor in enumerate(donors.tolist()):
            own = [n for n in range(offsets[row], offsets[row + 1]) if usable[n]]
            theirs = [n for n in range(offsets[donor], offsets[donor + 1]) if usable[n]]
            expected = values.copy()
            for place, frame in enumerate(own):
                if theirs:
                    # (place + ½) / S · S_donor in whole numbers.
                    expected[frame] = values[
                        theirs[(2 * place + 1) * len(theirs) // (2 * len(own))]
                    ]
            part = slice(offsets[row], offsets[row + 1])
            np.testing.assert_array_equal(got[part], expected[part])


def test_an_utterances_own_attention_at_the_same_place_is_what_it_was() -> None:
    values, offsets, usable = made()
    np.testing.assert_array_equal(exchanged(values, offsets, usable, np.arange(6)), values)


def test_exchange_stays_in_speech() -> None:
    values, offsets, usable = made()
    attended = usable & (values > 0.6)
    got = exchanged(attended, offsets, usable, np.array([1, 2, 3, 4, 5, 0]))
    assert got.dtype == np.bool_
    assert not got[~usable].any()
    assert (got != attended).any()
    kept = exchanged(values, offsets, usable, np.array([1, 2, 3, 4, 5, 0]))
    np.testing.assert_array_equal(kept[~usable], values[~usable])


def test_where_attention_lies_in_speech_stays() -> None:
    offsets = np.array([0, 30, 130])
    usable = np.ones(130, dtype=np.bool_)
    usable[30:80] = False  # half of the second is silence, in which it cannot attend
    values = np.zeros(130)
    values[:6] = 1  # a fifth, from the start
    got = exchanged(values, offsets, usable, np.array([1, 0]))
    assert np.flatnonzero(got).tolist() == list(range(80, 90))
    assert usable_counts(usable, offsets).tolist() == [30, 50]


def test_donors_are_others_and_each_as_often() -> None:
    random = np.random.default_rng(0)
    drawn = np.stack([draw_donors(5, random) for _ in range(2_000)])
    assert (drawn != np.arange(5)).all()
    for row in range(5):
        counts = np.bincount(drawn[:, row], minlength=5)
        assert np.delete(counts, row).min() > 400  # 500 each, give or take 20
    assert draw_donors(1, random).tolist() == [0]
    assert draw_donors(0, random).tolist() == []
