"""Which phones are attended: likelihood ratios, and attention around their onsets.

P(phone | attended) / P(phone), after Leygue et al., Interspeech 2025. Both are counted in frames:
tokens against frames would make long vowels salient by their duration alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from explain.ragged import Bools, Floats, Ints
from heads.statistics.bootstrap import bootstrap, t_interval
from heads.statistics.clusters import cluster_numbers, judge_clusters, known_speakers

# One second of a sound on the 20 ms grid: fewer frames say little, whoever spoke them.
MINIMUM_FRAMES = 50
DRAWS = 1000
AROUND_SECONDS = 0.15
# Shifted onsets: enough for a band of their 2.5th to 97.5th percentile.
SHIFTS = 200


@dataclass(frozen=True)
class Ratio:
    """How much more often a phone is attended than it occurs.

    Attributes:
        name: the phone, or a class of phones.
        frames: it has.
        attended: of those attended.
        ratio: P(name | attended) / P(name).
        low: of the 95 % interval over speakers; None where there is none.
        high: the same.
    """

    name: str
    frames: int
    attended: int
    ratio: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Ratios:
    """The ratios of all names with enough frames, the highest first.

    Attributes:
        ratios: highest first.
        rare: names with too few frames.
        note: what to say about the intervals; "" for nothing.
    """

    ratios: tuple[Ratio, ...]
    rare: tuple[str, ...]
    note: str


def likelihood_ratios(
    codes: Ints,
    names: Sequence[str],
    attended: Bools,
    speaker_of: Ints,
    speakers: Sequence[str],
    *,
    minimum: int = MINIMUM_FRAMES,
    draws: int = DRAWS,
) -> Ratios:
    """P(name | attended) / P(name), with a bootstrap over speakers.

    Args:
        codes: `[N]`, numbers into the names; frames at -1 count nowhere.
        names: of phones or classes.
        attended: `[N]`.
        speaker_of: `[N]`, the utterance number of each frame.
        speakers: of each utterance; "" where unknown.
        minimum: names with fewer frames are left out.
        draws: of the bootstrap.
    """
    known = known_speakers(speakers)
    clusters = cluster_numbers(known)[speaker_of]
    used = codes >= 0
    size, count = len(names), int(clusters.max()) + 1
    cells = clusters[used] * size + codes[used]
    every = np.bincount(cells, minlength=count * size).reshape(count, size)
    chosen = np.bincount(cells[attended[used]], minlength=count * size).reshape(count, size)
    tables = np.stack([chosen, every], axis=1)  # [speakers, 2, names]
    tables = tables[tables.sum(axis=(1, 2)) > 0]
    if not len(tables):
        return Ratios((), (), "")
    total = tables.sum(axis=0)
    values = _ratios(total[None].astype(np.float64))[0]
    in_use = sorted({known[i] or f"?{i}" for i in np.unique(speaker_of[used]).tolist()})
    note, worth = judge_clusters([name for name in known if name in in_use or not name])
    low, high = np.full((2, size), np.nan)
    if worth:
        drawn = bootstrap(tables, _ratios, draws=draws)
        for k in range(size):
            # A phone that is missing from a resample says nothing in it.
            if not np.isnan(drawn[:, k]).all():
                low[k], high[k] = t_interval(
                    float(values[k]), drawn[:, k], len(tables), bounds=(0, math.inf)
                )
    found = [
        Ratio(
            names[k],
            int(total[1, k]),
            int(total[0, k]),
            float(values[k]),
            _known(low[k]),
            _known(high[k]),
        )
        for k in range(size)
        if total[1, k] >= max(minimum, 1)
    ]
    rare = tuple(names[k] for k in range(size) if 0 < total[1, k] < minimum)
    return Ratios(tuple(sorted(found, key=lambda r: -r.ratio)), rare, note)


def _ratios(tables: Floats) -> Floats:
    """`[d, 2, P]` counts of attended and of all frames to `[d, P]` ratios."""
    totals = np.maximum(tables.sum(axis=2, keepdims=True), 1.0)
    shares = tables / totals
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio: Floats = shares[:, 0] / shares[:, 1]
    return ratio


def _known(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


@dataclass(frozen=True, eq=False)
class Onsets:
    """Attention around phone onsets.

    Attributes:
        lags: `[L]` seconds from the onset.
        observed: `[L]`, mean attention relative to an even one (1).
        low: `[L]`, 2.5th percentile with shifted onsets.
        high: `[L]`, 97.5th percentile.
        count: onsets.
    """

    lags: Floats
    observed: Floats
    low: Floats
    high: Floats
    count: int


def around_onsets(
    weights: Floats,
    offsets: Ints,
    onsets: Sequence[Floats],
    hop: float,
    centre: float,
    *,
    shifts: int = SHIFTS,
    seed: int = 0,
) -> Onsets | None:
    """Average attention within ±150 ms of phone onsets, against shifted onsets.

    All onsets of an utterance are shifted together and around its end, by a random time each draw:
    their number and distances stay. Lags run around the end too, so that every shift is the same
    sum over the circular cross-correlation of onsets and attention. None without onsets.

    Args:
        weights: `[N]`, summing to 1 over each utterance.
        offsets: of the utterances.
        onsets: for each utterance, seconds from its start.
        hop: seconds from one frame to the next.
        centre: of the first frame, seconds.
        shifts: draws.
        seed: of the shifts.
    """
    reach = max(1, int(AROUND_SECONDS / hop + 1e-9))
    lags: Ints = np.arange(-reach, reach + 1)
    sums: list[Floats] = []
    total = 0
    for own, start, end in zip(onsets, offsets[:-1], offsets[1:], strict=True):
        count = int(end - start)
        frames = np.round((np.asarray(own) - centre) / hop).astype(np.int64)
        frames = frames[(frames >= 0) & (frames < count)]
        if len(frames):
            train = np.bincount(frames, minlength=count)
            product = np.conj(np.fft.rfft(train)) * np.fft.rfft(weights[start:end] * count)
            # At k: attention summed over all frames k behind an onset.
            sums.append(np.fft.irfft(product, count))
            total += len(frames)
    if not total:
        return None
    sizes = np.array([len(part) for part in sums])
    starts = np.cumsum(sizes) - sizes
    laid = np.concatenate(sums)

    def mean(shift: Ints) -> Floats:
        at = starts[:, None] + (shift[:, None] + lags[None, :]) % sizes[:, None]
        averaged: Floats = laid[at].sum(axis=0) / total
        return averaged

    random = np.random.default_rng(seed)
    drawn = np.stack([mean(random.integers(0, sizes)) for _ in range(shifts)])
    low, high = np.quantile(drawn, [0.025, 0.975], axis=0)
    observed = mean(np.zeros_like(sizes))
    return Onsets(lags.astype(np.float64) * hop, observed, low, high, total)
