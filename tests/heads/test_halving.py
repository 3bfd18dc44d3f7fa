"""Halving: rungs, who stays, what a cohort costs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heads.search.rounds import default_epochs, head_epochs, rungs, survivors

SCORES = st.lists(
    st.tuples(
        st.sampled_from([0.0, 0.25, 0.5, 1.0]), st.booleans(), st.sampled_from([1.0, 9.0, 80.0])
    ),
    min_size=1,
)


@given(SCORES)
def test_a_third_of_the_sampled_ones_stays(cohort: list[tuple[float, bool, float]]) -> None:
    scores, protected, costs = zip(*cohort, strict=True)
    stay = survivors(scores, protected, costs)
    sampled = protected.count(False)
    assert sum(not protected[k] for k in stay) == -(-sampled // 3)


@given(SCORES)
def test_protected_ones_stay_and_nobody_better_left(
    cohort: list[tuple[float, bool, float]],
) -> None:
    scores, protected, costs = zip(*cohort, strict=True)
    stay = survivors(scores, protected, costs)
    assert stay == sorted(set(stay))
    left = set(range(len(scores))) - set(stay)
    assert not any(protected[k] for k in left)
    for k in left:
        for kept in (k for k in stay if not protected[k]):
            assert (scores[kept], -costs[kept], -kept) > (scores[k], -costs[k], -k)


def test_a_cohort_is_compared_at_a_ninth_a_third_and_the_end() -> None:
    assert rungs(9) == [1, 3, 9]
    assert rungs(108) == [12, 36, 108]


@pytest.mark.parametrize("epochs", [1, 2, 3, 5, 10])
def test_any_number_of_epochs_has_rungs_that_end_with_it(epochs: int) -> None:
    found = rungs(epochs)
    assert found[0] >= 1
    assert found[-1] == epochs


@pytest.mark.parametrize(("steps", "epochs"), [(2, 108), (4, 54), (22, 18), (23, 9), (1000, 9)])
def test_small_corpora_get_more_epochs(steps: int, epochs: int) -> None:
    assert default_epochs(steps) == epochs
    assert steps * default_epochs(steps) >= 200


@given(st.integers(0, 20), st.integers(0, 20), st.integers(1, 40))
def test_the_cost_of_a_cohort_is_what_halving_it_takes(
    sampled: int, protected: int, epochs: int
) -> None:
    company = [True] * protected + [False] * sampled
    cost, epoch = 0, 0
    for rung in rungs(epochs):
        while epoch < rung:
            cost += len(company)
            epoch += 1
        company = [
            company[k] for k in survivors([0.0] * len(company), company, [1.0] * len(company))
        ]
    assert head_epochs(sampled + protected, protected, epochs) == cost
