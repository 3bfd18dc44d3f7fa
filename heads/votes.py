"""Answers scored as votes: against the shares of an utterance's raters, not its one label.

With K labels, y the shares of the votes for them and p the answer's probabilities:

    macro-F1 at 1/K    a label is true where y > 1/K and answered where p > 1/K (Wu et al. 2024,
                       EMO-SUPERB); the mean F1 of the labels that are true somewhere
    secondary recall   how often the label with the second most votes is among the answer's two
                       most probable, over utterances where it is one label: y₁ > y₂ > y₃, y₂ > 0
    JS                 ½ KL(y‖m) + ½ KL(p‖m) with m = (y + p) / 2, at most log 2
    KL                 Σ y (log y − log p), infinite where the answer rules out what somebody heard
    error AUC          are errors where people disagree? The probability that raters of an utterance
                       answered wrongly (by its label) have the higher entropy −Σ y log y than those
                       of one answered rightly, ties counting half; .5 says that it makes no
                       difference

Divergences and entropies are in nats and their means run over utterances. Counts are added over the
whole set before a score follows from them: EMO-SUPERB's published code averages over batches, and
counts labels that are true nowhere as F1 = 0. Of equal probabilities each may be the answer: a hit
counts by its chance. Votes for anything but the labels are left out (`heads.losses.vote_shares`).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import entr, rel_entr

from corpora.base.codec import Jsonable
from corpora.base.errors import ConfigError
from corpora.base.report import Cell, Table
from corpora.utterance import Utterance
from heads.bootstrap import (
    Floats,
    Interval,
    bootstrap,
    cluster_numbers,
    judge_clusters,
    known_speakers,
    t_interval,
)
from heads.confusion import auc
from heads.losses import utterance_shares, vote_shares

Integers = NDArray[np.int64]

#: The tables, by the names of their files.
VOTE_TABLES = ("votes", "votes-by-entropy")
#: The scores by name: what tables call them, and the values they cannot go beyond.
SCORES = {
    "macro_f1": ("macro-F1 at p > 1/K", (0.0, 1.0)),
    "secondary_recall": ("secondary emotion in top 2", (0.0, 1.0)),
    "js": ("JS divergence (nats)", (0.0, math.log(2))),
    "kl": ("KL(raters‖answer) (nats)", (0.0, math.inf)),
    "error_auc": ("AUC of entropy for errors", (0.0, 1.0)),
}
KL = list(SCORES).index("kl")
UNIFORM, MAJORITY, TRAINING = "uniform", "majority", "training shares"
# Levels of entropy in resamples: raters are few, so that there seldom are more, and those that are
# next to one another then count as ties.
MOST_LEVELS = 100
# Digits by which entropies are told apart: sums of the same shares in another order are equal.
DIGITS = 9


@dataclass(frozen=True)
class AnswerScores(Jsonable):
    """What one answer gets (see this file's head); None where a score has no value.

    Attributes:
        macro_f1: at p > 1/K; None where no label has more than 1/K of any utterance's votes.
        secondary_recall: None where no utterance has a secondary emotion.
        js: mean Jensen-Shannon divergence.
        kl: mean KL(raters‖answer); None where it is infinite.
        error_auc: None without an error, or without a right answer.
    """

    macro_f1: float | None
    secondary_recall: float | None
    js: float | None
    kl: float | None
    error_auc: float | None


@dataclass(frozen=True)
class EntropyGroup:
    """Utterances whose raters agree alike.

    Attributes:
        low: the smallest entropy of their votes, in nats.
        high: the largest.
        n: utterances.
        accuracy: the share that is right, by the label.
        majority_accuracy: the same of the majority answer; None where there is none.
    """

    low: float
    high: float
    n: int
    accuracy: float
    majority_accuracy: float | None


@dataclass(frozen=True)
class VoteScores(Jsonable):
    """Answers scored as votes, beside what needs no recording.

    Attributes:
        n: utterances scored.
        without: utterances left out, for they have no vote for any of the labels.
        unlabelled: utterances with votes but without a label, which are not scored.
        outside: share of the scored utterances' votes that is for other labels, and left out.
        secondary: utterances with a secondary emotion.
        absent: labels that are true nowhere, so not averaged.
        scores: what is scored.
        intervals: of its scores by name; None where a bootstrap says nothing.
        interval_reason: why there are none, or what makes them too narrow; else "".
        others: the same scores of a uniform answer, of the training rows' most frequent label, and
            of the mean shares of their votes.
        majority: that label; "" where no training rows are known.
        by_entropy: thirds of the utterances by the entropy of their votes, equal ones together.
    """

    n: int
    without: int
    unlabelled: int
    outside: float
    secondary: int
    absent: tuple[str, ...]
    scores: AnswerScores
    intervals: Mapping[str, Interval] | None
    interval_reason: str
    others: Mapping[str, AnswerScores]
    majority: str
    by_entropy: tuple[EntropyGroup, ...]


def vote_report(
    utterances: Sequence[Utterance],
    probabilities: ArrayLike,
    labels: Sequence[str],
    training: Sequence[Utterance],
    speakers: Sequence[str],
    *,
    unlabelled: int = 0,
) -> VoteScores:
    """Score an answer as votes, with intervals from a bootstrap over speakers.

    Args:
        utterances: labelled; those without votes for any of the labels are left out.
        probabilities: `[n, K]` of the labels.
        labels: the label order.
        training: labelled utterances that were learnt from, for the answers to compare with; one
            without votes counts by its label. None: there is only the uniform answer.
        speakers: `[n]`, resampled; unknown ones count as one each.
        unlabelled: see `VoteScores`.

    Raises:
        ConfigError: no utterance has a vote for any of the labels.
    """
    voted = [vote_shares(utterance, labels) for utterance in utterances]
    rows = [row for row, own in enumerate(voted) if own is not None]
    if not rows:
        raise ConfigError(no_votes(labels))
    shares = np.array([voted[row] for row in rows], dtype=np.float64)
    given = np.asarray(probabilities, dtype=np.float64)[rows]
    answer = given / given.sum(axis=1, keepdims=True)
    kept = [utterances[row] for row in rows]
    gold = np.array([labels.index(u.label) for u in kept], dtype=np.int64)
    votes = sum(sum((u.votes or {}).values()) for u in kept)
    counted = sum((u.votes or {}).get(label, 0.0) for u in kept for label in labels)
    entropy = np.round(entr(shares).sum(axis=1), DIGITS)
    scale, level = np.unique(entropy, return_inverse=True)

    def whole(one: Floats) -> Floats:
        everything = np.zeros(len(gold), dtype=np.int64)
        table = _tables(shares, one, gold, level, len(scale), everything)
        return _scores(table[0], len(labels), len(scale))

    values = whole(answer)
    others = _others(labels, training, answer.shape)
    known = known_speakers([speakers[row] for row in rows])
    reason, usable = judge_clusters(known)
    intervals = None
    if usable:
        few = min(len(scale), MOST_LEVELS)
        clusters = cluster_numbers(known)
        tables = _tables(shares, answer, gold, level * few // len(scale), few, clusters)
        intervals = _intervals(values, tables, len(labels), few)
    majority = others.get(MAJORITY)
    return VoteScores(
        n=len(rows),
        without=len(utterances) - len(rows),
        unlabelled=unlabelled,
        outside=max(0.0, 1 - counted / votes),
        secondary=int(_secondary(shares)[0].sum()),
        absent=tuple(
            label
            for label, own in zip(labels, shares.T, strict=True)
            if own.max() <= 1 / len(labels)
        ),
        scores=_answer_scores(values),
        intervals=intervals,
        interval_reason=reason,
        others={name: _answer_scores(whole(one)) for name, one in others.items()},
        majority="" if majority is None else labels[int(majority[0].argmax())],
        by_entropy=_by_entropy(
            entropy,
            _right(answer, gold),
            None if majority is None else _right(majority, gold),
        ),
    )


def no_votes(labels: Sequence[str]) -> str:
    """What is said where nothing can be scored as votes."""
    return (
        f"no labelled utterance to be scored has a vote for any of {', '.join(labels)}: --votes "
        "needs raters' votes in the manifest's column `votes` (anger:3;neutral:2)."
    )


def _others(
    labels: Sequence[str], training: Sequence[Utterance], shape: tuple[int, ...]
) -> dict[str, Floats]:
    """Answers `[n, K]` that are the same for every utterance."""
    found = {UNIFORM: np.full(len(labels), 1 / len(labels))}
    if training:
        counts = Counter(utterance.label for utterance in training)
        most = max(labels, key=lambda label: counts[label])
        found[MAJORITY] = np.array([float(label == most) for label in labels])
        mean = utterance_shares(training, labels).double().mean(dim=0).numpy()
        found[TRAINING] = mean / mean.sum()
    return {name: np.broadcast_to(one, shape) for name, one in found.items()}


def _tables(
    shares: Floats,
    answer: Floats,
    gold: Integers,
    level: Integers,
    levels: int,
    clusters: Integers,
) -> Floats:
    """`[S, 3 K + 5 + 2 L]`, what the scores follow from, added over each cluster's utterances.

    By label the hits, the true and the answered; of the secondary emotion hits and utterances; sums
    of JS and KL, and utterances; by level of entropy the errors and the right answers.
    """
    classes = shares.shape[1]
    true, answered = shares > 1 / classes, answer > 1 / classes
    has, second = _secondary(shares)
    hit = np.where(has, _chance_of_top(answer, second, 2), 0.0)
    middle = (shares + answer) / 2
    js = (rel_entr(shares, middle) + rel_entr(answer, middle)).sum(axis=1) / 2
    kl = rel_entr(shares, answer).sum(axis=1)
    plain = np.column_stack([true & answered, true, answered, hit, has, js, kl, np.ones(len(gold))])
    tables = np.zeros((int(clusters.max()) + 1, plain.shape[1] + 2 * levels))
    np.add.at(tables[:, : plain.shape[1]], clusters, plain)
    right = _right(answer, gold)
    np.add.at(tables, (clusters, plain.shape[1] + level), 1 - right)
    np.add.at(tables, (clusters, plain.shape[1] + levels + level), right)
    return tables


def _scores(tables: Floats, classes: int, levels: int) -> Floats:
    """`[..., 5]` in the order of `SCORES` from tables `[..., F]`; nan where there is no value."""
    parts = np.split(tables, np.cumsum([classes] * 3 + [1] * 5 + [levels]), axis=-1)
    hits, true, answered, *single, wrong, right = parts
    second, has, js, kl, n = (one[..., 0] for one in single)
    # A label that is true nowhere has no recall to measure; answering it costs it nothing more.
    f1 = np.where(true > 0, 2 * hits / np.maximum(true + answered, 1), 0.0).sum(axis=-1)
    return np.stack(
        [
            _over(f1, (true > 0).sum(axis=-1)),
            _over(second, has),
            _over(js, n),
            _over(kl, n),
            auc(wrong, right),
        ],
        axis=-1,
    )


def _over(top: Floats, bottom: Floats | Integers) -> Floats:
    """Quotients; nan for 0/0."""
    return np.divide(top, bottom, out=np.full_like(top, np.nan), where=bottom > 0)


def _secondary(shares: Floats) -> tuple[NDArray[np.bool_], Integers]:
    """`[n]` whether one label has the second most votes, and which; never of two labels in all."""
    order = np.argsort(-shares, axis=1, kind="stable")
    if shares.shape[1] < 3:
        return np.zeros(len(shares), dtype=bool), order[:, -1]
    first, second, third = np.take_along_axis(shares, order[:, :3], axis=1).T
    return (first > second) & (second > third), order[:, 1]


def _chance_of_top(answer: Floats, place: Integers, count: int) -> Floats:
    """`[n]`: the chance that a label is among the `count` most probable, ties drawn by lot."""
    own = np.take_along_axis(answer, place[:, None], axis=1)
    above, equal = (answer > own).sum(axis=1), (answer == own).sum(axis=1)
    return np.asarray(np.clip((count - above) / equal, 0.0, 1.0))


def _right(answer: Floats, gold: Integers) -> Floats:
    """`[n]`: 1 where the label is the most probable, less where it shares the place."""
    return _chance_of_top(answer, gold, 1)


def _answer_scores(values: Floats) -> AnswerScores:
    return AnswerScores(*(float(value) if math.isfinite(value) else None for value in values))


def _intervals(values: Floats, tables: Floats, classes: int, levels: int) -> dict[str, Interval]:
    """Intervals of the scores that have a value, from one bootstrap of them all."""
    column = 3 * classes + KL
    if not math.isfinite(values[KL]):
        tables[:, column] = 0.0  # what is infinite would make its neighbours not a number
    drawn = bootstrap(tables, lambda summed: _scores(summed, classes, levels))
    return {
        name: t_interval(float(value), drawn[:, place], len(tables), bounds=bounds)
        for place, (value, (name, (_, bounds))) in enumerate(
            zip(values, SCORES.items(), strict=True)
        )
        if math.isfinite(value)
    }


def _by_entropy(
    entropy: Floats, right: Floats, majority: Floats | None
) -> tuple[EntropyGroup, ...]:
    third = np.quantile(entropy, [1 / 3, 2 / 3], method="inverted_cdf")
    group = (entropy[:, None] > third).sum(axis=1)
    members = [np.flatnonzero(group == number) for number in range(3)]
    return tuple(
        EntropyGroup(
            low=float(entropy[rows].min()),
            high=float(entropy[rows].max()),
            n=len(rows),
            accuracy=float(right[rows].mean()),
            majority_accuracy=None if majority is None else float(majority[rows].mean()),
        )
        for rows in members
        if len(rows)
    )


def votes_tables(votes: VoteScores, subject: str) -> list[Table]:
    """The scores beside those of other answers, and accuracy by the raters' entropy.

    Args:
        votes: what was found.
        subject: what is scored, such as `head`.
    """
    rows: list[tuple[Cell, ...]] = []
    for name, (title, _) in SCORES.items():
        low, high = (votes.intervals or {}).get(name, (None, None))
        each = (getattr(one, name) for one in votes.others.values())
        rows.append((title, getattr(votes.scores, name), low, high, *each))
    heads = [f"{MAJORITY} ({votes.majority})" if n == MAJORITY else n for n in votes.others]
    columns = ("score", subject, "low", "high", *heads)
    groups: list[tuple[Cell, ...]] = [
        (one.low, one.high, one.n, one.accuracy, one.majority_accuracy) for one in votes.by_entropy
    ]
    return [
        Table(
            VOTE_TABLES[0],
            columns,
            rows,
            f"As votes: {votes.n:,} utterances against the shares of their raters",
            right=range(1, len(columns)),
            notes=_notes(votes),
        ),
        Table(
            VOTE_TABLES[1],
            ("entropy from", "to (nats)", "utterances", "accuracy", "of the majority answer"),
            groups,
            "Accuracy by the entropy of the raters' votes",
            right=range(5),
        ),
    ]


def _notes(votes: VoteScores) -> list[str]:
    """What has to be said under the scores."""
    infinite = any(one.kl is None for one in (votes.scores, *votes.others.values()))
    found = "95 % interval: bootstrap over speakers."
    return [
        *[found] * bool(votes.intervals),
        *[f"{'Note' if votes.intervals else 'No intervals'}: {votes.interval_reason}."]
        * bool(votes.interval_reason),
        f"{votes.secondary:,} utterances have a secondary emotion (one label with the second most "
        "votes).",
        *["KL – is infinite: the answer rules out what raters heard."] * infinite,
        *[f"True nowhere, so not averaged: {', '.join(votes.absent)}."] * bool(votes.absent),
        *[f"{votes.without:,} utterances without votes for these labels are left out."]
        * bool(votes.without),
        *[f"{votes.unlabelled:,} utterances with votes have no label and are not scored."]
        * bool(votes.unlabelled),
        *[f"Votes for other labels, {100 * votes.outside:.1f} % of all, are left out."]
        * bool(votes.outside),
        *["No training rows with these labels are at hand: there is no majority answer."]
        * (not votes.majority),
    ]
