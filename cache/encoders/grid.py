"""The frame grid: which samples an encoder's frame sees, known from its config files alone.

Every stream derived from audio sits on the grid of the audio encoder, so this is read when an
extraction is planned, before torch is imported.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from corpora.errors import ConfigError

SAMPLE_RATE = 16_000

# The front end of W2V-BERT (transformers, SeamlessM4TFeatureExtractor._extract_fbank_features):
# 25 ms windows every 10 ms, `stride` of them stacked into one frame. They are literals there.
FBANK_WINDOW = 400
FBANK_HOP = 160
_SEAMLESS_STRIDE = 2  # the extractor's default

#: Model types fed with stacked log-mel frames; all others take the waveform.
FBANK_MODELS = frozenset({"wav2vec2-bert"})

#: The only rule in use: a frame exists where its whole window lies inside the recording.
WHOLE_WINDOWS = "whole windows"


@dataclass(frozen=True)
class Grid:
    """Frame t covers samples `[t * hop, t * hop + window)` at 16 kHz.

    Attributes:
        hop: samples from one frame to the next.
        window: samples a frame sees directly (its receptive field below the transformer).
        rule: how many frames n samples give; `WHOLE_WINDOWS` means
            `1 + floor((n - window) / hop)`, 0 below one window.

    Raises:
        ValueError: a size is not positive, or the rule is unknown.
    """

    hop: int
    window: int
    rule: str = WHOLE_WINDOWS

    def __post_init__(self) -> None:
        if self.hop < 1 or self.window < 1:
            raise ValueError(f"hop and window must be positive, got {self.hop}, {self.window}")
        if self.rule != WHOLE_WINDOWS:
            raise ValueError(f"unknown grid rule {self.rule!r}, expected {WHOLE_WINDOWS!r}")

    def frames(self, samples: int) -> int:
        """Frames that `samples` samples give (0 if there is not one whole window)."""
        return 0 if samples < self.window else 1 + (samples - self.window) // self.hop

    @property
    def minimum_samples(self) -> int:
        """The fewest samples that give one frame."""
        return self.window


def fbank_grid(stride: int) -> Grid:
    """The grid of stacked log-mel frames.

    m = 1 + floor((n - 400) / 160) spectra are stacked by `stride`, the rest dropped. With hop
    160 · stride and window 400 + 160 · (stride - 1) that is one rule of whole windows.
    """
    return Grid(hop=FBANK_HOP * stride, window=FBANK_WINDOW + FBANK_HOP * (stride - 1))


def convolution_grid(kernels: Sequence[int], strides: Sequence[int]) -> Grid:
    """The grid of a stack of unpadded convolutions (wav2vec 2.0 and its family).

    Floors of divisions nest, so the stack is one convolution of kernel
    1 + Σ_i (k_i - 1) · Π_{j<i} s_j and stride Π s_i.
    """
    if len(kernels) != len(strides) or not kernels:
        raise ConfigError(
            f"conv_kernel has {len(kernels)} entries and conv_stride {len(strides)}; "
            "expected the same number, at least one. Check the encoder's config.json."
        )
    window, hop = 1, 1
    for kernel, stride in zip(kernels, strides, strict=True):
        window += (int(kernel) - 1) * hop
        hop *= int(stride)
    return Grid(hop=hop, window=window)


def read_grid(directory: Path) -> Grid:
    """The grid of the speech encoder in a directory, from its JSON files.

    Raises:
        ConfigError: a file is missing or unreadable, the sampling rate is not 16 kHz, or the
            encoder's frame grid is not known to Emopool.
    """
    config = read_config(directory, "config.json")
    front_end = read_config(directory, "preprocessor_config.json")
    rate = front_end.get("sampling_rate", SAMPLE_RATE)
    if rate != SAMPLE_RATE:
        raise ConfigError(
            f"{directory} wants audio at {rate} Hz; Emopool decodes to {SAMPLE_RATE} Hz. "
            "Choose an encoder trained at 16 kHz."
        )
    if config.get("add_adapter"):
        raise ConfigError(
            f"{directory}/config.json has add_adapter = true: its frames are thinned out after "
            "the encoder. Choose the encoder without an adapter."
        )
    if config.get("model_type") in FBANK_MODELS:
        return fbank_grid(int(front_end.get("stride", _SEAMLESS_STRIDE)))
    if "conv_kernel" in config and "conv_stride" in config:
        return convolution_grid(config["conv_kernel"], config["conv_stride"])
    raise ConfigError(
        f"{directory}/config.json describes a {config.get('model_type', 'model without a type')}; "
        "expected wav2vec2-bert, or a speech encoder with conv_kernel and conv_stride "
        "(wav2vec2, hubert, wavlm, data2vec-audio, unispeech-sat)."
    )


def read_config(directory: Path, name: str) -> Mapping[str, Any]:
    """One of an encoder's JSON files.

    Raises:
        ConfigError: the file is missing or is not a JSON object.
    """
    path = directory / name
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(
            f"{path} is missing; an encoder directory needs it. "
            "Name a directory that save_pretrained wrote, or a hub id."
        ) from error
    except ValueError as error:
        raise ConfigError(f"{path} is not readable as JSON ({error}). Restore the file.") from error
    if not isinstance(value, dict):
        raise ConfigError(f"{path} holds a {type(value).__name__}; expected a JSON object.")
    return value
