"""Arithmetic over the utterances of a ragged batch: softmax, means, maxima, weighted moments.

On a CPU large utterances are taken one after the other: the frames of one stay in the processor's
cache for all that is done with them, which passes over the N × D values of a batch would not allow.

Utterances of a batch shared between threads, each of which works on one after the other.

Operations on the frames of one utterance take tens of microseconds, in the cache of one core. Two
threads of torch's inside each of them would wait for one another longer than that; two threads
with half of the utterances each do not.
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


def share_blocks(work: Callable[[slice, Sequence[Place]], None], lengths: Sequence[int]) -> None:
    """`share_utterances`, of neighbours that have `BLOCK_FRAMES` together in one call.

    Which ones these are depends on their lengths alone, and not on threads.

    Args:
        work: is called with the frames of a block, and the utterances that they are of.
        lengths: frames per utterance.
    """
    blocks: list[list[Place]] = []
    held = BLOCK_FRAMES
    for place, length in zip(places(lengths), lengths, strict=True):
        if held >= BLOCK_FRAMES:
            blocks.append([])
            held = 0
        blocks[-1].append(place)
        held += length

    def each(run: Sequence[Place]) -> None:
        for number, own in run:
            work(own, blocks[number])

    share_utterances(each, [own[-1][1].stop - own[0][1].start for own in blocks])


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


# Variances below this are rounding; its root (1e-5) keeps the gradient of sqrt finite.
VARIANCE_FLOOR = 1e-10
# A weighted variance under this part of its second moment is below the resolution of fp32.
RELATIVE_FLOOR = 1e-7
# Values of an utterance's frames below which calling one operation after the other costs a CPU more
# than padding does: text at 96 features is pooled 3 to 10 times faster together, 160 frames at 128
# features 1 to 1.6 times; at 512 features single utterances are.
SMALL_VALUES = 2**15
# Products of fewer rows reach half of what a processor can: 43 frames of 1,024 features 26 GFLOP/s,
# 172 of them 42, all 2,752 of a batch 42.
BLOCK_FRAMES = 192


def together(values: int, lengths: Sequence[int], device: torch.device) -> bool:
    """Whether a batch is worked on as a whole: on a GPU, and where utterances are small.

    Args:
        values: how many each pass over the batch touches.
        lengths: frames per utterance.
        device: where they are.
    """
    return device.type == "cuda" or values < SMALL_VALUES * len(lengths)


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
    if values.is_cuda:
        return _reduced(values, "max", lengths)
    return torch.stack([part.amax(dim=0) for part in values.split(list(lengths))])


def segment_mean(values: Tensor, lengths: Sequence[int]) -> Tensor:
    """Mean over the frames of each utterance: `[N, D] -> [B, D]`."""
    if values.is_cuda:
        return _reduced(values, "mean", lengths)
    return torch.stack([part.mean(dim=0) for part in values.split(list(lengths))])


def segment_sum(values: Tensor, lengths: Sequence[int]) -> Tensor:
    """Sum over the frames of each utterance: `[N, …] -> [B, …]`."""
    if values.is_cuda:
        return _reduced(values, "sum", lengths)
    return torch.stack([part.sum(dim=0) for part in values.split(list(lengths))])


def _reduced(values: Tensor, how: str, lengths: Sequence[int]) -> Tensor:
    """All utterances in one launch. To check that their lengths fit the host would wait."""
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
    """
    if together(centred.numel(), lengths, centred.device):
        return padded_moments(scores, centred, lengths)
    found = _AttentiveMoments.apply(scores, centred, tuple(lengths))  # type: ignore[no-untyped-call]
    mean, deviation = (one.unflatten(2, (len(scores), -1)) for one in found)
    return mean, deviation


def padded_moments(
    scores: Tensor, centred: Tensor, lengths: Sequence[int]
) -> tuple[Tensor, Tensor]:
    """`attentive_moments` in few large products, without waiting for a device.

    Utterances are padded to the longest. In training none is long (see `heads.batches.Thinning`).
    """
    own, rows = layout(tuple(lengths), scores.device), len(lengths)
    slices, queries, _ = scores.shape
    placed, frames = scores.transpose(1, 2), _cut(centred.to(scores.dtype), slices)
    if own.slot is not None:
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


class _AttentiveMoments(torch.autograd.Function):
    """Written out for the memory: nothing of the size of the batch's frames is made but gradients.

    Autograd over slices would keep all squares, and add up a full-size gradient an utterance.
    """

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401 - torch's own type is not public
        scores: Tensor,
        centred: Tensor,
        lengths: tuple[int, ...],
    ) -> tuple[Tensor, Tensor]:
        slices, queries, _ = scores.shape
        mean = scores.new_empty(len(lengths), queries, centred.shape[1])
        deviation = torch.empty_like(mean)
        weights = torch.empty_like(scores)

        def take(run: Sequence[Place]) -> None:
            for b, own in run:
                weight = torch.softmax(scores[:, :, own], dim=2)
                weights[:, :, own] = weight
                parts = _cut(centred[own].to(scores.dtype), slices)
                _sliced(mean[b], slices).copy_(torch.bmm(weight, parts))
                _sliced(deviation[b], slices).copy_(torch.bmm(weight, parts.square()))
                # From the second moment to σ, while it is in the cache.
                raw = deviation[b]
                floor = (raw * RELATIVE_FLOOR).clamp_min_(VARIANCE_FLOOR)
                raw.addcmul_(mean[b], mean[b], value=-1)
                torch.maximum(raw, floor, out=raw).sqrt_()

        share_utterances(take, lengths)
        ctx.save_for_backward(weights, centred, mean, deviation)
        ctx.lengths = lengths
        return mean, deviation

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any,  # noqa: ANN401
        *gradients: Tensor,
    ) -> tuple[Tensor | None, Tensor | None, None]:
        weights, centred, mean, deviation = ctx.saved_tensors
        for_mean, for_deviation = gradients
        slices = weights.shape[0]
        for_scores = torch.empty_like(weights) if ctx.needs_input_grad[0] else None
        for_frames = torch.empty_like(centred) if ctx.needs_input_grad[1] else None

        def differentiate(run: Sequence[Place]) -> None:
            for b, own in run:
                mu, sigma = mean[b], deviation[b]
                # A σ at its floor does not move.
                square = mu.square()
                floor = sigma.square().add_(square).mul_(RELATIVE_FLOOR)
                floor.clamp_min_(VARIANCE_FLOOR)
                raised = sigma.square() <= floor * (1 + 1e-3)
                second = for_deviation[b] / sigma / 2
                second.masked_fill_(raised, 0)
                first = torch.addcmul(for_mean[b], mu, second, value=-2)
                weight, parts = weights[:, :, own], _cut(centred[own].to(weights.dtype), slices)
                first, second = _sliced(first, slices), _sliced(second, slices)
                if for_scores is not None:
                    moved = torch.bmm(first, parts.transpose(1, 2))
                    moved.baddbmm_(second, parts.square().transpose(1, 2)).mul_(weight)
                    total = moved.sum(dim=2, keepdim=True)
                    torch.addcmul(moved, weight, total, value=-1, out=for_scores[:, :, own])
                if for_frames is not None:
                    share = weight.transpose(1, 2)  # [S, T, C]
                    grown = torch.addcmul(share @ first, parts, share @ second, value=2)
                    for_frames[own] = grown.transpose(0, 1).flatten(1)

        share_utterances(differentiate, ctx.lengths)
        return for_scores, for_frames, None


def _sliced(vectors: Tensor, slices: int) -> Tensor:
    """`[C, D]` as `[S, C, D/S]`, a view."""
    cut: Tensor = vectors.unflatten(1, (slices, -1))
    return cut.transpose(0, 1)


def _cut(frames: Tensor, slices: int) -> Tensor:
    """`[T, D]` as `[S, T, D/S]`, a view: products of all slices are then one call."""
    cut: Tensor = frames.unflatten(1, (slices, -1))
    return cut.transpose(0, 1)
