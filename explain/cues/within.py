"""Within an utterance: are cues different where the model attends?

The effect is the difference of means, attended less other frames, in standard deviations of the
cue within the utterance. The same attention moved in a circle, by every possible number of frames,
tells what differences arise by chance between two curves that are both smooth in time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from explain.ragged import Bools, Floats, Ints

# With fewer frames on one side a difference of means says little.
FEWEST_FRAMES = 3
# p cannot be smaller than 1 / (DRAWS + 1); enough to survive a correction for 100 tests.
DRAWS = 9_999
# Draws summed together: bounds the memory to about 0.1 GB for thousands of utterances.
_AT_ONCE = 1_000
# Below this, relative to its mean, a cue is constant.
_CONSTANT = 1e-9


@dataclass(frozen=True, eq=False)
class Contrasts:
    """Effects of B utterances and K cues, as observed and under shifts.

    Attributes:
        observed: `[B, K]`, NaN where there are too few frames on a side.
        shifted: for each utterance `[T, K]`, the effect after a shift by each number of frames,
            the first row being the observed one; NaN where there are too few frames on a side.
    """

    observed: Floats
    shifted: tuple[NDArray[np.float32], ...]


def contrasts(values: Floats, attended: Bools, usable: Bools, offsets: Ints) -> Contrasts:
    """Effects in every utterance.

    Args:
        values: `[N, K]`, NaN where a cue is missing.
        attended: `[N]`, whether a frame is attended.
        usable: `[N]`, frames that take part, such as those with speech.
        offsets: `[B+1]`.
    """
    shifted = tuple(
        _all_shifts(values[start:end], attended[start:end], usable[start:end])
        for start, end in pairwise(offsets.tolist())
    )
    observed = np.stack([table[0] for table in shifted]).astype(np.float64)
    return Contrasts(observed, shifted)


def _all_shifts(values: Floats, attended: Bools, usable: Bools) -> NDArray[np.float32]:
    """`[T, K]`, the effect for attention moved by 0, 1, … T - 1 frames."""
    frames = len(values)
    there = usable[:, None] & ~np.isnan(values)
    count = there.sum(axis=0)
    filled = np.where(there, values, 0.0)
    mean = filled.sum(axis=0) / np.maximum(count, 1)
    centred = np.where(there, values - mean, 0.0)
    deviation = np.sqrt(np.square(centred).sum(axis=0) / np.maximum(count, 1))
    varies = deviation > _CONSTANT * np.maximum(np.abs(mean), 1)
    # Σ_t a[t - s] x[t] for all s at once: a circular correlation.
    moved = np.conj(np.fft.rfft(attended.astype(np.float64)))[:, None]
    inside_sum = np.fft.irfft(moved * np.fft.rfft(centred, axis=0), frames, axis=0)
    spectrum = np.fft.rfft(there.astype(np.float64), axis=0)
    inside = np.rint(np.fft.irfft(moved * spectrum, frames, axis=0))
    outside = count - inside
    enough = (inside >= FEWEST_FRAMES) & (outside >= FEWEST_FRAMES) & varies
    # Centred values sum to 0, so what lies outside is the negative of what lies inside.
    difference = inside_sum / np.maximum(inside, 1) + inside_sum / np.maximum(outside, 1)
    scaled = difference / np.where(varies, deviation, 1.0)
    return np.where(enough, scaled, np.nan).astype(np.float32)


def shift_p(found: Contrasts, rows: Sequence[int], *, draws: int = DRAWS, seed: int = 0) -> Floats:
    """Two-sided p `[K]` of the mean effect over some utterances; NaN where none has an effect.

    In each draw every utterance's attention is moved by a number of frames of its own.

    Args:
        found: the effects.
        rows: numbers of the utterances.
        draws: of shifts.
        seed: equal seeds give equal p.
    """
    random = np.random.default_rng(seed)
    result = np.full(found.observed.shape[1], np.nan)
    for cue in range(len(result)):
        tables = [
            found.shifted[row][:, cue] for row in rows if not np.isnan(found.observed[row, cue])
        ]
        if not tables:
            continue
        valid = [table[~np.isnan(table)] for table in tables]
        observed = float(np.mean([table[0] for table in tables]))
        counts = np.array([len(table) for table in valid])
        starts = np.concatenate([[0], counts.cumsum()[:-1]])
        pool = np.concatenate(valid)
        null = np.empty(draws)
        for at in range(0, draws, _AT_ONCE):
            several = null[at : at + _AT_ONCE]
            steps = (random.random((len(several), len(counts))) * counts).astype(np.int64)
            several[:] = pool[starts + steps].mean(axis=1, dtype=np.float64)
        # Shifts do not always average to 0: frames at the edges differ from those within.
        centre = float(np.mean([table.mean(dtype=np.float64) for table in valid]))
        further = int((np.abs(null - centre) >= abs(observed - centre) - 1e-12).sum())
        result[cue] = (1 + further) / (1 + draws)
    return result
