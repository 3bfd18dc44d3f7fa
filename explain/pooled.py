"""A head in two halves: what it pools each modality to, and what it says of pooled vectors.

What several analyses need of an utterance is then computed once: the scores of its frames, and the
vectors of the modalities that are left alone while frames of another are dropped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import torch
from torch import Tensor
from torch.nn import functional as F

from cache.frames import Frames
from heads.head import Head, Inputs
from heads.pooling import AttentionPooling
from heads.pooling.view import View


def is_attentive(head: Head, modality: str) -> bool:
    """Whether the pooling of a modality learns weights."""
    return head.attention_pooling(modality) is not None


def neighbours(frames: Frames, first: int, end: int) -> Frames:
    """The utterances from `first` to before `end`, as a batch that shares the frames' memory."""
    start, stop = frames.offsets[[first, end]].tolist()
    speech = None if frames.speech is None else frames.speech[start:stop]
    return Frames(frames.values[start:stop], frames.offsets[first : end + 1] - start, speech)


def runs(lengths: Sequence[int], most: int, together: int | None = None) -> list[tuple[int, int]]:
    """Neighbouring utterances, from one to before another, with at most so many frames.

    Args:
        lengths: frames of each utterance.
        most: frames in a run; one utterance is in it, however long.
        together: most utterances in a run.
    """
    found: list[tuple[int, int]] = []
    start = held = 0
    for number, length in enumerate(lengths):
        full = together is not None and number - start == together
        if number > start and (full or held + length > most):
            found.append((start, number))
            start, held = number, 0
        held += length
    return [*found, (start, len(lengths))]


def frame_view(head: Head, frames: Frames, modality: str) -> View:
    """The frames of a modality as the head reads them.

    For attention they are centred an utterance at a time, while its frames are in the processor's
    cache: passes over a whole batch of 1024 features take three times as long.
    """
    if not is_attentive(head, modality) or head.config.input_norm == "layernorm":
        return Inputs.from_frames(frames).view(*head.config.view(modality))
    centred = torch.empty(frames.values.shape, dtype=torch.float32)
    lengths = frames.lengths.tolist()
    means = []
    parts = zip(frames.values.split(lengths), centred.split(lengths), strict=True)
    for stored, target in parts:
        wide = stored.float()
        means.append(wide.mean(dim=0))
        torch.sub(wide, means[-1], out=target)
    return View.of_centred(centred, lengths, {"mean": torch.stack(means)})


def scores(head: Head, view: View, modality: str) -> Tensor:
    """`[H, Q, N]`, what the attention of a modality is the softmax of."""
    return _attentive(head, modality).scores(view, head.affine(modality))


def as_scores(head: Head, columns: Tensor, modality: str) -> Tensor:
    """`[N, Q·H]`, query-major, laid out as `scores` are: `[H, Q, N]`."""
    cut: Tensor = columns.unflatten(1, (-1, _attentive(head, modality).slices))
    return cut.permute(2, 1, 0)


def pooled(head: Head, view: View, modality: str, scored: Tensor | None = None) -> Tensor:
    """What a modality is pooled to: `[B, P]`, or `[V, B, P]`.

    Args:
        head: in eval mode.
        view: from `frame_view`.
        modality: whose frames these are.
        scored: of attention, `[H, Q, N]`, or `[H, V, Q, N]` for V ways of attending to the same
            frames; computed where it is not given. A frame at -inf is left out.
    """
    affine = head.affine(modality)
    if not is_attentive(head, modality):
        return head.pooling(modality).pool(view, affine)[0]
    scored = scores(head, view, modality) if scored is None else scored
    ways = scored if scored.ndim == 4 else scored[:, None]
    module = _attentive(head, modality)
    vectors = module.pool_scored(view, affine, ways.flatten(1, 2), ways.shape[1])
    return vectors if scored.ndim == 4 else vectors[0]


def logits_of(head: Head, vectors: Mapping[str, Tensor]) -> Tensor:
    """Logits of pooled vectors of each modality, without dropout.

    Args:
        head: in eval mode.
        vectors: `[…, B, P]`; those of one modality may be V sets, which the others' go with.

    Returns:
        `[…, B, C]`.
    """
    first = head.output if head.hidden is None else head.hidden
    sizes = [vectors[name].shape[-1] for name in head.config.modalities]
    blocks = first.weight.split(sizes, dim=1)
    # Each modality by itself: what is the same in all sets goes through the layer once.
    parts = []
    for name, block in zip(head.config.modalities, blocks, strict=True):
        several = vectors[name].ndim == 3
        # Sets lie beside one another in an utterance (`AttentionPooling.lay_out`): one product.
        own = vectors[name].transpose(0, 1) if several else vectors[name]
        through = F.linear(own, block)
        parts.append(through.transpose(0, 1) if several else through)
    total = sum(parts[1:], start=parts[0] + first.bias)
    return total if head.hidden is None else cast(Tensor, head.output(F.relu(total)))


def _attentive(head: Head, modality: str) -> AttentionPooling:
    return cast(AttentionPooling, head.attention_pooling(modality))
