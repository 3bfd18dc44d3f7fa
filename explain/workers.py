"""Chunks of utterances side by side, each on one thread.

The products of one utterance are small: two threads that share one wait for each other longer
than they compute, on a busy machine many times longer. Two chunks at once lose nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import torch


@contextmanager
def one_thread_each() -> Iterator[ThreadPoolExecutor]:
    """As many workers as torch has threads, each with one; then as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    workers = ThreadPoolExecutor(before, initializer=torch.set_num_threads, initargs=(1,))
    try:
        yield workers
    finally:
        workers.shutdown(cancel_futures=True)
        torch.set_num_threads(before)
