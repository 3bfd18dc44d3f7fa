"""Utterances of a batch shared between threads, each of which works on one after the other.

Operations on the frames of one utterance take tens of microseconds, in the cache of one core. Two
threads of torch's inside each of them would wait for one another longer than that; two threads
with half of the utterances each do not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

import torch
from torch import Tensor

Part = TypeVar("Part")
Result = TypeVar("Result")

#: An utterance's number in its batch, and its frames.
Place = tuple[int, slice]

_THREADS: ContextVar[int | None] = ContextVar("threads that share work", default=None)


@contextmanager
def sharing(threads: int) -> Iterator[None]:
    """So many threads share work; all that is not shared is done on one.

    Small operations, of which training has many, are slower on two threads of torch's than on one.
    """
    before, own = torch.get_num_threads(), _THREADS.set(threads)
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
        _THREADS.reset(own)


def sharing_threads() -> int:
    """How many threads share work: as `sharing` says, else as many as torch has."""
    return _THREADS.get() or torch.get_num_threads()


def places(lengths: Sequence[int]) -> list[Place]:
    """The utterances of a ragged batch, in their order."""
    found, start = [], 0
    for number, length in enumerate(lengths):
        found.append((number, slice(start, start + length)))
        start += length
    return found


def share_utterances(work: Callable[[Sequence[Place]], None], lengths: Sequence[int]) -> None:
    """Do a piece of work on all utterances of a batch, in one run for each thread.

    Results may not depend on how the utterances are cut into runs, so each has to be worked on by
    itself. Runs are of about equally many frames.

    Args:
        work: is called with the utterances of a run; as many calls as threads go on at once.
        lengths: frames per utterance.
    """
    everyone = places(lengths)
    threads, total = sharing_threads(), sum(lengths)
    runs: list[list[Place]] = [[] for _ in range(threads)]
    for number, own in everyone:
        middle = (own.start + own.stop) / 2
        runs[min(threads - 1, int(middle * threads / max(1, total)))].append((number, own))
    side_by_side(work, [run for run in runs if run])


def side_by_side(work: Callable[[Part], Result], parts: Sequence[Part]) -> list[Result]:
    """`[work(part) for part in parts]`, as many at once as there are threads to share work."""
    threads = sharing_threads()
    if threads == 1 or len(parts) < 2:
        return [work(part) for part in parts]
    gradients, before = torch.is_grad_enabled(), torch.get_num_threads()

    def alone(part: Part) -> Result:
        with torch.set_grad_enabled(gradients):
            return work(part)

    # New threads take over this number; torch keeps it for each thread by itself.
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(threads) as pool:
            return list(pool.map(alone, parts))
    finally:
        torch.set_num_threads(before)


def shared_product(one: Tensor, other: Tensor) -> Tensor:
    """`oneᵀ @ other` of `[N, C]` and `[N, D]`, each thread with some of the C rows."""
    return torch.cat(side_by_side(lambda part: part.t() @ other, one.chunk(sharing_threads(), 1)))


def dealt(costs: Sequence[float], groups: int, most: int | None = None) -> list[list[int]]:
    """Positions in so many groups of about equal cost (in fewer where there are not as many).

    The costly ones are dealt out first, each to the group that has the least so far.

    Args:
        costs: one for each position.
        groups: how many; with `most` enough for all.
        most: positions of one group.
    """
    found: list[list[int]] = [[] for _ in range(min(groups, len(costs)))]
    loads = [0.0] * len(found)
    for k in sorted(range(len(costs)), key=lambda k: (-costs[k], k)):
        free = [at for at, own in enumerate(found) if most is None or len(own) < most]
        home = min(free, key=lambda at: (loads[at], len(found[at])))
        found[home].append(k)
        loads[home] += costs[k]
    return [sorted(own) for own in found]
