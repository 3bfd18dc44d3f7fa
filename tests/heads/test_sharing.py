"""Work shared between threads gives what one thread gives, and leaves torch as it was."""

from __future__ import annotations

from collections.abc import Iterator
from unittest.mock import patch

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from heads.head import Head
from heads.pooling.segments import Place, places, share_utterances, sharing, side_by_side
from heads.predict import predict
from heads.training import Cohort, Schedule, TrainingConfig
from heads.vector_store import VectorStore
from tests.heads.synthetic import make_configs, make_dataset
from tests.scorers import draw_scorers


@pytest.fixture(autouse=True)
def threads() -> Iterator[int]:
    """Three threads of torch's, whatever the machine has."""
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield 3
    torch.set_num_threads(before)


@given(lengths=st.lists(st.integers(1, 50), min_size=1, max_size=20))
def test_every_utterance_is_worked_on_once(lengths: list[int]) -> None:
    seen: list[Place] = []
    share_utterances(seen.extend, lengths)
    assert sorted(seen, key=lambda place: place[0]) == places(lengths)


def test_results_come_in_the_order_of_the_parts() -> None:
    assert side_by_side(lambda part: part * 2, [3, 1, 2, 5, 4]) == [6, 2, 4, 10, 8]


def test_inside_torch_has_one_thread_and_the_callers_gradient_mode() -> None:
    with torch.no_grad():
        found = side_by_side(
            lambda _: (torch.get_num_threads(), torch.is_grad_enabled()), [0, 1, 2, 3]
        )
    assert found == [(1, False)] * 4


def test_the_number_of_threads_is_restored_after_a_failure(threads: int) -> None:
    def fail(part: int) -> None:
        raise ValueError(part)

    with pytest.raises(ValueError, match="1"):
        side_by_side(fail, [1, 1])
    assert torch.get_num_threads() == threads


def trained(parts: int, threads: int) -> tuple[list[Tensor], Tensor]:
    """Parameters after some steps with batches in about so many parts, and what is answered."""
    store, configs = VectorStore(make_dataset()), make_configs()
    frames = store.dataset.frames["audio"]
    batch = 10 * frames.total / len(store.dataset)
    with (
        patch("heads.training.PART_VALUES", batch * frames.dim / parts),
        patch("heads.predict.CHUNK_FRAMES", {"cpu": batch / parts}),
        sharing(threads),
    ):
        heads = [draw_scorers(Head(own, seed), seed) for seed, own in enumerate(configs)]
        rows = store.dataset.rows("train")
        training = [TrainingConfig(1e-3, scorer_rate=1.0)] * len(heads)
        cohort = Cohort(heads, training, store, rows, Schedule(2, 10, frames=None))
        cohort.run_epoch()
        cohort.run_epoch()
        answers = predict(heads, store, store.dataset.rows("dev"))
    return [one.detach() for head in heads for one in head.parameters()], answers


def test_a_batch_in_parts_is_learnt_as_the_whole_is() -> None:
    whole, said = trained(1, threads=1)
    parts, heard = trained(3, threads=1)
    for one, other in zip([*whole, said], [*parts, heard], strict=True):
        torch.testing.assert_close(one, other, rtol=2e-4, atol=2e-5)


def test_threads_change_no_digit() -> None:
    (one, said), (three, heard) = trained(3, threads=1), trained(3, threads=3)
    for first, other in zip([*one, said], [*three, heard], strict=True):
        assert torch.equal(first, other)
