"""Work in batches: which inputs go together, and recordings decoded ahead of use, in threads."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from corpora.base.errors import AudioError

# Batches decoded ahead of the encoder: enough to hide one slow file, little enough to hold.
BATCHES_AHEAD = 3
# Items that wait for a thread: each takes 1.3 kB, which a whole corpus should not.
_WAITING = 1024
# Decoding and resampling run outside the interpreter's lock, and reading waits: one thread a core,
# up to what one GPU can take from (a core decodes 3,000 × real time of 16 kHz WAV).
THREADS = max(2, min(16, os.cpu_count() or 1))

T = TypeVar("T")
R = TypeVar("R")


def each_in_threads(work: Callable[[T], R], items: Sequence[T]) -> Iterator[R]:
    """What `work` makes of each item, in order; called in threads, some ahead."""
    with ThreadPoolExecutor(THREADS) as threads:
        for start in range(0, len(items), _WAITING):
            yield from threads.map(work, items[start : start + _WAITING])


def batches(items: Iterable[T], size: Callable[[T], int], budget: int) -> Iterator[list[T]]:
    """Runs of items of at most `budget`, counted as padded: the largest times their number."""
    batch: list[T] = []
    largest = 0
    for item in items:
        largest = max(largest, size(item))
        if batch and largest * (len(batch) + 1) > budget:
            yield batch
            batch, largest = [], size(item)
        batch.append(item)
    if batch:
        yield batch


def decode_ahead(
    planned: Iterable[list[T]], decode: Callable[[T], R], fail: Callable[[T, str], None]
) -> Generator[tuple[list[T], list[R]], None, None]:
    """Batches as planned, and what `decode` makes of them, some batches ahead, without failures.

    Args:
        planned: batches.
        decode: called in threads; an AudioError from it is a failure.
        fail: told of each failure.
    """
    threads = ThreadPoolExecutor(THREADS, thread_name_prefix="decode")
    try:
        waiting = iter(planned)
        ahead: deque[tuple[list[T], list[Future[R]]]] = deque()
        exhausted = False
        while True:
            while not exhausted and len(ahead) < BATCHES_AHEAD:
                batch = next(waiting, None)
                if batch is None:
                    exhausted = True
                else:
                    ahead.append((batch, [threads.submit(decode, one) for one in batch]))
            if not ahead:
                return
            batch, futures = ahead.popleft()
            kept = []
            for one, future in zip(batch, futures, strict=True):
                try:
                    kept.append(future.result())
                except AudioError as error:
                    fail(one, str(error))
            del futures  # they hold the samples
            yield batch, kept
    finally:
        threads.shutdown(wait=True, cancel_futures=True)
