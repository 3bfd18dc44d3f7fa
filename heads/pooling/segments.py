"""Arithmetic over the utterances of a ragged batch: softmax, means, maxima, weighted moments.

Also work that is shared between threads. Two threads of torch's inside each of many small
operations would mostly wait for one another; two threads of ours, which work on half of a batch
each, do not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from cache.encoders.device import to_device
from heads.step import constants

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


# Variances below this are rounding; its root (1e-5) keeps the gradient of sqrt finite.
VARIANCE_FLOOR = 1e-10
# A weighted variance under this part of its second moment is below the resolution of fp32.
RELATIVE_FLOOR = 1e-7
# Padded utterances have at most so many times the frames they have.
MOST_PADDING = 2


@dataclass(frozen=True, eq=False)
class Layout:
    """Where the frames of a ragged batch belong, on their device.

    Attributes:
        lengths: `[B]` int64.
        owner: `[N]` int64, the utterance of each frame.
        slot: `[N]` int64, its place where utterances are padded to the longest: b·T + t. None where
            all are equally long: each frame is at its place.
        longest: T.
    """

    lengths: Tensor
    owner: Tensor
    slot: Tensor | None
    longest: int


@constants(maxsize=8)
def layout(lengths: tuple[int, ...], device: torch.device) -> Layout:
    """The layout of a batch; sent once for all that is done with the batch, and not waited for."""
    longest = max(lengths)
    with torch.inference_mode(mode=False):  # a later caller may want gradients
        each = torch.tensor(lengths)
        owner = torch.arange(len(lengths)).repeat_interleave(each)
        within = torch.arange(len(owner)) - (each.cumsum(0) - each)[owner]
        owner, slot = to_device(torch.stack([owner, owner * longest + within]), device)
        each = to_device(each, device)
    return Layout(each, owner, None if min(lengths) == longest else slot, longest)


def segment_softmax(scores: Tensor, lengths: Sequence[int]) -> Tensor:
    """Softmax over the frames of each utterance: `[N, C] -> [N, C]`."""
    if scores.is_cuda:
        owner = layout(tuple(lengths), scores.device).owner
        grown = (scores - segment_max(scores.detach(), lengths).index_select(0, owner)).exp()
        return grown / segment_sum(grown, lengths).index_select(0, owner)
    return torch.cat([torch.softmax(part, dim=0) for part in scores.split(list(lengths))])


def segment_max(values: Tensor, lengths: Sequence[int]) -> Tensor:
    """Maximum over the frames of each utterance: `[N, D] -> [B, D]`."""
    return _reduced(values, "max", torch.amax, lengths)


def segment_mean(values: Tensor, lengths: Sequence[int]) -> Tensor:
    """Mean over the frames of each utterance: `[N, D] -> [B, D]`."""
    return _reduced(values, "mean", torch.mean, lengths)


def segment_sum(values: Tensor, lengths: Sequence[int]) -> Tensor:
    """Sum over the frames of each utterance: `[N, …] -> [B, …]`."""
    return _reduced(values, "sum", torch.sum, lengths)


def _reduced(
    values: Tensor, how: str, one: Callable[..., Tensor], lengths: Sequence[int]
) -> Tensor:
    """On a CPU each utterance by itself; on a GPU all in one launch.

    To check there that their lengths fit the host would wait.
    """
    if not values.is_cuda:
        return torch.stack([one(part, dim=0) for part in values.split(list(lengths))])
    each = layout(tuple(lengths), values.device).lengths
    return torch.segment_reduce(values, how, lengths=each, axis=0, unsafe=True)


def attentive_moments(
    scores: Tensor, centred: Tensor, lengths: Sequence[int]
) -> tuple[Tensor, Tensor]:
    """Mean and deviation of each utterance under the softmax of its scores, for all queries.

    μ = Σ_t ω_t x_t and σ = sqrt(Σ_t ω_t x_t² − μ²), ω = softmax over the utterance's frames.

    Args:
        scores: `[S, C, N]`: C queries for each of S equal slices of the features.
        centred: `[N, D]`, frames around their utterance's mean, so that σ² does not cancel. Stored
            in half precision they are read so, but moments are summed in fp32.
        lengths: frames per utterance.

    Returns:
        `[B, C, S, D/S]` twice, in the dtype of the scores: the mean of the centred frames, and σ.

    Utterances are padded to the longest, in few large products that no device is waited for in;
    where that would be mostly padding, those of each half of the batch are.
    """
    if max(lengths) * len(lengths) > MOST_PADDING * sum(lengths):
        half = len(lengths) // 2
        cut = sum(lengths[:half])
        halves = (slice(cut), lengths[:half]), (slice(cut, None), lengths[half:])
        found = [attentive_moments(scores[:, :, at], centred[at], part) for at, part in halves]
        return torch.cat([one for one, _ in found]), torch.cat([other for _, other in found])
    rows = len(lengths)
    slices, queries, _ = scores.shape
    placed, frames = scores.transpose(1, 2), _cut(centred.to(scores.dtype), slices)
    # One utterance lies as it is: there is nothing to look up, and its length may be a symbol.
    own = layout(tuple(lengths), scores.device) if rows > 1 else None
    if own is not None and own.slot is not None:
        # A slot that no frame takes has no weight.
        empty = scores.new_full((slices, rows * own.longest, queries), float("-inf"))
        placed = empty.index_copy(1, own.slot, placed)
        room = frames.new_zeros(slices, rows * own.longest, frames.shape[2])
        frames = room.index_copy(1, own.slot, frames)
    weight = torch.softmax(placed.unflatten(1, (rows, -1)), dim=2).transpose(2, 3).flatten(0, 1)
    parts = frames.unflatten(1, (rows, -1)).flatten(0, 1)
    mean, raw = (
        torch.bmm(weight, values).unflatten(0, (slices, rows)).permute(1, 2, 0, 3)
        for values in (parts, parts.square())
    )
    deviation: Tensor = _Deviation.apply(raw, mean)  # type: ignore[no-untyped-call]
    return mean, deviation


class _Deviation(torch.autograd.Function):
    """σ from the second moment and the mean; a σ at its floor does not move."""

    @staticmethod
    def forward(ctx: Any, raw: Tensor, mean: Tensor) -> Tensor:  # noqa: ANN401
        floor = (raw * RELATIVE_FLOOR).clamp_min_(VARIANCE_FLOOR)
        variance = torch.addcmul(raw, mean, mean, value=-1)
        raised = variance <= floor
        sigma = torch.where(raised, floor, variance).sqrt_()
        ctx.save_for_backward(mean, sigma, raised)
        return sigma

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:  # noqa: ANN401
        mean, sigma, raised = ctx.saved_tensors
        second = (gradient / sigma).mul_(0.5).masked_fill_(raised, 0)
        return second, (mean * second).mul_(-2)


def _cut(frames: Tensor, slices: int) -> Tensor:
    """`[T, D]` as `[S, T, D/S]`, a view: products of all slices are then one call."""
    cut: Tensor = frames.unflatten(1, (slices, -1))
    return cut.transpose(0, 1)
