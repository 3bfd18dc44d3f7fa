"""The frame grid: which samples an encoder's frame sees, known from its config files alone.

Every stream derived from audio sits on the grid of the audio encoder, so this is read when an
extraction is planned, before torch is imported.

Padding: how much silence an encoder without a mask hears behind a recording.

Whisper takes no mask: its frames depend on everything that is in the input. So that no frame
depends on who shares its batch, a recording is padded to a length that follows from its own. What
decides that is part of the recipe. Imports no torch.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

from cache.recipe import PADDINGS, PaddingName, Recipe
from corpora.base.codec import Jsonable, parse
from corpora.base.errors import AudioError, ConfigError
from corpora.base.files import LFS_SENTENCE, is_lfs_pointer

SAMPLE_RATE = 16_000
# Of a model; building more would never end. The deepest known have about a hundred.
_MOST_LAYERS = 1_000
#: The files that a front end's settings stand in.
PREPROCESSOR, PROCESSOR = "preprocessor_config.json", "processor_config.json"

# The front end of W2V-BERT (transformers, SeamlessM4TFeatureExtractor._extract_fbank_features):
# 25 ms windows every 10 ms, `stride` of them stacked into one frame. They are literals there.
FBANK_WINDOW = 400
FBANK_HOP = 160
_SEAMLESS_STRIDE = 2  # the extractor's default

#: Model types fed with stacked log-mel frames, and with the log-mel frames of Whisper; all others
#: take the waveform.
FBANK_MODELS = frozenset({"wav2vec2-bert"})
WHISPER_MODELS = frozenset({"whisper"})

# Whisper's front end (transformers, WhisperFeatureExtractor) centres 25 ms windows on every 10 ms;
# two convolutions over three frames each, the second with stride 2, follow. Frame t so sees mel
# frames 2t - 2 to 2t + 2, which is .0325 s to both sides of its centre at sample 320 t.
_WHISPER_HOP = 160
_WHISPER_WINDOW = 400

#: A frame exists where its whole window lies inside the recording.
WHOLE_WINDOWS = "whole windows"
#: A frame exists where its centre does, the edges of the recording being filled up with silence.
CENTRES = "centres"
RULES = (WHOLE_WINDOWS, CENTRES)


@dataclass(frozen=True)
class Grid(Jsonable):
    """Where frames lie, in samples at 16 kHz.

    By the rule `WHOLE_WINDOWS` frame t covers samples `[t * hop, t * hop + window)`, and n samples
    give `1 + floor((n - window) / hop)` frames, none below one window. By the rule `CENTRES` frame
    t covers `window` samples around `t * hop`, as far as there are so many, and n samples give
    `ceil(n / hop)` frames.

    Attributes:
        hop: samples from one frame to the next.
        window: samples a frame sees directly (its receptive field below the transformer).
        rule: one of `RULES`.

    Raises:
        ValueError: a size is not positive, or the rule is unknown.
    """

    hop: int
    window: int
    rule: str = WHOLE_WINDOWS

    def __post_init__(self) -> None:
        if self.hop < 1 or self.window < 1:
            raise ValueError(f"hop and window must be positive, got {self.hop}, {self.window}")
        if self.rule not in RULES:
            raise ValueError(f"unknown grid rule {self.rule!r}, expected one of {', '.join(RULES)}")

    def frames(self, samples: int) -> int:
        """Frames that `samples` samples give."""
        if self.rule == CENTRES:
            return -(-samples // self.hop)
        return 0 if samples < self.window else 1 + (samples - self.window) // self.hop

    @property
    def minimum_samples(self) -> int:
        """The fewest samples that give one frame."""
        return 1 if self.rule == CENTRES else self.window

    @property
    def first_centre(self) -> int:
        """The sample in the middle of frame 0; frame t's is t hops later."""
        return 0 if self.rule == CENTRES else self.window // 2

    def centres(self, samples: int) -> NDArray[np.int64]:
        """`[frames]`, the sample in the middle of each frame of a recording."""
        return np.arange(self.frames(samples), dtype=np.int64) * self.hop + self.first_centre

    def bounds(self, samples: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """`[frames]` twice: where each frame's window starts and stops inside a recording."""
        starts = self.centres(samples) - self.window // 2
        return np.maximum(starts, 0), np.minimum(starts + self.window, samples)

    def samples(self, frames: int) -> int:
        """How many samples so many frames come from, up to a hop."""
        if self.rule == CENTRES:
            return frames * self.hop
        return (frames - 1) * self.hop + self.window if frames else 0


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
    for name, sizes in (("conv_kernel", kernels), ("conv_stride", strides)):
        if not isinstance(sizes, list | tuple) or not all(map(_is_size, sizes)):
            raise ConfigError(
                f"{name} is {sizes!r}; expected a list of whole numbers from 1. "
                "Check the encoder's config.json."
            )
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


def whisper_grid() -> Grid:
    """The grid of Whisper's encoder: two centred 10 ms hops a frame, through two convolutions."""
    mels_seen = 5
    return Grid(
        hop=2 * _WHISPER_HOP,
        window=_WHISPER_WINDOW + (mels_seen - 1) * _WHISPER_HOP,
        rule=CENTRES,
    )


def read_grid(directory: Path) -> Grid:
    """The grid of the speech encoder in a directory, from its JSON files.

    Raises:
        ConfigError: a file is missing or unreadable, the sampling rate is not 16 kHz, or the
            encoder's frame grid is not known to Emopool.
    """
    config = read_config(directory, "config.json")
    front_end = read_front_end(directory)
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
        stride = front_end.get("stride", _SEAMLESS_STRIDE)
        if not _is_size(stride):
            raise ConfigError(
                f"the front end in {directory} has the stride {stride!r}; expected a whole number "
                "from 1. Copy it from the encoder's source."
            )
        return fbank_grid(stride)
    if config.get("model_type") in WHISPER_MODELS:
        return whisper_grid()
    if "conv_kernel" in config and "conv_stride" in config:
        return convolution_grid(config["conv_kernel"], config["conv_stride"])
    raise ConfigError(
        f"{directory}/config.json describes a {config.get('model_type', 'model without a type')}; "
        "expected wav2vec2-bert, whisper, or a speech encoder with conv_kernel and conv_stride "
        "(wav2vec2, hubert, wavlm, data2vec-audio, unispeech-sat)."
    )


def read_front_end(directory: Path) -> Mapping[str, Any]:
    """The settings of a speech encoder's front end: `preprocessor_config.json`.

    transformers 5 writes them into `processor_config.json`, where a whole processor is saved.

    Raises:
        ConfigError: neither file has them, or one is not a JSON object.
    """
    if (directory / PREPROCESSOR).is_file() or not (directory / PROCESSOR).is_file():
        return read_config(directory, PREPROCESSOR)
    settings = read_config(directory, PROCESSOR).get("feature_extractor")
    if not isinstance(settings, dict):
        raise ConfigError(
            f"{directory} holds no {PREPROCESSOR}, and its {PROCESSOR} names no feature_extractor. "
            "Copy the front end from the encoder's source."
        )
    return settings


def encoder_shape(directory: Path) -> tuple[int, int]:
    """How many layers an encoder has, and how many features its frames.

    Raises:
        ConfigError: config.json does not say.
    """
    config = read_config(directory, "config.json")
    whisper = config.get("model_type") in WHISPER_MODELS
    names = ("encoder_layers", "d_model") if whisper else ("num_hidden_layers", "hidden_size")
    layers, dim = (config.get(name) for name in names)
    if not _is_size(layers) or not _is_size(dim):
        raise ConfigError(
            f"{directory}/config.json names no {' or no '.join(names)}; choose another encoder."
        )
    return int(layers), int(dim)


def _is_size(value: object) -> TypeGuard[int]:
    """Whether a value of JSON can be a number of things."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _finite(text: str) -> float:
    """A number of JSON; NaN and infinities, which its standard does not know, are none."""
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is no number of JSON")
    return value


def read_config(directory: Path, name: str) -> Mapping[str, Any]:
    """One of an encoder's JSON files.

    Raises:
        ConfigError: the file is missing or is not a JSON object.
    """
    path = directory / name
    try:
        value = json.loads(
            path.read_text(encoding="utf-8"), parse_constant=_finite, parse_float=_finite
        )
    except FileNotFoundError as error:
        raise ConfigError(
            f"{path} is missing; an encoder directory needs it. "
            "Name a directory that save_pretrained wrote, or a hub id."
        ) from error
    except (OSError, ValueError, RecursionError) as error:
        if is_lfs_pointer(path):
            raise ConfigError(f"{path} {LFS_SENTENCE}") from error
        raise ConfigError(f"{path} is not readable as JSON ({error}). Restore the file.") from error
    if not isinstance(value, dict):
        raise ConfigError(f"{path} holds a {type(value).__name__}; expected a JSON object.")
    if not isinstance(value.get("model_type", ""), str):
        raise ConfigError(
            f"{path} has the model_type {value['model_type']!r}; expected text. Restore the file."
        )
    for field, number in value.items():
        if field.endswith("layers") and isinstance(number, int) and number > _MOST_LAYERS:
            raise ConfigError(
                f"{path} has {number:,} as {field}; expected {_MOST_LAYERS:,} at most. "
                "Restore the file."
            )
    return value


# Of `short` padding. A second is what lets the encoder see that the speech has ended, and lengths
# rounded to half a second let recordings of about one length share a batch.
_TAIL_SECONDS = 1.0
_STEP_SECONDS = 0.5


@dataclass(frozen=True)
class Padding(Jsonable):
    """How a recording is padded, in samples at 16 kHz.

    Attributes:
        tail: the least silence behind a recording, where `limit` leaves room for it.
        step: padded lengths are multiples of it.
        limit: the longest input; no recording is longer.
    """

    tail: int
    step: int
    limit: int

    def padded(self, samples: int) -> int:
        """The padded length of a recording.

        Raises:
            AudioError: it is longer than the encoder takes.
        """
        if samples > self.limit:
            raise AudioError(
                f"a recording of {samples / SAMPLE_RATE:.1f} s is longer than the "
                f"{self.limit_seconds:g} s that this encoder takes at once. Cut it, or encode it "
                "in windows (`extract --long window`)."
            )
        return min(self.limit, -(-(samples + self.tail) // self.step) * self.step)

    @property
    def limit_seconds(self) -> float:
        """The longest recording that is encoded whole, in seconds."""
        return self.limit / SAMPLE_RATE

    @property
    def name(self) -> PaddingName:
        """What the user calls it."""
        return "short" if self.tail else "full"


def read_padding(directory: Path, name: PaddingName = "short") -> Padding | None:
    """The padding of the speech encoder in a directory; None for one that needs none.

    Raises:
        ConfigError: config.json does not say how long its input is, or the name is unknown.
    """
    if name not in PADDINGS:
        raise ConfigError(f"padding must be {' or '.join(PADDINGS)}, got {name!r}")
    config = read_config(directory, "config.json")
    if config.get("model_type") not in WHISPER_MODELS:
        return None
    positions = config.get("max_source_positions")
    if not isinstance(positions, int) or positions < 1:
        raise ConfigError(
            f"{directory}/config.json names no max_source_positions, which says how long Whisper's "
            "input is. Copy it from the encoder's source."
        )
    limit = positions * SAMPLE_RATE // 50  # 20 ms a position
    if name == "full":
        return Padding(tail=0, step=limit, limit=limit)
    return Padding(
        tail=round(_TAIL_SECONDS * SAMPLE_RATE),
        step=round(_STEP_SECONDS * SAMPLE_RATE),
        limit=limit,
    )


def recorded_grid(recipe: Recipe) -> Grid | None:
    """The grid that a stream's frames lie on; None where its recipe names none."""
    fields: Any = recipe.fields
    found: Grid | None = parse(Grid | None, fields.get("grid"))
    return found


def recorded_padding(recipe: Recipe) -> Padding | None:
    """The padding by which features were made; None where none was needed."""
    fields: Any = recipe.fields
    found: Padding | None = parse(Padding | None, fields.get("padding"))
    return found
