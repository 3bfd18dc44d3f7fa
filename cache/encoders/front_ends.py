"""Front ends: from waveforms to what a speech encoder is called with, padded.

There are three kinds: stacked log-mels (W2V-BERT), the waveform itself (wav2vec 2.0 and its
family) and Whisper's log-mels. Each says which recordings may share a batch, and how its input is
cut into windows of frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from cache.encoders.fbank import FbankSettings, log_mels
from cache.encoders.grid import SAMPLE_RATE, Grid
from cache.encoders.padding import Padding
from cache.encoders.transfer import to_device

#: An untyped feature extractor of transformers.
Extractor = Any
#: Frames `[start, stop)` of a recording.
Stretch = tuple[int, int]


class FrontEnd(Protocol):
    """What a kind of front end answers."""

    @property
    def limit(self) -> int | None:
        """The longest recording that is encoded whole, in samples; None for any."""
        ...

    def group(self, samples: int) -> int:
        """Recordings for which this is the same number may share a batch."""
        ...

    def padded(self, samples: int) -> int:
        """How many samples a recording's input is made of, silence behind it included."""
        ...

    def inputs(self, waveforms: Sequence[Tensor], device: torch.device) -> dict[str, Tensor]:
        """Arguments of the model, of whole waveforms `[samples]` of one group."""
        ...

    def cut(self, inputs: dict[str, Tensor], stretches: Sequence[Stretch]) -> dict[str, Tensor]:
        """The inputs of one recording, cut into a batch of stretches of one length."""
        ...


@dataclass(frozen=True, eq=False)
class StackedMels:
    """W2V-BERT's: log-mels stacked to frames, with a mask. Anything may share a batch."""

    settings: FbankSettings
    limit: int | None = None

    def group(self, samples: int) -> int:
        """All are one group."""
        return 0

    def padded(self, samples: int) -> int:
        """Nothing is added: a mask says what a batch filled up."""
        return samples

    def inputs(self, waveforms: Sequence[Tensor], device: torch.device) -> dict[str, Tensor]:
        """`input_features` `[B, T, features]` and `attention_mask` `[B, T]`."""
        features, mask = log_mels(waveforms, self.settings, device)
        return {"input_features": features, "attention_mask": mask}

    def cut(self, inputs: dict[str, Tensor], stretches: Sequence[Stretch]) -> dict[str, Tensor]:
        """Features and mask count frames."""
        return {
            name: torch.stack([whole[0, start:stop] for start, stop in stretches])
            for name, whole in inputs.items()
        }


@dataclass(frozen=True, eq=False)
class Samples:
    """The waveform, normalised by the extractor as its settings say.

    Attributes:
        extractor: of transformers.
        grid: of the encoder.
        masked: whether recordings of any length share a batch, told apart by a mask. Else they
            run one length at a time, and as encoders that were trained without a mask: with none.
    """

    extractor: Extractor
    grid: Grid
    masked: bool
    limit: int | None = None

    def group(self, samples: int) -> int:
        """All are one group, or those of one length."""
        return 0 if self.masked else samples

    def padded(self, samples: int) -> int:
        """Nothing is added: a mask says what a batch filled up."""
        return samples

    def inputs(self, waveforms: Sequence[Tensor], device: torch.device) -> dict[str, Tensor]:
        """`input_values` `[B, samples]`, and `attention_mask` of the same shape."""
        batch = self.extractor(
            [waveform.cpu().numpy() for waveform in waveforms],
            sampling_rate=SAMPLE_RATE,
            padding=True,
            return_attention_mask=True,
            return_tensors="pt",
        )
        names = ("input_values", "attention_mask") if self.masked else ("input_values",)
        return {name: to_device(batch[name], device) for name in names}

    def cut(self, inputs: dict[str, Tensor], stretches: Sequence[Stretch]) -> dict[str, Tensor]:
        """Values and mask count samples."""
        spans = [
            slice(start * self.grid.hop, (stop - 1) * self.grid.hop + self.grid.window)
            for start, stop in stretches
        ]
        return {
            name: torch.stack([whole[0, span] for span in spans]) for name, whole in inputs.items()
        }


@dataclass(frozen=True, eq=False)
class WhisperMels:
    """Whisper's: log-mels of a recording and the silence behind it, without a mask.

    Loudness is taken relative to the recording's own peak, so silence changes no frame of speech.

    Attributes:
        extractor: a `WhisperFeatureExtractor`.
        padding: how long the input is.
    """

    extractor: Extractor
    padding: Padding

    @property
    def limit(self) -> int | None:
        """The positions there are."""
        return self.padding.limit

    def group(self, samples: int) -> int:
        """Those of one padded length."""
        return self.padded(samples)

    def padded(self, samples: int) -> int:
        """As the padding says."""
        return self.padding.padded(samples)

    def inputs(self, waveforms: Sequence[Tensor], device: torch.device) -> dict[str, Tensor]:
        """`input_features` `[B, mels, 10 ms frames]`."""
        longest = max(len(waveform) for waveform in waveforms)
        # A longer recording is never encoded whole: `cut` makes windows of it.
        whole = -(-longest // self.padding.step) * self.padding.step
        padded = whole if longest > self.padding.limit else self.padding.padded(longest)
        batch = self.extractor(
            [waveform.cpu().numpy() for waveform in waveforms],
            sampling_rate=SAMPLE_RATE,
            padding="max_length",
            max_length=padded,
            return_tensors="pt",
        )
        return {"input_features": to_device(batch["input_features"], device)}

    def cut(self, inputs: dict[str, Tensor], stretches: Sequence[Stretch]) -> dict[str, Tensor]:
        """Two log-mel frames make one of the encoder's."""
        whole = inputs["input_features"][0]
        return {
            "input_features": torch.stack(
                [whole[:, 2 * start : 2 * stop] for start, stop in stretches]
            )
        }
