"""The clock of frames that were imported: when each of them is, and what it is told by.

Frames that are extracted from sound lie on their encoder's grid (`cache.encoders.grid`). Frames of
another kind come so many a second, or each at a time of its own. Either way their times stand in a
stream beside them (`cache.last_extraction.TIMES`), and all else is told by these alone. What lies
on the grid of sound, such as where speech is, is brought onto that clock (`cache.found.onto`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cache.found import Floats
from corpora.base.errors import CacheError, ConfigError

# Tracks of one file end some frames apart; a wrong rate is off by a share of the whole.
_APART_SECONDS, _APART_SHARE = 0.25, 0.05


@dataclass(frozen=True)
class Clock:
    """When frames to be imported are: by their rate, or by files with the times of each.

    Attributes:
        fps: frames a second, the first from the utterance's start on; None for files.
        files: of the times, by utterance id.

    Raises:
        ConfigError: the rate is no number above 0.
    """

    fps: float | None = None
    files: Mapping[str, Path] | None = None

    def __post_init__(self) -> None:
        if self.fps is not None and not 0 < self.fps < math.inf:
            raise ConfigError(f"--fps {self.fps:g}: expected frames a second, above 0.")

    def times(
        self, frames: Mapping[str, int], seconds: Mapping[str, float], refused: dict[str, str]
    ) -> dict[str, Floats]:
        """By id `[T]`, the middle of each frame, seconds from the utterance's start.

        Args:
            frames: how many, by the ids of the utterances that have any.
            seconds: how long the utterances are, by id, as far as that is known.
            refused: gets reasons by id for those whose times cannot be told.

        Raises:
            ConfigError: times do not fit the recordings; all of them may be wrong then.
        """
        found: dict[str, Floats] = {}
        wrong = []
        for name, count in frames.items():
            try:
                found[name] = self._times(name, count)
            except CacheError as error:
                refused[name] = str(error)
                continue
            if name in seconds:
                wrong += self._misfit(name, found[name], seconds[name])
        if wrong:
            named = "these times" if self.fps is None else f"{self.fps:g} frames a second"
            raise ConfigError(
                f"with {named}, {len(wrong)} of {len(found)} files do not fit their recordings. "
                f"The first: {wrong[0]}. Name the frames' own rate (--fps), or the time of each "
                "(--times, in seconds from the start of its utterance)."
            )
        return found

    def _times(self, name: str, frames: int) -> Floats:
        if self.fps is not None:
            return (np.arange(frames, dtype=np.float64) + 0.5) / self.fps
        path = (self.files or {}).get(name)
        if path is None:
            raise CacheError(f"{name}: no file of --times says when its frames are")
        found = read_times(path)
        if len(found) != frames:
            raise CacheError(f"{path} has {len(found)} times, and {name} {frames} frames")
        return found

    def _misfit(self, name: str, times: Floats, seconds: float) -> list[str]:
        """How times do not fit a recording of that length, if they do not."""
        apart = max(_APART_SECONDS, _APART_SHARE * seconds)
        if self.fps is None:
            wrong = times[-1] > seconds + apart
            said = f"its last frame is at {times[-1]:.2f} s"
        else:
            lasts = len(times) / self.fps
            wrong = abs(lasts - seconds) > apart
            said = f"its {len(times):,} frames last {lasts:.2f} s"
        return [f"{name}: {said}, its recording {seconds:.2f} s"] * bool(wrong)


def read_times(path: Path) -> Floats:
    """`[T]` seconds of a file's frames.

    Raises:
        CacheError: it cannot be read, or holds no times that ascend from 0 on.
    """
    try:
        found: Any = np.load(path, allow_pickle=False)
    except (OSError, EOFError, ValueError) as error:
        raise CacheError(
            f"{path} cannot be read ({error}). Expected times [T], seconds."
        ) from error
    if not isinstance(found, np.ndarray) or found.dtype.kind not in "fiu" or found.ndim != 1:
        raise CacheError(f"{path} holds no list of numbers. Expected times [T], seconds.")
    times: Floats = found.astype(np.float64)
    # NaN fails both.
    if not len(times) or not times[0] >= 0 or not (np.diff(times) > 0).all():
        raise CacheError(f"{path}: expected times that ascend from 0 on, in seconds.")
    return times
