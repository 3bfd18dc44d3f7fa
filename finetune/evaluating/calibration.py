"""Temperature scaling (Guo et al. 2017, "On calibration of modern neural networks", section 4.2).

The logits are divided by one number T that minimises the negative log-likelihood of the development
set. It changes no decision, only how sure they are. Everything here works on probabilities: their
logarithms are logits up to a constant an utterance, so that an ensemble, which has no logits, is
treated like a model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from corpora.base.terminal import aligned
from finetune.evaluating.reliability import SMALLEST, Bin, Floats, Reliability, checked, reliability

# A fit that runs into these says that there is no best temperature: every answer right, or noise.
COLDEST, HOTTEST = 0.05, 20.0
# Halvings of the interval of log T, whose width is 6: T is then right to 12 digits.
HALVINGS = 42


@dataclass(frozen=True)
class Calibration:
    """Calibration on a split before and after temperature scaling.

    Attributes:
        temperature: fitted; above 1 makes answers less sure, below 1 surer.
        fitted_on: which utterances, in words.
        fitted: how many they are.
        same_rows: they are those that are scored, so that "after" flatters.
        bound: the temperature ran into an end of what is tried.
        before: of the probabilities as they are.
        after: of those at this temperature.
    """

    temperature: float
    fitted_on: str
    fitted: int
    same_rows: bool
    bound: bool
    before: Reliability
    after: Reliability

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Calibration:
        """The inverse of `to_json`."""
        both = {
            name: Reliability(
                **{**value[name], "bins": tuple(Bin(**one) for one in value[name]["bins"])}
            )
            for name in ("before", "after")
        }
        return cls(**{**value, **both})


def fit_temperature(probabilities: ArrayLike, gold: ArrayLike) -> float:
    """The temperature that minimises the negative log-likelihood.

    It is convex in β = 1 / T, with derivative mean_i(Σ_c p_ic z_ic − z_iy) at p = softmax(β z), so
    that the sign of the derivative says on which side the minimum is.

    Args:
        probabilities: `[n, C]`.
        gold: `[n]` class indices.

    Returns:
        T, between `COLDEST` and `HOTTEST`.

    Raises:
        ConfigError: shapes do not fit, nothing is there, or numbers are no probabilities.
    """
    values, classes = checked(probabilities, gold)
    logits = np.log(np.maximum(values, SMALLEST))
    chosen = logits[np.arange(len(classes)), classes]

    def slope(temperature: float) -> float:
        scaled = _softmax(logits / temperature)
        return float(((scaled * logits).sum(axis=1) - chosen).mean())

    low, high = np.log(COLDEST), np.log(HOTTEST)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        # Too sure for this temperature: the minimum is at a smaller β, a larger T.
        low, high = (middle, high) if slope(float(np.exp(middle))) > 0 else (low, middle)
    return float(np.exp((low + high) / 2))


def at_temperature(probabilities: ArrayLike, temperature: float) -> Floats:
    """Probabilities `[n, C]` at another temperature, softmax(log p / T)."""
    values = np.asarray(probabilities, dtype=np.float64)
    return _softmax(np.log(np.maximum(values, SMALLEST)) / temperature)


def calibrate(
    probabilities: ArrayLike,
    gold: ArrayLike,
    dev: ArrayLike,
    dev_gold: ArrayLike,
    fitted_on: str,
    *,
    same_rows: bool = False,
) -> Calibration:
    """Fit a temperature on development utterances and measure what it does on others.

    Args:
        probabilities: `[n, C]` of the split that is scored.
        gold: `[n]`.
        dev: `[m, C]` of the development set.
        dev_gold: `[m]`.
        fitted_on: the development set in words.
        same_rows: both are the same.
    """
    temperature = fit_temperature(dev, dev_gold)
    return Calibration(
        temperature=temperature,
        fitted_on=fitted_on,
        fitted=len(np.asarray(dev_gold)),
        same_rows=same_rows,
        bound=not COLDEST * 1.001 < temperature < HOTTEST / 1.001,
        before=reliability(probabilities, gold),
        after=reliability(at_temperature(probabilities, temperature), gold),
    )


def calibration_lines(found: Calibration) -> list[str]:
    """For a terminal."""
    rows: list[tuple[str, ...]] = [
        ("calibration", "ECE", "ECE if perfect", "confidence", "accuracy", "NLL")
    ]
    both = (("as it is", found.before), (f"at temperature {found.temperature:.2f}", found.after))
    for name, one in both:
        numbers = (one.ece, one.ece_if_perfect, one.confidence, one.accuracy, one.nll)
        rows.append((name, *(f"{number:.3f}" for number in numbers)))
    lines = aligned(rows)
    where = ", the very utterances scored here" if found.same_rows else ""
    lines.append(
        f"[{len(found.before.bins)} bins of equal width; temperature fitted on {found.fitted:,} "
        f"utterances of {found.fitted_on}{where}]"
    )
    if found.bound:
        lines.append("Note: the temperature ran into its bound; these utterances do not fix one.")
    return lines


def _softmax(logits: Floats) -> Floats:
    raised = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(raised / raised.sum(axis=1, keepdims=True))
