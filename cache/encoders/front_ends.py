"""Front ends: from waveforms to what a speech encoder is called with, padded.

There are three kinds: stacked log-mels (W2V-BERT), the waveform itself (wav2vec 2.0 and its
family) and Whisper's log-mels. Each says which recordings may share a batch, and how its input is
cut into windows of frames.

Log-mel frames of W2V-BERT, for a whole batch at once and on any device.

The same numbers as transformers' `SeamlessM4TFeatureExtractor` (which mimics Kaldi), whose Python
loop over frames is the slowest part of extraction on a GPU. The steps, with their source in
`transformers.audio_utils.spectrogram`: 25 ms frames every 10 ms of the waveform in 16-bit units,
minus their mean, pre-emphasis .97, Povey window, 512-point FFT, power, mel filters, log; then each
mel bin of the utterance is normalised to mean 0 and deviation 1 (ddof 1), and `stride` frames are
stacked.

The FFT runs in float64: speech upsampled from 8 kHz has bands so empty that float32's rounding
fills them, and the log then differs by up to .34.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cache.encoders.device import to_device
from cache.encoders.grid import FBANK_HOP, FBANK_WINDOW, Grid, Padding
from cache.encoders.signal import Signal
from corpora.base.errors import ConfigError

# Literals of SeamlessM4TFeatureExtractor._extract_fbank_features.
_FULL_SCALE = float(2**15)
_PREEMPHASIS = 0.97
_MEL_FLOOR = 1.192092955078125e-07
_VARIANCE_FLOOR = 1e-7  # under the root of the deviation

# Literals of Wav2Vec2FeatureExtractor.zero_mean_unit_var_norm, and of
# WhisperFeatureExtractor._torch_extract_fbank_features: power, and tenfolds below the peak.
_SAMPLES_FLOOR = 1e-7
_WHISPER_FLOOR, _WHISPER_RANGE = 1e-10, 8.0

# Frames transformed at once. 256 float64 frames of 512 points are 1 MB, which stays in a core's
# cache (2,048 of them take twice as long each); a GPU wants more work per launch.
_CHUNK_CPU = 256
_CHUNK_CUDA = 65_536
# A GPU multiplies matrices whose rows are no multiple of 16 bytes with old, slow kernels.
_ALIGNED_CUDA = 16


@dataclass(frozen=True, eq=False)
class FbankSettings:
    """What the installed extractor holds.

    Attributes:
        window: `[400]` float64.
        mel_filters: `[257, mels]` float64.
        stride: mel frames stacked into one frame.
        padding_value: what padded frames hold.
    """

    window: Tensor
    mel_filters: Tensor
    stride: int
    padding_value: float

    @classmethod
    def from_extractor(cls, extractor: Any) -> FbankSettings:  # noqa: ANN401 (transformers is untyped here)
        """Take the settings out of a loaded `SeamlessM4TFeatureExtractor`.

        Raises:
            ConfigError: the extractor is of another kind or has an unexpected shape.
        """
        try:
            window = torch.as_tensor(np.asarray(extractor.window, dtype=np.float64))
            filters = torch.as_tensor(np.asarray(extractor.mel_filters, dtype=np.float64))
            settings = cls(window, filters, int(extractor.stride), float(extractor.padding_value))
        except AttributeError as error:
            raise ConfigError(
                f"the front end is a {type(extractor).__name__}; expected a "
                "SeamlessM4TFeatureExtractor. Check preprocessor_config.json of the encoder."
            ) from error
        if window.shape != (FBANK_WINDOW,) or filters.ndim != 2:
            raise ConfigError(
                f"the front end has a window of {tuple(window.shape)} samples and mel filters "
                f"{tuple(filters.shape)}; expected ({FBANK_WINDOW},) and [bins, mels]. "
                "Install the transformers version named in constraints.txt."
            )
        return settings


def log_mels(signal: Signal, settings: FbankSettings) -> tuple[Tensor, Tensor]:
    """The encoder's input features of a batch.

    An utterance's features do not depend on its batch mates (beyond 1e-6).

    Args:
        signal: recordings, each long enough for one stacked frame; computed where it is.
        settings: see `FbankSettings`.

    Returns:
        `[B, T, mels * stride]` float32, padded, and `[B, T]` bool, true for valid frames. T is the
        longest's, on a GPU the next multiple of 16.

    Raises:
        ValueError: an utterance is too short for one stacked frame.
    """
    counts = [1 + (samples - FBANK_WINDOW) // FBANK_HOP for samples in signal.lengths]
    if min(counts) < settings.stride:
        short = counts.index(min(counts))
        raise ValueError(
            f"waveform {short} has {signal.lengths[short]} samples, too few for one frame of "
            f"{FBANK_WINDOW + FBANK_HOP * (settings.stride - 1)}"
        )
    with torch.no_grad(), torch.autocast(signal.device.type, enabled=False):
        logs = _log_spectra(signal.values, settings)
        # Frame f of the signal begins at its sample f * hop. Those that straddle two utterances are
        # computed and ignored.
        starts = [start // FBANK_HOP for start in signal.starts]
        frames = torch.tensor(counts) // settings.stride
        width = _aligned(int(frames.max()), signal.device)
        mask = to_device(torch.arange(width) < frames[:, None], signal.device)
        if signal.values.is_cuda:
            stacked = _normalised_together(logs, starts, counts, width * settings.stride)
            stacked = stacked.reshape(*mask.shape, -1)
            return stacked.masked_fill_(~mask[..., None], settings.padding_value), mask
        features = torch.full(
            (*mask.shape, logs.shape[1] * settings.stride), settings.padding_value
        )
        # One utterance at a time: it stays in the processor's cache, and no sum runs over padding.
        # Together takes a CPU 1.1 times as long where all have one length, else up to 5 times.
        for row, (start, count, length) in enumerate(zip(starts, counts, frames, strict=True)):
            normalised = normalise_bins(logs[start : start + count])
            features[row, :length] = normalised[: length * settings.stride].view(length, -1)
        return features, mask


def _aligned(frames: int, device: torch.device) -> int:
    return frames + (-frames % _ALIGNED_CUDA if device.type == "cuda" else 0)


@lru_cache(maxsize=4)
def _constants(settings: FbankSettings, device: torch.device) -> tuple[Tensor, Tensor]:
    """Window and mel filters on a device, sent once."""
    with torch.inference_mode(mode=False):  # a later caller may not be in it
        return to_device(settings.window, device), to_device(settings.mel_filters, device)


def _log_spectra(values: Tensor, settings: FbankSettings) -> Tensor:
    """Log mel power of every frame of a signal, `[frames, mels]` float32.

    Pre-emphasis of a mean-free frame, (x_i - m) - .97 (x_{i-1} - m), is that of the signal minus
    .03 m; only a frame's first sample has no predecessor and becomes .03 (x_0 - m).
    """
    signal = values.to(torch.float64).mul_(_FULL_SCALE)
    window, filters = _constants(settings, signal.device)
    bins, mels = filters.shape
    emphasised = signal.clone()
    emphasised[1:].sub_(signal[:-1], alpha=_PREEMPHASIS)
    raw = signal.unfold(0, FBANK_WINDOW, FBANK_HOP)
    frames = emphasised.unfold(0, FBANK_WINDOW, FBANK_HOP)
    chunk = min(_CHUNK_CUDA if signal.is_cuda else _CHUNK_CPU, len(frames))
    buffer = signal.new_zeros(chunk, 2 * (bins - 1))  # the FFT's input, zero behind the window
    to_offset = torch.full_like(window, (1 - _PREEMPHASIS) / FBANK_WINDOW)
    logs = signal.new_empty(len(frames), mels, dtype=torch.float32)
    for start in range(0, len(frames), chunk):
        stop = min(start + chunk, len(frames))
        samples = buffer[: stop - start, :FBANK_WINDOW]
        torch.mul(frames[start:stop], window, out=samples)
        samples[:, 0] = raw[start:stop, 0] * ((1 - _PREEMPHASIS) * window[0])
        samples.addr_(torch.mv(raw[start:stop], to_offset), window, alpha=-1.0)
        spectrum = torch.fft.rfft(buffer[: stop - start])
        # Ten times faster than summing over view_as_real(), six times than abs().
        real, imaginary = spectrum.real, spectrum.imag
        power = (real * real).addcmul_(imaginary, imaginary)
        # The extractor rounds the log to float32 before it normalises; so does this assignment.
        logs[start:stop] = log_mel_power(power, filters)
    return logs


def log_mel_power(power: Tensor, filters: Tensor) -> Tensor:
    """Log mel power `[frames, mels]` of spectral power `[frames, bins]`, float64."""
    return (power @ filters).clamp_(min=_MEL_FLOOR).log_()


def to_spectra(settings: FbankSettings) -> Tensor:
    """`[400, 2 · bins]` float64: 25 ms of samples times this are a frame's spectrum.

    All before the power is linear, so one product does it: scale, mean, pre-emphasis, window and
    Fourier transform. Real parts come first. Extraction takes the FFT, which is less work.
    """
    each = torch.eye(FBANK_WINDOW, dtype=torch.float64) * _FULL_SCALE
    each -= each.mean(dim=1, keepdim=True)
    before = each[:, :1].expand(-1, FBANK_WINDOW).clone()
    before[:, 1:] = each[:, :-1]
    bins = len(settings.mel_filters)
    spectra = torch.fft.rfft((each - _PREEMPHASIS * before) * settings.window, 2 * (bins - 1))
    return torch.cat([spectra.real, spectra.imag], dim=1)


def normalise_bins(logs: Tensor) -> Tensor:
    """One utterance's mel bins `[frames, mels]` to mean 0 and deviation 1 (ddof 1)."""
    centred = logs.to(torch.float64)
    centred -= centred.mean(dim=0)
    variance = centred.square().sum(dim=0) / (logs.shape[0] - 1)
    return (centred / (variance + _VARIANCE_FLOOR).sqrt()).to(torch.float32)


def _normalised_together(
    logs: Tensor, starts: Sequence[int], counts: Sequence[int], width: int
) -> Tensor:
    """The same of all utterances at once: `[B, width, mels]`, padding undefined."""
    first, count = to_device(torch.tensor([starts, counts]), logs.device)
    # Sums take the last one too, where one is left over of those that are stacked.
    at = torch.arange(max(width, *counts), device=logs.device)
    rows = (first[:, None] + at).clamp_(max=len(logs) - 1)
    valid = (at < count[:, None])[..., None]
    count = count[:, None, None]
    centred = logs.index_select(0, rows.flatten()).view(*rows.shape, -1).to(torch.float64)
    centred -= centred.masked_fill(~valid, 0.0).sum(dim=1, keepdim=True) / count
    variance = centred.masked_fill(~valid, 0.0).square_().sum(dim=1, keepdim=True) / (count - 1)
    return centred.div_((variance + _VARIANCE_FLOOR).sqrt_()).to(torch.float32)[:, :width]


#: An untyped feature extractor of transformers.
Extractor = Any
#: Frames `[start, stop)` of a recording.
Stretch = tuple[int, int]


class FrontEnd(ABC):
    """What a kind of front end answers: here for one with a mask, which anything may share."""

    @property
    def limit(self) -> int | None:
        """The longest recording that is encoded whole, in samples; None for any."""
        return None

    def group(self, samples: int) -> int:
        """Recordings for which this is the same number may share a batch."""
        return 0

    def padded(self, samples: int) -> int:
        """How many samples a recording's input is made of, silence behind it included."""
        return samples

    def encoded(self, frames: int, device: torch.device) -> int:
        """How many frames the encoder gives where the longest recording of a batch has so many."""
        return frames

    @abstractmethod
    def inputs(self, signal: Signal) -> dict[str, Tensor]:
        """Arguments of the model, of whole recordings of one group."""

    @abstractmethod
    def cut(self, inputs: dict[str, Tensor], stretches: Sequence[Stretch]) -> dict[str, Tensor]:
        """The inputs of one recording, cut into a batch of stretches of one length."""


@dataclass(frozen=True, eq=False)
class StackedMels(FrontEnd):
    """W2V-BERT's: log-mels stacked to frames, with a mask. Anything may share a batch."""

    settings: FbankSettings

    def encoded(self, frames: int, device: torch.device) -> int:
        """On a GPU some more, which are filled up like those of shorter recordings."""
        return _aligned(frames, device)

    def inputs(self, signal: Signal) -> dict[str, Tensor]:
        """`input_features` `[B, T, features]` and `attention_mask` `[B, T]`."""
        features, mask = log_mels(signal, self.settings)
        return {"input_features": features, "attention_mask": mask}

    def cut(self, inputs: dict[str, Tensor], stretches: Sequence[Stretch]) -> dict[str, Tensor]:
        """Features and mask count frames."""
        return {
            name: torch.stack([whole[0, start:stop] for start, stop in stretches])
            for name, whole in inputs.items()
        }


@dataclass(frozen=True, eq=False)
class Samples(FrontEnd):
    """The waveform, normalised if the extractor's settings say so.

    Attributes:
        extractor: of transformers.
        grid: of the encoder.
        masked: whether recordings of any length share a batch, told apart by a mask. Else they
            run one length at a time, and as encoders that were trained without a mask: with none.
    """

    extractor: Extractor
    grid: Grid
    masked: bool

    def group(self, samples: int) -> int:
        """All are one group, or those of one length."""
        return 0 if self.masked else samples

    def inputs(self, signal: Signal) -> dict[str, Tensor]:
        """`input_values` `[B, samples]`, and `attention_mask` of the same shape."""
        values, valid = signal.padded()
        values = self.values(values, valid)
        return {"input_values": values} | ({"attention_mask": valid.int()} if self.masked else {})

    def values(self, values: Tensor, valid: Tensor) -> Tensor:
        """`input_values` of samples `[B, T]`, of which some are a recording's: `[B, T]` bool."""
        if self.extractor.do_normalize:
            # Sums in float64, so that no digit depends on how far a batch is padded.
            counts = valid.sum(dim=1, keepdim=True)
            mean = values.sum(dim=1, keepdim=True, dtype=torch.float64) / counts
            values = (values - mean.float()).masked_fill_(~valid, 0.0)
            variance = values.square().sum(dim=1, keepdim=True, dtype=torch.float64) / counts
            values /= (variance + _SAMPLES_FLOOR).sqrt_().float()
        if self.extractor.padding_value:
            values = values.masked_fill(~valid, float(self.extractor.padding_value))
        return values

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
class WhisperMels(FrontEnd):
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

    def inputs(self, signal: Signal) -> dict[str, Tensor]:
        """`input_features` `[B, mels, 10 ms frames]`."""
        longest = max(signal.lengths)
        # A longer recording is never encoded whole: `cut` makes windows of it.
        whole = -(-longest // self.padding.step) * self.padding.step
        fits = longest <= self.padding.limit
        values, _ = signal.padded(self.padding.padded(longest) if fits else whole)
        points, hop = int(self.extractor.n_fft), int(self.extractor.hop_length)
        window = torch.hann_window(points, device=signal.device)
        with torch.no_grad(), torch.autocast(signal.device.type, enabled=False):
            spectra = torch.stft(values, points, hop, window=window, return_complex=True)
            # Contiguous: the product is 8 times slower over a view.
            return {"input_features": self.features(spectra[..., :-1].abs().square().contiguous())}

    def features(self, power: Tensor) -> Tensor:
        """`input_features` of spectral power `[B, bins, 10 ms frames]`."""
        filters = to_device(torch.as_tensor(self.extractor.mel_filters).float(), power.device)
        logs = (filters.T @ power).clamp_(min=_WHISPER_FLOOR).log10_()
        floor = logs.amax(dim=(1, 2), keepdim=True) - _WHISPER_RANGE
        return torch.maximum(logs, floor).add_(4.0).div_(4.0)

    def cut(self, inputs: dict[str, Tensor], stretches: Sequence[Stretch]) -> dict[str, Tensor]:
        """Two log-mel frames make one of the encoder's."""
        whole = inputs["input_features"][0]
        return {
            "input_features": torch.stack(
                [whole[:, 2 * start : 2 * stop] for start, stop in stretches]
            )
        }
