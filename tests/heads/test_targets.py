"""Soft labels from votes, against the equations."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from heads.dataset import Dataset
from heads.losses import count_without_votes, smoothed, soft_targets, vote_shares
from tests.heads.synthetic import LABELS, make_dataset

ROWS = torch.tensor([0, 1, 2])


def voted() -> Dataset:
    """The first row disputed, the second without votes, the third voted out of the labels."""
    dataset = make_dataset(6)
    first, second, third, *rest = dataset.utterances
    return replace(
        dataset,
        utterances=(
            replace(first, votes={"anger": 3, "neutral": 1, "other": 4}),
            second,
            replace(third, votes={"other": 2}),
            *rest,
        ),
    )


def test_votes_become_shares_of_the_labels() -> None:
    assert vote_shares(voted().utterances[0], LABELS) == [0.75, 0.25, 0.0]
    assert vote_shares(voted().utterances[1], LABELS) is None


def test_a_row_without_votes_is_its_label() -> None:
    dataset = voted()
    targets = soft_targets(dataset, ROWS)
    assert targets.tolist() == [[0.75, 0.25, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
    assert count_without_votes(dataset, ROWS) == 2


@pytest.mark.parametrize("classes", [2, 4, 8])
def test_smoothing_is_that_of_emo_superb(classes: int) -> None:
    y = np.random.default_rng(0).dirichlet(np.ones(classes), size=5)
    s = 0.05 / (classes - 1)
    found = smoothed(torch.tensor(y), 0.05).numpy()
    np.testing.assert_allclose(found, (1 - classes * s) * y + s, rtol=1e-12)
    np.testing.assert_allclose(found.sum(1), 1)
