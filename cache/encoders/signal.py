"""Signal: the samples of a batch of recordings, on a device, sent there once.

Front ends and the detector of speech cut what they read out of the same samples: frames, chunks, or
whole recordings side by side.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from cache.encoders.device import to_device
from cache.encoders.files import CHUNK
from cache.encoders.grid import FBANK_HOP

Waveform = Tensor | NDArray[np.float32]

#: Recordings begin at its multiples, so that frames of log-mels are one strided view.
STEP = FBANK_HOP
#: Samples of silence before a recording, at least: the detector sees so many before each chunk.
LEAD = 64


@dataclass(frozen=True, eq=False)
class Signal:
    """Recordings end to end, with silence between them.

    Before each there are `LEAD` zeros at least, and behind it as many as fill its last chunk of the
    detector.

    Attributes:
        values: `[N]` float32 at 16 kHz.
        starts: the first sample of each recording.
        lengths: samples of each.
    """

    values: Tensor
    starts: tuple[int, ...]
    lengths: tuple[int, ...]

    @classmethod
    def of(cls, waveforms: Sequence[Waveform] | Signal, device: torch.device | str) -> Signal:
        """Lay waveforms `[samples]` end to end and send them; a signal is one already."""
        if isinstance(waveforms, Signal):
            return waveforms
        starts, end = [], STEP
        for waveform in waveforms:
            starts.append(end)
            filled = max(-(-len(waveform) // CHUNK) * CHUNK, len(waveform) + LEAD)
            end += -(-filled // STEP) * STEP
        there = torch.device(device)
        laid = torch.zeros(end, pin_memory=there.type == "cuda")
        # By NumPy: torch would wake its threads for each recording, and wait for those that decode.
        room = laid.numpy()
        for start, waveform in zip(starts, waveforms, strict=True):
            room[start : start + len(waveform)] = waveform
        return cls(to_device(laid, there), tuple(starts), tuple(map(len, waveforms)))

    def __len__(self) -> int:
        return len(self.starts)

    @property
    def device(self) -> torch.device:
        """Where the samples are."""
        return self.values.device

    def select(self, numbers: Sequence[int]) -> Signal:
        """Some of the recordings; nothing is copied."""
        starts = tuple(self.starts[number] for number in numbers)
        return replace(self, starts=starts, lengths=tuple(self.lengths[n] for n in numbers))

    def padded(self, samples: int = 0) -> tuple[Tensor, Tensor]:
        """Recordings side by side, with zeros behind each.

        Args:
            samples: the length to fill up to; by default that of the longest.

        Returns:
            `[B, T]`, and `[B, T]` bool, true for samples that are a recording's.
        """
        longest = samples or max(self.lengths)
        missing = max(0, max(self.starts) + longest - len(self.values))
        values = functional.pad(self.values, (0, missing)) if missing else self.values
        rows = to_device(torch.tensor(self.starts) // STEP, self.device)
        side_by_side = values.unfold(0, longest, STEP).index_select(0, rows)
        lengths = to_device(torch.tensor(self.lengths), self.device)
        valid = torch.arange(longest, device=self.device) < lengths[:, None]
        # Behind a recording stands silence, and then the next recording.
        return side_by_side.masked_fill_(~valid, 0.0), valid
