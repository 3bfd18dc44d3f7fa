"""The bootstrap against full enumeration of all resamples, and against a plain loop."""

from __future__ import annotations

import math
from itertools import product
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from corpora.base.errors import ConfigError
from heads.bootstrap import (
    Interval,
    bootstrap,
    critical,
    standard_error,
    t_interval,
    two_sided,
)


def share_right(tables: NDArray[Any]) -> NDArray[np.float64]:
    """`[d]` from tables `[d, 2]` of (right, wrong)."""
    return np.asarray(tables[:, 0] / tables.sum(axis=1), dtype=np.float64)


TABLES = np.array([[3, 1], [0, 2], [5, 5], [1, 0]])


def test_values_are_distributed_as_all_resamples_are() -> None:
    everything = [TABLES[list(rows)].sum(axis=0) for rows in product(range(4), repeat=4)]
    exact = share_right(np.array(everything))
    drawn = bootstrap(TABLES, share_right, draws=40_000)
    assert set(np.round(drawn, 9)) <= set(np.round(exact, 9))
    assert drawn.mean() == pytest.approx(exact.mean(), abs=0.005)
    assert drawn.std() == pytest.approx(exact.std(), abs=0.005)
    for share in (0.1, 0.5, 0.9):
        below = (drawn < np.quantile(exact, share) + 1e-9).mean()
        assert below == pytest.approx((exact < np.quantile(exact, share) + 1e-9).mean(), abs=0.01)


def test_equal_clusters_drawn_as_one_have_the_spread_of_separate_ones() -> None:
    # 400 clusters of one utterance, 30 % right: the binomial standard error is known.
    tables = np.array([[1, 0]] * 120 + [[0, 1]] * 280)
    drawn = bootstrap(tables, share_right, draws=20_000)
    assert drawn.mean() == pytest.approx(0.3, abs=0.001)
    assert drawn.std() == pytest.approx(np.sqrt(0.3 * 0.7 / 400), rel=0.03)


def test_equal_seeds_give_equal_values_and_other_seeds_others() -> None:
    first = bootstrap(TABLES, share_right, seed=3)
    assert np.array_equal(first, bootstrap(TABLES, share_right, seed=3))
    assert not np.array_equal(first, bootstrap(TABLES, share_right, seed=4))


def test_the_order_of_clusters_does_not_matter() -> None:
    assert np.array_equal(
        bootstrap(TABLES, share_right), bootstrap(TABLES[[2, 0, 3, 1]], share_right)
    )


def test_the_number_computed_at_once_does_not_change_the_values(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = bootstrap(TABLES, share_right, draws=100)
    monkeypatch.setattr("heads.bootstrap._COUNTS_AT_ONCE", 28)
    assert np.array_equal(bootstrap(TABLES, share_right, draws=100), whole)


def test_two_systems_in_one_table_are_resampled_together() -> None:
    pair = np.stack([TABLES, TABLES], axis=1)  # one system against itself
    differences = bootstrap(pair, lambda t: share_right(t[:, 0]) - share_right(t[:, 1]))
    assert not differences.any()


def test_a_statistic_may_have_several_values() -> None:
    values = bootstrap(
        TABLES, lambda t: np.stack([share_right(t), 1 - share_right(t)], axis=-1), draws=50
    )
    assert values.shape == (50, 2)
    np.testing.assert_allclose(values.sum(axis=1), 1)


@pytest.mark.parametrize("confidence", [0.5, 0.9, 0.95])
@pytest.mark.parametrize("clusters", [2, 8, 100])
def test_the_interval_of_a_mean_is_that_of_student(clusters: int, confidence: float) -> None:
    """Of a mean over clusters the exact interval is known, and its resamples' deviation too."""
    values = np.random.default_rng(clusters).normal(3, 2, clusters)
    drawn = np.array([-1.0, 1.0]) * values.std() / np.sqrt(clusters)  # deviation of all resamples
    low, high = stats.t.interval(
        confidence,
        clusters - 1,
        values.mean(),
        stats.sem(values),  # with S - 1
    )
    found = t_interval(values.mean(), drawn, clusters, confidence)
    assert found == pytest.approx((low, high))
    assert isinstance(found, Interval)


def test_the_interval_of_a_bootstrapped_mean_is_that_of_student() -> None:
    values = np.random.default_rng(1).integers(0, 30, 12)
    drawn = bootstrap(values[:, None], lambda t: t[:, 0] / 12, draws=20_000)
    expected = stats.t.interval(0.95, 11, values.mean(), stats.sem(values))
    assert t_interval(values.mean(), drawn, 12) == pytest.approx(expected, rel=0.02)


def test_an_interval_does_not_go_beyond_what_the_statistic_can_be() -> None:
    drawn = np.array([-1.0, 1.0])
    whole = t_interval(0.5, drawn, 8)
    assert whole.low < 0
    assert whole.high > 1
    assert t_interval(0.5, drawn, 8, bounds=(0, 1)) == (0, 1)
    assert t_interval(0.5, drawn, 8, bounds=(0, math.inf)) == (0, whole.high)
    assert t_interval(0.5, drawn, 8, bounds=(-math.inf, 1)) == (whole.low, 1)


def test_resamples_without_a_value_do_not_count() -> None:
    drawn = np.array([1.0, math.nan, 3.0])
    assert standard_error(drawn, 4) == standard_error(np.array([1.0, 3.0]), 4)
    assert t_interval(2.0, drawn, 4) == t_interval(2.0, np.array([1.0, 3.0]), 4)


def test_the_standard_error_is_that_of_each_column() -> None:
    drawn = np.random.default_rng(0).normal(size=(50, 3))
    found = standard_error(drawn, 9)
    assert found == pytest.approx(drawn.std(axis=0) * np.sqrt(9 / 8))
    assert [standard_error(column, 9) for column in drawn.T] == pytest.approx(found)


@pytest.mark.parametrize("freedom", [1, 2, 7, 23, 500])
def test_student_s_t_is_that_of_its_integral(freedom: int) -> None:
    quantile = {1: 12.7062, 2: 4.30265, 7: 2.36462, 23: 2.06866, 500: 1.96472}[freedom]
    assert critical(0.95, freedom) == pytest.approx(quantile, rel=1e-5)
    assert critical(0.95, freedom) == pytest.approx(stats.t.ppf(0.975, freedom))
    assert two_sided(quantile, freedom) == pytest.approx(0.05, rel=1e-4)
    assert two_sided(-quantile, freedom) == two_sided(quantile, freedom)
    assert two_sided(0.0, freedom) == 1.0
    for t in (0.1, 1.0, 3.0):
        assert two_sided(t, freedom) == pytest.approx(2 * stats.t.sf(t, freedom))


@pytest.mark.parametrize("confidence", [0.0, 1.0, 95.0])
def test_a_confidence_that_is_no_share_is_refused(confidence: float) -> None:
    with pytest.raises(ConfigError, match="between 0 and 1"):
        t_interval(0.0, np.zeros(3), 8, confidence)
    with pytest.raises(ConfigError, match="between 0 and 1"):
        critical(confidence, 7)


def test_nothing_to_resample_is_refused() -> None:
    with pytest.raises(ConfigError, match="0 clusters"):
        bootstrap(np.zeros((0, 2)), share_right)
    with pytest.raises(ConfigError, match="0 draws"):
        bootstrap(TABLES, share_right, draws=0)
