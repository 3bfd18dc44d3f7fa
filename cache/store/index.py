"""Index: where each utterance of a stream lies, read from its parts' metadata."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from cache.store.layout import StreamHeader
from cache.store.parts import PREFIX, DamagedPartError, Part, read_part
from corpora.base.errors import CacheError

Int64s = npt.NDArray[np.int64]
# A pass is repeated when parts vanished under it; each vanishes once, so this many is not chance.
_PASSES = 100


@dataclass(frozen=True)
class Scan:
    """What lies in a stream's folder.

    Attributes:
        parts: the usable ones, by name.
        damaged: what is wrong with the others.
    """

    parts: list[Part]
    damaged: list[DamagedPartError]

    def whole(self, stream: Path) -> list[Part]:
        """The parts of a stream, for what needs every one to be usable.

        Raises:
            CacheError: some are damaged.
        """
        if self.damaged:
            counts = [error.utterances for error in self.damaged]
            total = sum(count or 0 for count in counts)
            more = "" if None not in counts else " or more"
            raise CacheError(
                f"{len(self.damaged)} of {len(self.damaged) + len(self.parts)} parts of {stream} "
                f"are damaged, with {total}{more} utterances. The first: {self.damaged[0]}"
            )
        return self.parts


class Run(NamedTuple):
    """Rows that lie together both in a part and in what is gathered."""

    part: int  # number of the part in the index
    source: int  # first row in the part
    target: int  # first row in the result
    frames: int


def scan(folder: Path, header: StreamHeader) -> Scan:
    """Read the metadata of all parts of a stream.

    Parts may come and go meanwhile. One that goes may have been merged into one that came after
    the folder was listed, so then the folder is listed again.

    Raises:
        CacheError: parts keep vanishing.
    """
    known: dict[str, Part | DamagedPartError] = {}
    for _ in range(_PASSES):
        with os.scandir(folder) as entries:
            names = {e.name for e in entries if e.name.startswith(PREFIX) and e.is_dir()}
        known = {name: part for name, part in known.items() if name in names}
        vanished = False
        for name in names - known.keys():
            path = os.path.join(folder, name)
            try:
                known[name] = read_part(path, header)
            except FileNotFoundError:
                vanished = True
            except DamagedPartError as error:
                known[name] = error
        if not vanished:
            found = [known[name] for name in sorted(known)]
            return Scan(
                [part for part in found if isinstance(part, Part)],
                [error for error in found if isinstance(error, DamagedPartError)],
            )
    raise CacheError(
        f"{folder} keeps changing while it is read. Wait until no other process prunes or merges "
        "this cache, and try again."
    )


def seen_of_parts(parts: Iterable[Part]) -> Iterator[tuple[Part, list[int]]]:
    """What readers see of each part: the numbers of its utterances that no part before it has."""
    known: set[str] = set()
    for part in parts:
        seen = []
        for number, key in enumerate(part.keys):
            if key not in known:
                known.add(key)
                seen.append(number)
        yield part, seen


class Index:
    """Finds utterances in a list of parts.

    Of a key that lies in several parts the one in the first part, by name, counts.

    Attributes:
        parts: in the order of their names.
        keys: each once, in the order they lie in the parts.
    """

    def __init__(self, parts: Sequence[Part]) -> None:
        self.parts = parts
        everything = list(chain.from_iterable(part.keys for part in parts))
        self._position = dict(zip(everything, range(len(everything)), strict=True))
        if len(self._position) < len(everything):
            self._position = {}
            for number, key in enumerate(everything):
                self._position.setdefault(key, number)
        self.keys = tuple(self._position)
        self._length = np.fromiter(
            chain.from_iterable(part.lengths for part in parts), np.int64, len(everything)
        )
        counts = np.array([len(part.keys) for part in parts], dtype=np.int64)
        frames = np.array([part.frames for part in parts], dtype=np.int64)
        self._part = np.repeat(np.arange(len(parts)), counts)
        # Rows before an utterance in all parts, less those before its part.
        before = np.cumsum(self._length) - self._length
        self._start = before - np.repeat(np.cumsum(frames) - frames, counts)

    def __contains__(self, key: object) -> bool:
        return key in self._position

    def positions(self, keys: Iterable[str]) -> Int64s:
        """`[B]` numbers of utterances, for `lengths` and `runs`.

        Raises:
            KeyError: with the first key that is not here.
        """
        return np.array([self._position[key] for key in keys], dtype=np.int64)

    def lengths(self, positions: Int64s) -> Int64s:
        """`[B]` frames of each."""
        return self._length[positions]

    def runs(self, positions: Int64s) -> Iterator[Run]:
        """What to copy to lay utterances end to end in the given order.

        In the order of the parts, so that reading goes forward; neighbours are one run.
        """
        if not len(positions):
            return
        length = self._length[positions]
        target = np.cumsum(length) - length
        part, source = self._part[positions], self._start[positions]
        order = np.lexsort((source, part))
        part, source, target, length = part[order], source[order], target[order], length[order]
        joined = (
            (part[1:] == part[:-1])
            & (source[1:] == source[:-1] + length[:-1])
            & (target[1:] == target[:-1] + length[:-1])
        )
        first = np.flatnonzero(np.concatenate([[True], ~joined]))
        frames = np.add.reduceat(length, first)
        columns = (part[first], source[first], target[first], frames)
        yield from map(Run, *(column.tolist() for column in columns))
