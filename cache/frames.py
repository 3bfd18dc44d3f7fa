"""Frames: a ragged batch of utterances, without padding.

Padding exists only inside encoders. Everything after them works on the valid frames laid end to
end, so no pooling can be changed by its batch mates.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from cache.encoders.device import to_device


@dataclass(frozen=True, eq=False)
class Frames:
    """Frames of B utterances, end to end.

    >>> two = Frames.from_list([torch.ones(3, 4), torch.zeros(1, 4)])
    >>> len(two), two.total, two.offsets.tolist()
    (2, 4, [0, 3, 4])

    Attributes:
        values: `[N, D]`, the frames of all utterances.
        offsets: `[B+1]` int64 on the CPU; utterance b is `values[offsets[b]:offsets[b+1]]`.
        speech: `[N]` probability of speech per frame (0 to 1), where a detector was run.
        words: `[N, 2]`, the share of an utterance's words from which on a frame is among those of
            the most informative ones, and among as many frames of random words (see
            `heads.words`); where words and their surprisal are known.

    Raises:
        ValueError: shapes or offsets do not fit, or an utterance has no frame.
    """

    values: Tensor
    offsets: Tensor
    speech: Tensor | None = None
    words: Tensor | None = None

    def __post_init__(self) -> None:
        offsets = torch.as_tensor(self.offsets, dtype=torch.int64, device="cpu")
        object.__setattr__(self, "offsets", offsets)
        if self.values.ndim != 2:
            raise ValueError(f"values must be [frames, dim], got {tuple(self.values.shape)}")
        if offsets.ndim != 1 or offsets.numel() == 0 or int(offsets[0]) != 0:
            raise ValueError("offsets must be one-dimensional and start with 0")
        if int(offsets[-1]) != self.values.shape[0]:
            raise ValueError(
                f"offsets end at {int(offsets[-1])}, but there are {self.values.shape[0]} frames"
            )
        if bool((offsets.diff() < 1).any()):
            empty = int((offsets.diff() < 1).nonzero()[0])
            raise ValueError(f"every utterance needs at least one frame; number {empty} has none")
        if self.speech is not None and self.speech.shape != self.values.shape[:1]:
            raise ValueError(
                f"speech must be [{self.values.shape[0]}], got {tuple(self.speech.shape)}"
            )
        if self.words is not None and self.words.shape != (self.values.shape[0], 2):
            raise ValueError(
                f"words must be [{self.values.shape[0]}, 2], got {tuple(self.words.shape)}"
            )

    @classmethod
    def from_padded(cls, x: Tensor, mask: Tensor) -> Frames:
        """Take the valid frames out of a padded batch.

        Args:
            x: `[B, T, D]`.
            mask: `[B, T]`, true (or non-zero) where the frame is valid. The host waits for one that
                is not on the CPU.
        """
        if x.ndim != 3 or mask.shape != x.shape[:2]:
            raise ValueError(
                f"expected x [B, T, D] and mask [B, T], got {tuple(x.shape)} and "
                f"{tuple(mask.shape)}"
            )
        valid = mask.to(torch.bool)
        rows = to_device(valid.flatten().nonzero()[:, 0], x.device)
        return cls(x.flatten(0, 1).index_select(0, rows), _offsets(valid.sum(dim=1)))

    @classmethod
    def from_list(
        cls, utterances: Sequence[Tensor], speech: Sequence[Tensor] | None = None
    ) -> Frames:
        """Lay utterances `[T_b, D]` end to end."""
        return cls(
            torch.cat(list(utterances)),
            _offsets(torch.tensor([len(u) for u in utterances])),
            None if speech is None else torch.cat(list(speech)),
        )

    @classmethod
    def beside(cls, layers: Sequence[Frames]) -> Frames:
        """Frames of the same utterances beside one another: `[N, ΣD]`; the rest is the last's.

        Raises:
            ValueError: their offsets differ.
        """
        *lower, last = layers
        if not lower:
            return last
        if any(not torch.equal(one.offsets, last.offsets) for one in lower):
            raise ValueError("frames of different lengths cannot lie beside one another")
        return replace(last, values=torch.cat([one.values for one in layers], dim=1))

    @property
    def lengths(self) -> Tensor:
        """`[B]` frames per utterance, on the CPU."""
        return self.offsets.diff()

    @property
    def dim(self) -> int:
        """Features per frame."""
        return int(self.values.shape[1])

    @property
    def total(self) -> int:
        """Frames of all utterances, N."""
        return int(self.values.shape[0])

    @property
    def dtype(self) -> torch.dtype:
        """Of the values."""
        return self.values.dtype

    @property
    def device(self) -> torch.device:
        """Where the values are."""
        return self.values.device

    def __len__(self) -> int:
        return int(self.offsets.numel()) - 1

    def utterance(self, index: int) -> Tensor:
        """`[T, D]`, a view of one utterance's frames."""
        return self.values[int(self.offsets[index]) : int(self.offsets[index + 1])]

    def segments(self) -> Tensor:
        """`[N]` int64, the utterance number of each frame, on the values' device."""
        numbers = torch.arange(len(self), device=self.values.device)
        lengths = to_device(self.lengths, self.values.device)
        return numbers.repeat_interleave(lengths, output_size=self.values.shape[0])

    def select(self, indices: Sequence[int] | Tensor) -> Frames:
        """A new batch of the utterances at `indices`, in that order (repeats allowed)."""
        chosen = torch.as_tensor(indices, dtype=torch.int64, device="cpu")
        lengths = self.lengths[chosen]
        offsets = _offsets(lengths)
        # Row numbers: each utterance's first row repeated, plus a counter within the utterance.
        within = torch.arange(int(offsets[-1])) - offsets[:-1].repeat_interleave(lengths)
        rows = (self.offsets[:-1][chosen].repeat_interleave(lengths) + within).to(
            self.values.device
        )
        return self._taken(lambda one: one.index_select(0, rows), offsets)

    def part(self, kept: slice | Tensor, offsets: Tensor) -> Frames:
        """A new batch of some frames, by a slice or `[N]` bool, with offsets of their own."""
        return self._taken(lambda one: one[kept], offsets)

    def _taken(self, take: Callable[[Tensor], Tensor], offsets: Tensor) -> Frames:
        speech, words = (None if one is None else take(one) for one in (self.speech, self.words))
        return Frames(take(self.values), offsets, speech, words)

    def to(
        self, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> Frames:
        """The same batch with all of it on a device and values in a dtype."""
        speech, words = (
            None if one is None else one.to(device=device) for one in (self.speech, self.words)
        )
        return Frames(self.values.to(device=device, dtype=dtype), self.offsets, speech, words)

    def with_speech(self, speech: Tensor | None) -> Frames:
        """The same batch with a speech probability per frame, `[N]`."""
        return replace(self, speech=speech)


def _offsets(lengths: Tensor) -> Tensor:
    """`[B+1]` from `[B]` lengths."""
    lengths = lengths.to(device="cpu", dtype=torch.int64)
    return torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
