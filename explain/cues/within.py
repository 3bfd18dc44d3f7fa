"""Within an utterance: are cues different where the model attends?

The effect is the difference of means, attended less other frames, in standard deviations of the
cue within the utterance. The attention of other utterances in its place (`explain.subject`) tells
what differences arise by chance between two curves that are both smooth in time, and from where in
an utterance attention lies.

The published scores: the most salient windows against windows where an expert would look.

Nasr et al. (2025, arXiv 2511.11691) take the five most salient windows of 150 ms and those where a
cue is highest (anger, fear, happiness) or lowest (sadness, neutral). Their formulas are not
available to us; ours are: windows lie side by side; coverage is the share of salient windows that
are expert windows; similarity is how far the cue moves from the whole clip's mean towards that of
the expert windows: 1 at the expert windows, 0 like the clip, below 0 the other way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from explain.ragged import Bools, Floats, Ints
from explain.subject import same_place, usable_counts

# With fewer frames on one side a difference of means says little.
FEWEST_FRAMES = 3
# With fewer other utterances there is no telling what chance gives.
FEWEST_DONORS = 3
# More donors an utterance would change p little, and take as much longer.
MOST_DONORS = 200
# p cannot be smaller than 1 / (DRAWS + 1); enough to survive a correction for 100 tests.
DRAWS = 9_999
# Draws summed together: bounds the memory to about 0.1 GB for thousands of utterances.
_AT_ONCE = 1_000
# Below this, relative to its mean, a cue is constant.
_CONSTANT = 1e-9


@dataclass(frozen=True, eq=False)
class Contrasts:
    """Effects of B utterances and K cues, as observed and with the attention of others.

    Attributes:
        observed: `[B, K]`, NaN where there are too few frames on a side.
        exchanged: for each utterance `[1 + M, K]`, the effect with its own attention and with that
            of each of M donors; NaN where there are too few frames on a side.
    """

    observed: Floats
    exchanged: tuple[NDArray[np.float32], ...]


def contrasts(
    values: Floats,
    attended: Bools,
    usable: Bools,
    offsets: Ints,
    sets: Ints | None = None,
    *,
    seed: int = 0,
) -> Contrasts:
    """Effects in every utterance.

    Args:
        values: `[N, K]`, NaN where a cue is missing.
        attended: `[N]`, whether a frame is attended.
        usable: `[N]`, frames that take part, such as those with speech.
        offsets: `[B+1]`.
        sets: `[B]`, utterances get attention from those with the same number; by default from all.
        seed: of the choice of donors, where there are more than enough.
    """
    random = np.random.default_rng(seed)
    marked = attended[usable]
    counts = usable_counts(usable, offsets)
    starts = counts.cumsum() - counts
    if sets is None:
        sets = np.zeros(len(counts), dtype=np.int64)
    tables = []
    for row, (start, end) in enumerate(pairwise(offsets.tolist())):
        others = np.flatnonzero((sets == sets[row]) & (counts > 0))
        others = others[others != row]
        if len(others) > MOST_DONORS:
            others = random.choice(others, MOST_DONORS, replace=False)
        # Its own attention, read at the same place, is the observed one.
        donors = np.append(row, others)
        place = same_place(np.arange(counts[row]), counts[row], counts[donors][:, None])
        own = usable[start:end]
        tables.append(_effects(values[start:end][own], marked[starts[donors][:, None] + place]))
    observed = np.stack([table[0] for table in tables]).astype(np.float64)
    return Contrasts(observed, tuple(tables))


def _effects(values: Floats, attended: Bools) -> NDArray[np.float32]:
    """`[M, K]`, the effects in values `[T, K]` of M ways to attend, `[M, T]`."""
    there = ~np.isnan(values)
    count = there.sum(axis=0)
    mean = np.where(there, values, 0.0).sum(axis=0) / np.maximum(count, 1)
    centred = np.where(there, values - mean, 0.0)
    deviation = np.sqrt(np.square(centred).sum(axis=0) / np.maximum(count, 1))
    varies = deviation > _CONSTANT * np.maximum(np.abs(mean), 1)
    scaled = (centred / np.where(varies, deviation, 1.0)).astype(np.float32)
    weights = attended.astype(np.float32)
    inside_sum = weights @ scaled
    inside = weights @ there.astype(np.float32)
    outside = count - inside
    enough = (inside >= FEWEST_FRAMES) & (outside >= FEWEST_FRAMES) & varies
    # Centred values sum to 0, so what lies outside is the negative of what lies inside.
    difference = inside_sum / np.maximum(inside, 1) + inside_sum / np.maximum(outside, 1)
    return np.where(enough, difference, np.nan).astype(np.float32)


def exchange_p(
    found: Contrasts, rows: Sequence[int], *, draws: int = DRAWS, seed: int = 0
) -> Floats:
    """Two-sided p `[K]` of the mean effect over some utterances.

    In each draw every utterance gets an attention of its table: a donor's, or its own. Were its own
    left out, few donors would seem to tell all that chance gives: p would be too small.

    Args:
        found: the effects.
        rows: numbers of the utterances.
        draws: of attention.
        seed: equal seeds give equal p.

    Returns:
        NaN where no utterance has an effect, or there are too few others.
    """
    random = np.random.default_rng(seed)
    result = np.full(found.observed.shape[1], np.nan)
    for cue in range(len(result)):
        tables = [
            found.exchanged[row][:, cue] for row in rows if not np.isnan(found.observed[row, cue])
        ]
        if not tables or min(len(table) for table in tables) <= FEWEST_DONORS:
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
        # Donors' effects do not average to 0: where attention lies, cues may differ anyway.
        centre = float(np.mean([table.mean(dtype=np.float64) for table in valid]))
        further = int((np.abs(null - centre) >= abs(observed - centre) - 1e-12).sum())
        result[cue] = (1 + further) / (1 + draws)
    return result


WINDOW_SECONDS, TOP = 0.15, 5


@dataclass(frozen=True, eq=False)
class WindowScores:
    """Scores of B utterances and K cues.

    Attributes:
        similarity: `[B, K]`, NaN where there are too few windows with the cue.
        coverage: `[B, K]`, likewise.
        chance: `[B, K]`, the coverage of windows drawn at random.
        short: `[B]`, utterances with no more windows than are to be chosen.
    """

    similarity: Floats
    coverage: Floats
    chance: Floats
    short: Bools


def window_scores(
    values: Floats, attention: Floats, signs: Ints, offsets: Ints, hop_seconds: float
) -> WindowScores:
    """Scores in every utterance.

    Args:
        values: `[N, K]`, NaN where a cue is missing.
        attention: `[N]`.
        signs: `[B]`, 1 where an expert looks for high values, -1 for low ones, 0 for neither.
        offsets: `[B+1]`.
        hop_seconds: from one frame to the next.
    """
    size = max(1, round(WINDOW_SECONDS / hop_seconds))
    count = len(signs)
    scores = np.full((3, count, values.shape[1]), np.nan)
    short = np.zeros(count, dtype=np.bool_)
    for row in range(count):
        start, end = int(offsets[row]), int(offsets[row + 1])
        windows = (end - start) // size
        short[row] = windows <= TOP
        if short[row] or not signs[row]:
            continue
        own = slice(start, start + windows * size)
        cue = _means(values[own].reshape(windows, size, -1))
        salience = attention[own].reshape(windows, size).mean(axis=1)
        for column in range(values.shape[1]):
            scores[:, row, column] = _score(cue[:, column], salience, int(signs[row]))
    return WindowScores(scores[0], scores[1], scores[2], short)


def _means(cut: Floats) -> Floats:
    """`[windows, K]`, the mean of a cue over the frames of a window that have it, else NaN."""
    there = ~np.isnan(cut)
    count = there.sum(axis=1)
    total = np.where(there, cut, 0.0).sum(axis=1)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _score(cue: Floats, salience: Floats, sign: int) -> tuple[float, float, float]:
    """Similarity, coverage and chance of one cue in one utterance, among windows that have it."""
    held = ~np.isnan(cue)
    if held.sum() <= TOP:
        return float("nan"), float("nan"), float("nan")
    cue, salience = cue[held], salience[held]
    salient = np.argsort(-salience, kind="stable")[:TOP]
    expert = np.argsort(-sign * cue, kind="stable")[:TOP]
    reach = float(cue[expert].mean() - cue.mean())
    coverage = len(np.intersect1d(salient, expert)) / TOP
    chance = TOP / len(cue)
    if abs(reach) < 1e-12:
        return float("nan"), coverage, chance
    return float(cue[salient].mean() - cue.mean()) / reach, coverage, chance
