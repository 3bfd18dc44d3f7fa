"""Soft labels from votes, against the equations."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from heads.dataset import Dataset
from heads.folds import Selection
from heads.losses import smoothed, utterance_shares, vote_shares
from heads.search.search import _votes_note
from heads.search.space import Space
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
    targets = utterance_shares(voted().utterances[:3], LABELS)
    assert targets.tolist() == [[0.75, 0.25, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]


def test_rows_without_votes_are_counted_in_a_note() -> None:
    dataset = voted()
    (note,) = _votes_note(dataset, Space.of(dataset), Selection(ROWS, ROWS))
    assert note.startswith("2 of 3 utterances trained on have no votes")


@pytest.mark.parametrize("classes", [2, 4, 8])
def test_smoothing_is_that_of_emo_superb(classes: int) -> None:
    y = np.random.default_rng(0).dirichlet(np.ones(classes), size=5)
    s = 0.05 / (classes - 1)
    found = smoothed(torch.tensor(y), 0.05).numpy()
    np.testing.assert_allclose(found, (1 - classes * s) * y + s, rtol=1e-12)
    np.testing.assert_allclose(found.sum(1), 1)
