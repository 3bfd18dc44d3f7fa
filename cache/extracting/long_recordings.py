"""Recordings too long to be encoded whole: overlapping windows, stitched.

The front end always sees the whole recording (W2V-BERT normalises log-mels over it, wav2vec 2.0 its
samples, Whisper cuts off what is far below its loudest moment); what is cut into windows are the
features. Of each window the middle is kept: every frame but those near the recording's own ends has
at least `CONTEXT_SECONDS` on both sides. Whisper's windows are 30 s, all others `WINDOW_SECONDS`.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from cache.encoders.audio_encoder import AudioEncoder, Waveform
from cache.encoders.grid import SAMPLE_RATE, Grid
from cache.keys import CONTEXT_SECONDS, WINDOW_SECONDS


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
    waveform: Waveform,
    layers: list[int],
    *,
    dtype: torch.dtype,
    batch_frames: int,
) -> dict[int, Tensor]:
    """Frames of one recording, however long.

    Args:
        encoder: the speech encoder.
        waveform: `[samples]` float32 at 16 kHz.
        layers: layer numbers.
        dtype: what the frames become as soon as they are there, to hold little.
        batch_frames: how many frames run at once; at least one window does.

    Returns:
        Layer number to `[grid.frames(samples), dim]` on the encoder's device.
    """
    grid = encoder.grid
    samples = torch.as_tensor(waveform, dtype=torch.float32)
    inputs = encoder.inputs([samples])
    length, context = _frames(WINDOW_SECONDS, grid), _frames(CONTEXT_SECONDS, grid)
    if encoder.front_end.limit is not None:
        length = min(length, grid.frames(encoder.front_end.limit))
    cuts = windows(grid.frames(len(samples)), length, context)
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


def _frames(seconds: float, grid: Grid) -> int:
    return round(seconds * SAMPLE_RATE / grid.hop)
