"""Moments: mean and deviation of every utterance, kept beside the frames they come from.

`<recipe>/moments_24/` holds two float32 rows an utterance: the mean of each feature over its
frames, and its deviation σ (the root of the mean squared distance from the mean, not n - 1). They
are computed from the frames as stored (rounded to float16), so it makes no difference whether they
were written with the frames or computed from them later: both agree to 1e-5 of σ's scale.

Parameter-free poolings and sweeps over layers need nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cache.encoders.device import to_device
from cache.frames import Frames
from cache.last_extraction import Source, extract_command, layer_name, moments_name
from cache.store.layout import ensure_stream
from cache.store.writer import PartWriter
from cache.stream import FrameStream, open_if_there
from corpora.base.errors import CacheError, MissingStepError

#: Rows of an utterance's moments.
MEAN, DEVIATION = 0, 1
ROWS = 2
# Frames in memory at once where moments are computed from a cache: 17 MB as float16 at 1024-d, so
# little that the same memory serves all chunks (fresh memory costs more than the arithmetic).
_CHUNK_FRAMES = 8_192


def frame_moments(frames: Frames) -> Tensor:
    """Mean and deviation of each utterance, without cancellation: centred first.

    Args:
        frames: `[N, D]`, as stored.

    Returns:
        `[B, 2, D]` float32 on the frames' device.
    """
    if frames.values.is_cuda:
        return _moments_together(frames)
    rows = []
    # One utterance after the other: its frames stay in the processor's cache, which is 1.5 to 20
    # times as fast as all of them together.
    for part in frames.values.split(frames.lengths.tolist()):
        wide = part.float()
        mean = wide.mean(dim=0)
        rows.append(torch.stack([mean, (wide - mean).square_().mean(dim=0).sqrt_()]))
    return torch.stack(rows)


def _moments_together(frames: Frames) -> Tensor:
    """The same in a dozen launches, however many utterances."""
    wide = frames.values.float()
    # Without `unsafe` the host would wait to see whether lengths add up, as those of `Frames` do.
    lengths: Any = {"lengths": to_device(frames.lengths, wide.device), "unsafe": True}
    mean = torch.segment_reduce(wide, "mean", **lengths)
    centred = wide - mean.index_select(0, frames.segments())
    variance = torch.segment_reduce(centred.square_(), "mean", **lengths)
    return torch.stack([mean, variance.sqrt_()], dim=1)


def moments_of_keys(
    features: Path, source: Source, layer: int, keys: Sequence[str]
) -> tuple[Tensor, Tensor]:
    """Mean and deviation `[n, D]` of inputs by their content keys.

    What a cache has only frames of is computed from these, and kept.

    Raises:
        MissingStepError: an input is not in the cache.
        CacheError: that layer was not extracted, or the cache is damaged.
    """
    if layer not in {*source.layers, *source.moments}:
        raise CacheError(
            f"layer {layer} of {source.encoder} was not extracted. Run `extract` with "
            f"--{source.recipe.kind}-layers {layer}, and --moments-only if no frames are needed."
        )
    derive_moments(features, source, layer, keys)
    found = kept_moments(features, source, layer, keys)
    assert found is not None, "derived above"
    return found


def kept_moments(
    features: Path, source: Source, layer: int, keys: Sequence[str]
) -> tuple[Tensor, Tensor] | None:
    """Mean and deviation `[n, D]` of inputs; None where not all of these were kept."""
    stream = open_if_there(features / source.recipe.folder / moments_name(layer))
    held = [] if stream is None else [source.held_key(stream, key) for key in keys]
    if stream is None or any(key not in stream for key in held):
        return None
    rows = stream.load(held).values.view(len(keys), ROWS, -1)
    return rows[:, MEAN], rows[:, DEVIATION]


def derive_moments(features: Path, source: Source, layer: int, keys: Sequence[str]) -> int:
    """Compute and keep the moments of those inputs of which there are only frames.

    Returns:
        How many those were.

    Raises:
        MissingStepError: there are not even frames of an input.
        CacheError: the cache is damaged.
        OSError: the cache cannot be written.
    """
    folder = features / source.recipe.folder
    kept, frames = (open_if_there(folder / name(layer)) for name in (moments_name, layer_name))
    absent = [key for key in keys if kept is None or source.held_key(kept, key) not in kept]
    if not absent:
        return 0
    held = [key if frames is None else source.held_key(frames, key) for key in absent]
    lost = [key for key in held if frames is None or key not in frames]
    if lost or frames is None:
        raise MissingStepError(
            f"{len(lost)} of {len(keys)} utterances are not in layer {layer} of the cache. "
            f"Run `{extract_command(features.parent)}` again."
        )
    name = moments_name(layer)
    path = ensure_stream(features, source.recipe, name, frames.dim, np.float32)
    with PartWriter(path, frames.dim, np.float32) as writer:
        for chunk in _chunks(frames, list(dict.fromkeys(held))):
            for key, rows in zip(chunk, frame_moments(frames.load(chunk)).numpy(), strict=True):
                writer.add(key, rows)
    return len(absent)


def _chunks(frames: FrameStream, keys: Sequence[str]) -> Iterator[Sequence[str]]:
    """Keys in runs of a bounded number of frames, at least one key each."""
    ends = np.cumsum(frames.lengths(keys))
    start = 0
    while start < len(keys):
        before = int(ends[start - 1]) if start else 0
        stop = int(np.searchsorted(ends, before + _CHUNK_FRAMES, side="right"))
        yield keys[start : max(stop, start + 1)]
        start = max(stop, start + 1)
