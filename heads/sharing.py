"""Utterances of a batch shared between threads, each of which works on one after the other.

Operations on the frames of one utterance take tens of microseconds, in the cache of one core. Two
threads of torch's inside each of them would wait for one another longer than that; two threads
with half of the utterances each do not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

Part = TypeVar("Part")
Result = TypeVar("Result")

#: An utterance's number in its batch, and its frames.
Place = tuple[int, slice]


def places(lengths: Sequence[int]) -> list[Place]:
    """The utterances of a ragged batch, in their order."""
    found, start = [], 0
    for number, length in enumerate(lengths):
        found.append((number, slice(start, start + length)))
        start += length
    return found


def share_utterances(work: Callable[[Sequence[Place]], None], lengths: Sequence[int]) -> None:
    """Do a piece of work on all utterances of a batch, in one run for each of torch's threads.

    Results may not depend on how the utterances are cut into runs, so each has to be worked on by
    itself. Runs are of about equally many frames.

    Args:
        work: is called with the utterances of a run; as many calls as threads go on at once.
        lengths: frames per utterance.
    """
    everyone = places(lengths)
    threads, total = torch.get_num_threads(), sum(lengths)
    runs: list[list[Place]] = [[] for _ in range(threads)]
    for number, own in everyone:
        middle = (own.start + own.stop) / 2
        runs[min(threads - 1, int(middle * threads / max(1, total)))].append((number, own))
    side_by_side(work, [run for run in runs if run])


def side_by_side(work: Callable[[Part], Result], parts: Sequence[Part]) -> list[Result]:
    """`[work(part) for part in parts]`, as many at once as torch has threads, each on one."""
    threads = torch.get_num_threads()
    if threads == 1 or len(parts) < 2:
        return [work(part) for part in parts]
    gradients = torch.is_grad_enabled()

    def alone(part: Part) -> Result:
        with torch.set_grad_enabled(gradients):
            return work(part)

    # New threads take over this number; torch keeps it for each thread by itself.
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(threads) as pool:
            return list(pool.map(alone, parts))
    finally:
        torch.set_num_threads(threads)
