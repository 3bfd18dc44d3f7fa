"""Which rows are trained, selected and tested on: a protocol's choice, or the usual one.

Leaving rows out at random so that classes are nearer to equally frequent; nothing is repeated.

Rows that are left out lose their split and stay in the manifest: no command uses them, and the
choice can be seen.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from corpora.base.errors import ConfigError, ManifestError
from corpora.protocol import SplitConfig
from corpora.splits import (
    FEWEST,
    NAME_SPEAKERS,
    Division,
    absent_speakers,
    assign_splits,
    divide,
    folds_by,
    folds_of_count,
    folds_of_groups,
    shortened,
)
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


@dataclass(frozen=True)
class Arrangement:
    """Rows with their splits and folds.

    Attributes:
        utterances: all of them, in the same order; those left out have no split.
        how: a sentence on where the splits come from.
        made: the splits were made here.
        notes: what the user should read.
        settings: for the manifest's JSON.
        folds: how many rows each has, in order; empty without cross-validation.
        removed: how many rows lost their split to balance classes, by split and label.
    """

    utterances: tuple[Utterance, ...]
    how: str
    made: bool
    notes: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    folds: Mapping[str, int] = field(default_factory=dict)
    removed: Mapping[str, Mapping[str, int]] = field(default_factory=dict)


def arrange(
    utterances: Sequence[Utterance], corpus: str, config: SplitConfig, mend: str = NAME_SPEAKERS
) -> Arrangement:
    """Give rows their splits and folds, and leave out what balance asks for.

    Args:
        utterances: of one corpus, labelled and not; own splits are kept but under a protocol that
            makes folds.
        corpus: its name, for the protocol.
        config: what is asked.
        mend: what the user can do where speakers are not known.

    Raises:
        ConfigError: a fold that there is not, a protocol for other corpora, or options that do not
            go together.
        ManifestError: too few speakers or folds, or no splits where the protocol takes those of the
            corpus.
    """
    made = _divided(utterances, corpus, config, mend)
    protocol = config.protocol
    ratio = config.max_imbalance
    if ratio is None and protocol is not None:
        ratio = protocol.max_imbalance
    dev = config.balanced_dev or (protocol is not None and protocol.balanced_dev)
    if made.folds and (ratio is not None or dev):
        raise ConfigError(
            "--max-imbalance and --balanced-dev leave rows out, and with folds every row is tested "
            "once. Take one or the other."
        )
    settings = dict(made.settings)
    rows, removed = made.utterances, {}
    if ratio is not None:
        rows, removed["train"] = _taken(limit_imbalance(rows, ratio, seed=config.seed))
        settings["max_imbalance"] = ratio
    if dev:
        rows, removed["dev"] = _taken(balance(rows, seed=config.seed))
        settings["balanced_dev"] = True
    if settings or made.made:
        settings["seed"] = config.seed
    if protocol is not None:
        settings["metrics"] = list(protocol.metrics)
    return Arrangement(rows, made.how, made.made, made.notes, settings, made.folds, removed)


def folded(division: Division, how: str) -> Arrangement:
    """The arrangement of a division into folds.

    Args:
        division: the folds.
        how: where they come from, in words.
    """
    counts = Counter(u.fold for u in division.utterances)
    return Arrangement(
        division.utterances,
        how=(
            f"{len(division.folds)} folds, {how}. Here fold {division.test_fold} is the test "
            f"set, {division.dev_fold} the development set, the rest is trained on. The complete "
            "protocol takes each fold as the test set once (--test-fold), in a work folder of its "
            "own."
        ),
        made=True,
        settings={
            "folds": list(division.folds),
            "test_fold": division.test_fold,
            "dev_fold": division.dev_fold,
        },
        folds={name: counts[name] for name in division.folds},
    )


def _divided(
    utterances: Sequence[Utterance], corpus: str, config: SplitConfig, mend: str
) -> Arrangement:
    """Rows with splits and folds, before anything is left out."""
    own = any(u.split for u in utterances)
    scheme = None if config.protocol is None else config.protocol.scheme(corpus)
    folds = [u.fold if u.label else "" for u in utterances]
    whole = all(u.fold for u in utterances if u.label)
    if scheme is None and not own and whole and len(set(folds) - {""}) >= FEWEST:
        return folded(divide(utterances, folds, config.test_fold), "the corpus's own")
    if scheme is None or scheme.folds == "own":
        if config.test_fold:
            raise ConfigError(
                f"--test-fold {config.test_fold}: there are no folds. Name a protocol that has "
                "some (see --list), or make them with `prepare split --folds`."
            )
        return _usual(utterances, config, mend, own=own)
    if scheme.folds == "groups":
        names = folds_of_groups(utterances, scheme.groups)
        absent = absent_speakers(utterances, scheme.groups)
        how = "the published groups, of the speakers that are here" if absent else "as published"
    elif isinstance(scheme.folds, int):
        names = folds_of_count(utterances, scheme.folds, config.seed)
        how = f"each a group of speakers (seed {config.seed})"
    else:
        names, how = folds_by(utterances, scheme.folds), f"one for each {scheme.folds}"
    made = folded(divide(utterances, names, config.test_fold), how)
    if scheme.folds != "groups":
        return made
    lacking = [str(k) for k in range(1, len(scheme.groups) + 1) if str(k) not in made.folds]
    notes = [f"Without a recording, and left out: fold {', '.join(lacking)}."] if lacking else []
    if absent:
        notes.append(
            f"WARNING: {len(absent)} speakers of the published folds have no labelled recording "
            f"here ({shortened(absent)}): figures do not compare with published ones."
        )
    return Arrangement(
        made.utterances, made.how, made.made, tuple(notes), made.settings, made.folds
    )


def _usual(
    utterances: Sequence[Utterance], config: SplitConfig, mend: str, *, own: bool
) -> Arrangement:
    """The corpus's own splits, or new ones where it has none."""
    if own:
        return Arrangement(tuple(utterances), "the corpus's own.", made=False)
    if config.protocol is not None:
        raise ManifestError(
            f"protocol {config.protocol.name} takes the corpus's own splits, and no row here has "
            "one. Check the folder, or prepare it without --protocol."
        )
    if not any(u.label for u in utterances):
        return Arrangement(tuple(utterances), "none.", made=False)
    rows, notes = assign_splits(utterances, seed=config.seed, mend=mend)
    how = (
        f"made here (seed {config.seed}), no known speaker in two of them, as near to 60/20/20 and "
        "to the corpus's label shares as whole speakers allow."
    )
    return Arrangement(rows, how, made=True, notes=notes)


def _taken(balanced: Balanced) -> tuple[tuple[Utterance, ...], Mapping[str, int]]:
    return balanced.utterances, balanced.removed
