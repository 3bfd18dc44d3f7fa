"""Is strength what actors mean by it? RAVDESS says of each recording whether it was to be strong.

Heads and rankings learn from all actors but one and never see an intensity; the one is then asked:
of a strong and a normal recording of an emotion, which is the stronger? The baseline is what the
head says anyway: its logit of the emotion less that of neutral, and its probability.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import rankdata

from corpora.base.errors import ConfigError
from corpora.base.terminal import aligned
from heads.bootstrap import Floats, bootstrap, t_interval
from heads.confusion import auc
from heads.dataset import Dataset
from heads.head import Head, HeadConfig, stack_logits
from heads.load import suitable_threads
from heads.losses import LossConfig
from heads.predict import gather
from heads.search.space import PUBLISHED_REST
from heads.strength import classifier_vectors, fit_strength
from heads.training import Cohort, Schedule, TrainingConfig
from heads.vector_store import VectorStore

REFERENCE = "neutral"
EPOCHS = 45
POOLINGS: Mapping[str, Mapping[str, Any]] = {
    "average": {"kind": "average"},
    "statistics": {"kind": "statistics"},
    "MQMHA 2/2": {"kind": "mqmha"},
}
# Of the fields in a name: 01 normal, 02 strong.
INTENSITY = 3
SCORES = ("strength", "margin", "probability")


@dataclass(frozen=True, eq=False)
class Asked:
    """What was said of the unseen actors' recordings, n in all, all but neutral ones.

    Attributes:
        said: by pooling `[seeds, 3, n]`, in the order of `SCORES`, of each recording's own emotion.
        strong: `[n]`, whether it was to be strong.
        emotions: `[n]`.
        actors: `[n]`.
    """

    said: Mapping[str, Floats]
    strong: NDArray[np.bool_]
    emotions: NDArray[np.str_]
    actors: NDArray[np.str_]


def ask(dataset: Dataset, seeds: Sequence[int]) -> Asked:
    """Train without each actor in turn, and ask about that one.

    Raises:
        ConfigError: recordings are not named as RAVDESS names them.
    """
    names = [u.id.split("-") for u in dataset.utterances]
    if any(len(fields) != 7 for fields in names):
        raise ConfigError("this takes RAVDESS, whose names say how strong a recording is to be.")
    labels = np.array([u.label for u in dataset.utterances])
    actors = np.array([u.speaker for u in dataset.utterances])
    rows = np.flatnonzero(labels != REFERENCE)
    said = {name: np.zeros((len(seeds), len(SCORES), len(labels))) for name in POOLINGS}
    for actor in np.unique(actors):
        utterances = tuple(
            replace(u, split="test" if u.speaker == actor else "train") for u in dataset.utterances
        )
        store = VectorStore(replace(dataset, utterances=utterances))
        for number, seed in enumerate(seeds):
            for name, head in _heads(store, seed).items():
                said[name][number][:, actors == actor] = _answers(head, store, actors == actor)
    strong = np.array([fields[INTENSITY] == "02" for fields in names])
    kept = {name: own[:, :, rows] for name, own in said.items()}
    return Asked(kept, strong[rows], labels[rows], actors[rows])


def _heads(store: VectorStore, seed: int) -> dict[str, Head]:
    """A head of each pooling, trained on the training rows."""
    dataset, rest = store.dataset, PUBLISHED_REST
    schedule = Schedule(EPOCHS, data_seed=seed)
    heads = {
        name: Head(
            HeadConfig(
                dataset.labels,
                {"audio": dataset.dims["audio"]},
                {"audio": pooling},
                rest["input_norm"],
                rest["mlp_width"],
                rest["dropout"],
            ),
            seed,
        )
        for name, pooling in POOLINGS.items()
    }
    training = TrainingConfig(
        rest["learning_rate"],
        rest["weight_decay"],
        rest["scorer_rate"],
        LossConfig("cross_entropy", class_weight=True),
        seed,
    )
    with suitable_threads(dataset, schedule.batch_size):
        cohort = Cohort(
            list(heads.values()), [training] * len(heads), store, dataset.rows("train"), schedule
        )
        while cohort.epoch < EPOCHS:
            cohort.run_epoch()
    return heads


def _answers(head: Head, store: VectorStore, unseen: NDArray[np.bool_]) -> Floats:
    """`[3, m]` of the unseen recordings; where one is neutral, nothing that counts."""
    dataset, vectors = store.dataset, classifier_vectors(head, store)
    labels, train = [u.label for u in dataset.utterances], np.flatnonzero(~unseen)
    strength = fit_strength(
        vectors[train],
        [labels[row] for row in train],
        [dataset.utterances[row].speaker for row in train],
        dataset.labels,
        REFERENCE,
    )
    told = strength(vectors[unseen])
    with torch.no_grad():
        logits = stack_logits([head], gather(store, [head], dataset.rows("test")))[0].double()
    probabilities = logits.softmax(dim=1)
    found = np.zeros((len(SCORES), len(told)))
    base = dataset.labels.index(REFERENCE)
    for place, row in enumerate(np.flatnonzero(unseen)):
        if labels[row] != REFERENCE:
            own = dataset.labels.index(labels[row])
            found[0, place] = told[place, strength.labels.index(labels[row])]
            found[1, place] = logits[place, own] - logits[place, base]
            found[2, place] = probabilities[place, own]
    return found


def by_emotion(asked: Asked, said: Floats) -> NDArray[Any]:
    """`[actors, seeds, 3, emotions, 2, levels]`, recordings by strong or not and by level."""
    actor = np.unique(asked.actors, return_inverse=True)[1]
    emotion = np.unique(asked.emotions, return_inverse=True)[1]
    levels = np.zeros(said.shape, dtype=np.int64)
    for number in range(emotion.max() + 1):
        own = emotion == number
        levels[..., own] = rankdata(said[..., own], method="dense", axis=-1) - 1
    normal = 1 - asked.strong.astype(np.int64)
    seeds, scores = said.shape[:2]
    tables = np.zeros((actor.max() + 1, seeds, scores, emotion.max() + 1, 2, levels.max() + 1))
    for seed in range(seeds):
        for score in range(scores):
            place = (actor, emotion, normal, levels[seed, score])
            np.add.at(tables[:, seed, score], place, 1)
    return tables


def strength_lines(asked: Asked) -> list[str]:
    """Tables: each pooling with intervals over actors, and each emotion."""
    lines: list[tuple[str, ...]] = [
        ("pooling", "pairs", *SCORES, "strength − margin", "mean strength of normal, strong")
    ]
    people = len(set(asked.actors))
    each: list[list[str]] = [["emotion", *sorted(set(asked.emotions))]]
    for name, said in asked.said.items():
        tables = by_emotion(asked, said)
        summed, alone = tables.sum(axis=0), np.stack([auc_of(one) for one in tables])
        means = [said[:, 0, asked.strong == strong].mean() for strong in (False, True)]
        lines += [
            (
                name,
                "of all actors",
                *_cells(auc_of(summed), bootstrap(tables, auc_of), people),
                ", ".join(f"{mean:.2f}" for mean in means),
            ),
            (
                "",
                "within an actor",
                *_cells(alone.mean(axis=0), bootstrap(alone, lambda own: own / people), people),
                "",
            ),
        ]
        by_score = auc(summed[..., 0, :], summed[..., 1, :]).mean(axis=0)
        for score in (0, 1):
            each.append([f"{name}, {SCORES[score]}", *(f"{one:.2f}" for one in by_score[score])])
    return [
        f"AUC of strong against normal, {len(asked.strong)} recordings of {people} actors, each "
        "unseen; mean over emotions and seeds; 95 % intervals over actors.",
        *aligned(lines),
        "",
        *aligned([list(row) for row in zip(*each, strict=True)], range(1, len(each))),
    ]


def _cells(values: Floats, drawn: Floats, actors: int) -> list[str]:
    """Values with their intervals; the last is a difference."""
    found = []
    for place, value in enumerate(values.tolist()):
        low, high = t_interval(value, drawn[:, place], actors)
        sign = "+" if place == len(SCORES) else ""
        found.append(f"{value:{sign}.3f} [{low:{sign}.3f}, {high:{sign}.3f}]")
    return found


def auc_of(summed: NDArray[Any]) -> Floats:
    """`[..., 4]`: the AUC of each score, and by how much the first is above the second.

    Args:
        summed: `[..., seeds, 3, emotions, 2, levels]`, see `by_emotion`.
    """
    scores = auc(summed[..., 0, :], summed[..., 1, :]).mean(axis=(-3, -1))
    return np.concatenate([scores, scores[..., :1] - scores[..., 1:2]], axis=-1)
