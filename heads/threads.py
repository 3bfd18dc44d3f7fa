"""How many threads training uses: one for small data, where sharing the work costs more."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from heads.dataset import Dataset
from heads.sharing import sharing

# Frame values of a batch (utterances × frames × features, all modalities) from which on its work is
# shared between threads: about 64 utterances of 2.5 s at 512 features. Below, two threads
# save little on an idle machine, and on a busy one they wait for each other at every product: a
# cohort of eleven at 128 features took 110 ms a step on one thread and 900 to 3,000 on two.
SHARED_VALUES = 2**22


@contextmanager
def suitable_threads(dataset: Dataset, batch_size: int) -> Iterator[None]:
    """Inside, as many threads as torch had share the work where batches are large; else one."""
    small = batch_values(dataset, batch_size) < SHARED_VALUES
    with sharing(1 if small else torch.get_num_threads()):
        yield


def suitable_workers(dataset: Dataset, batch_size: int) -> int:
    """How many companies of heads are trained beside one another, a thread each."""
    small = batch_values(dataset, batch_size) < SHARED_VALUES
    return torch.get_num_threads() if small else 1


def batch_values(dataset: Dataset, batch_size: int) -> float:
    """How many values the frames of a batch have on average, all modalities together."""
    values = sum(frames.total * frames.dim for frames in dataset.frames.values())
    return values / max(1, len(dataset)) * batch_size
