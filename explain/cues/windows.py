"""The published scores: the most salient windows against windows where an expert would look.

Nasr et al. (2025, arXiv 2511.11691) take the five most salient windows of 150 ms and those where a
cue is highest (anger, fear, happiness) or lowest (sadness, neutral). Their formulas are not
available to us; ours are: windows lie side by side; coverage is the share of salient windows that
are expert windows; similarity is how far the cue moves from the whole clip's mean towards that of
the expert windows: 1 at the expert windows, 0 like the clip, below 0 the other way.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from explain.ragged import Bools, Floats, Ints

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
