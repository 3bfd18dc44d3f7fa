"""What a head says of utterances when only some of their frames are kept.

A frame's score does not depend on the other frames, so an attentive head needs its scores once:
every set of kept frames is one more query, whose softmax runs over those frames alone, and all
sets share one pass over the frames. Other poolings get the shorter utterances as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from cache.frames import Frames
from explain.pooled import as_scores, frame_view, is_attentive, logits_of, pooled, scores
from heads.head import Head
from heads.pooling.view import View


@dataclass(frozen=True, eq=False)
class Known:
    """What is known of a batch already, so that it is not computed anew.

    Attributes:
        weights: `[N, Q·H]`, the head's attention to the frames that are chosen from.
        vectors: by modality `[B, P]`, what the head pools the others to.
        view: of the frames that are chosen from, by `frame_view`.
    """

    weights: Tensor | None = None
    vectors: Mapping[str, Tensor] = field(default_factory=dict)
    view: View | None = None


def probabilities_of_kept(
    head: Head,
    frames: Mapping[str, Frames],
    modality: str,
    kept: Tensor,
    known: Known | None = None,
) -> Tensor:
    """Class probabilities under V choices of frames of one modality.

    Args:
        head: in eval mode.
        frames: a batch of B utterances, by modality; the other modalities stay whole, and need not
            be there where their vectors are known.
        modality: whose frames are chosen.
        kept: `[V, N]` bool, at least one frame of every utterance in each choice.
        known: what is known of the batch.

    Returns:
        `[V, B, C]`.

    Raises:
        ValueError: a choice keeps no frame of an utterance.
    """
    known = known or Known()
    lengths = frames[modality].lengths.tolist()
    counts = torch.stack([part.sum(dim=1) for part in kept.split(lengths, dim=1)], dim=1)
    if bool((counts == 0).any()):
        raise ValueError("every choice has to keep at least one frame of each utterance")
    with torch.no_grad():
        vectors = {
            name: known.vectors[name]
            if name in known.vectors
            else pooled(head, frame_view(head, frames[name], name), name)
            for name in head.config.modalities
            if name != modality
        }
        if is_attentive(head, modality):
            vectors[modality] = _as_queries(head, frames[modality], modality, kept, known)
        else:
            shorter = [_shortened(frames[modality], row) for row in kept]
            vectors[modality] = torch.stack(
                [pooled(head, frame_view(head, own, modality), modality) for own in shorter]
            )
        return torch.softmax(logits_of(head, vectors), dim=-1)


def _as_queries(head: Head, frames: Frames, modality: str, kept: Tensor, known: Known) -> Tensor:
    """`[V, B, 2·Q·K]` of an attentive head, each choice as one more query."""
    view = known.view or frame_view(head, frames, modality)
    weights = known.weights
    if weights is not None and bool((weights > 0).all()):
        # The softmax does not mind the constant that the logarithm of a softmax is off by. A
        # weight that was rounded to 0 does not say by how much it is smaller than the others.
        scored = as_scores(head, weights.log(), modality)
    else:
        scored = scores(head, view, modality)
    masked = scored[:, None].masked_fill(~kept[None, :, None], float("-inf"))
    return pooled(head, view, modality, masked)


def _shortened(frames: Frames, kept: Tensor) -> Frames:
    """The frames that are kept, `[N]` bool."""
    counts = torch.stack([part.sum() for part in kept.split(frames.lengths.tolist())])
    offsets = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    speech = None if frames.speech is None else frames.speech[kept]
    return Frames(frames.values[kept], offsets, speech)
