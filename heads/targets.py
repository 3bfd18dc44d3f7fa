"""Soft labels: the shares of the raters' votes, smoothed as in EMO-SUPERB.

With K classes and y the shares, y′ = (1 − K s) y + s with s = .05 / (K − 1) (Wu et al. 2024): no
class that nobody voted for is ruled out.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from corpora.utterance import Utterance
from heads.dataset import Dataset

# What an undisputed label gives away to the other classes together, in EMO-SUPERB.
EMO_SUPERB_SMOOTHING = 0.05


def vote_shares(utterance: Utterance, labels: Sequence[str]) -> list[float] | None:
    """The share of each label among an utterance's votes, or None where it has none for them.

    Votes for anything but the labels (such as "other") are left out.
    """
    votes = [float((utterance.votes or {}).get(label, 0.0)) for label in labels]
    total = sum(votes)
    return [vote / total for vote in votes] if total > 0 else None


def soft_targets(dataset: Dataset, rows: Tensor, smoothing: float = 0.0) -> Tensor:
    """`[n, C]` fp32: the votes of each row; of one without votes its label has them all.

    Args:
        dataset: the utterances.
        rows: their numbers.
        smoothing: see `smoothed`.
    """
    chosen = [dataset.utterances[number] for number in rows.tolist()]
    return utterance_shares(chosen, dataset.labels, smoothing)


def utterance_shares(
    utterances: Sequence[Utterance], labels: Sequence[str], smoothing: float = 0.0
) -> Tensor:
    """`[n, C]` fp32: as `soft_targets`, for labelled utterances."""
    positions = {label: position for position, label in enumerate(labels)}
    own = torch.tensor([positions[utterance.label] for utterance in utterances], dtype=torch.int64)
    shares = torch.nn.functional.one_hot(own, len(labels)).float()
    for row, utterance in enumerate(utterances):
        voted = vote_shares(utterance, labels)
        if voted is not None:
            shares[row] = torch.tensor(voted)
    return smoothed(shares, smoothing)


def smoothed(shares: Tensor, smoothing: float) -> Tensor:
    """y′ = (1 − K s) y + s with s = smoothing / (K − 1), for shares `[..., K]`."""
    classes = shares.shape[-1]
    s = smoothing / (classes - 1)
    return (1 - classes * s) * shares + s


def count_without_votes(dataset: Dataset, rows: Tensor) -> int:
    """How many rows have no vote for any of the labels."""
    voted = (vote_shares(dataset.utterances[i], dataset.labels) for i in rows.tolist())
    return sum(shares is None for shares in voted)
