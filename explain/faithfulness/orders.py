"""Orders in which the frames of each utterance can be taken: by attention, or by a rival."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch

from explain.exchange import draw_donors, exchanged, usable_counts
from explain.pooled import is_attentive, scores
from explain.ragged import Bools, Floats, Ints, floats, order_within, positions, segment_sum
from explain.saliency import gradient_saliency
from explain.subject import Subject
from heads.head import Head
from heads.pooling.pooling import attention_weights
from heads.pooling.view import View


def places(values: Floats, offsets: Ints, ties: Ints) -> Ints:
    """`[N]`, each frame's place in its utterance's order, 0 for the largest value.

    Attention that learnt nothing is even, and gradients are often 0: taking equal frames from the
    start of an utterance on would make an order by time of them, which can seem to know something.

    Args:
        values: `[N]`.
        offsets: `[B+1]`.
        ties: `[N]`, from `tie_order`: of equal values, the frame that comes first in it is first.
    """
    result = np.empty(len(values), dtype=np.int64)
    result[ties[order_within(values[ties], offsets)]] = positions(offsets)
    return result


def tie_order(offsets: Ints, random: np.random.Generator) -> Ints:
    """`[N]` frame numbers, utterance after utterance, those of each in a random order."""
    return order_within(random.random(int(offsets[-1])), offsets)


def exchanged_attention(
    values: Floats, offsets: Ints, usable: Bools, random: np.random.Generator
) -> Floats:
    """`[N]`, each utterance with the values of another one, drawn at random (`explain.exchange`).

    Relative to the mean over usable frames, of saliency to that of its size: attention sums to 1,
    so that a longer donor's would otherwise fall below what the utterance's own is in silence.
    """
    counts = usable_counts(usable, offsets)
    mean = segment_sum(np.where(usable, np.abs(values), 0.0), offsets) / np.maximum(counts, 1)
    relative = values / np.repeat(np.where(mean > 0, mean, 1.0), np.diff(offsets))
    return exchanged(relative, offsets, usable, draw_donors(len(counts), random))


# Added to a seed: a trained head keeps much of what it was drawn as, maybe from that seed.
UNTRAINED_SEED = 1_000_003
# Another one: the layers of a scorer are not to be made of the same numbers.
SCORER_SEED = 2_000_003


def random_head(head: Head, seed: int) -> Head:
    """A head of the same shape whose parameters were never trained; input statistics are kept.

    It attends to arbitrary frames: scorers begin at 0, which is even attention and no order at all,
    so parameters that are 0 are drawn as `torch.nn.Linear` draws its weights.
    """
    fresh = Head(head.config, UNTRAINED_SEED + seed)
    generator = torch.Generator().manual_seed(SCORER_SEED + seed)
    with torch.no_grad():
        for parameter in fresh.scorer_parameters():
            if not parameter.any():
                bound = 1 / math.sqrt(parameter.shape[-1])
                parameter.uniform_(-bound, bound, generator=generator)
    for name, kept in head.named_buffers():
        fresh.get_buffer(name).copy_(kept)
    return fresh.eval().requires_grad_(False)


def importance(
    head: Head, subject: Subject, rows: Sequence[int], modality: str, view: View
) -> Floats:
    """`[N]`, by which a head of the subject's shape orders frames of some of its utterances.

    Its attention; where it learns no weights, gradient saliency (see `frame_order`).

    Args:
        head: with the subject's input statistics.
        subject: whose utterances.
        rows: their numbers.
        modality: whose frames.
        view: of these frames, by `frame_view`.
    """
    if is_attentive(head, modality):
        with torch.no_grad():
            weights = attention_weights(scores(head, view, modality), view)
        return floats(weights.double().mean(dim=1))
    frames = {name: batch.select(rows) for name, batch in subject.frames.items()}
    return floats(gradient_saliency(head, frames)[modality])
