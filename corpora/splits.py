"""Speaker-disjoint splits for a corpus that has none, and folds for cross-validation.

Objective (ours), smaller is better, over assignments of whole speakers to the splits s with
shares p_s (60/20/20): the sum over columns c of

    w_c · Σ_s (n_sc - p_s·N_c)² / (p_s·N_c²)

where n_sc counts the utterances of column c in split s and N_c those of the corpus. The columns
are all utterances (w = 1), each label (w = 1 / number of labels) and each sex (w = ½ / number of
sexes). A split without some label costs 1,000 more, an empty split 1,000,000, so both happen only
where no assignment avoids them. Up to 12 speakers every assignment is tried; above, speakers are
placed greedily, largest first, and then moved and swapped for as long as that helps.

Who spoke an utterance of an unknown speaker is not known, so each such recording counts as a
speaker of its own. Speakers heard at once (their segments of a recording overlap) stay together,
since both would hear that sound. Unlabelled utterances are placed nowhere: they can only be
predicted.

Folds for cross-validation: each row gets the fold that it is tested in.

One fold is the test set, the next one (in order, the first after the last) the development set, and
the rest is trained on. The complete protocol takes each fold as the test set once.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from corpora.base.errors import ConfigError, ManifestError, did_you_mean
from corpora.manifest_fields import overlaps
from corpora.utterance import SEXES, SPLITS, Utterance, is_unknown, plain_name, speaker_key

SHARES = (0.6, 0.2, 0.2)  # of SPLITS
EXHAUSTIVE_SPEAKERS = 12  # 3^12 assignments are half a million: a second
SWAPPING_SPEAKERS = 500  # swaps cost the square of the speakers
MOVING_SPEAKERS = 5_000  # above, greedy placement is already balanced to a fraction of a percent
MAX_PASSES = 20
CHUNK = 3**10  # assignments weighed at once: 50 MB
NO_LABEL, NO_UTTERANCE = 1e3, 1e6
TIE = 1e-9
# What mends unknown speakers where there is a table.
NAME_SPEAKERS = "Fill a column speaker"

Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class _Goal:
    """The objective over counts `[splits, columns]`.

    Attributes:
        targets: `[splits, columns]`, the counts aimed at. Column 0 counts all utterances, columns
            1 to `labels` those of one label, the rest those of one sex.
        scale: `[splits, columns]`, the weight of a squared deviation.
        labels: how many labels there are.
    """

    targets: Matrix
    scale: Matrix
    labels: int

    def loss(self, counts: Matrix) -> Matrix:
        """Weigh `counts` `[..., splits, columns]`; returns `[...]`."""
        deviation = ((counts - self.targets) ** 2 * self.scale).sum(axis=(-2, -1))
        empty = (counts[..., 0] == 0).sum(axis=-1)
        lacking = (counts[..., 1 : 1 + self.labels] == 0).sum(axis=(-2, -1))
        return np.asarray(deviation + NO_UTTERANCE * empty + NO_LABEL * lacking)


def assign_splits(
    utterances: Sequence[Utterance], *, seed: int = 0, mend: str = NAME_SPEAKERS
) -> tuple[tuple[Utterance, ...], tuple[str, ...]]:
    """Give every labelled utterance a split, no known speaker standing in two.

    Args:
        utterances: whatever splits they have is replaced.
        seed: chooses among equally good assignments up to 12 speakers, and the order of the
            search above. The same seed gives the same splits.
        mend: what the user can do where speakers are not known.

    Returns:
        The utterances in the same order, and notes that the user should read.

    Raises:
        ManifestError: there are fewer than three speakers.
    """
    members, unknown = speaker_groups(utterances)
    if len(members) < len(SPLITS):
        names = ", ".join(sorted({u.speaker for u in utterances} - {""}))
        raise ManifestError(
            f"Splits in which no speaker stands twice need at least {len(SPLITS)} speakers with "
            f"labelled utterances; found {len(members)}{f' ({names})' if names else ''}. "
            f"{mend}, so that more speakers are told apart, or bring splits of your own (train, "
            "dev and test)."
        )
    counts, goal = _columns(utterances, members)
    rng = np.random.default_rng(seed)
    small = len(members) <= EXHAUSTIVE_SPEAKERS
    placed = _best(counts, goal, rng) if small else _search(counts, goal, rng)
    split = dict.fromkeys(range(len(utterances)), "")
    for group, home in zip(members, placed, strict=True):
        split.update(dict.fromkeys(group, SPLITS[home]))
    made = tuple(replace(u, split=split[i]) for i, u in enumerate(utterances))
    return made, _unknown_note(unknown, sum(map(len, members)), mend)


def speaker_groups(utterances: Sequence[Utterance]) -> tuple[list[list[int]], int]:
    """What no split may tear apart.

    Args:
        utterances: those without a label are in no group.

    Returns:
        Positions of labelled utterances by speaker, in a repeatable order, speakers heard at once
        in a recording as one; and how many utterances are of unknown speakers.
    """
    groups: dict[Hashable, list[int]] = {}
    unknown = 0
    for index, utterance in enumerate(utterances):
        if utterance.label:
            who = speaker_key(utterance)
            unknown += who is None
            # Cuts of one recording share their speakers, so they stay together.
            groups.setdefault(who or str(utterance.audio), []).append(index)
    joined: dict[Hashable, Hashable] = {key: key for key in groups}

    def root(key: Hashable) -> Hashable:
        while joined[key] != key:
            key = joined[key]
        return key

    def home(utterance: Utterance) -> Hashable:
        return speaker_key(utterance) or str(utterance.audio)

    for one, other in overlaps([u for u in utterances if u.label], home):
        first, second = sorted((root(home(one)), root(home(other))), key=str)
        joined[second] = first
    members: dict[Hashable, list[int]] = {}
    for key in sorted(groups, key=str):
        members.setdefault(root(key), []).extend(groups[key])
    return list(members.values()), unknown


def _unknown_note(unknown: int, total: int, mend: str) -> tuple[str, ...]:
    if not unknown:
        return ()
    return (
        f"WARNING: the speaker of {unknown} of {total} labelled utterances is not known. Each of "
        "their recordings counts as a speaker of its own, so one person may stand in two splits "
        f"and scores may come out too high. {mend}.",
    )


def _columns(
    utterances: Sequence[Utterance], members: Sequence[Sequence[int]]
) -> tuple[Matrix, _Goal]:
    """What each speaker brings, `[speakers, columns]`, and the objective over it."""
    labels = sorted({utterances[i].label for group in members for i in group})
    sexes = [s for s in SEXES if any(utterances[i].sex == s for g in members for i in g)]
    column = {name: 1 + k for k, name in enumerate([*labels, *(f"\0{s}" for s in sexes)])}
    counts = np.zeros((len(members), 1 + len(column)))
    for row, group in zip(counts, members, strict=True):
        row[0] = len(group)
        for i in group:
            row[column[utterances[i].label]] += 1
            if utterances[i].sex in sexes:
                row[column[f"\0{utterances[i].sex}"]] += 1
    weights = np.array(
        [1.0] + [1 / len(labels)] * len(labels) + [0.5 / len(sexes or "1")] * len(sexes)
    )
    totals = counts.sum(axis=0)
    shares = np.array(SHARES)[:, None]
    return counts, _Goal(shares * totals, weights / (shares * totals**2), len(labels))


def _best(counts: Matrix, goal: _Goal, rng: np.random.Generator) -> NDArray[np.intp]:
    """Try every assignment of `counts` `[speakers, columns]`; returns `[speakers]` splits."""
    powers = 3 ** np.arange(len(counts))
    total = 3 ** len(counts)
    losses = np.empty(total)
    for start in range(0, total, CHUNK):
        codes = np.arange(start, min(start + CHUNK, total))
        places = codes[:, None] // powers % 3
        held = np.stack([(places == s).astype(float) @ counts for s in range(3)], axis=1)
        losses[start : start + len(codes)] = goal.loss(held)
    equal = np.flatnonzero(losses <= losses.min() + TIE)
    return np.asarray(equal[rng.integers(len(equal))] // powers % 3)


def _search(counts: Matrix, goal: _Goal, rng: np.random.Generator) -> NDArray[np.intp]:
    """Place greedily, then move and swap; arguments and result as for `_best`."""
    order = rng.permutation(len(counts))
    order = order[np.argsort(-counts[order, 0], kind="stable")]
    placed = np.zeros(len(counts), dtype=np.intp)
    held = np.zeros_like(goal.targets)
    each = np.eye(3)[:, :, None]  # [candidate split, split, 1]
    for g in order:
        placed[g] = int(np.argmin(goal.loss(held + each * counts[g])))
        held[placed[g]] += counts[g]
    if len(counts) > MOVING_SPEAKERS:
        return placed
    for _ in range(MAX_PASSES):
        before = goal.loss(held)
        for g in order:
            rest = held - each[placed[g]] * counts[g]
            placed[g] = int(np.argmin(goal.loss(rest + each * counts[g])))
            held = rest + each[placed[g]] * counts[g]
            if len(counts) <= SWAPPING_SPEAKERS:
                held = _swap(g, placed, held, counts, goal)
        if goal.loss(held) >= before - TIE:
            break
    return placed


def _swap(g: int, placed: NDArray[np.intp], held: Matrix, counts: Matrix, goal: _Goal) -> Matrix:
    """Swap speaker g with the one that helps most, if any does; returns the new counts held."""
    others = np.flatnonzero(placed != placed[g])
    if not len(others):
        return held
    gain = counts[others] - counts[g]  # what g's split would gain and the other one lose
    here, there = np.eye(3)[placed[g]], np.eye(3)[placed[others]]
    swapped = held + (here[None, :, None] - there[:, :, None]) * gain[:, None, :]
    losses = goal.loss(swapped)
    k = int(np.argmin(losses))
    if losses[k] >= goal.loss(held) - TIE:
        return held
    placed[g], placed[others[k]] = placed[others[k]], placed[g]
    return np.asarray(swapped[k])


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
