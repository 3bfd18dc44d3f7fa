"""Orders in which the frames of each utterance can be taken: by attention, or by a rival."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from explain.pooled import is_attentive, scores, weights_of
from explain.ragged import Floats, Ints, floats, order_within, positions
from explain.saliency import as_importance, gradient_saliency
from explain.subject import Subject
from heads.head import Head
from heads.pooling.view import View


def places(values: Floats, offsets: Ints) -> Ints:
    """`[N]`, each frame's place in its utterance's order, 0 for the largest value.

    Of equal values the earlier frame comes first.
    """
    result = np.empty(len(values), dtype=np.int64)
    result[order_within(values, offsets)] = positions(offsets)
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


# Added to a seed: a trained head keeps much of what it was drawn as, maybe from that seed.
UNTRAINED_SEED = 1_000_003


def random_head(head: Head, seed: int) -> Head:
    """A head of the same shape whose parameters were never trained; input statistics are kept."""
    fresh = Head(head.config, UNTRAINED_SEED + seed)
    for name, kept in head.named_buffers():
        fresh.get_buffer(name).copy_(kept)
    return fresh.eval().requires_grad_(False)


def importance(
    head: Head, subject: Subject, rows: Sequence[int], modality: str, view: View
) -> Floats:
    """`[N]`, what a head of the subject's shape attends to in some of its utterances.

    Where it learns no weights, gradient saliency.

    Args:
        head: with the subject's input statistics.
        subject: whose utterances.
        rows: their numbers.
        modality: whose frames.
        view: of these frames, by `frame_view`.
    """
    if is_attentive(head, modality):
        with torch.no_grad():
            weights = weights_of(scores(head, view, modality), view)
        return floats(weights.double().mean(dim=1))
    frames = {name: batch.select(rows) for name, batch in subject.frames.items()}
    saliency: Tensor = gradient_saliency(head, frames)[modality]
    return floats(as_importance(saliency, frames[modality].lengths.tolist()))
