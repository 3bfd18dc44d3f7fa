"""Leaving rows out at random so that classes are nearer to equally frequent; nothing is repeated.

Rows that are left out lose their split and stay in the manifest: no command uses them, and the
choice can be seen.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from corpora.base.errors import ConfigError
from corpora.utterance import Utterance

# Keeps the draws for one split apart from those for another, whatever the seed.
_TRAIN_DRAW, _DEV_DRAW = 1, 2


@dataclass(frozen=True)
class Balanced:
    """What is left of a split.

    Attributes:
        utterances: all of them, in the same order; those left out have no split.
        removed: how many were left out, by label.
        most: how many of a label are left at most; 0 where the split has no labelled utterance.
    """

    utterances: tuple[Utterance, ...]
    removed: Mapping[str, int]
    most: int


def limit_imbalance(
    utterances: Sequence[Utterance], ratio: float, *, seed: int, split: str = "train"
) -> Balanced:
    """Leave out rows of the frequent labels until none has more than `ratio` times the rarest's.

    Args:
        utterances: with their splits.
        ratio: at least 1; 8 is the 8:1 of Leygue et al. (Interspeech 2025).
        seed: which rows stay.
        split: the split to be thinned out.

    Raises:
        ConfigError: the ratio is below 1 or not finite.
    """
    if not (math.isfinite(ratio) and ratio >= 1):
        raise ConfigError(f"the largest imbalance is {ratio:g}, expected 1 or more (such as 8).")
    counts = _counts(utterances, split)
    most = math.floor(ratio * min(counts.values(), default=0))
    return _thin(utterances, split, counts, most, np.random.default_rng([seed, _TRAIN_DRAW]))


def balance(utterances: Sequence[Utterance], *, seed: int, split: str = "dev") -> Balanced:
    """Leave out rows of a split until each of its labels has as many as the rarest.

    Args:
        utterances: with their splits.
        seed: which rows stay.
        split: the split to be balanced.
    """
    counts = _counts(utterances, split)
    rng = np.random.default_rng([seed, _DEV_DRAW])
    return _thin(utterances, split, counts, min(counts.values(), default=0), rng)


def _counts(utterances: Sequence[Utterance], split: str) -> Counter[str]:
    return Counter(u.label for u in utterances if u.split == split and u.label)


def _thin(
    utterances: Sequence[Utterance],
    split: str,
    counts: Mapping[str, int],
    most: int,
    rng: np.random.Generator,
) -> Balanced:
    places: dict[str, list[int]] = {label: [] for label in counts if counts[label] > most}
    for place, utterance in enumerate(utterances):
        if utterance.split == split and utterance.label in places:
            places[utterance.label].append(place)
    out: set[int] = set()
    for label in sorted(places):  # a repeatable order
        chosen = rng.permutation(len(places[label]))[most:]
        out.update(places[label][k] for k in chosen)
    kept = tuple(replace(u, split="") if place in out else u for place, u in enumerate(utterances))
    return Balanced(kept, {label: len(places[label]) - most for label in places}, most)
