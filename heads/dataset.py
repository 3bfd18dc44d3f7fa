"""The frames, targets and split of every utterance that heads are trained and scored on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from cache.frames import Frames
from corpora.manifest import Utterance, speaker_key
from heads.head import Inputs, layer_normalised
from heads.pooling.view import VARIANCE_FLOOR, View

# Rows of float32 frames that are held at once while utterance vectors are made (0.5 GB at 1024-d).
CHUNK_FRAMES = 131_072


@dataclass(frozen=True, eq=False)
class Dataset:
    """Utterances with their frames in memory.

    Attributes:
        utterances: the manifest's rows, in its order.
        labels: the label order.
        frames: for each modality the frames of all utterances, in the same order.
        moments: for each modality mean and deviation `[n, D]` of all utterances' frames, where the
            cache keeps them; they are computed from the frames otherwise.
    """

    utterances: tuple[Utterance, ...]
    labels: tuple[str, ...]
    frames: Mapping[str, Frames]
    moments: Mapping[str, tuple[Tensor, Tensor]] = field(default_factory=dict)

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
    """Parameter-free vectors of all utterances, computed once.

    A batch's inputs are made here: with frames, or without them where every head of the company
    needs vectors alone.
    """

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset
        self._vectors: dict[tuple[str, str], dict[str, Tensor]] = {}

    def vectors(self, modality: str, input_norm: str, name: str) -> Tensor:
        """`[n, D]` of a vector of `View.vector`, the frames seen as with this normalisation."""
        kept = self._vectors.setdefault((modality, input_norm), {})
        if name not in kept and input_norm == "none" and modality in self.dataset.moments:
            mean, deviation = self.dataset.moments[modality]
            # With the floor that poolings put under every deviation.
            floor = VARIANCE_FLOOR**0.5
            kept |= {"mean": mean, "deviation": deviation.clamp_min(floor)}
        if name not in kept:
            frames = self.dataset.frames[modality]
            with torch.no_grad():
                parts = [
                    View(_seen(frames.select(rows), input_norm)).vector(name)
                    for rows in _chunks(frames.lengths.tolist())
                ]
            kept[name] = torch.cat(parts)
        return kept[name]

    def inputs(
        self,
        rows: Tensor,
        needs: Mapping[str, Mapping[str, Sequence[str]]],
        *,
        with_frames: Mapping[str, bool],
    ) -> dict[str, Inputs]:
        """A batch.

        Args:
            rows: `[B]` utterance numbers.
            needs: modality → normalisation (`none` or `layernorm`) → names of vectors.
            with_frames: for each modality whether frames are needed besides the vectors.
        """
        batch = {}
        for modality, by_norm in needs.items():
            frames = self.dataset.frames[modality].select(rows) if with_frames[modality] else None
            views = {}
            for norm, names in by_norm.items():
                ready = {name: self.vectors(modality, norm, name)[rows] for name in names}
                views[norm] = View(_seen(frames, norm), ready)
            batch[modality] = Inputs(views)
        return batch

    def frame_statistics(self, modality: str, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and deviation `[D]` over all frames of the given utterances.

        From each utterance's mean and deviation: the variance is that within plus that between.
        """
        lengths = self.dataset.frames[modality].lengths[rows].double()[:, None]
        mean = self.vectors(modality, "none", "mean")[rows].double()
        deviation = self.vectors(modality, "none", "deviation")[rows].double()
        total = lengths.sum()
        overall = (lengths * mean).sum(0) / total
        variance = (lengths * (deviation.square() + (mean - overall).square())).sum(0) / total
        return overall.float(), variance.sqrt().float()


def _seen(frames: Frames | None, input_norm: str) -> Frames | None:
    """Frames as a head with this normalisation reads them."""
    if frames is None or input_norm == "none":
        return frames
    return layer_normalised(frames)


def _chunks(lengths: Sequence[int]) -> list[list[int]]:
    """Utterance numbers in runs of at most `CHUNK_FRAMES` frames (at least one utterance each)."""
    runs: list[list[int]] = [[]]
    frames = 0
    for number, length in enumerate(lengths):
        if runs[-1] and frames + length > CHUNK_FRAMES:
            runs.append([])
            frames = 0
        runs[-1].append(number)
        frames += length
    return runs
