"""What heads read of a batch, and what they say of it."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from heads.batches import Thinning
from heads.head import Head, Inputs, ViewKey, answers, stack_logits
from heads.pooling.segments import side_by_side
from heads.vector_store import CHUNK_FRAMES, VectorStore, chunks


@dataclass(frozen=True)
class Reads:
    """What some heads read of a batch.

    Attributes:
        needs: modality → view → names of vectors.
        with_frames: modalities and views of which frames are needed besides.
        takes_padding: whether all who read frames can leave some of them out.
    """

    needs: Mapping[str, Mapping[ViewKey, Sequence[str]]]
    with_frames: Sequence[tuple[str, ViewKey]]
    takes_padding: bool

    @classmethod
    def of(cls, heads: Sequence[Head]) -> Reads:
        """What these heads read, and no more."""
        needs: dict[str, dict[ViewKey, list[str]]] = {}
        with_frames: dict[tuple[str, ViewKey], None] = {}
        takes_padding = True
        for head in heads:
            for modality in head.config.modalities:
                view, pooling = head.config.view(modality), head.pooling(modality)
                wanted = needs.setdefault(modality, {}).setdefault(view, [])
                if pooling.needs is None:
                    with_frames[modality, view] = None
                    takes_padding &= pooling.takes_padding
                else:
                    wanted.extend(name for name in pooling.needs if name not in wanted)
        return cls(needs, list(with_frames), takes_padding)


def gather(
    store: VectorStore, heads: Sequence[Head], rows: Tensor, thinning: Thinning | None = None
) -> dict[str, Inputs]:
    """The inputs of one batch that these heads need, and no more."""
    reads = Reads.of(heads)
    return store.inputs(rows, reads.needs, with_frames=reads.with_frames, thinning=thinning)


def predict(
    heads: Sequence[Head], store: VectorStore, rows: Tensor, batch_size: int = 64
) -> Tensor:
    """What every head says of the given utterances, in their order: see `heads.head.answers`.

    Class probabilities `[K, n, C]`, with A attributes `[K, n, C + A]`. They are on the CPU,
    wherever the heads are.
    """
    # Copies of those that are elsewhere: heads that are lent stay where they are.
    heads = [
        head if head.output.weight.device == store.device else copy.deepcopy(head).to(store.device)
        for head in heads
    ]

    def say(part: Tensor) -> Tensor:
        return answers(heads[0].config, stack_logits(heads, gather(store, heads, part)))

    with torch.no_grad():
        if store.device.type == "cpu":
            parts = side_by_side(say, _small_batches(store, heads, rows, batch_size))
        else:
            parts = [say(own) for own in rows.split(batch_size)]
    return torch.cat(parts, dim=1).cpu()


def _small_batches(
    store: VectorStore, heads: Sequence[Head], rows: Tensor, batch_size: int
) -> list[Tensor]:
    """Utterances that a thread reads together: few, for hidden units of their frames are many."""
    framed = [name for name, _ in Reads.of(heads).with_frames]
    if not framed:
        return list(rows.split(batch_size))
    lengths = torch.stack([store.dataset.frames[name].lengths[rows] for name in framed])
    return [rows[run] for run in chunks(lengths.amax(dim=0).tolist(), CHUNK_FRAMES["cpu"])]
