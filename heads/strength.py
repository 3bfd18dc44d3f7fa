"""How strong an emotion is: a linear ranking of its utterances above neutral ones.

After relative attributes (Parikh and Grauman 2011), by which StrengthNet (Liu et al. 2022) labels
speech: nobody annotates strength, but an angry utterance has more anger than a neutral one. Of each
emotion, with x what the head's classifier reads, each column divided by its deviation:

    minimise over w   mean of log(1 + exp(−w · (x_i − x_j)))  +  λ / 2 |w|²

over pairs of an utterance i of the emotion and a neutral one j, by one speaker where there are
enough of them: then what sets speakers apart cancels. Differences are never written out: the loss
of a pair needs two scores w · x alone.

A score has no unit. Strength is the share of the emotion's training utterances that score less.
What a ranking was made from scores higher than what is new to it, the more so the fewer utterances
there are; so training scores are by rankings that were made without the speaker.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit

from corpora.base.errors import ConfigError
from corpora.splits import deal
from corpora.utterance import Utterance, speaker_key
from heads.bootstrap import Floats
from heads.head import Head, pooled_vectors
from heads.predict import gather
from heads.speakers import CONSTANT_DEVIATION
from heads.vector_store import VectorStore

# λ, on columns of deviation 1.
PENALTY = 1.0
# Of an emotion, and of the reference; fewer rank by chance.
LEAST_UTTERANCES = 5
# More of a label teach a line little, and a loss over all pairs of so many takes milliseconds.
MOST_UTTERANCES = 500
# Rankings that training scores are by, each made without a group of speakers.
FOLDS = 5

Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Strength:
    """Rankings of E emotions, and the scale on which they are told.

    Attributes:
        labels: the emotions.
        weights: `[E, D]`, of the vectors that the classifier reads.
        levels: of each emotion the scores of its training utterances, ascending; 0 is the mean of
            the reference's.
        offsets: `[E]`, what that mean was.
        notes: sentences to say before any figure.
    """

    labels: tuple[str, ...]
    weights: Floats
    levels: tuple[Floats, ...]
    offsets: Floats
    notes: tuple[str, ...]

    def __call__(self, vectors: Floats) -> Floats:
        """`[n, E]`, above 0 and below 1, of vectors `[n, D]`.

        .5 is as strong as half of the emotion's training utterances. Between two of their scores
        it rises in a line; below and above all of them it stays (½ / n and 1 − ½ / n).
        """
        told = np.empty((len(vectors), len(self.labels)))
        for column, own in enumerate(self.levels):
            scores = vectors @ self.weights[column] - self.offsets[column]
            told[:, column] = np.interp(scores, own, (np.arange(len(own)) + 0.5) / len(own))
        return told


def classifier_vectors(head: Head, store: VectorStore, batch_size: int = 64) -> Floats:
    """`[n, D]`, what a head's classifier reads of all utterances, modalities side by side."""
    with torch.no_grad():
        parts = [
            torch.cat(pooled_vectors([head], gather(store, [head], rows))[0], dim=1)
            for rows in torch.arange(len(store.dataset)).split(batch_size)
        ]
    vectors: Floats = torch.cat(parts).double().cpu().numpy()
    return vectors


def enough_utterances(utterances: Sequence[Utterance]) -> tuple[Utterance, ...]:
    """Those that rankings are made from: at most `MOST_UTTERANCES` of a label, in their order.

    Speakers are drawn, the same for all labels: so their pairs stay together.
    """
    units, held, chosen = _units([speaker_key(u) for u in utterances]), Counter[str](), []
    for unit in np.random.default_rng(0).permutation(len(units)):
        for row in units[unit]:
            held[utterances[row].label] += 1
            if held[utterances[row].label] <= MOST_UTTERANCES:
                chosen.append(row)
    return tuple(utterances[row] for row in sorted(chosen))


def _units(speakers: Sequence[Hashable]) -> list[list[int]]:
    """Rows by speaker; each by itself where its speaker is unknown, or the only one."""
    units: dict[Hashable, list[int]] = {}
    for row, name in enumerate(speakers):
        units.setdefault(name or row, []).append(row)
    return list(units.values()) if len(units) > 1 else [[row] for row in range(len(speakers))]


def fit_strength(
    vectors: Floats,
    labels: Sequence[str],
    speakers: Sequence[str],
    emotions: Sequence[str],
    reference: str,
) -> Strength:
    """Rank the utterances of each emotion above those of the reference.

    Args:
        vectors: `[n, D]`, what the classifier reads of training utterances.
        labels: `[n]`.
        speakers: `[n]`; "" where unknown.
        emotions: the labels that the head knows; the reference is left out.
        reference: the label that stands for no emotion.

    Raises:
        ConfigError: the reference has too few utterances, or every emotion.
    """
    gold = np.asarray(labels)
    base = np.flatnonzero(gold == reference)
    if len(base) < LEAST_UTTERANCES:
        others = ", ".join(label for label in emotions if label != reference)
        raise ConfigError(
            f"strength is ranked above {LEAST_UTTERANCES} utterances without emotion or more, and "
            f"{len(base)} of those trained on are labelled {reference!r}. Name the label that "
            f"stands for no emotion with --reference (there are {others})."
        )
    scale = vectors.std(axis=0)
    scale[scale < CONSTANT_DEVIATION] = 1.0
    scaled = vectors / scale
    names = {name: number for number, name in enumerate(sorted(set(speakers) - {""}))}
    codes = np.array([names.get(name, -1) for name in speakers])
    units = _units(speakers)
    dealt = deal(units, list(labels), min(FOLDS, len(units)))
    folds = np.array([dealt[row] for row in range(len(gold))])
    notes = []
    if len(names) == 1 and "" not in speakers:
        notes.append(
            "Strength: all utterances trained on are by one speaker, so it need not hold for other "
            "voices."
        )
    found: list[tuple[str, Floats, float, Floats]] = []
    for label in (label for label in emotions if label != reference):
        own = np.flatnonzero(gold == label)
        levels = [np.zeros(0)]
        for fold in range(max(folds) + 1):
            out = folds[own] == fold
            line = _line(scaled, own[~out], base[folds[base] != fold], codes)
            if line is not None:
                levels.append(scaled[own[out]] @ line[0] - line[1])
        line, scores = _line(scaled, own, base, codes), np.sort(np.concatenate(levels))
        if line is None or len(scores) < LEAST_UTTERANCES:
            count = len(set(codes[own]))
            people = f"{count} speaker{'' if count == 1 else 's'}"
            notes.append(
                f"No strength of {label}: {len(own)} utterances by {people} were trained on, too "
                "few to rank."
            )
        else:
            found.append((label, line[0] / scale, line[1], scores))
    if not found:
        raise ConfigError(f"no emotion can be ranked above {reference}. {' '.join(notes)}")
    ranked, weights, offsets, each = zip(*found, strict=True)
    return Strength(ranked, np.stack(weights), each, np.array(offsets), tuple(notes))


def _line(x: Floats, own: Ints, base: Ints, codes: Ints) -> tuple[Floats, float] | None:
    """The weights that rank rows above others, and the mean score of those others."""
    if not len(own) or not len(base):
        return None
    within = (codes[own][:, None] == codes[base]) & (codes[own] >= 0)[:, None]
    covered = within.any(axis=1)
    enough = covered.mean() >= 0.5 and len(set(codes[own[covered]])) > 1
    upper, lower = np.nonzero(within if enough else np.ones_like(within))
    rows = x[np.concatenate([own, base])]
    lower += len(own)

    def objective(w: Floats) -> tuple[float, Floats]:
        scores = rows @ w
        margins = scores[upper] - scores[lower]
        pull = expit(-margins) / len(margins)
        each = np.bincount(lower, pull, len(rows)) - np.bincount(upper, pull, len(rows))
        loss = np.logaddexp(0, -margins).mean() + PENALTY / 2 * w @ w
        return float(loss), each @ rows + PENALTY * w

    weights: Floats = minimize(objective, np.zeros(x.shape[1]), jac=True, method="L-BFGS-B").x
    return weights, float(np.mean(x[base] @ weights))
