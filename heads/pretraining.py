"""Training heads before there are labels: contrasts between clusters of one speaker's utterances.

After Ulgen et al. 2024 ("Revealing emotional clusters in speaker embeddings", arXiv 2401.11017):
the vectors of one speaker fall into clusters that go along with emotions, so utterances of one
speaker and cluster are drawn together and those of the speaker's other clusters pushed apart. There
it is speaker embeddings that are clustered, and a network of its own that is trained; here k-means
reads [mean, deviation] of the frames, and what is trained is what lies in a head between frames and
output layer: scorers and other weights of its poolings, and hidden units where it has such.

With u_i what the output layer reads of utterance i, and z_i that less the mean over the speaker's
utterances in the batch, scaled to length 1, the loss is (Khosla et al. 2020, eq. 2)

    L = mean over i of  −1/|P(i)| Σ_{p ∈ P(i)} log( exp(z_i·z_p/τ) / Σ_{a ∈ A(i)} exp(z_i·z_a/τ) )

A(i) are the other utterances of the speaker in the batch, P(i) those of them in i's cluster; τ is
`TEMPERATURE`. An utterance without both kinds is no i. Other speakers have no part: to tell who
speaks is not what is to be learnt. Batches are therefore made of few speakers each.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from torch import Tensor
from torch.nn import functional as F

from cache.encoders.device import to_device
from cache.keys import MODALITIES
from corpora.base.errors import ConfigError
from heads.batches import Thinning
from heads.head import Head, pooled_vectors
from heads.predict import gather
from heads.reference import mean_and_deviation
from heads.step import Optimiser
from heads.training import Schedule, TrainingConfig, parameter_groups
from heads.vector_store import VectorStore

# Of the logits of the contrast; Khosla et al. found .07 to .1 the best.
TEMPERATURE = 0.1
# Epochs of pre-training for each one of training.
SHARE = 1 / 3
# K-means finds one of several partitions; the tightest of so many is taken.
STARTS = 10
# Clusters of fewer utterances each are a matter of chance.
FEWEST_EACH = 3
# Where attributes alone are learnt, there are no labels to go by: quarters of arousal and valence.
_WITHOUT_LABELS = 4
# Keeps the order of batches apart from others drawn from the data seed.
_DOMAIN = 5
# What has no part in a sum of exponentials; finite, so that empty sums have gradients too.
_NOTHING = -1e4


def cluster(vectors: NDArray[np.float64], count: int, seed: int = 0) -> NDArray[np.int64]:
    """`[n]`, k-means clusters of one speaker's vectors `[n, D]`, each number scaled to deviation 1.

    Args:
        vectors: of one speaker.
        count: of clusters.
        seed: of k-means.
    """
    deviation = vectors.std(axis=0)
    values = (vectors - vectors.mean(axis=0)) / np.where(deviation > 0, deviation, 1)
    found: NDArray[np.int64] = KMeans(count, n_init=STARTS, random_state=seed).fit_predict(values)
    return found


@dataclass(frozen=True, eq=False)
class Clustered:
    """Utterances that heads are pre-trained on, with their speakers and clusters.

    Attributes:
        rows: `[n]` utterance numbers.
        speakers: `[n]`, numbered.
        clusters: `[n]`, numbered within the speaker.
        held_out: by fold the speakers who have a row in it: none of theirs is read for its heads.
        unlabelled: how many rows are not trained on later.
    """

    rows: Tensor
    speakers: Tensor
    clusters: Tensor
    held_out: Sequence[Sequence[int]] = ()
    unlabelled: int = 0

    @classmethod
    def of(cls, store: VectorStore, trained: Tensor, folds: Tensor | None = None) -> Self:
        """Cluster the vectors of each speaker: of sound, or of text where there is no sound.

        Besides the rows trained on they are rows without label (or rating), in the same splits or
        in none, of speakers who are in these splits and in no other. So rows of dev are among them
        where folds or a refit train on them, and rows of test never. There are as many clusters as
        labels, but none of fewer than `FEWEST_EACH` utterances on average.

        Args:
            store: the data.
            trained: `[m]` utterance numbers.
            folds: `[m]`, the fold of each, where there are folds.

        Raises:
            ConfigError: no speaker is known to have enough utterances.
        """
        dataset, own = store.dataset, set(trained.tolist())
        names = dataset.speakers(torch.arange(len(dataset)))
        splits = {dataset.utterances[row].split for row in own}
        all_rows = list(zip(names, dataset.utterances, strict=True))
        heard = {name for name, u in all_rows if u.split in splits}
        heard -= {name for name, u in all_rows if u.split and u.split not in splits}
        by_speaker: dict[str, list[int]] = {}
        for row, (name, u) in enumerate(all_rows):
            free = name in heard and u.split in {*splits, ""} and not dataset.is_annotated(u)
            if name and (row in own or free):
                by_speaker.setdefault(name, []).append(row)
        modality = next(name for name in MODALITIES if name in dataset.frames)
        vectors = mean_and_deviation(store, modality, None).double().numpy()
        rows: list[int] = []
        speakers: list[int] = []
        clusters: list[int] = []
        known: dict[str, int] = {}
        for name, members in sorted(by_speaker.items()):
            count = min(len(dataset.labels) or _WITHOUT_LABELS, len(members) // FEWEST_EACH)
            if count < 2:
                continue
            rows += members
            speakers += [known.setdefault(name, len(known))] * len(members)
            clusters += cluster(vectors[members], count).tolist()
        if not rows:
            raise ConfigError(
                "--pretrain clusters needs a speaker with at least "
                f"{2 * FEWEST_EACH} utterances among those trained on, and none is known. Fill the "
                "column speaker of the manifest, or leave --pretrain out."
            )
        held: list[list[int]] = []
        if folds is not None:
            each = list(zip(trained.tolist(), folds.tolist(), strict=True))
            for fold in range(int(folds.max()) + 1):
                out = {names[row] for row, number in each if number == fold}
                held.append([number for name, number in known.items() if name in out])
        numbers = torch.tensor([rows, speakers, clusters])
        return cls(numbers[0], numbers[1], numbers[2], held, len(set(rows) - own))

    def kept(self, fold: int) -> Tensor:
        """`[n]` bool, what heads of a fold are pre-trained on; all for −1.

        Raises:
            ConfigError: nothing.
        """
        out = torch.tensor(self.held_out[fold] if fold >= 0 else [], dtype=torch.int64)
        kept = ~torch.isin(self.speakers, out)
        if not bool(kept.any()):
            raise ConfigError(
                "--pretrain clusters: without the speakers of one of the folds there is nobody "
                "left to pre-train on. Give other --folds, or leave --pretrain out."
            )
        return kept

    def batches(self, schedule: Schedule, epochs: int) -> Iterator[tuple[Tensor, Thinning | None]]:
        """Positions of each batch, the rows of a speaker together; and which frames are read."""
        random = np.random.default_rng((schedule.data_seed, _DOMAIN))
        speakers = self.speakers.numpy()
        for _ in range(epochs):
            turns = random.permutation(int(speakers.max()) + 1)[speakers]
            order = np.lexsort((random.random(len(speakers)), turns))
            for positions in torch.from_numpy(order).split(schedule.batch_size):
                seed, most = int(random.integers(2**32)), schedule.frames
                yield positions, None if most is None else Thinning(most, seed)

    def pairs(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """`[B, B]` bool twice: which pairs are of one speaker, and which also of one cluster."""
        speakers, clusters = self.speakers[positions], self.clusters[positions]
        same = speakers[:, None] == speakers
        return same, same & (clusters[:, None] == clusters)

    def to_text(self) -> str:
        """What a report says of it."""
        many = int(self.speakers.max()) + 1
        most = int(self.clusters.max()) + 1
        return (
            f"Pre-trained without labels on {len(self.rows):,} utterances of {many:,} "
            f"speaker{'' if many == 1 else 's'} ({self.unlabelled:,} of them have no label), in "
            f"{most} clusters a speaker at most. Heads without hidden units whose pooling has no "
            "weights (linear probes on average, statistics or max) have nothing to pre-train: they "
            "are as without."
        )


def contrastive_loss(
    vectors: Tensor, same: Tensor, together: Tensor, temperature: float = TEMPERATURE
) -> Tensor:
    """The loss above, `[]`; 0 where nothing can be contrasted.

    Args:
        vectors: `[B, D]`, u.
        same: `[B, B]` bool, pairs of one speaker, each utterance with itself too.
        together: `[B, B]` bool, which of these are of one cluster.
        temperature: τ.
    """
    others = same & ~torch.eye(len(same), dtype=torch.bool, device=same.device)
    positive, negative = others & together, others & ~together
    share = same.to(vectors.dtype)
    own = vectors - share @ vectors / share.sum(dim=1, keepdim=True).clamp_min(1)
    directions = F.normalize(own, dim=1)
    alike = directions @ directions.T / temperature
    whole = alike.masked_fill(~others, _NOTHING).logsumexp(dim=1, keepdim=True)
    said = (alike - whole).masked_fill(~positive, 0).sum(dim=1)
    counted = (positive.any(dim=1) & negative.any(dim=1)).to(vectors.dtype)
    each = -said / positive.sum(dim=1).clamp_min(1)
    return (each * counted).sum() / counted.sum().clamp_min(1)


def pretrain(
    heads: Sequence[Head],
    configs: Sequence[TrainingConfig],
    store: VectorStore,
    clustered: Clustered,
    schedule: Schedule,
    held_out: Sequence[int],
) -> None:
    """Train what lies between frames and output layer, of all heads that have such.

    Rates and decay are those of the training that follows, at a third of its epochs; there is no
    dropout.

    Args:
        heads: on the store's device, with their input statistics.
        configs: one a head.
        store: the data.
        clustered: what is contrasted.
        schedule: of the training that follows.
        held_out: of each head the fold whose speakers it must not read; −1: none.
    """
    members = [k for k, one in enumerate(zip(heads, configs, strict=True)) if _groups(*one)]
    if not members:
        return
    chosen = [heads[k] for k in members]
    optimiser = Optimiser([_groups(heads[k], configs[k]) for k in members], schedule.clip)
    kept = {fold: clustered.kept(fold) for fold in {held_out[k] for k in members}}
    epochs = math.ceil(schedule.epochs * SHARE)
    steps = epochs * math.ceil(len(clustered.rows) / schedule.batch_size)
    for step, (positions, thinning) in enumerate(clustered.batches(schedule, epochs)):
        batch = gather(store, chosen, clustered.rows[positions], thinning)
        same, together = clustered.pairs(positions)
        pairs = {}
        for fold, own in kept.items():
            both = own[positions][:, None] & own[positions]
            pairs[fold] = (to_device(same & both, store.device), to_device(together, store.device))
        optimiser.zero_gradients()
        losses = [
            contrastive_loss(_read(heads[k], pooled), *pairs[held_out[k]])
            for k, pooled in zip(members, pooled_vectors(chosen, batch), strict=True)
        ]
        torch.stack(losses).sum().backward()
        optimiser.step(range(len(members)), schedule.factor(step, steps))


def _groups(head: Head, config: TrainingConfig) -> list[dict[str, Any]]:
    """`parameter_groups` of what lies between frames and output layer; there may be none."""
    output = {id(parameter) for parameter in head.output.parameters()}
    found = parameter_groups(head, config)
    for group in found:
        group["params"] = [one for one in group["params"] if id(one) not in output]
    return [group for group in found if group["params"]]


def _read(head: Head, pooled: Sequence[Tensor]) -> Tensor:
    """`[B, D]`, what a head's output layer reads."""
    vectors = torch.cat(list(pooled), dim=1)
    return vectors if head.hidden is None else F.relu(head.hidden(vectors))
