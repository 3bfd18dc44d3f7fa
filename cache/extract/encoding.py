"""A batch through its encoder: what of it is to be stored, on its way to the CPU.

On a GPU nothing here waits: kernels are queued, results copied into pinned memory behind them, and
whoever stores them waits for their arrival. A batch that does not fit the GPU's memory is halved,
and later ones are cut to what did.

Recordings too long to be encoded whole: overlapping windows, stitched.

The front end always sees the whole recording (W2V-BERT normalises log-mels over it, wav2vec 2.0 its
samples, Whisper cuts off what is far below its loudest moment); what is cut into windows are the
features. Of each window the middle is kept: every frame but those near the recording's own ends has
at least `CONTEXT_SECONDS` on both sides. Whisper's windows are 30 s, all others `WINDOW_SECONDS`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cache.audio import batches
from cache.encoders.audio_encoder import AudioEncoder
from cache.encoders.device import arrival, is_out_of_memory, to_host
from cache.encoders.grid import SAMPLE_RATE, Grid
from cache.encoders.signal import Signal
from cache.encoders.text_encoder import TextEncoder, Tokens
from cache.encoders.vad import SpeechDetector, speech_of_frames
from cache.extract.targets import Item, Target
from cache.frames import Frames
from cache.keys import CONTEXT_SECONDS, WINDOW_SECONDS, windowed_key
from cache.moments import ROWS, frame_moments


@dataclass(frozen=True, slots=True)
class Recording:
    """A recording to be encoded.

    Attributes:
        item: what it is and which streams lack it.
        seconds: by its header or its segment's bounds.
        windowed: whether it is encoded in overlapping windows.
    """

    item: Item
    seconds: float
    windowed: bool = False

    @property
    def samples(self) -> int:
        """About how many there are at 16 kHz."""
        return round(self.seconds * SAMPLE_RATE)


@dataclass(frozen=True, eq=False)
class Decoded:
    """A recording with its samples.

    Attributes:
        recording: which.
        waveform: `[samples]` at 16 kHz.
        energy: `[frames]` in dB.
    """

    recording: Recording
    waveform: NDArray[np.float32]
    energy: NDArray[np.float32]

    @property
    def seconds(self) -> float:
        """As decoded."""
        return len(self.waveform) / SAMPLE_RATE


@dataclass(frozen=True)
class Window:
    """Frames `[start, stop)` are encoded together; of them `[first, last)` are kept."""

    start: int
    stop: int
    first: int
    last: int


def windows(frames: int, length: int, context: int) -> list[Window]:
    """Cut a recording into windows of one length whose kept parts tile it.

    Args:
        frames: of the recording.
        length: of a window, in frames.
        context: at each side of a window, only encoded; less than half a window.

    Raises:
        ValueError: a window would be all context.
    """
    if not 0 <= 2 * context < length:
        raise ValueError(f"a window of {length} frames has no room for {context} at each side")
    if frames <= length:
        return [Window(0, frames, 0, frames)]
    stride = length - 2 * context
    # The last one ends where the recording does, so it overlaps the one before it more.
    starts = [*range(0, frames - length, stride), frames - length]
    # Two neighbours meet in the middle of what they share.
    meeting = [(left + length + right) // 2 for left, right in pairwise(starts)]
    return [
        Window(start, start + length, first, last)
        for start, first, last in zip(starts, [0, *meeting], [*meeting, frames], strict=True)
    ]


def encode_in_windows(
    encoder: AudioEncoder,
    signal: Signal,
    layers: list[int],
    *,
    dtype: torch.dtype,
    batch_frames: int,
) -> dict[int, Tensor]:
    """Frames of one recording, however long.

    Args:
        encoder: the speech encoder.
        signal: the recording, on the encoder's device.
        layers: layer numbers.
        dtype: what the frames become as soon as they are there, to hold little.
        batch_frames: how many frames run at once; at least one window does.

    Returns:
        Layer number to `[grid.frames(samples), dim]` on the encoder's device.
    """
    grid = encoder.grid
    inputs = encoder.inputs(signal)
    length, context = frames_of(WINDOW_SECONDS, grid), frames_of(CONTEXT_SECONDS, grid)
    if encoder.front_end.limit is not None:
        length = min(length, grid.frames(encoder.front_end.limit))
    cuts = windows(grid.frames(signal.lengths[0]), length, context)
    at_once = max(1, batch_frames // length)
    parts: dict[int, list[Tensor]] = {layer: [] for layer in layers}
    for begin in range(0, len(cuts), at_once):
        batch = cuts[begin : begin + at_once]
        pieces = encoder.front_end.cut(inputs, [(cut.start, cut.stop) for cut in batch])
        states = encoder.states(pieces, layers)
        for layer, values in states.items():
            for row, cut in enumerate(batch):
                parts[layer].append(
                    values[row, cut.first - cut.start : cut.last - cut.start].to(dtype)
                )
    return {layer: torch.cat(rows) for layer, rows in parts.items()}


def frames_of(seconds: float, grid: Grid) -> int:
    """About how many frames so much of a recording has."""
    return round(seconds * SAMPLE_RATE / grid.hop)


T = TypeVar("T")
R = TypeVar("R")
Array = NDArray[Any]


@dataclass(frozen=True)
class Row:
    """One input's values.

    Attributes:
        item: the input.
        values: what to store: stream, key, `[T, D]`.
    """

    item: Item
    values: Sequence[tuple[Target, str, Array]]


@dataclass(frozen=True)
class Encoded:
    """One batch's values.

    Attributes:
        rows: one an input. The arrays are right after `ready` was called.
        ready: waits until they have arrived from the device.
        nbytes: of all of them.
    """

    rows: Sequence[Row]
    ready: Callable[[], None]
    nbytes: int


class Encoding(Generic[T, R]):
    """Runs batches, in pieces where they do not fit.

    Half of what did not fit is the most that is tried from then on: later batches are cut
    beforehand.

    Args:
        encode: what runs one batch.
        too_large: called with the only input of a batch that does not fit by itself.
        tell: says once that a batch did not fit.
        cost: of an input; a batch costs the largest times their number, for padding.
        option: of the command, which makes batches smaller.
    """

    def __init__(
        self,
        encode: Callable[[Sequence[T]], R],
        too_large: Callable[[T], None],
        tell: Callable[[str], None],
        cost: Callable[[T], int],
        option: str = "--batch-seconds",
    ) -> None:
        self._encode = encode
        self._too_large = too_large
        self._tell = tell
        self._cost = cost
        self._option = option
        self._most: int | None = None  # None: everything fitted so far

    def __call__(self, batch: Sequence[T]) -> list[R]:
        """Encode a batch, in as many pieces as it takes."""
        if not batch:
            return []
        if self._most is not None:
            pieces = list(batches(batch, self._cost, self._most))
            if len(pieces) > 1:
                return [found for piece in pieces for found in self(piece)]
        try:
            return [self._encode(batch)]
        except (RuntimeError, MemoryError) as error:
            # What follows is outside of this clause, for the exception holds on to the memory.
            if not is_out_of_memory(error):
                raise
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if len(batch) == 1:
            self._too_large(batch[0])
            return []
        if self._most is None:
            self._tell(
                f"A batch of {len(batch)} did not fit the GPU's memory; it was halved, as others "
                f"will be. A smaller {self._option} avoids this."
            )
        self._most = max(map(self._cost, batch)) * len(batch) // 2
        return self(batch)


def layers_of(items: Sequence[Item]) -> list[int]:
    """The layers that any of these inputs lacks."""
    found = {target.layer for item in items for target in item.targets}
    return sorted(layer for layer in found if layer is not None)


def encode_audio(
    batch: Sequence[Decoded],
    grid: Grid,
    encoder: AudioEncoder | None,
    detector: SpeechDetector | None,
    *,
    stored: torch.dtype,
    batch_frames: int,
    whole: bool = False,
) -> Encoded:
    """Frames, moments, energy and speech of decoded recordings, as far as their streams lack them.

    Args:
        batch: recordings; one that is encoded in windows is alone.
        grid: of the encoder.
        encoder: None if no layer is lacking.
        detector: None if no speech is lacking.
        stored: dtype of the streams of frames.
        batch_frames: how many frames run at once, for windows.
        whole: see `AudioEncoder.forward`.
    """
    items = [one.recording.item for one in batch]
    lengths = [grid.frames(len(one.waveform)) for one in batch]
    layers = layers_of(items) if encoder is not None else []
    works = encoder or detector
    device = torch.device("cpu") if works is None else works.device
    with torch.inference_mode():
        signal = Signal.of([one.waveform for one in batch], device)
        frames: dict[int, Frames] = {}
        if encoder is not None and layers:
            if batch[0].recording.windowed:
                states = encode_in_windows(
                    encoder, signal, layers, dtype=stored, batch_frames=batch_frames
                )
                frames = {layer: Frames.from_list([rows]) for layer, rows in states.items()}
            else:
                frames = encoder(signal, layers, whole=whole)
        arrays = _layer_arrays(items, frames, stored)
        if detector is not None:
            probabilities = speech_of_frames(signal, grid, detector)[:, None].to(stored)
            arrays["speech"] = _split(to_host(probabilities), lengths)
    arrays["energy"] = [one.energy[:, None] for one in batch]
    # An input encoded in windows has its layers under another key; energy and speech have no
    # windows.
    keys = [
        windowed_key(one.recording.item.key) if one.recording.windowed else one.recording.item.key
        for one in batch
    ]
    return _encoded(items, keys, arrays, device)


def encode_text(
    batch: Sequence[tuple[Item, Tokens]], encoder: TextEncoder, *, stored: torch.dtype
) -> Encoded:
    """Frames, moments and token kinds of texts, as far as their streams lack them."""
    items = [item for item, _ in batch]
    tokens = [one for _, one in batch]
    with torch.inference_mode():
        arrays = _layer_arrays(items, encoder(tokens, layers_of(items)), stored)
    arrays["text"] = [one.kinds[:, None] for one in tokens]  # beside the layers: the token kinds
    return _encoded(items, [item.key for item in items], arrays, encoder.device)


def _layer_arrays(
    items: Sequence[Item], frames: Mapping[int, Frames], stored: torch.dtype
) -> dict[Any, list[Array]]:
    """Rows of each layer's frames and moments, by `(layer, moments)`, as far as any is wanted."""
    wanted = {(target.layer, target.moments) for item in items for target in item.targets}
    arrays: dict[Any, list[Array]] = {}
    for layer, found in frames.items():
        as_stored = found.to(dtype=stored)
        if (layer, True) in wanted:
            moments = to_host(frame_moments(as_stored).flatten(0, 1))
            arrays[layer, True] = _split(moments, [ROWS] * len(items))
        if (layer, False) in wanted:
            arrays[layer, False] = _split(to_host(as_stored.values), found.lengths.tolist())
    return arrays


def _encoded(
    items: Sequence[Item],
    keys: Sequence[str],
    arrays: Mapping[Any, Sequence[Array]],
    device: torch.device | str,
) -> Encoded:
    rows = []
    for number, (item, key) in enumerate(zip(items, keys, strict=True)):
        values = []
        for target in item.targets:
            if target.layer is None:
                values.append((target, item.key, arrays[target.recipe.kind][number]))
            else:
                values.append((target, key, arrays[target.layer, target.moments][number]))
        rows.append(Row(item, values))
    nbytes = sum(array.nbytes for row in rows for _, _, array in row.values)
    return Encoded(rows, arrival(device), nbytes)


def _split(values: Tensor, lengths: Sequence[int]) -> list[Array]:
    """Views of each input's rows."""
    return np.split(values.numpy(), np.cumsum(lengths)[:-1])
