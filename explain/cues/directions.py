"""The directions that research expects of cues, read from `expected.toml`, each with its source."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

SIGNS = {"up": 1, "down": -1}
NEUTRAL = "neutral"


@dataclass(frozen=True)
class Expected:
    """What is expected of one cue in one emotion, against neutral.

    Attributes:
        sign: 1 up, -1 down.
        sources: who says so, in full.
    """

    sign: int
    sources: tuple[str, ...]


@dataclass(frozen=True)
class Directions:
    """The file's content.

    Attributes:
        emotions: the file's own name of an emotion by label, in lower case.
        cells: what is expected, by emotion and cue; empty where nothing is.
        window_signs: by emotion, whether published windows look for high (1) or low (-1) values.
        sources: in full, by short name.
    """

    emotions: Mapping[str, str]
    cells: Mapping[tuple[str, str], Expected]
    window_signs: Mapping[str, int]
    sources: Mapping[str, str]

    def emotion(self, label: str) -> str | None:
        """The file's name of a label's emotion, None where it has none."""
        return self.emotions.get(label.strip().lower())

    def expected(self, label: str, cue: str) -> Expected | None:
        """What is expected of a cue for a label; None where no source says."""
        return self.cells.get((self.emotion(label) or "", cue))

    def window_sign(self, label: str) -> int | None:
        """Where published windows look for a label: 1 high, -1 low, None nowhere."""
        return self.window_signs.get(self.emotion(label) or "")


@cache
def read_directions() -> Directions:
    """Read the file beside this module."""
    text = (files("explain.cues") / "expected.toml").read_text(encoding="utf-8")
    value: dict[str, Any] = tomllib.loads(text)
    sources, labels, windows = (value.pop(name) for name in ("sources", "labels", "windows"))
    cells = {
        (emotion, cue): Expected(
            SIGNS[cell["direction"]], tuple(sources[name] for name in cell["sources"])
        )
        for emotion, cues in value.items()
        for cue, cell in cues.items()
    }
    return Directions(
        {label: emotion for emotion, names in labels.items() for label in names},
        cells,
        {name: sign for key, sign in (("high", 1), ("low", -1)) for name in windows[key]},
        sources,
    )
