"""What `search --pretrain clusters` brings: heads with and without, speakers held out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from corpora.base.terminal import aligned
from heads.confusion import confusion_matrix, macro_f1
from heads.dataset import Dataset
from heads.folds import speaker_groups
from heads.head import HeadConfig
from heads.predict import predict
from heads.pretraining import Clustered, pretrain
from heads.reference import LAYER_STRENGTH, fit_logistic, mean_and_deviation
from heads.runs import Run, Runs, seed_from
from heads.search.rounds import default_epochs
from heads.search.space import PUBLISHED_REST
from heads.training import Schedule, TrainingConfig
from heads.vector_store import VectorStore

FOLDS = 5
# With hidden units, as the published heads of a search, and without.
HEADS = {
    "statistics, MLP": ({"kind": "statistics"}, 256),
    "MQMHA 2/2, MLP": ({"kind": "mqmha"}, 256),
    "MQMHA 2/2, linear": ({"kind": "mqmha"}, 0),
}
ARMS = ("none", "clusters", "dealt anew")


@dataclass(frozen=True, eq=False)
class Compared:
    """One seed with so many labels.

    Attributes:
        labels: labelled utterances of each label in each fold; 0: all.
        scores: by arm, and of the regression, macro-F1 of each head over all speakers, held out.
    """

    labels: int
    scores: dict[str, NDArray[np.float64]]


def compare(dataset: Dataset, labels: int, seed: int) -> Compared:
    """Train heads by folds of speakers; rows whose label is hidden are read before, not learnt."""
    labelled = [row for row, u in enumerate(dataset.utterances) if u.label]
    utterances = [dataset.utterances[row] for row in labelled]
    fold_of = dict(zip(labelled, speaker_groups(utterances, FOLDS), strict=True))
    shown = set(_shown(dataset, fold_of, labels, seed))
    hidden = tuple(
        replace(u, split="train" if u.label else "", label=u.label if row in shown else "")
        for row, u in enumerate(dataset.utterances)
    )
    own = replace(dataset, utterances=hidden)
    store, rows = VectorStore(own), own.rows("train")
    folds = torch.tensor([fold_of[row] for row in rows.tolist()])
    heads = [
        HeadConfig(
            own.labels, own.dims, {"audio": pooling}, PUBLISHED_REST["input_norm"], width, 0.1
        )
        for pooling, width in HEADS.values()
    ]
    training = TrainingConfig(3e-3, seed=seed)
    runs = [
        Run(head, replace(training, seed=seed_from(seed, fold)), fold)
        for head in heads
        for fold in range(FOLDS)
    ]
    schedule = Schedule(default_epochs(-(-len(rows) // 64)), data_seed=seed)
    every, numbers = torch.tensor(labelled), torch.tensor([fold_of[row] for row in labelled])
    gold = dataset.targets(every)

    def score(said: Tensor) -> NDArray[np.float64]:
        tables = [confusion_matrix(gold, one, len(own.labels)) for one in said]
        return np.array([float(macro_f1(one)) for one in tables])

    scores = {}
    for arm in ARMS:
        trained = Runs(runs, store, schedule, rows, folds)
        if arm != "none":
            clustered = Clustered.of(store, rows, folds)
            if arm == "dealt anew":
                clustered = replace(clustered, clusters=_dealt_anew(clustered, seed))
            held_out = [run.held_out for run in runs]
            pretrain(
                trained.heads, [run.training for run in runs], store, clustered, schedule, held_out
            )
        found = trained.train()
        said = torch.empty(len(heads), len(every), dtype=torch.int64)
        for fold in range(FOLDS):
            inside = numbers == fold
            said[:, inside] = predict(found[fold::FOLDS], store, every[inside]).argmax(dim=2)
        scores[arm] = score(said)
    said = torch.empty(1, len(every), dtype=torch.int64)
    columns = mean_and_deviation(store, "audio", None).numpy()
    for fold in range(FOLDS):
        seen, inside = rows[folds != fold], numbers == fold
        target = own.targets(seen).numpy()
        fitted, _ = fit_logistic(columns[seen], target, LAYER_STRENGTH)
        said[0, inside] = torch.from_numpy(fitted.predict(columns[every[inside]]))
    scores["regression"] = score(said)
    return Compared(labels, scores)


def _shown(dataset: Dataset, folds: Mapping[int, int], labels: int, seed: int) -> Iterator[int]:
    """The rows whose labels are to be seen: all, or so many of each label in each fold."""
    random, counts = np.random.default_rng(seed), Counter[tuple[int, str]]()
    for row in random.permutation(list(folds)).tolist():
        key = folds[row], dataset.utterances[row].label
        counts[key] += 1
        if not labels or counts[key] <= labels:
            yield row


def _dealt_anew(clustered: Clustered, seed: int) -> Tensor:
    """The clusters of each speaker in another order."""
    random, clusters = np.random.default_rng(seed), clustered.clusters.clone()
    for speaker in clustered.speakers.unique():
        own = (clustered.speakers == speaker).nonzero()[:, 0]
        clusters[own] = clusters[own[torch.from_numpy(random.permutation(len(own)))]]
    return clusters


def pretraining_lines(found: Sequence[Compared]) -> list[str]:
    """Means over seeds, and gains with the deviation over seeds."""
    table: list[tuple[str, ...]] = [("labels", "head", "without", "gain", "gain, dealt anew")]
    notes = []
    for labels in dict.fromkeys(one.labels for one in found):
        own = [one.scores for one in found if one.labels == labels]
        said = f"{labels} of each in a fold" if labels else "all"
        each = {arm: np.stack([scores[arm] for scores in own]) for arm in (*ARMS, "regression")}
        for k, name in enumerate(HEADS):
            gains = [each[arm][:, k] - each["none"][:, k] for arm in ARMS[1:]]
            cells = [
                f"{gain.mean():+.3f} ± {gain.std(ddof=min(1, len(own) - 1)):.3f}" for gain in gains
            ]
            table.append((said, name, f"{each['none'][:, k].mean():.3f}", *cells))
        notes.append(f"Regression, labels {said}: {each['regression'].mean():.3f}.")
    return [
        *aligned(table, (2, 3, 4)),
        *notes,
        f"Macro-F1 over speakers held out, means of {len(own)} seeds.",
    ]
