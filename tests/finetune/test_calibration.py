"""Calibration error and temperature against plain arithmetic, and what they must not do."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from corpora.base.errors import ConfigError
from finetune.evaluate.calibration import (
    COLDEST,
    HOTTEST,
    Calibration,
    at_temperature,
    calibrate,
    fit_temperature,
    reliability,
)

Floats = NDArray[np.float64]


def softmax(logits: Floats) -> Floats:
    raised = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(raised / raised.sum(axis=1, keepdims=True))


def drawn(
    seed: int, n: int, classes: int = 4, spread: float = 1.5
) -> tuple[Floats, NDArray[np.int64]]:
    """Logits, and gold classes drawn from their softmax: perfectly calibrated."""
    random = np.random.default_rng(seed)
    logits = spread * random.standard_normal((n, classes))
    gold = (softmax(logits).cumsum(axis=1) < random.random((n, 1))).sum(axis=1)
    return logits, np.minimum(gold, classes - 1)


def plain_ece(probabilities: Floats, gold: NDArray[np.int64], bins: int) -> float:
    """Equation 5 of Guo et al. (2017), one utterance after the other."""
    inside: dict[int, list[tuple[float, bool]]] = {}
    for row, label in zip(probabilities.tolist(), gold.tolist(), strict=True):
        confidence = max(row)
        number = next(b for b in range(bins) if confidence <= (b + 1) / bins or b == bins - 1)
        inside.setdefault(number, []).append((confidence, row.index(confidence) == label))
    error = 0.0
    for members in inside.values():
        accuracy = sum(right for _, right in members) / len(members)
        confidence = sum(sure for sure, _ in members) / len(members)
        error += len(members) / len(gold) * abs(accuracy - confidence)
    return error


def nll(logits: Floats, gold: NDArray[np.int64], temperature: float) -> float:
    return float(-np.log(softmax(logits / temperature)[np.arange(len(gold)), gold]).mean())


@settings(max_examples=40)
@given(
    seed=st.integers(0, 10_000),
    n=st.integers(1, 60),
    classes=st.integers(2, 8),
    bins=st.integers(1, 20),
)
def test_the_calibration_error_is_that_of_the_equation(
    seed: int, n: int, classes: int, bins: int
) -> None:
    logits, gold = drawn(seed, n, classes)
    probabilities = softmax(logits)
    found = reliability(probabilities, gold, bins=bins)
    assert found.ece == pytest.approx(plain_ece(probabilities, gold, bins), abs=1e-12)
    assert sum(one.count for one in found.bins) == n
    assert found.nll == pytest.approx(nll(logits, gold, 1.0))


def test_a_confidence_on_an_edge_belongs_to_the_bin_below() -> None:
    found = reliability([[0.5, 0.5], [1.0, 0.0]], [0, 0], bins=2)
    assert [one.count for one in found.bins] == [1, 1]


@settings(max_examples=25)
@given(seed=st.integers(0, 10_000), true=st.floats(0.3, 4.0))
def test_the_temperature_is_the_best_of_a_fine_grid(seed: int, true: float) -> None:
    logits, gold = drawn(seed, 400)
    logits = logits * true
    found = fit_temperature(softmax(logits), gold)
    grid = np.exp(np.linspace(np.log(0.06), np.log(19), 400))
    assert nll(logits, gold, found) <= min(nll(logits, gold, float(t)) for t in grid) + 1e-9


def test_logits_that_were_made_too_sure_are_cooled_by_as_much() -> None:
    logits, gold = drawn(0, 20_000)
    assert fit_temperature(softmax(3.0 * logits), gold) == pytest.approx(3.0, rel=0.05)
    assert fit_temperature(softmax(logits / 2.0), gold) == pytest.approx(0.5, rel=0.05)


def test_scaling_mends_an_overconfident_model_and_changes_no_decision() -> None:
    logits, gold = drawn(1, 4_000)
    sure = softmax(3.0 * logits)
    found = calibrate(sure[2000:], gold[2000:], sure[:2000], gold[:2000], "dev")
    assert found.before.ece > 0.1
    assert found.after.ece < 0.04
    assert found.after.nll < found.before.nll
    assert found.after.accuracy == found.before.accuracy
    assert not found.bound
    scaled = at_temperature(sure, found.temperature)
    assert (scaled.argmax(axis=1) == sure.argmax(axis=1)).all()
    np.testing.assert_allclose(scaled, softmax(3.0 * logits / found.temperature), atol=1e-9)


def test_what_a_perfect_model_would_show_is_what_one_shows() -> None:
    shown = []
    for seed in range(40):
        logits, gold = drawn(seed, 100)
        found = reliability(softmax(logits), gold)
        shown.append((found.ece, found.ece_if_perfect))
    mean = np.mean(shown, axis=0)
    assert mean[0] == pytest.approx(mean[1], rel=0.1)
    assert mean[1] > 0.05  # far above 0, which is why it is told


def test_without_a_best_temperature_an_end_is_taken_and_said() -> None:
    right = np.array([[0.9, 0.1], [0.2, 0.8]])
    found = calibrate(right, [0, 1], right, [0, 1], "dev", same_rows=True)
    assert found.temperature == pytest.approx(COLDEST, rel=1e-3)
    assert found.bound
    assert fit_temperature(right, [1, 0]) == pytest.approx(HOTTEST, rel=1e-3)


def test_a_probability_of_zero_is_no_infinity() -> None:
    found = calibrate([[1.0, 0.0]], [1], [[1.0, 0.0], [0.6, 0.4]], [0, 1], "dev")
    assert np.isfinite(found.before.nll)
    assert np.isfinite(found.temperature)


def test_it_comes_back_from_json() -> None:
    logits, gold = drawn(2, 50)
    found = calibrate(softmax(logits), gold, softmax(logits), gold, "dev", same_rows=True)
    assert Calibration.from_json(json.loads(json.dumps(found.to_json()))) == found


@pytest.mark.parametrize(
    ("probabilities", "gold", "message"),
    [
        ([], [], "at least one"),
        ([[0.5, 0.5]], [0, 1], "as many gold"),
        ([[0.5, float("nan")]], [0], "finite"),
        ([[3.0, -2.0]], [0], "between 0 and 1"),
        ([[0.5, 0.5]], [2], "not one of the 2"),
    ],
)
def test_what_is_no_set_of_probabilities_is_refused(
    probabilities: list[list[float]], gold: list[int], message: str
) -> None:
    for measure in (reliability, fit_temperature):
        with pytest.raises(ConfigError, match=message):
            measure(probabilities, gold)
    with pytest.raises(ConfigError, match="bin"):
        reliability([[0.5, 0.5]], [0], bins=0)
