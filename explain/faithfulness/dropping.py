"""What a head says of utterances when only some of their frames are kept.

A frame's score does not depend on the other frames, so an attentive head needs its scores once:
every set of kept frames is one more query, whose softmax runs over those frames alone, and all
sets share one pass over the frames. Other poolings get the shorter utterances as they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import torch
from torch import Tensor
from torch.nn import functional as F

from cache.frames import Frames
from heads.head import Head, Inputs
from heads.pooling.attentive import AttentivePooling, attention_scores, laid_out
from heads.pooling.segments import attentive_moments


def probabilities_of_kept(
    head: Head,
    frames: Mapping[str, Frames],
    modality: str,
    kept: Tensor,
    weights: Tensor | None = None,
) -> Tensor:
    """Class probabilities under V choices of frames of one modality.

    Args:
        head: in eval mode.
        frames: a batch of B utterances, by modality; the other modalities stay whole.
        modality: whose frames are chosen.
        kept: `[V, N]` bool, at least one frame of every utterance in each choice.
        weights: `[N, Q·H]`, the head's attention to these frames, where it is known: it saves the
            scoring, which is most of the work.

    Returns:
        `[V, B, C]`.

    Raises:
        ValueError: a choice keeps no frame of an utterance.
    """
    lengths = frames[modality].lengths.tolist()
    counts = torch.stack([part.sum(dim=1) for part in kept.split(lengths, dim=1)], dim=1)
    if bool((counts == 0).any()):
        raise ValueError("every choice has to keep at least one frame of each utterance")
    with torch.no_grad():
        if isinstance(head.poolings[modality], AttentivePooling):
            logits = _as_queries(head, frames, modality, kept, weights)
        else:
            logits = torch.stack(
                [head({**frames, modality: _shortened(frames[modality], row)}) for row in kept]
            )
    return torch.softmax(logits, dim=-1)


def _as_queries(
    head: Head,
    frames: Mapping[str, Frames],
    modality: str,
    kept: Tensor,
    weights: Tensor | None,
) -> Tensor:
    """Logits `[V, B, C]` of an attentive head, each choice as one more query."""
    module = cast(AttentivePooling, head.poolings[modality])
    affine = head.affine(modality)
    view = Inputs.from_frames(frames[modality]).view(head.config.input_norm)
    if weights is not None and bool((weights > 0).all()):
        # The softmax does not mind the constant that the logarithm of a softmax is off by. A
        # weight that was rounded to 0 does not say by how much it is smaller than the others.
        scores = weights.log().unflatten(1, (-1, module.config.heads)).permute(2, 1, 0)
    else:
        scores = attention_scores(view, (module, affine))  # [H, Q, N]
    masked = scores[:, None].masked_fill(~kept[None, :, None], float("-inf"))
    mean, deviation = attentive_moments(masked.flatten(1, 2), view.centred, view.lengths)
    mean = mean + view.vector("mean")[:, None]
    vectors = laid_out(mean, deviation, module, affine, len(kept))  # [V, B, 2·Q·K]
    parts: list[Tensor] = []
    for name in head.config.modalities:
        if name == modality:
            parts.append(vectors)
        else:
            other = Inputs.from_frames(frames[name]).view(head.config.input_norm)
            pooled = head.pooling(name).pool(other, head.affine(name))
            parts.append(pooled.expand(len(kept), -1, -1))
    return _classified(head, parts)


def _classified(head: Head, parts: Sequence[Tensor]) -> Tensor:
    """Logits of pooled vectors `[V, B, …]` in the order of concatenation."""
    vector = torch.cat(list(parts), dim=2)
    if head.hidden is not None:
        vector = F.relu(head.hidden(vector))
    logits: Tensor = head.output(vector)
    return logits


def _shortened(frames: Frames, kept: Tensor) -> Frames:
    """The frames that are kept, `[N]` bool."""
    counts = torch.stack([part.sum() for part in kept.split(frames.lengths.tolist())])
    offsets = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    speech = None if frames.speech is None else frames.speech[kept]
    return Frames(frames.values[kept], offsets, speech)
