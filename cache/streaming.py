"""Streaming: shuffled batches from a stream that is larger than memory.

The utterances are cut into *units*, neighbours on disk. An epoch takes the units in a shuffled
order and fills *windows* with them; the utterances of a window are shuffled and leave it in batches
while a thread reads the next window into a second buffer. Both buffers are allocated once and used
again: memory is bounded by figures known beforehand, and reading goes forward inside each unit.

Extraction writes utterances in the order of their length, so neighbours are alike: the more units a
window holds, the better it mixes them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from cache.amounts import bytes_text
from cache.frames import Frames
from cache.store.delivery import Piece, deliver, new_tensor
from cache.stream import FrameStream
from corpora.errors import ConfigError

# A window is half of it, and an eighth of that still holds a whole part of 128 MB, which is then
# read and summed in one go.
BUFFER_BYTES = 2_500_000_000
UNITS_PER_WINDOW = 8

Int64s = npt.NDArray[np.int64]
Array = npt.NDArray[Any]


class _Utterance(NamedTuple):
    """One utterance in a window.

    Attributes:
        position: its number in `keys`.
        values: `[T, dim]`, a view.
        speech: `[T, 1]`, a view, if there is a detector's stream.
    """

    position: int
    values: Array
    speech: Array | None

    def copy(self) -> _Utterance:
        """The same in memory of its own."""
        speech = None if self.speech is None else self.speech.copy()
        return _Utterance(self.position, self.values.copy(), speech)


@dataclass(frozen=True, eq=False)
class _Window:
    """A buffer and the utterances in it.

    Attributes:
        values: `[frames, dim]`, of which the beginning is used.
        speech: `[frames, 1]`, if there is a detector's stream.
        positions: `[b]` of the utterances, in the order they lie here.
        offsets: `[b+1]`, utterance i is `values[offsets[i]:offsets[i+1]]`.
    """

    values: Array
    speech: Array | None
    positions: Int64s
    offsets: Int64s

    def utterance(self, number: int) -> _Utterance:
        """One utterance, as views of the buffer."""
        rows = slice(int(self.offsets[number]), int(self.offsets[number + 1]))
        speech = None if self.speech is None else self.speech[rows]
        return _Utterance(int(self.positions[number]), self.values[rows], speech)


class StreamedFrames:
    """Utterances of a stream in shuffled batches, with bounded memory.

    Which batches an epoch has depends on the seed, the epoch and how the utterances lie on disk,
    and on nothing else; each utterance comes exactly once. Positions are numbers in `keys`; what is
    kept beside the frames (labels, texts' frames) is found by them.

    Args:
        stream: whose frames.
        keys: one for each utterance; two utterances may have the same.
        batch_size: utterances a batch; an epoch's last batch has what is left.
        buffer_bytes: for the two windows together.
        seed: of the order.
        speech: a stream with a speech probability for each frame, by the same keys.
        device: where the batches go.
        dtype: what their values become; as stored by default.

    Raises:
        CacheError: a key is not in a stream.
        ConfigError: a buffer that does not hold the longest utterance, or the streams do not fit.
    """

    def __init__(
        self,
        stream: FrameStream,
        keys: Sequence[str],
        *,
        batch_size: int = 64,
        buffer_bytes: int = BUFFER_BYTES,
        seed: int = 0,
        speech: FrameStream | None = None,
        device: torch.device | str = "cpu",
        dtype: torch.dtype | None = None,
    ) -> None:
        self._keys = tuple(keys)
        self._lengths = stream.lengths(self._keys)
        self._batch_size = batch_size
        self._seed = seed
        self._device = torch.device(device)
        self._dtype = getattr(torch, stream.dtype.name) if dtype is None else dtype
        # A stream is for one thread; these two are the reading thread's.
        self._stream = FrameStream.open(stream.path)
        self._speech = None if speech is None else FrameStream.open(speech.path)
        per_frame = self._stream.frame_bytes + (self._speech.frame_bytes if self._speech else 0)
        self._window_frames = buffer_bytes // 2 // per_frame
        longest = int(self._lengths.max(initial=1))
        if batch_size < 1 or longest > self._window_frames:
            raise ConfigError(
                f"cannot stream batches of {batch_size} through a buffer of "
                f"{bytes_text(buffer_bytes)}: expected at least 1 utterance a batch and room for "
                f"two of the longest utterances, {bytes_text(2 * longest * per_frame)}."
            )
        if self._speech is not None and (
            self._speech.dim != 1
            or not np.array_equal(self._speech.lengths(self._keys), self._lengths)
        ):
            raise ConfigError(
                f"{self._speech.path} has not one value for each frame of {stream.path}. "
                "Both must come from the same run of `extract`."
            )
        self._window_frames = min(self._window_frames, max(longest, int(self._lengths.sum())))
        self._units = self._cut()
        largest_batch = int(np.sort(self._lengths)[::-1][:batch_size].sum())
        converted = stream.dim * self._dtype.itemsize
        # Both windows, what is left of a window for the next batch, and a batch.
        self._memory = 2 * self._window_frames * per_frame
        self._memory += largest_batch * (per_frame + converted)

    def __len__(self) -> int:
        """Batches an epoch."""
        return -(-len(self._keys) // self._batch_size)

    @property
    def memory_bytes(self) -> int:
        """The most memory an epoch takes: both windows, the rest of one, and the largest batch."""
        return self._memory

    def epoch(self, number: int) -> Iterator[tuple[Int64s, Frames]]:
        """One pass over all utterances.

        Leaving it early ends the reading thread. One epoch of an object at a time.

        Args:
            number: of the epoch; the order depends on it.

        Yields:
            `[B]` positions in `keys`, and the frames of these utterances in that order.

        Raises:
            CacheError: a part is damaged or gone.
        """
        random = np.random.default_rng([self._seed, number])
        waiting = deque(self._windows(random))
        ahead: deque[Future[_Window]] = deque()
        rest: list[_Utterance] = []
        with ThreadPoolExecutor(1) as reader:
            while waiting and len(ahead) < 2:
                ahead.append(reader.submit(self._fill, waiting.popleft(), *self._buffers()))
            while ahead:
                window = ahead.popleft().result()
                order = random.permutation(len(window.positions)).tolist()
                utterances = rest + [window.utterance(i) for i in order]
                # Without another window, the last batch is what is left.
                size = self._batch_size
                ready = len(utterances) // size * size if ahead else len(utterances)
                for start in range(0, ready, size):
                    yield self._batch(utterances[start : min(start + size, ready)])
                rest = [utterance.copy() for utterance in utterances[ready:]]
                if waiting:  # the buffers of this window are free now
                    buffers = (window.values, window.speech)
                    ahead.append(reader.submit(self._fill, waiting.popleft(), *buffers))

    def _cut(self) -> list[Int64s]:
        """Positions of each unit: neighbours in one part, at most an eighth of a window."""
        if not self._keys:
            return []
        parts, rows = self._stream.places(self._keys)
        order = np.lexsort((np.arange(len(rows)), rows, parts))
        most = self._window_frames // UNITS_PER_WINDOW
        units: list[list[int]] = []
        frames, part = 0, -1
        for position in order.tolist():
            length = int(self._lengths[position])
            if not units or parts[position] != part or frames + length > most:
                units.append([])
                frames, part = 0, int(parts[position])
            units[-1].append(position)
            frames += length
        return [np.array(unit, dtype=np.int64) for unit in units]

    def _windows(self, random: np.random.Generator) -> list[Int64s]:
        """Positions of each window: shuffled units, as many as fit."""
        windows: list[list[Int64s]] = []
        frames = 0
        for number in random.permutation(len(self._units)):
            unit = self._units[number]
            length = int(self._lengths[unit].sum())
            if not windows or frames + length > self._window_frames:
                windows.append([])
                frames = 0
            windows[-1].append(unit)
            frames += length
        return [np.concatenate(window) for window in windows]

    def _buffers(self) -> tuple[Array, Array | None]:
        values = np.empty((self._window_frames, self._stream.dim), self._stream.dtype)
        if self._speech is None:
            return values, None
        return values, np.empty((self._window_frames, 1), self._speech.dtype)

    def _fill(self, positions: Int64s, values: Array, speech: Array | None) -> _Window:
        """Read a window; runs in the reading thread."""
        keys = [self._keys[position] for position in positions]
        self._stream.prefetch(keys)
        _, offsets = self._stream.gather(keys, out=values)
        if self._speech is not None:
            self._speech.gather(keys, out=speech)
        return _Window(values, speech, positions, offsets)

    def _batch(self, utterances: Sequence[_Utterance]) -> tuple[Int64s, Frames]:
        """Copied out of the windows, converted and on the device."""
        offsets = np.zeros(len(utterances) + 1, np.int64)
        np.cumsum([len(one.values) for one in utterances], out=offsets[1:])
        shape = (int(offsets[-1]), self._stream.dim)
        values = new_tensor(*shape, self._dtype, self._device)
        starts = offsets.tolist()
        deliver(
            (Piece(one.values, at) for one, at in zip(utterances, starts, strict=False)), values
        )
        spoken = [one.speech[:, 0] for one in utterances if one.speech is not None]
        speech = torch.from_numpy(np.concatenate(spoken)).float() if spoken else None
        positions = np.array([one.position for one in utterances], dtype=np.int64)
        frames = Frames(values, torch.from_numpy(offsets))
        return positions, frames if speech is None else frames.with_speech(speech.to(self._device))
