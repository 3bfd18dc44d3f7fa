"""Orders in which the frames of each utterance can be taken: by attention, or by a rival."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from cache.frames import Frames
from explain.ragged import Floats, Ints, floats, positions, segments
from explain.saliency import as_importance, gradient_saliency
from heads.head import Head
from heads.pooling.attentive import AttentivePooling


def places(values: Floats, offsets: Ints) -> Ints:
    """`[N]`, each frame's place in its utterance's order, 0 for the largest value.

    Of equal values the earlier frame comes first.
    """
    order = np.lexsort((-values, segments(offsets)))
    result = np.empty(len(values), dtype=np.int64)
    result[order] = positions(offsets)
    return result


def shifted(values: Floats, offsets: Ints, random: np.random.Generator) -> Floats:
    """Each utterance's values, moved in a circle by a number of frames of its own, never 0.

    Shifts keep how values follow one another in time, which random orders do not; an utterance of
    one frame stays as it is.
    """
    counts = np.diff(offsets)
    steps = np.where(counts > 1, random.integers(1, np.maximum(counts, 2)), 0)
    source = (positions(offsets) + np.repeat(steps, counts)) % np.repeat(counts, counts)
    moved: Floats = values[np.repeat(offsets[:-1], counts) + source]
    return moved


def random_head(head: Head, seed: int) -> Head:
    """A head of the same shape whose parameters were never trained; input statistics are kept."""
    fresh = Head(head.config, seed)
    for name, kept in head.named_buffers():
        fresh.get_buffer(name).copy_(kept)
    return fresh.eval().requires_grad_(False)


def importance(head: Head, frames: Mapping[str, Frames], modality: str) -> Floats:
    """`[N]`, what a head attends to in a batch; where it learns no weights, gradient saliency."""
    if isinstance(head.poolings[modality], AttentivePooling):
        with torch.no_grad():
            return floats(head.attention(frames, modality).double().mean(dim=1))
    saliency: Tensor = gradient_saliency(head, frames)[modality]
    return floats(as_importance(saliency, frames[modality].lengths.tolist()))
