"""Folds for cross-validation: each row gets the fold that it is tested in.

One fold is the test set, the next one (in order, the first after the last) the development set, and
the rest is trained on. The complete protocol takes each fold as the test set once.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from corpora.base.errors import ConfigError, ManifestError, did_you_mean
from corpora.names import is_unknown, plain_name
from corpora.splits import speaker_groups
from corpora.utterance import Utterance

FEWEST = 3  # one to test on, one to select on, one to train on
SHOWN = 5
UNITS = ("speaker", "session")
# A range of speakers named by numbers, such as 1001-1018.
RANGE = re.compile(r"(\d+)-(\d+)")


@dataclass(frozen=True)
class Division:
    """Folds, and the splits that one of them as the test set makes.

    Attributes:
        utterances: in the given order; rows without a label have neither fold nor split.
        folds: the names, in order.
        test_fold: the one that is tested on.
        dev_fold: the one that heads are selected on.
    """

    utterances: tuple[Utterance, ...]
    folds: tuple[str, ...]
    test_fold: str
    dev_fold: str


def divide(utterances: Sequence[Utterance], folds: Sequence[str], test_fold: str = "") -> Division:
    """Make splits of folds.

    Args:
        utterances: of the manifest.
        folds: the fold of each; "" is none.
        test_fold: the fold to be tested on; "" is the first.

    Raises:
        ConfigError: there is no such fold.
        ManifestError: there are fewer than three.
    """
    names = sorted({fold for fold in folds if fold}, key=_natural)
    if len(names) < FEWEST:
        raise ManifestError(
            f"Cross-validation needs at least {FEWEST} folds (to test, select and train on); "
            f"found: {', '.join(names) or 'none'}."
        )
    chosen = plain_name(test_fold) or names[0]
    if chosen not in names:
        raise ConfigError(
            f"there is no fold '{chosen}'.{did_you_mean(chosen, names)} Folds: {', '.join(names)}."
        )
    dev = names[(names.index(chosen) + 1) % len(names)]
    homes = {"": "", **dict.fromkeys(names, "train"), chosen: "test", dev: "dev"}
    made = tuple(
        replace(u, fold=fold, split=homes[fold]) for u, fold in zip(utterances, folds, strict=True)
    )
    return Division(made, tuple(names), chosen, dev)


def folds_by(utterances: Sequence[Utterance], unit: str) -> list[str]:
    """A fold for each speaker or session, named after it.

    Args:
        utterances: of the manifest; those without a label get no fold.
        unit: `speaker` or `session`.

    Raises:
        ManifestError: an utterance does not say which.
    """
    labelled = [u for u in utterances if u.label]
    unknown = [u for u in labelled if is_unknown(getattr(u, unit))]
    if unknown:
        raise ManifestError(
            f"Folds by {unit} need to know every {unit}: {len(unknown)} of {len(labelled)} "
            f"labelled utterances have none, the first '{unknown[0].id}'. Fill the column {unit}, "
            "or ask for a number of folds."
        )
    several = len({u.corpus for u in labelled}) > 1

    def name(utterance: Utterance) -> str:
        own = str(getattr(utterance, unit))
        return f"{utterance.corpus}/{own}" if several else own

    return [name(u) if u.label else "" for u in utterances]


def folds_of_groups(utterances: Sequence[Utterance], groups: Sequence[Sequence[str]]) -> list[str]:
    """The folds of published groups of speakers, named 1, 2, and so on.

    Args:
        utterances: of one corpus; those without a label get no fold.
        groups: speakers, or ranges of those whose names are numbers (`1001-1018`).

    Raises:
        ManifestError: a speaker is in none of them.
    """
    speakers = sorted({u.speaker for u in utterances if u.label})
    homes = {
        speaker: str(number)
        for number, group in enumerate(groups, start=1)
        for speaker in speakers
        if any(_named(speaker, entry) for entry in group)
    }
    strangers = [speaker for speaker in speakers if speaker not in homes]
    if strangers:
        raise ManifestError(
            f"The published folds name no speaker {shortened(strangers)}. Leave "
            "their recordings out, or make folds with `prepare split --folds`."
        )
    return [homes[u.speaker] if u.label else "" for u in utterances]


def absent_speakers(utterances: Sequence[Utterance], groups: Sequence[Sequence[str]]) -> list[str]:
    """The speakers of published groups of whom no labelled utterance is here."""
    here = {u.speaker for u in utterances if u.label}
    listed: list[str] = []
    for entry in (entry for group in groups for entry in group):
        bounds = RANGE.fullmatch(entry)
        numbers = range(int(bounds[1]), int(bounds[2]) + 1) if bounds else ()
        listed += map(str, numbers) if bounds else [entry]
    return [speaker for speaker in listed if speaker not in here]


def shortened(names: Sequence[str]) -> str:
    """The first names of a list, and how many more there are."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def folds_of_count(utterances: Sequence[Utterance], count: int, seed: int) -> list[str]:
    """`count` folds of whole speakers, alike in size and labels, named 1, 2, and so on.

    Args:
        utterances: of the manifest; those without a label get no fold.
        count: of folds.
        seed: among speakers with equally many utterances, chooses who is placed first.

    Raises:
        ManifestError: there are fewer speakers than folds.
    """
    groups, _ = speaker_groups(utterances)
    if len(groups) < count:
        raise ManifestError(
            f"{count} folds were asked for, but there are {len(groups)} speakers with labelled "
            "utterances. Ask for fewer."
        )
    order = np.random.default_rng(seed).permutation(len(groups))
    numbers = deal([groups[k] for k in order], [u.label for u in utterances], count)
    return [str(numbers[k] + 1) if k in numbers else "" for k in range(len(utterances))]


def deal(groups: Sequence[Sequence[int]], labels: Sequence[str], count: int) -> Mapping[int, int]:
    """Deal out groups of rows to folds, the largest first, each where it fits best.

    It fits best where the sum over labels of (rows held)² / (rows in all) grows least, which evens
    out sizes and labels.

    Args:
        groups: row numbers that stay together; of equally large ones the first is placed first.
        labels: of each row.
        count: of folds.

    Returns:
        The fold of each row in a group, from 0.
    """
    numbers: dict[int, int] = {}
    held: list[Counter[str]] = [Counter() for _ in range(count)]
    share = Counter(labels[row] for group in groups for row in group)
    for group in sorted(groups, key=len, reverse=True):
        own = Counter(labels[row] for row in group)

        def growth(fold: int, own: Counter[str] = own) -> float:
            before = held[fold]
            return sum(n * (n + 2 * before[label]) / share[label] for label, n in own.items())

        best = min(range(count), key=lambda fold: (growth(fold), sum(held[fold].values()), fold))
        held[best] += own
        numbers.update(dict.fromkeys(group, best))
    return numbers


def _named(speaker: str, entry: str) -> bool:
    """Whether an entry of a published group names this speaker."""
    bounds = RANGE.fullmatch(entry)
    if bounds is None:
        return speaker == entry
    return speaker.isdecimal() and int(bounds[1]) <= int(speaker) <= int(bounds[2])


def _natural(name: str) -> tuple[tuple[int, int, str], ...]:
    """A sort key that puts 2 before 10."""
    parts = re.findall(r"\d+|\D+", name)
    return tuple((0, int(p), "") if p.isdecimal() else (1, 0, p) for p in parts)
