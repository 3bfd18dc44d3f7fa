"""The frames, targets and split of every utterance that heads are trained and scored on."""

from __future__ import annotations

import threading
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional as F

from cache.frames import Frames
from cache.mapped import MappedFrames
from corpora.manifest import Utterance, speaker_key
from heads.head import Inputs, layer_normalised
from heads.pooling.segments import VARIANCE_FLOOR
from heads.pooling.view import View

# Frames that are held at once while utterance vectors are made: on a CPU so few that they stay in
# its cache (8 MB at 1024-d), which is nearly three times as fast as 32,768; on a GPU many.
CHUNK_FRAMES = {"cpu": 2_048, "cuda": 131_072}


@dataclass(frozen=True, eq=False)
class Dataset:
    """Utterances with their frames, in memory, on a GPU, or mapped from disk.

    Attributes:
        utterances: the manifest's rows, in its order.
        labels: the label order.
        frames: for each modality the frames of all utterances, in the same order.
        moments: for each modality mean and deviation `[n, D]` of all utterances' frames, where the
            cache keeps them; they are computed from the frames otherwise.
        residence: where the frames are kept and why, as a sentence.
    """

    utterances: tuple[Utterance, ...]
    labels: tuple[str, ...]
    frames: Mapping[str, Frames | MappedFrames]
    moments: Mapping[str, tuple[Tensor, Tensor]] = field(default_factory=dict)
    residence: str = ""

    def __len__(self) -> int:
        return len(self.utterances)

    @property
    def dims(self) -> dict[str, int]:
        """Features per frame of each modality."""
        return {name: frames.dim for name, frames in self.frames.items()}

    def rows(self, split: str) -> Tensor:
        """`[n]` int64, the labelled utterances of a split."""
        chosen = [i for i, u in enumerate(self.utterances) if u.split == split and u.label]
        return torch.tensor(chosen, dtype=torch.int64)

    def targets(self, rows: Tensor) -> Tensor:
        """`[n]` int64 class indices."""
        index = {label: position for position, label in enumerate(self.labels)}
        return torch.tensor([index[self.utterances[i].label] for i in rows.tolist()])

    def speakers(self, rows: Tensor) -> list[str]:
        """Who speaks in each row, told apart across corpora too; "" where unknown."""
        keys = [speaker_key(self.utterances[i]) for i in rows.tolist()]
        return ["" if key is None else "/".join(key) for key in keys]


class VectorStore:
    """What batches are made of: frames, and parameter-free vectors of all utterances, made once.

    A batch has frames, or none where every head of the company needs vectors alone. It is to be
    used before the next one is made.

    Args:
        dataset: the frames and what they are of.
        precision: of a batch's centred frames, and so of the products with them: `fp32`, or
            `bf16`. Centred first, stored second: around a mean of 8, bfloat16 is coarser than a
            deviation of .05; around 0 it keeps every deviation to .4 %.
        device: where batches are needed, and vectors kept.
    """

    def __init__(
        self, dataset: Dataset, precision: str = "fp32", device: torch.device | str = "cpu"
    ) -> None:
        self.dataset = dataset
        self.device = torch.device(device)
        self._half = torch.bfloat16 if precision == "bf16" else None
        self._vectors: dict[tuple[str, str], dict[str, Tensor]] = {}
        # One set a thread: companies are trained beside one another.
        self._buffers = threading.local()

    def vectors(self, modality: str, input_norm: str, name: str) -> Tensor:
        """`[n, D]` of a vector of `View.vector`, the frames seen as with this normalisation."""
        kept = self._vectors.setdefault((modality, input_norm), {})
        if name not in kept and input_norm == "none" and modality in self.dataset.moments:
            mean, deviation = self.dataset.moments[modality]
            # With the floor that poolings put under every deviation.
            floor = VARIANCE_FLOOR**0.5
            kept["mean"] = mean.to(self.device)
            kept["deviation"] = deviation.to(self.device).clamp_min(floor)
        if name not in kept:
            frames = self.dataset.frames[modality]
            with torch.no_grad():
                parts = [
                    View(_seen(frames.select(rows).to(self.device), input_norm)).vector(name)
                    for rows in _chunks(frames.lengths.tolist(), CHUNK_FRAMES[self.device.type])
                ]
            kept[name] = torch.cat(parts)
        return kept[name]

    def inputs(
        self,
        rows: Tensor,
        needs: Mapping[str, Mapping[str, Sequence[str]]],
        *,
        with_frames: Collection[tuple[str, str]],
    ) -> dict[str, Inputs]:
        """A batch.

        Args:
            rows: `[B]` utterance numbers, on the CPU.
            needs: modality → normalisation (`none` or `layernorm`) → names of vectors.
            with_frames: modalities and normalisations of which frames are needed besides.
        """
        batch = {}
        there = rows.to(self.device)
        for modality, by_norm in needs.items():
            views = {}
            for norm, names in by_norm.items():
                ready = {name: self.vectors(modality, norm, name)[there] for name in names}
                if (modality, norm) in with_frames:
                    ready["mean"] = self.vectors(modality, norm, "mean")[there]
                    centred = self._centred(modality, norm, rows, ready["mean"])
                    lengths = self.dataset.frames[modality].lengths[rows].tolist()
                    views[norm] = View.of_centred(centred, lengths, ready)
                else:
                    views[norm] = View(None, ready)
            batch[modality] = Inputs(views)
        return batch

    def _centred(self, modality: str, norm: str, rows: Tensor, means: Tensor) -> Tensor:
        """`[N, D]`, the frames of a batch with these means `[B, D]` taken out."""
        frames = self.dataset.frames[modality]
        if self.device.type == "cuda":
            batch = frames.select(rows).to(self.device)
            seen = View(_seen(batch, norm), {"mean": means})
            return seen.centred.to(self._half or means.dtype)
        total = int(frames.lengths[rows].sum())
        # In memory that the next batch uses again: the system clears each page of fresh memory,
        # which would cost more than filling it.
        name = f"{modality} {norm}"
        buffer = getattr(self._buffers, name, None)
        if buffer is None or len(buffer) < total:
            buffer = torch.empty(total, frames.dim, dtype=self._half or means.dtype)
            setattr(self._buffers, name, buffer)
        start = 0
        # One utterance after the other, so that its frames are touched while in the cache.
        for row, mean in zip(rows.tolist(), means, strict=True):
            values = frames.utterance(row).to(means.dtype)
            if norm == "layernorm":
                values = F.layer_norm(values, (frames.dim,))
            end = start + len(values)
            torch.sub(values, mean, out=buffer[start:end])
            start = end
        return buffer[:start]

    def frame_statistics(self, modality: str, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and deviation `[D]` over all frames of the given utterances.

        From each utterance's mean and deviation: the variance is that within plus that between.
        """
        there = rows.to(self.device)
        lengths = self.dataset.frames[modality].lengths[rows].to(self.device).double()[:, None]
        mean = self.vectors(modality, "none", "mean")[there].double()
        deviation = self.vectors(modality, "none", "deviation")[there].double()
        total = lengths.sum()
        overall = (lengths * mean).sum(0) / total
        variance = (lengths * (deviation.square() + (mean - overall).square())).sum(0) / total
        return overall.float(), variance.sqrt().float()


def _seen(frames: Frames, input_norm: str) -> Frames:
    """Frames as heads with this normalisation read them."""
    return frames if input_norm == "none" else layer_normalised(frames)


def _chunks(lengths: Sequence[int], most: int) -> list[list[int]]:
    """Utterance numbers in runs of at most so many frames (at least one utterance each)."""
    runs: list[list[int]] = [[]]
    frames = 0
    for number, length in enumerate(lengths):
        if runs[-1] and frames + length > most:
            runs.append([])
            frames = 0
        runs[-1].append(number)
        frames += length
    return runs
