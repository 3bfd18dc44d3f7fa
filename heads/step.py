"""What one training step of many heads is made of: dropout by a hash, one optimiser, one recording.

Dropout of many heads whose masks are a hash of (seed, step, row, unit): no generator, no state.

Element (b, j) of a step is kept where a 32-bit hash of it is at least as large as its share of
2³². The hash mixes r ⊕ c, with r a hash of step and row, and c a hash of the head's seed and the
unit, which stay the same throughout training. So a head's mask depends on no other head, is the
same on every device, and is made there in a few operations for all heads together.

    mix(x)      x ^= x >> 16;  x *= 7FEB352D;  x ^= x >> 15;  x *= 846CA68B;  x ^= x >> 16
    r           mix(b + (step + 1) · 9E3779B9)
    c           mix(j + mix(seed mod 2³²) + mix(seed div 2³²))
    hash        y = (r ⊕ c) · 7FEB352D;  y ^= y >> 15 (arithmetic);  y *= 846CA68B

all mod 2³², on signed numbers (`mix` is lowbias32 of Wellons, "Hash function prospector", 2018).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextvars import ContextVar
from functools import lru_cache, wraps
from itertools import chain
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor
from torch.nn import functional as F

#: What masks are drawn by, for what is kept with numbers that depend on them.
MASKS = "hash of seed, step, row and unit"

_FIRST, _SECOND, _STEP = 0x7FEB352D, 0x846CA68B, 0x9E3779B9
_WORD = 0xFFFFFFFF


class Dropout:
    """Inverted dropout of many heads.

    Args:
        seeds: one a head.
        widths: units of each head.
        probabilities: of each head.
        device: where masks are made.
    """

    def __init__(
        self,
        seeds: Sequence[int],
        widths: Sequence[int],
        probabilities: Sequence[float],
        device: torch.device,
    ) -> None:
        self._widths = list(widths)
        each = list(zip(seeds, widths, probabilities, strict=True))
        units = [
            _signed(_mixed(torch.arange(width, device=device) + _mixed_seed(seed)))
            for seed, width, _ in each
        ]
        # The least hash that is kept, and what is kept is divided by its share.
        least = [
            torch.full((width,), round(share * 2**32) - 2**31, dtype=torch.int32, device=device)
            for _, width, share in each
        ]
        scale = [torch.full((width,), 1 / (1 - share), device=device) for _, width, share in each]
        self._units, self._least, self._scale = map(torch.cat, (units, least, scale))

    def masks(self, words: Tensor) -> list[Tensor]:
        """`[B, width]` of each head: 0, or 1 / (1 − p), for the `[B]` words of a step."""
        hashed = words.to(torch.int32)[:, None] ^ self._units
        hashed *= _FIRST
        hashed ^= hashed >> 15
        hashed *= _SECOND - 2**32  # the same number, as a signed one
        kept = (hashed >= self._least) * self._scale
        return list(kept.split(self._widths, dim=1))


def step_words(step: int, rows: int) -> Tensor:
    """`[B]` int32: r of each row of a step, on the CPU."""
    return _signed(_mixed(torch.arange(rows) + (step + 1) * _STEP))


def _mixed_seed(seed: int) -> int:
    low, high = (_mixed(torch.tensor(part)) for part in (seed & _WORD, seed >> 32 & _WORD))
    return int(low) + int(high)


def _mixed(numbers: Tensor) -> Tensor:
    """`mix`, of int64 numbers; the result is from 0 to 2³² − 1."""
    x = numbers & _WORD
    x ^= x >> 16
    x = x * _FIRST & _WORD
    x ^= x >> 15
    x = x * _SECOND & _WORD
    return x ^ x >> 16


def _signed(words: Tensor) -> Tensor:
    """Words from 0 to 2³² − 1 as the int32 with the same bits."""
    return (words - ((words >> 31) << 32)).to(torch.int32)


P = ParamSpec("P")
T = TypeVar("T")

# What work that is being recorded read of what is kept between steps.
_READ: ContextVar[list[object] | None] = ContextVar("read while recording", default=None)


def constants(maxsize: int) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Keep what a function made of hashable arguments, the last `maxsize` ones, for all steps.

    A recording reads it at its place in memory, and so holds on to it when others take its turn.
    """

    def kept(function: Callable[P, T]) -> Callable[P, T]:
        made = lru_cache(maxsize)(function)

        @wraps(function)
        def find(*args: P.args, **kwargs: P.kwargs) -> T:
            found: T = made(*args, **kwargs)  # type: ignore[arg-type]
            if (read := _READ.get()) is not None:
                read.append(found)
            return found

        return find

    return kept


class Recorded:
    """A step's work, recorded as a CUDA graph and replayed: one launch instead of some hundreds.

    Args:
        work: is given the numbers of a step as tensors of the same shapes each time. All else that
            it reads has to stay where it is, and it may not wait for the device.
    """

    #: Calls that are made as they are before one is recorded: libraries choose kernels in these.
    WARMING = 3

    def __init__(self, work: Callable[..., None]) -> None:
        self._work = work
        self._calls = 0
        self._graph: torch.cuda.CUDAGraph | None = None
        self._inputs: list[Tensor] = []
        self._read: list[object] = []

    def __call__(self, *inputs: Tensor) -> None:
        """Do the work."""
        self._calls += 1
        if self._calls <= self.WARMING:
            # Not on the stream that everything else is on, which cannot be recorded.
            beside, own = torch.cuda.Stream(), torch.cuda.current_stream()
            beside.wait_stream(own)
            with torch.cuda.stream(beside):
                self._work(*inputs)
            own.wait_stream(beside)
            return
        if self._graph is None:
            self._inputs = [one.clone() for one in inputs]
            self._graph = torch.cuda.CUDAGraph()
            token = _READ.set(self._read)
            try:
                with torch.cuda.graph(self._graph):
                    self._work(*self._inputs)
            finally:
                _READ.reset(token)
        torch._foreach_copy_(self._inputs, list(inputs))
        self._graph.replay()


BETAS, EPSILON = (0.9, 0.999), 1e-8


class Optimiser:
    """AdamW (Loshchilov and Hutter 2019) of heads that take all their steps together.

    Args:
        groups: of each head its parameters in groups `{"params", "peak", "weight_decay"}`: the peak
            of the learning rate and the decay. The rate of a step is kept there as `lr`.
        clip: largest gradient norm of a head.
    """

    def __init__(self, groups: Sequence[Sequence[dict[str, Any]]], clip: float) -> None:
        self.groups = [list(own) for own in groups]
        self._clip = clip
        everything = [group for own in groups for group in own]
        for group in everything:
            # Mean and square of the gradients, as torch's own AdamW keeps them.
            for name in ("mean", "square"):
                group[name] = [torch.zeros_like(parameter) for parameter in group["params"]]
        device = everything[0]["params"][0].device
        # On the parameters' device, where the bias of both is taken out.
        self._steps = torch.zeros((), device=device)
        self._peaks = torch.tensor([group["peak"] for group in everything], device=device)

    def zero_gradients(self) -> None:
        """Begin a step of all heads."""
        self._steps += 1
        for own in self.groups:
            for group in own:
                for parameter in group["params"]:
                    parameter.grad = None

    def step(self, heads: Sequence[int], factor: float | Tensor) -> None:
        """Move these heads along their gradients, at `factor` times their peak rates.

        A factor on the device is not looked at: rates stay there too.
        """
        if isinstance(factor, Tensor):
            rates = iter((self._peaks * factor).unbind())
            for group in chain(*self.groups):
                group["lr"] = next(rates)
        else:
            for group in chain(*(self.groups[k] for k in heads)):
                group["lr"] = group["peak"] * factor
        moving = [
            [
                (group, [at for at, p in enumerate(group["params"]) if p.grad is not None])
                for group in self.groups[k]
            ]
            for k in heads
        ]
        gradients = [
            [group["params"][at].grad for group, places in own for at in places] for own in moving
        ]
        for own, excess in zip(moving, self._excesses(gradients), strict=True):
            for group, places in own:
                parameters, mean, square = (
                    [group[name][at] for at in places] for name in ("params", "mean", "square")
                )
                torch._fused_adamw_(
                    parameters,
                    [parameter.grad for parameter in parameters],
                    mean,
                    square,
                    [],
                    [self._steps] * len(parameters),
                    lr=group["lr"],
                    beta1=BETAS[0],
                    beta2=BETAS[1],
                    weight_decay=group["weight_decay"],
                    eps=EPSILON,
                    amsgrad=False,
                    maximize=False,
                    grad_scale=excess,
                )

    def keep(self, positions: Sequence[int]) -> None:
        """Go on with the heads at `positions` only."""
        self.groups = [self.groups[k] for k in positions]
        peaks = [group["peak"] for group in chain(*self.groups)]
        self._peaks = torch.tensor(peaks, device=self._peaks.device)

    def _excesses(self, gradients: Sequence[Sequence[Tensor]]) -> list[Tensor | None]:
        """What each head's gradients are to be divided by; None: they may stay as they are."""
        norms = torch.stack(torch._foreach_norm([one for own in gradients for one in own]))
        # Summed in fp64, so that the zeros that heads with fewer parameters get change no digit.
        places = _places(tuple(len(own) for own in gradients), norms.device)
        each = torch.linalg.vector_norm(F.pad(norms.double(), (0, 1))[places], dim=1)
        excess = (each / self._clip).clamp_min_(1).to(norms.dtype)
        if norms.is_cuda:
            return list(excess.unbind())
        # A host looks at them for free, and need not write gradients that are small enough; a
        # device would have to be waited for.
        return [one if one > 1 else None for one in excess.unbind()]


@constants(maxsize=32)
def _places(counts: tuple[int, ...], device: torch.device) -> Tensor:
    """`[K, most]`: places of each head's values among those of all; the one after them is none."""
    places, start = torch.full((len(counts), max(counts)), sum(counts)), 0
    for k, count in enumerate(counts):
        places[k, :count] = torch.arange(start, start + count)
        start += count
    return places.to(device)
