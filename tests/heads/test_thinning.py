"""Which frames a training step reads: evenly spaced ones of long utterances, all of short ones."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

import heads.vector_store
from cache.frames import Frames
from heads.batches import Thinning
from heads.dataset import Dataset
from heads.head import Head, Inputs, ViewKey, as_inputs, stack_logits
from heads.predict import gather, predict
from heads.training import EPOCH_PRIME, STEP_PRIME, TRAINED_FRAMES, Cohort, Schedule, TrainingConfig
from heads.vector_store import VectorStore
from tests.heads.synthetic import LABELS, make_configs, make_dataset
from tests.rounding import summed
from tests.scorers import draw_scorers

LENGTHS = st.lists(st.integers(1, 3000), min_size=1, max_size=30)
SEEDS = st.integers(0, 2**40)


def long_dataset(longest: int = 200, count: int = 12, dim: int = 8) -> Dataset:
    """Utterances of one frame up to the longest, every other one short."""
    generator = torch.Generator().manual_seed(1)
    plain = make_dataset(count, dim)
    lengths = [1, longest, TRAINED_FRAMES, TRAINED_FRAMES + 1] + [
        int(n) for n in torch.randint(1, longest, (count - 4,), generator=generator)
    ]
    frames = {
        name: Frames.from_list([3 + torch.randn(n, dim, generator=generator) for n in lengths])
        for name in ("audio", "text")
    }
    return replace(plain, frames=frames)


@given(lengths=LENGTHS, most=st.integers(1, 100), seed=SEEDS)
def test_frames_are_evenly_spaced_in_bounds_and_never_none(
    lengths: list[int], most: int, seed: int
) -> None:
    slices = Thinning(most, seed).slices(lengths)
    assert len(slices) == len(lengths)
    for length, own in zip(lengths, slices, strict=True):
        read = list(range(length))[own]
        stride = math.ceil(length / most)
        assert 1 <= len(read) <= most
        assert len(read) in (length // stride, math.ceil(length / stride))
        assert read == list(range(own.start, length, stride))
        assert 0 <= own.start < stride
        if length <= most:
            assert read == list(range(length))


@given(lengths=LENGTHS, seed=SEEDS)
def test_equal_seeds_read_the_same_frames(lengths: list[int], seed: int) -> None:
    assert Thinning(48, seed).slices(lengths) == Thinning(48, seed).slices(lengths)


def test_every_frame_of_a_long_utterance_is_read_in_some_step() -> None:
    seen = [Thinning(10, seed).slices([97])[0] for seed in range(200)]
    assert {n for own in seen for n in range(97)[own]} == set(range(97))
    starts = torch.bincount(torch.tensor([own.start for own in seen]), minlength=10)
    assert starts.min() >= 8  # 20 are expected of each


def test_utterances_of_a_batch_start_at_frames_of_their_own() -> None:
    assert len({own.start for own in Thinning(10, 0).slices([1000] * 20)}) > 5


@pytest.mark.parametrize("norm", ["none", "layernorm"])
@pytest.mark.parametrize("kept", [True, False])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_batch_has_the_frames_of_the_slices_less_the_mean_of_all(
    precision: str, kept: bool, norm: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not kept:
        monkeypatch.setattr(heads.vector_store, "KEPT_BYTES", 0)
    dataset = long_dataset()
    rows, thinning = torch.tensor([5, 1, 0, 3, 1]), Thinning(TRAINED_FRAMES, 11)
    view = (norm, 1, None)
    store = VectorStore(dataset, precision)
    batch = store.inputs(
        rows, {"audio": {view: ["max"]}}, with_frames={("audio", view)}, thinning=thinning
    )
    found = batch["audio"].view(norm)
    frames = dataset.frames["audio"]
    slices = thinning.slices(frames.lengths[rows].tolist())
    seen = [frames.utterance(row) for row in rows.tolist()]
    if norm == "layernorm":
        seen = [F.layer_norm(values, (8,)) for values in seen]
    expected = [(values - values.mean(0))[own] for values, own in zip(seen, slices, strict=True)]
    assert found.lengths == [len(values) for values in expected]
    assert max(found.lengths) <= TRAINED_FRAMES < max(map(len, seen))
    rough = 0.02 if precision == "bf16" else 1e-5
    torch.testing.assert_close(found.centred.float(), torch.cat(expected), atol=rough, rtol=rough)
    # Vectors are of all frames.
    torch.testing.assert_close(found.vector("max"), torch.stack([v.amax(0) for v in seen]))


@pytest.mark.parametrize("thinning", [None, Thinning(200, 3)])
def test_utterances_that_are_not_longer_are_read_whole(thinning: Thinning | None) -> None:
    dataset = long_dataset()
    view = ("none", 1, None)
    rows = torch.arange(len(dataset))
    batch = VectorStore(dataset).inputs(
        rows, {"text": {view: []}}, with_frames={("text", view)}, thinning=thinning
    )
    found = batch["text"].view("none")
    frames = dataset.frames["text"]
    assert isinstance(frames, Frames)
    assert found.lengths == frames.lengths.tolist()
    torch.testing.assert_close(found.values, frames.values, atol=1e-5, rtol=1e-5)


def test_frames_kept_between_batches_are_not_changed_by_them() -> None:
    store = VectorStore(long_dataset())
    view = ("none", 1, None)
    rows = torch.arange(12)

    def read(seed: int) -> Tensor:
        batch = store.inputs(
            rows, {"audio": {view: []}}, with_frames={("audio", view)}, thinning=Thinning(9, seed)
        )
        return batch["audio"].view("none").centred.clone()

    first, other = read(1), read(2)
    assert not torch.equal(first, other)
    assert torch.equal(read(1), first)


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> list[Thinning | None]:
    """How frames were thinned, batch by batch."""
    seen: list[Thinning | None] = []
    real = VectorStore.inputs

    def inputs(
        store: VectorStore,
        rows: Tensor,
        needs: Mapping[str, Mapping[ViewKey, Sequence[str]]],
        *,
        with_frames: Collection[tuple[str, ViewKey]],
        thinning: Thinning | None = None,
    ) -> dict[str, Inputs]:
        seen.append(thinning)
        return real(store, rows, needs, with_frames=with_frames, thinning=thinning)

    monkeypatch.setattr(VectorStore, "inputs", inputs)
    return seen


def test_each_step_draws_anew_from_the_data_seed_and_predictions_read_all(
    recorded: list[Thinning | None],
) -> None:
    store = VectorStore(make_dataset())
    cohort = Cohort(
        [Head(make_configs()[0])],
        [TrainingConfig(1e-3)],
        store,
        store.dataset.rows("train"),
        Schedule(2, 25, data_seed=4, frames=7),
    )
    cohort.run_epoch()
    cohort.run_epoch()
    assert recorded == [Thinning(7, 4 * EPOCH_PRIME + step * STEP_PRIME) for step in range(4)]
    recorded.clear()
    predict(cohort.heads, store, store.dataset.rows("dev"))
    assert recorded == [None]


def test_a_schedule_without_a_number_reads_all_frames(recorded: list[Thinning | None]) -> None:
    store = VectorStore(make_dataset())
    rows = store.dataset.rows("train")
    heads_ = [Head(make_configs()[0])]
    Cohort(heads_, [TrainingConfig(1e-3)], store, rows, Schedule(1, frames=None)).run_epoch()
    assert recorded == [None]
    assert Schedule(1).frames == TRAINED_FRAMES == 48


def test_predictions_are_those_of_all_frames() -> None:
    dataset = long_dataset(dim=16)
    store = VectorStore(dataset)
    heads_ = [draw_scorers(Head(config, k), k) for k, config in enumerate(make_configs())]
    rows = torch.arange(len(dataset))
    whole = {name: frames.select(rows) for name, frames in dataset.frames.items()}
    expected = torch.softmax(stack_logits(heads_, as_inputs(whole)), -1).detach()
    found = predict(heads_, store, rows)
    torch.testing.assert_close(found, expected, atol=summed(expected, 300), rtol=0)
    # And thinning would have made a difference to those with attention.
    thinned = stack_logits(heads_, gather(store, heads_, rows, Thinning(9, 0))).detach()
    changed = (torch.softmax(thinned, -1) - expected).abs().amax((1, 2)) > 1e-3
    assert [bool(own) for own in changed] == [bool(h.scorer_parameters()) for h in heads_]


@pytest.mark.parametrize("frames", [3, TRAINED_FRAMES])
def test_company_changes_nothing_where_frames_are_thinned(frames: int) -> None:
    dataset = long_dataset(count=24, dim=16)
    store, rows = VectorStore(dataset), torch.arange(24)
    shapes = make_configs()
    training = [TrainingConfig(1e-3 * (k + 1), scorer_rate=1.0, seed=k) for k in range(len(shapes))]

    def trained(members: list[int]) -> Tensor:
        heads_ = [draw_scorers(Head(shapes[k], k), k) for k in members]
        own = [training[k] for k in members]
        cohort = Cohort(heads_, own, store, rows, Schedule(5, 6, frames=frames))
        for _ in range(5):
            cohort.run_epoch()
        return predict(cohort.heads, store, rows)

    together = trained(list(range(len(shapes))))
    for k in range(len(shapes)):
        torch.testing.assert_close(trained([k])[0], together[k], atol=1e-4, rtol=0)
    assert together.shape == (len(shapes), 24, len(LABELS))
