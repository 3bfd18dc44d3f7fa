"""What the user asks of an extraction."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from cache.encoders.grid import PADDINGS, PaddingName
from corpora.base.errors import ConfigError

AUDIO_ENCODER = "facebook/w2v-bert-2.0"
TEXT_ENCODER = "microsoft/deberta-v3-base"
STORED_DTYPES = ("float16", "float32")
LONG = ("refuse", "window")


@dataclass(frozen=True)
class Auto:
    """The training data chooses (`heads.extraction`).

    Attributes:
        keep: of how many of the best layers frames are kept.
    """

    keep: int = 1


#: Hidden-state numbers, `all` of them, what the data chooses, or none named: the last.
Layers = tuple[int, ...] | Literal["all"] | Auto


@dataclass(frozen=True)
class ExtractConfig:
    """What the user asks of an extraction.

    Attributes:
        audio_encoder: hub id, directory or `tiny`; "" leaves audio out.
        text_encoder: the same for text.
        audio_layers: hidden-state numbers, `all` or `Auto`; empty means the last.
        text_layers: the same for text.
        moments_only: of these layers keep each utterance's mean and deviation, not its frames.
        stored_dtype: `float16`, or `float32` for comparisons to the last digits.
        device: `auto`, `cpu` or `cuda`.
        max_seconds: longer recordings are refused by name, or encoded in windows.
        long: `refuse` or `window`, for recordings over `max_seconds`.
        batch_seconds: seconds of audio encoded at once, padding included; None lets the device
            decide.
        padding: `short` or `full`, of encoders without a mask (Whisper).
        whole: with the frames of that silence, which upper layers need to be run from these.
        best: by modality the layer that heads read unless they are told otherwise; the highest
            where none is named.
    """

    audio_encoder: str = AUDIO_ENCODER
    text_encoder: str = TEXT_ENCODER
    audio_layers: Layers = ()
    text_layers: Layers = ()
    moments_only: bool = False
    stored_dtype: str = "float16"
    device: str = "auto"
    max_seconds: float = 60.0
    long: str = "refuse"
    batch_seconds: float | None = None
    padding: PaddingName = "short"
    whole: bool = False
    best: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.audio_encoder and not self.text_encoder:
            raise ConfigError("neither an audio nor a text encoder: there is nothing to extract")
        if self.stored_dtype not in STORED_DTYPES:
            raise ConfigError(
                f"the stored dtype must be {' or '.join(STORED_DTYPES)}, got {self.stored_dtype}"
            )
        if self.long not in LONG:
            raise ConfigError(f"long must be {' or '.join(LONG)}, got {self.long!r}")
        if self.padding not in PADDINGS:
            raise ConfigError(f"padding must be {' or '.join(PADDINGS)}, got {self.padding!r}")
        for name in ("max_seconds", "batch_seconds"):
            value = getattr(self, name)
            if value is not None and not (value > 0 and math.isfinite(value)):
                raise ConfigError(f"{name} must be a positive number of seconds, got {value}")


def parse_layers(text: str) -> Layers:
    """Layers from a list such as `12,18,24`, or `last`, `all`, `auto`, or `auto:3`.

    Raises:
        ConfigError: it is none of these.
    """
    word = text.strip()
    if word == "last":
        return ()
    if word == "all":
        return "all"
    name, colon, count = word.partition(":")
    try:
        if name == "auto":
            keep = int(count) if colon else 1
            if keep < 1:
                raise ValueError
            return Auto(keep)
        return tuple(int(part) for part in word.split(","))
    except ValueError as error:
        raise ConfigError(
            "layers must be whole numbers separated by commas, such as 12,18,24, or last, all, "
            f"auto, or auto:N for the N best; got {text!r}"
        ) from error
