"""MappedFrames: a stream's utterances as if they were in memory, read from its maps when asked for.

For frames that do not fit into memory: the system keeps of them what it has room for, and any
order of reading costs what the disk costs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from threading import Lock

import numpy as np
import torch
from torch import Tensor

from cache.frames import Frames
from cache.stream import FrameStream


@dataclass(frozen=True, eq=False)
class MappedFrames:
    """Frames of B utterances on disk, with the reading half of what `Frames` offers.

    Several threads may read at once: they take turns, as a stream asks for.

    Attributes:
        stream: where they lie.
        keys: of the utterances, in their order.
        speech: `[N]` probability of speech per frame, in memory, where a detector was run.
    """

    stream: FrameStream
    keys: tuple[str, ...]
    speech: Tensor | None = None
    lengths: Tensor = field(init=False)
    offsets: Tensor = field(init=False)
    _turn: Lock = field(init=False, repr=False, default_factory=Lock)

    def __post_init__(self) -> None:
        lengths = torch.from_numpy(np.asarray(self.stream.lengths(self.keys), dtype=np.int64))
        offsets = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
        object.__setattr__(self, "lengths", lengths)
        object.__setattr__(self, "offsets", offsets)

    @property
    def dim(self) -> int:
        """Features per frame."""
        return self.stream.dim

    @property
    def total(self) -> int:
        """Frames of all utterances."""
        return int(self.offsets[-1])

    @property
    def dtype(self) -> torch.dtype:
        """Of the values as they are stored."""
        return torch.from_numpy(np.empty(0, dtype=self.stream.dtype)).dtype

    @property
    def device(self) -> torch.device:
        """Where values are when they have been read."""
        return torch.device("cpu")

    def __len__(self) -> int:
        return len(self.keys)

    def utterance(self, index: int) -> Tensor:
        """`[T, D]`, one utterance's frames."""
        with self._turn:
            return torch.from_numpy(np.array(self.stream.read(self.keys[index])))

    def select(self, indices: Sequence[int] | Tensor) -> Frames:
        """A batch in memory of the utterances at `indices`, in that order (repeats allowed)."""
        chosen = torch.as_tensor(indices, dtype=torch.int64).tolist()
        with self._turn:
            loaded = self.stream.load([self.keys[index] for index in chosen])
        if self.speech is None:
            return loaded
        parts = [self.speech[self.offsets[i] : self.offsets[i + 1]] for i in chosen]
        return loaded.with_speech(torch.cat(parts))
