"""Steps planned for a device: they read the frames that steps on a CPU read, padded."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from heads.batches import Thinning, plan_steps
from heads.head import Head, HeadConfig, stack_logits
from heads.losses import LossConfig, inverse_frequency
from heads.predict import Reads, gather
from heads.stacked_loss import StackedLoss
from heads.vector_store import VectorStore
from tests.heads.synthetic import LABELS, make_dataset

CPU = torch.device("cpu")
KINDS: tuple[dict[str, Any], ...] = (
    {"kind": "as", "hidden": 8},
    {"kind": "mqmha", "queries": 4, "heads": 4, "scorer_layers": 1},
    {"kind": "mqmha", "queries": 2, "heads": 2, "scorer_layers": 2, "hidden": 6},
    {"kind": "statistics"},
)


@given(
    lengths=st.lists(st.integers(1, 300), min_size=3, max_size=12),
    most=st.integers(1, 60),
    seed=st.integers(0, 2**32),
)
def test_places_are_those_of_the_slices_and_the_rest_is_padding(
    lengths: list[int], most: int, seed: int
) -> None:
    offsets = torch.tensor([0, *np.cumsum(lengths)])
    rows = torch.arange(len(lengths)).flip(0)
    batches = [torch.tensor([0, 2]), torch.tensor([1])]
    thinnings = [Thinning(most, seed), Thinning(most, seed + 1)]
    width = min(most, max(lengths))
    steps = plan_steps(
        *(batches, 2, rows, {"audio": offsets}, {"audio": width}, thinnings, [0.25, 1.0], 7, CPU)
    )
    assert [float(step.factor) for step in steps] == [0.25, 1.0]
    for step, batch, thinning in zip(steps, batches, thinnings, strict=True):
        own = rows[batch].tolist()
        places, padding = step.places("audio")
        assert padding.view(2, width).sum(1).max() < width
        found = [
            row[~empty].tolist()
            for row, empty in zip(places.view(2, -1), padding.view(2, -1), strict=True)
        ]
        slices = thinning.slices([lengths[row] for row in own])
        expected = [
            list(range(int(offsets[row]), int(offsets[row + 1])))[part]
            for row, part in zip(own, slices, strict=True)
        ]
        assert found[: len(own)] == expected
        # Padding is of the utterance itself: never another's frame, never beyond the last one.
        assert all(
            set(row.tolist()) == set(f) for row, f in zip(places.view(2, -1), found, strict=True)
        )
        # What fills the batch has a position that no row has.
        assert step.positions.tolist() == [*batch.tolist(), *[len(rows)] * (2 - len(batch))]
        assert step.slices("audio", offsets)[: len(own)] == list(zip(own, slices, strict=True))


@pytest.mark.parametrize("norm", ["none", "layernorm", "standardise", "speaker"])
@pytest.mark.parametrize("sent", [False, True])
def test_logits_of_a_padded_batch_are_those_of_the_ragged_one(
    norm: str, sent: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = make_dataset(dim=16)
    heads = [
        Head(HeadConfig(LABELS, {"audio": 16, "text": 16}, {"audio": kind, "text": kind}, norm), k)
        for k, kind in enumerate(KINDS)
    ]
    for head in heads:
        for parameter in head.parameters():
            torch.nn.init.normal_(parameter, 0, 0.3)
    rows = dataset.rows("train")
    batch, thinning = torch.tensor([11, 0, 30, 7]), Thinning(6, 5)
    store = VectorStore(dataset)
    expected = stack_logits(heads, gather(store, heads, rows[batch], thinning))
    reads = Reads.of(heads)
    assert reads.takes_padding
    offsets = {name: frames.offsets for name, frames in dataset.frames.items()}
    widths = {"audio": 6, "text": 5}
    (step,) = plan_steps([batch], 7, rows, offsets, widths, [thinning], [1.0], 0, CPU)
    away = {}
    if sent:
        # There is no memory to pin without a GPU.
        empty = torch.empty
        monkeypatch.setattr(
            torch, "empty", lambda *size, pin_memory=False, **how: empty(*size, **how)
        )
        away = {one: store.sent(step, *one) for one in store.elsewhere(reads.with_frames)}
        assert [name for name, _ in away] == ["audio", "text"]
    inputs = store.padded_inputs(step, reads.needs, with_frames=reads.with_frames, sent=away)
    found = stack_logits(heads, inputs)
    assert found.shape == (len(heads), 7, len(LABELS))
    torch.testing.assert_close(found[:, :4], expected, atol=1e-5, rtol=1e-5)


def test_the_rows_that_fill_a_batch_cost_nothing() -> None:
    """Their position has no target, so their logits have no gradient."""
    target = torch.tensor([0, 1, 2, 1])
    loss = StackedLoss.of(LossConfig(), target, inverse_frequency(target, 3))
    stacked = StackedLoss.beside([loss, loss], CPU)
    logits = torch.randn(2, 3, 3, requires_grad=True)
    found = stacked(logits, torch.tensor([2, 0, 4]))
    torch.testing.assert_close(found, stacked(logits[:, :2], torch.tensor([2, 0])))
    found.sum().backward()
    assert logits.grad is not None
    assert not logits.grad[:, 2].any()
    assert logits.grad[:, :2].any()


def test_a_pooling_that_cannot_leave_frames_out_is_not_given_padding(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    head = Head(HeadConfig(LABELS, {"audio": 16}, {"audio": KINDS[0]}))
    assert Reads.of([head]).takes_padding
    monkeypatch.setattr(type(head.pooling("audio")), "takes_padding", False)
    assert not Reads.of([head]).takes_padding
