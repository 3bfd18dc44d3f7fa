"""Delivery: frames from mapped parts into a tensor of another dtype or on another device.

In blocks that stay in the processor's cache between copying, summing and converting, so that beside
the result there is never more than some staging memory. Measured on 2 cores, 1 GB of float16
from the page cache: 0.28 s to float32 and 0.41 s to bfloat16, where reading a part and converting
it as a whole took 1.5 s and 1.2 s.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import google_crc32c
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cache.store.parts import Part, compare_sum, copy_checked

# Copied, summed and converted at once: stays in a core's second-level cache.
_BLOCK_BYTES = 1 << 18
# From 32,768 elements on torch spreads a copy over its threads. Waking them takes longer than a
# block, and a hundred times longer while another process uses the cores (measured).
_SERIAL_ELEMENTS = 32_767
# More threads than this only wait: they share the memory's bandwidth, and summing holds the
# interpreter's lock. With two, converting is 1.5 times as fast as with one.
_MOST_THREADS = 4
# Below this starting threads takes longer than they save.
_THREADED_BYTES = 16_000_000
# Pinned memory to the GPU, twice: one is filled while the other is sent. 16 MB take 0.3 ms over
# PCIe 5, a hundred times what starting a copy does.
_PINNED_BYTES = 16_000_000

Array = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class Piece:
    """Frames that lie together, and where they go.

    Attributes:
        frames: `[n, dim]`, such as a view of a part's map.
        target: first row in the result.
        part: if these are all of a part's frames, the part: its checksum is checked on the way.
    """

    frames: Array
    target: int
    part: Part | None = None


def new_tensor(
    frames: int, dim: int, dtype: torch.dtype, device: torch.device | str = "cpu"
) -> Tensor:
    """Uninitialised `[frames, dim]`.

    On the CPU from NumPy, which asks the system for huge pages: touching 2 GB for the first time
    takes 0.1 s instead of 0.6 s.
    """
    if not frames or torch.device(device).type != "cpu":
        return torch.empty((frames, dim), dtype=dtype, device=device)
    memory = np.empty(frames * dim * dtype.itemsize, np.uint8)
    return torch.from_numpy(memory).view(dtype).view(frames, dim)


def deliver(pieces: Iterable[Piece], out: Tensor) -> None:
    """Copy frames into a tensor, converted to its dtype.

    On a GPU the last copies may still be under way on the current stream.

    Args:
        pieces: their targets do not overlap; taken one after another by the calling thread.
        out: `[N, dim]`, contiguous, on any device.

    Raises:
        DamagedPartError: a checksum does not match; what is in `out` then is not to be used.
    """
    if out.device.type == "cpu":
        _convert(pieces, out)
    else:
        _upload(pieces, out)


def _convert(pieces: Iterable[Piece], out: Tensor) -> None:
    threads = min(_MOST_THREADS, os.cpu_count() or 1)
    if threads == 1 or out.numel() * out.element_size() < _THREADED_BYTES:
        for piece in pieces:
            _convert_piece(piece, out)
        return
    waiting: deque[Future[None]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for piece in pieces:
                waiting.append(pool.submit(_convert_piece, piece, out))
                # A piece holds a map open: no more of them than the threads need.
                if len(waiting) > 2 * threads:
                    waiting.popleft().result()
            for future in waiting:
                future.result()
        finally:
            for future in waiting:
                future.cancel()


def _convert_piece(piece: Piece, out: Tensor) -> None:
    dim, stored = piece.frames.shape[1], piece.frames.dtype
    if getattr(torch, stored.name) == out.dtype:
        rows = out[piece.target : piece.target + len(piece.frames)].numpy()
        if piece.part is None:
            rows[:] = piece.frames
        else:
            copy_checked(piece.part, piece.frames, rows)
        return
    step = max(1, _SERIAL_ELEMENTS // dim)
    staging = np.empty((_block_rows(piece), dim), stored)
    # Torch converts float16 to bfloat16 one by one, but each to and from float32 eight at a time.
    by_way = stored == np.float16 and out.dtype == torch.bfloat16
    single = torch.empty((step, dim), dtype=torch.float32) if by_way else None
    for target, rows in _blocks(piece, lambda count: staging[:count]):
        source = torch.from_numpy(rows)
        for start in range(0, len(rows), step):
            some = source[start : start + step]
            if single is not None:
                some = single[: len(some)].copy_(some)
            out[target + start : target + start + len(some)].copy_(some)


def _upload(pieces: Iterable[Piece], out: Tensor) -> None:
    staging: _Staging | None = None
    for piece in pieces:
        if staging is None:
            staging = _Staging(out, getattr(torch, piece.frames.dtype.name))
        for target, rows in _blocks(piece, staging.room):
            staging.fill(target, len(rows))
    if staging is not None:
        staging.send()


class _Staging:
    """Two pinned buffers in turn; rows that follow one another in the result go as one copy."""

    def __init__(self, out: Tensor, stored: torch.dtype) -> None:
        dim = out.shape[1]
        rows = max(1, _PINNED_BYTES // (dim * stored.itemsize))
        self._out = out
        self._gpu = out.device.type == "cuda"
        self._buffers = [
            torch.empty((rows, dim), dtype=stored, pin_memory=self._gpu) for _ in range(2)
        ]
        self._arrays = [buffer.numpy() for buffer in self._buffers]
        self._sent: list[torch.cuda.Event | None] = [None, None]
        self._current = 0
        self._first = self._end = 0  # rows of the buffer that are filled and not yet sent
        self._target = 0  # where the first of them goes

    def room(self, count: int) -> Array:
        """Memory for the next rows, `[1 … count, dim]`."""
        array = self._arrays[self._current]
        if self._end == len(array):
            self.send()
            self._current ^= 1
            self._first = self._end = 0
            event = self._sent[self._current]
            if event is not None:
                event.synchronize()  # what was sent from there has arrived
            array = self._arrays[self._current]
        return array[self._end : self._end + count]

    def fill(self, target: int, count: int) -> None:
        """The first `count` rows of the last room are filled, and go to row `target`."""
        if self._target + (self._end - self._first) != target:
            self.send()
            self._target = target
        self._end += count

    def send(self) -> None:
        """Start the copy of what is filled. The device converts: fewer bytes have to travel."""
        count = self._end - self._first
        if count:
            rows = self._buffers[self._current][self._first : self._end]
            target = self._out[self._target : self._target + count]
            if rows.dtype == self._out.dtype:
                target.copy_(rows, non_blocking=self._gpu)
            else:
                target.copy_(rows.to(self._out.device, non_blocking=self._gpu))
            if self._gpu:
                event = torch.cuda.Event()
                event.record(torch.cuda.current_stream(self._out.device))
                self._sent[self._current] = event
        self._first = self._end
        self._target += count


def _blocks(piece: Piece, room: Callable[[int], Array]) -> Iterator[tuple[int, Array]]:
    """Copy a piece block by block to memory that `room` gives; yields target rows and blocks."""
    step, done, total = _block_rows(piece), 0, 0
    while done < len(piece.frames):
        rows = room(min(step, len(piece.frames) - done))
        rows[:] = piece.frames[done : done + len(rows)]
        if piece.part is not None:
            total = google_crc32c.extend(total, rows.reshape(-1).view(np.uint8))
        yield piece.target + done, rows
        done += len(rows)
    if piece.part is not None:
        compare_sum(piece.part, total)


def _block_rows(piece: Piece) -> int:
    return max(1, _BLOCK_BYTES // (int(piece.frames.shape[1]) * piece.frames.itemsize))
