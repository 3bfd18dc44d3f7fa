"""The bootstrap against full enumeration of all resamples, and against a plain loop."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from corpora.errors import ConfigError
from heads.statistics.bootstrap import Interval, bootstrap, percentile_interval


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
    monkeypatch.setattr("heads.statistics.bootstrap._COUNTS_AT_ONCE", 28)
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


def test_the_interval_cuts_equal_tails() -> None:
    assert percentile_interval(np.arange(101.0), 0.5) == Interval(25.0, 75.0)


@pytest.mark.parametrize("confidence", [0.0, 1.0, 95.0])
def test_a_confidence_that_is_no_share_is_refused(confidence: float) -> None:
    with pytest.raises(ConfigError, match="between 0 and 1"):
        percentile_interval(np.zeros(3), confidence)


def test_nothing_to_resample_is_refused() -> None:
    with pytest.raises(ConfigError, match="0 clusters"):
        bootstrap(np.zeros((0, 2)), share_right)
    with pytest.raises(ConfigError, match="0 draws"):
        bootstrap(TABLES, share_right, draws=0)
