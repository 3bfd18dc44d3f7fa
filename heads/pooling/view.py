"""A batch's frames of one modality as the poolings see them: centred once, vectors kept.

Statistics without cancellation: with each utterance's own mean taken out of its frames, the
variance Σωx² − μ² is a difference of small numbers and safe in fp32. Softmax weights of linear
scorers do not change by it, because a constant per utterance cancels in the softmax.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations_with_replacement

import torch
from torch import Tensor

from cache.frames import Frames
from corpora.base.errors import ConfigError
from heads.pooling.segments import (
    VARIANCE_FLOOR,
    layout,
    segment_max,
    segment_mean,
    segment_sum,
)

#: silero-vad's own default for calling a window speech.
DEFAULT_THRESHOLD = 0.5
#: Means over the frames of a share of the words, `informative_mean@0.5`.
INFORMATIVE, RANDOM = "informative_mean", "random_mean"
#: Of which frames of several layers have one vector for each pair of layers, `layer_covariance@3`.
LAYER_COVARIANCE = "layer_covariance@"


@dataclass(frozen=True, eq=False)
class Affine:
    """An input normalisation x → (x − shift) / scale, both `[D]`, folded into the arithmetic."""

    shift: Tensor
    scale: Tensor


class View:
    """One modality of a batch: frames, or only the parameter-free vectors made from them.

    Args:
        frames: the ragged batch, or None where all vectors asked for are given.
        vectors: parameter-free vectors by name, each `[B, D]` (see `vector`).
    """

    def __init__(
        self, frames: Frames | None = None, vectors: Mapping[str, Tensor] | None = None
    ) -> None:
        self.frames = frames
        #: `[N]` probability of speech of each frame, where a detector was run.
        self.speech: Tensor | None = None if frames is None else frames.speech
        self._vectors: dict[str, Tensor] = dict(vectors or {})
        #: `[N]`, which frames only fill their utterance up; None where none does.
        self.padding: Tensor | None = None
        self._centred: Tensor | None = None
        self.lengths: list[int] = [] if frames is None else frames.lengths.tolist()
        # Half-precision frames are only stored so; all arithmetic is in fp32 (or fp64).
        self._values: Tensor | None = None
        if frames is not None:
            wide = frames.values.dtype in (torch.float32, torch.float64)
            self._values = frames.values if wide else frames.values.float()

    @classmethod
    def of_centred(
        cls,
        centred: Tensor,
        lengths: list[int],
        vectors: Mapping[str, Tensor],
        padding: Tensor | None = None,
    ) -> View:
        """A view of frames whose utterances' means were taken out before.

        Args:
            centred: `[N, D]`, possibly in half precision: products then are too.
            lengths: frames per utterance.
            vectors: as for a view of frames; `mean` has to be among them.
            padding: `[N]`, which frames are to be left out. Only poolings that say so
                (`Pooling.takes_padding`) can read such a view.
        """
        view = cls(None, vectors)
        view._centred, view.lengths, view.padding = centred, lengths, padding
        return view

    @classmethod
    def of_one(cls, values: Tensor, speech: Tensor | None = None) -> View:
        """A view of one utterance, whose length need not be known: it may be a symbol of a trace.

        Args:
            values: `[T, D]`, its frames.
            speech: `[T]`, the probability of speech of each, where a detector was run.
        """
        view = cls()
        view._values, view.speech, view.lengths = values, speech, [values.shape[0]]
        return view

    def part(self, rows: slice) -> View:
        """Some neighbours of a batch whose frames were given centred, or that has vectors only."""
        assert self.frames is None, "their speech would have to be cut too"
        assert self.padding is None, "a padded batch is for a GPU, which reads it whole"
        vectors = {name: vector[rows] for name, vector in self._vectors.items()}
        if self._centred is None:
            return View(None, vectors)
        start, lengths = sum(self.lengths[: rows.start]), self.lengths[rows]
        return View.of_centred(self._centred[start : start + sum(lengths)], lengths, vectors)

    @property
    def values(self) -> Tensor:
        """`[N, D]`, the frames as they are."""
        if self._values is None:
            if self._centred is None:
                raise ConfigError("this pooling needs frames; only utterance vectors were given")
            self._values = self._centred + self.per_frame(self.vector("mean"))
        return self._values

    @property
    def centred(self) -> Tensor:
        """`[N, D]`, the frames with their utterance's mean taken out."""
        if self._centred is None:
            self._centred = self.values - self.per_frame(self.vector("mean"))
        return self._centred

    def per_frame(self, vectors: Tensor) -> Tensor:
        """Repeat `[B, …]` for each frame of its utterance: `[N, …]`."""
        if len(self.lengths) == 1:
            return vectors.expand(self.lengths[0], *vectors.shape[1:])
        return vectors.index_select(0, layout(tuple(self.lengths), vectors.device).owner)

    def vector(self, name: str) -> Tensor:
        """A parameter-free vector of each utterance, `[B, D]`, computed at the first call.

        Names: `mean`, `deviation` (σ of the frames), `max`, `speech_mean` (mean over the frames a
        detector calls speech; all frames where there are none) at a threshold, written
        `speech_mean@0.5`; `informative_mean@0.5` (mean over the frames of that share of the words,
        the most informative ones) and `random_mean@0.5` (over as many frames of random words).
        Of L layers beside one another also `layer_covariance@L`,
        `[B, L(L+1)/2 · D/L]`: for each of `layer_pairs` the covariance of every feature between
        both layers, over the utterance's frames.
        """
        if name not in self._vectors:
            self._vectors[name] = self._compute(name)
        return self._vectors[name]

    def _compute(self, name: str) -> Tensor:
        if name == "mean":
            return segment_mean(self.values, self.lengths)
        if name == "deviation":
            variance = segment_mean(self.centred.square(), self.lengths)
            return variance.clamp_min(VARIANCE_FLOOR).sqrt()
        if name == "max":
            return segment_max(self.values, self.lengths)
        kind, _, number = name.partition("@")
        if kind in ("speech_mean", INFORMATIVE, RANDOM):
            weights = (
                self.speech_weights(float(number))
                if kind == "speech_mean"
                else self.word_weights(float(number), random=kind == RANDOM)
            )
            weighted = segment_sum(weights[:, None] * self.centred, self.lengths)
            return self.vector("mean") + weighted
        if name.startswith(LAYER_COVARIANCE):
            return self._layer_covariance(int(name.removeprefix(LAYER_COVARIANCE)))
        raise ConfigError(f"unknown utterance vector {name!r}")

    def _layer_covariance(self, layers: int) -> Tensor:
        if self.centred.is_cuda:
            one = self.centred.unflatten(1, (layers, -1)).unbind(dim=1)
            products = (one[a] * one[b] for a, b in layer_pairs(layers))
            return torch.cat([segment_mean(each, self.lengths) for each in products], dim=1)
        rows = []
        for part in self.centred.split(self.lengths):
            one = part.unflatten(1, (layers, -1)).unbind(dim=1)
            pairs = [torch.linalg.vecdot(one[a], one[b], dim=0) for a, b in layer_pairs(layers)]
            rows.append(torch.cat(pairs) / part.shape[0])  # `len` would fix a traced length
        return torch.stack(rows)

    def speech_weights(self, threshold: float) -> Tensor:
        """`[N]`, 1/n on an utterance's n speech frames, else 0; 1/T everywhere if there are none.

        Frames without a detector's output (text) all count as speech.
        """
        if self.speech is None:
            is_speech = torch.ones_like(self.values[:, 0])
        else:
            is_speech = (self.speech >= threshold).to(self.values.dtype)
        return self._even_weights(is_speech)

    def word_weights(self, share: float, *, random: bool) -> Tensor:
        """`[N]`, 1/n on the n frames of a share of the utterance's words, else 0.

        1/T everywhere in an utterance of which no word is known.

        Args:
            share: of the words, the most informative ones.
            random: as many frames of random words instead.

        Raises:
            ConfigError: nothing is known about words.
        """
        frames = self.frames
        if frames is None or frames.words is None:
            raise ConfigError(
                "informative_average reads when words are said and how surprising they are, which "
                "is not known of these frames. Give the manifest TextGrids (column `alignment`; "
                "`transcribe --word-times` writes them), and run `extract --surprisal-model`."
            )
        return self._even_weights((frames.words[:, int(random)] < share).to(self.values.dtype))

    def _even_weights(self, chosen: Tensor) -> Tensor:
        """`[N]`, 1/n on an utterance's n chosen frames, else 0; 1/T where none is chosen."""
        counts = segment_sum(chosen, self.lengths)
        chosen = torch.where(self.per_frame(counts == 0), torch.ones_like(chosen), chosen)
        return chosen / self.per_frame(segment_sum(chosen, self.lengths))


def layer_pairs(layers: int) -> list[tuple[int, int]]:
    """All pairs of L layers and each with itself, the lower first: L(L+1)/2."""
    return list(combinations_with_replacement(range(layers), 2))


def as_view(frames: Frames | View) -> View:
    """A view of frames; a view is returned as it is."""
    return frames if isinstance(frames, View) else View(frames)
