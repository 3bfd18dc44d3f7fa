"""Padding: how much silence an encoder without a mask hears behind a recording.

Whisper takes no mask: its frames depend on everything that is in the input. So that no frame
depends on who shares its batch, a recording is padded to a length that follows from its own. What
decides that is part of the recipe. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from cache.encoders.grid import SAMPLE_RATE, WHISPER_MODELS, read_config
from cache.recipe import JSON, Recipe
from corpora.base.errors import AudioError, ConfigError

#: `short`: a second or a little more; `full`: up to the 30 s that Whisper was trained on.
PaddingName = Literal["short", "full"]
PADDINGS: tuple[PaddingName, ...] = ("short", "full")

# Of `short` padding. A second is what lets the encoder see that the speech has ended, and lengths
# rounded to half a second let recordings of about one length share a batch.
_TAIL_SECONDS = 1.0
_STEP_SECONDS = 0.5


@dataclass(frozen=True)
class Padding:
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

    def to_json(self) -> dict[str, JSON]:
        """As it stands in recipes."""
        return asdict(self)

    @property
    def name(self) -> PaddingName:
        """What the user calls it."""
        return "short" if self.tail else "full"

    @classmethod
    def from_json(cls, value: Mapping[str, Any] | None) -> Padding | None:
        """The inverse of `to_json`; None for encoders that need no padding."""
        return None if value is None else cls(**{name: int(n) for name, n in value.items()})


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


def recorded_padding(recipe: Recipe) -> Padding | None:
    """The padding by which features were made; None where none was needed."""
    fields: Any = recipe.fields
    return Padding.from_json(fields.get("padding"))
