"""Temperature scaling (Guo et al. 2017, "On calibration of modern neural networks", section 4.2).

The logits are divided by one number T that minimises the negative log-likelihood of the development
set. It changes no decision, only how sure they are. Everything here works on probabilities: their
logarithms are logits up to a constant an utterance, so that an ensemble, which has no logits, is
treated like a model.

Are probabilities what they say? How sure a model is against how often it is right.

Of the utterances that a calibrated model is 80 % sure of, it gets 80 % right. How far it is from
that is the expected calibration error of Guo et al. (2017, "On calibration of modern neural
networks", equation 5): utterances are put into bins of equal width by their confidence (the largest
probability), and ECE = Σ_b n_b / n · |accuracy_b − confidence_b|. With few utterances it is well
above 0 for a perfect model too, so what a perfect one would show is given beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from corpora.base.codec import Jsonable
from corpora.base.errors import ConfigError
from corpora.base.report import Table

# As Guo et al.
BINS = 15
# Probabilities come as float32, which has nothing between 1e-38 and 0.
SMALLEST = 1e-38
# Draws of the error that a perfect model would show; its mean is then right to about .001.
DRAWS = 400
_CELLS_AT_ONCE = 2**22

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Bin:
    """The utterances of one range of confidence.

    Attributes:
        low: its lower end, not in it.
        high: its upper end.
        count: utterances.
        confidence: the mean of their largest probabilities; 0 for none.
        accuracy: the share of them that is right; 0 for none.
    """

    low: float
    high: float
    count: int
    confidence: float
    accuracy: float


@dataclass(frozen=True)
class Reliability:
    """How well confidence and accuracy agree.

    Attributes:
        ece: expected calibration error, 0 to 1.
        ece_if_perfect: the mean error of a perfectly calibrated model as sure as this one, of as
            many utterances.
        nll: mean negative log-likelihood of the gold class, in nats.
        confidence: mean of the largest probabilities.
        accuracy: share that is right.
        bins: from the lowest confidence.
    """

    ece: float
    ece_if_perfect: float
    nll: float
    confidence: float
    accuracy: float
    bins: tuple[Bin, ...]


def reliability(probabilities: ArrayLike, gold: ArrayLike, *, bins: int = BINS) -> Reliability:
    """Compare confidence with accuracy.

    Args:
        probabilities: `[n, C]`; of equally large ones the first is the answer.
        gold: `[n]` class indices.
        bins: of equal width, from 0 to 1.

    Raises:
        ConfigError: as `checked`, or there is no bin.
    """
    values, classes = checked(probabilities, gold)
    if bins < 1:
        raise ConfigError(f"the calibration error needs at least one bin, got {bins}.")
    rows = np.arange(len(classes))
    confidence = values.max(axis=1)
    right = values.argmax(axis=1) == classes
    place = _places(confidence, bins)
    count = np.bincount(place, minlength=bins)
    sure = np.bincount(place, weights=confidence, minlength=bins)
    hits = np.bincount(place, weights=right, minlength=bins)
    share = np.maximum(count, 1)
    return Reliability(
        ece=float(np.abs(hits - sure).sum() / len(classes)),
        ece_if_perfect=_ece_if_perfect(confidence, place, bins),
        nll=float(-np.log(np.maximum(values[rows, classes], SMALLEST)).mean()),
        confidence=float(confidence.mean()),
        accuracy=float(right.mean()),
        bins=tuple(
            Bin(b / bins, (b + 1) / bins, int(count[b]), float(sure[b] / n), float(hits[b] / n))
            for b, n in enumerate(share)
        ),
    )


def checked(probabilities: ArrayLike, gold: ArrayLike) -> tuple[Floats, Integers]:
    """Probabilities `[n, C]` and classes `[n]` as arrays.

    Raises:
        ConfigError: shapes do not fit, nothing is there, or numbers are no probabilities.
    """
    values = np.asarray(probabilities, dtype=np.float64)
    classes = np.asarray(gold)
    if values.ndim != 2 or classes.shape != values.shape[:1] or not len(classes):
        raise ConfigError(
            f"calibration needs probabilities [n, C] and as many gold classes, at least one; got "
            f"{list(values.shape)} and {list(classes.shape)}."
        )
    if not np.isfinite(values).all() or (values < 0).any() or (values.max(axis=1) > 1.0001).any():
        raise ConfigError("calibration needs probabilities between 0 and 1, all of them finite.")
    if (classes < 0).any() or (classes >= values.shape[1]).any():
        raise ConfigError(
            f"a gold class is not one of the {values.shape[1]} that there are probabilities for."
        )
    return values, classes.astype(np.int64)


def _places(confidence: Floats, bins: int) -> Integers:
    """`[n]`: bin b holds what is above b / bins and at most (b + 1) / bins."""
    return np.asarray(np.clip(np.ceil(confidence * bins) - 1, 0, bins - 1), dtype=np.int64)


def _ece_if_perfect(confidence: Floats, place: Integers, bins: int) -> float:
    """The mean ECE where each answer is right with the probability that it claims."""
    random = np.random.default_rng(0)
    member = np.zeros((len(place), bins))
    member[np.arange(len(place)), place] = 1.0
    step = max(1, _CELLS_AT_ONCE // len(place))
    errors = []
    for start in range(0, DRAWS, step):
        drawn = random.random((min(step, DRAWS - start), len(place))) < confidence
        errors.append(np.abs((drawn - confidence) @ member).sum(axis=1) / len(place))
    return float(np.concatenate(errors).mean())


# A fit that runs into these says that there is no best temperature: every answer right, or noise.
COLDEST, HOTTEST = 0.05, 20.0
# Halvings of the interval of log T, whose width is 6: T is then right to 12 digits.
HALVINGS = 42


@dataclass(frozen=True)
class Calibration(Jsonable):
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


def calibration_table(found: Calibration) -> Table:
    """Before and after, beside one another."""
    rows = []
    both = (("as it is", found.before), (f"at temperature {found.temperature:.2f}", found.after))
    for name, one in both:
        numbers = (one.ece, one.ece_if_perfect, one.confidence, one.accuracy, one.nll)
        rows.append((name, *(f"{number:.3f}" for number in numbers)))
    where = ", the very utterances scored here" if found.same_rows else ""
    notes = [
        f"[{len(found.before.bins)} bins of equal width; temperature fitted on {found.fitted:,} "
        f"utterances of {found.fitted_on}{where}]"
    ]
    if found.bound:
        notes.append("Note: the temperature ran into its bound; these utterances do not fix one.")
    columns = ("calibration", "ECE", "ECE if perfect", "confidence", "accuracy", "NLL")
    return Table("", columns, rows, notes=notes)


def _softmax(logits: Floats) -> Floats:
    raised = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(raised / raised.sum(axis=1, keepdims=True))


def renormalised(probabilities: Tensor, known: Sequence[str], labels: Sequence[str]) -> Tensor:
    """Probabilities of some labels alone, `[..., K]` float64 with sum 1, from all, `[..., C]`.

    Args:
        probabilities: of the labels known, in their order.
        known: all.
        labels: those kept, in the order of the result.
    """
    kept = probabilities[..., [list(known).index(label) for label in labels]]
    # Labels that are all 0 in float32 are equally probable, as far as is known.
    kept = kept.double().clamp_min(SMALLEST)
    return kept / kept.sum(dim=-1, keepdim=True)
