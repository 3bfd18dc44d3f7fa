"""Utterance vectors to probe: mean and deviation of every cached layer, and what a head attends to.

Layers that only moments were kept of are probed like all others.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch

from cache.extraction import read_extraction
from cache.frames import Frames
from cache.inputs import utterance_keys
from cache.layers import LayersRead
from cache.moments import frame_moments, moments_of_keys
from corpora.base.errors import MissingStepError
from corpora.base.work import Work
from corpora.utterance import Utterance
from explain.ragged import Floats, floats
from explain.subject import Subject, frame_attention
from heads.head import Inputs

MEAN, DEVIATION, ATTENDED = "mean", "deviation", "attended mean"


@dataclass(frozen=True, eq=False)
class Vectors:
    """One vector an utterance.

    Attributes:
        layer: the hidden state; None where it is not known.
        pooling: `mean`, `deviation` or `attended mean`.
        values: `[n, D]`.
    """

    layer: int | None
    pooling: str
    values: Floats


def cached_vectors(work: Work, utterances: Sequence[Utterance]) -> Iterator[Vectors]:
    """Mean and deviation of every cached layer of the audio encoder, the lowest layer first.

    Raises:
        MissingStepError: nothing was extracted, or an utterance is not in the cache.
    """
    source = read_extraction(work).source("audio")
    found = utterance_keys(work, utterances)
    keys = [found[u.id].get("audio", "") for u in utterances]
    for layer in sorted({*source.layers, *source.moments}):
        mean, deviation = moments_of_keys(work, source, layer, keys)
        yield Vectors(layer, MEAN, floats(mean))
        yield Vectors(layer, DEVIATION, floats(deviation))


def has_cached_vectors(work: Work, utterances: Sequence[Utterance]) -> bool:
    """Whether `cached_vectors` has something to give."""
    try:
        next(cached_vectors(work, utterances))
    except MissingStepError:
        return False
    return True


def subject_vectors(
    subject: Subject, layers: Mapping[str, LayersRead], *, moments: bool = True
) -> list[Vectors]:
    """Attention-weighted mean of the frames the head reads, and their mean and deviation.

    Of a head that weighs layers these are of the weighted sum, which is no one layer's.

    Args:
        subject: with audio frames.
        layers: the hidden state of each modality, or those weighed.
        moments: whether mean and deviation are wanted too.
    """
    frames = _read_frames(subject)
    weights = frame_attention(subject, "audio").float()
    bounds = frames.offsets.tolist()
    # One utterance after the other: its frames stay in the processor's cache.
    attended = [
        weights[start:end] @ frames.values[start:end].float() for start, end in pairwise(bounds)
    ]
    read = layers.get("audio")
    layer = read if isinstance(read, int) else None
    found = [Vectors(layer, ATTENDED, floats(torch.stack(attended)))]
    if moments:
        parts = [frame_moments(frames.select([row])) for row in range(len(frames))]
        both = torch.cat(parts)
        found += [
            Vectors(layer, MEAN, floats(both[:, 0])),
            Vectors(layer, DEVIATION, floats(both[:, 1])),
        ]
    return found


def _read_frames(subject: Subject) -> Frames:
    """The audio frames as the pooling reads them: those of one layer, or the sum of several."""
    frames, head = subject.frames["audio"], subject.head
    pooling = head.pooling("audio")
    if pooling.layer_shares is None:
        return frames
    summed = []
    with torch.no_grad():
        for row in range(len(frames)):  # all layers of one utterance at a time, in float32
            view = Inputs.from_frames(frames.select([row])).view(*head.config.view("audio"))
            summed.append(pooling.read(view, head.affine("audio")).values)
    return Frames.from_list(summed)
