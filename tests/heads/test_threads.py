"""Threads: one for small data, and whatever there was afterwards."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from heads.load import suitable_threads
from heads.pooling.segments import sharing_threads
from tests.heads.searches import small_dataset


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize(("batch_size", "threads"), [(16, 1), (10**6, 2)])
def test_large_batches_are_shared_and_small_ones_are_not(batch_size: int, threads: int) -> None:
    with suitable_threads(small_dataset(), batch_size):
        assert sharing_threads() == threads
        assert torch.get_num_threads() == 1
    assert sharing_threads() == torch.get_num_threads() == 2


@pytest.mark.usefixtures("two_threads")
def test_threads_come_back_after_an_error() -> None:
    with pytest.raises(RuntimeError), suitable_threads(small_dataset(), 16):
        raise RuntimeError
    assert torch.get_num_threads() == 2
