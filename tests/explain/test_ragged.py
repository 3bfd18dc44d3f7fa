"""Ragged arithmetic against the same thing done one utterance at a time."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from explain.ragged import (
    Floats,
    Ints,
    attended_frames,
    correlations,
    cumulative,
    order_within,
    ranks_within,
)

lengths_and_seed = st.tuples(
    st.lists(st.integers(1, 12), min_size=1, max_size=6), st.integers(0, 10_000)
)


def ragged(lengths: list[int], seed: int, ties: bool = False) -> tuple[Floats, Ints]:
    random = np.random.default_rng(seed)
    offsets = np.cumsum([0, *lengths])
    values = random.random(int(offsets[-1]))
    if ties:
        values = np.round(3 * values)
    return values, offsets


def parts(values: Floats, offsets: Ints) -> list[Floats]:
    return [values[a:b] for a, b in pairwise(offsets)]


@given(lengths_and_seed, st.floats(0.05, 1.0))
def test_attended_frames_are_the_smallest_set_that_holds_the_share(
    case: tuple[list[int], int], share: float
) -> None:
    values, offsets = ragged(*case)
    weights = np.concatenate([part / part.sum() for part in parts(values, offsets)])
    attended = attended_frames(weights, offsets, share)
    for own, chosen in zip(
        parts(weights, offsets), parts(attended.astype(float), offsets), strict=True
    ):
        count = int(chosen.sum())
        ranked = np.sort(own)[::-1]
        assert own[chosen > 0].sum() >= share - 1e-9
        assert ranked[: count - 1].sum() < share
        assert np.isclose(own[chosen > 0].sum(), ranked[:count].sum())


@given(lengths_and_seed)
def test_the_top_frame_is_one_an_utterance(case: tuple[list[int], int]) -> None:
    values, offsets = ragged(*case)
    attended = attended_frames(values, offsets, None)
    for own, chosen in zip(
        parts(values, offsets), parts(attended.astype(float), offsets), strict=True
    ):
        assert chosen.sum() == 1
        assert own[chosen > 0][0] == own.max()


@given(lengths_and_seed)
def test_ranks_of_equal_values_are_their_mean(case: tuple[list[int], int]) -> None:
    values, offsets = ragged(*case, ties=True)
    ranks = ranks_within(values, offsets)
    for own, found in zip(parts(values, offsets), parts(ranks, offsets), strict=True):
        expected = [(own < v).sum() + ((own == v).sum() + 1) / 2 for v in own]
        np.testing.assert_allclose(found, expected)


@given(lengths_and_seed)
def test_correlations_are_numpys_and_undefined_where_nothing_varies(
    case: tuple[list[int], int],
) -> None:
    a, offsets = ragged(*case, ties=True)
    b = ragged(case[0], case[1] + 1)[0]
    found = correlations(a, b, offsets)
    for first, second, value in zip(parts(a, offsets), parts(b, offsets), found, strict=True):
        if np.ptp(first) == 0 or np.ptp(second) == 0:
            assert np.isnan(value)
        else:
            np.testing.assert_allclose(value, np.corrcoef(first, second)[0, 1], atol=1e-9)


@given(lengths_and_seed)
def test_sorting_and_summing_stay_within_utterances(case: tuple[list[int], int]) -> None:
    values, offsets = ragged(*case)
    held = cumulative(values[order_within(values, offsets)], offsets)
    for own, found in zip(parts(values, offsets), parts(held, offsets), strict=True):
        np.testing.assert_allclose(found, np.cumsum(np.sort(own)[::-1]), atol=1e-9)
