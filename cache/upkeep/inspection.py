"""Looking through a part byte by byte: its sum, its values, its lists, its files.

Read in blocks with plain reads, not mapped: a disk error is then an error with a name instead of
the end of the process, and memory stays small.
"""

from __future__ import annotations

import errno
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import numpy.typing as npt

from cache.keys import KEY_DIGITS
from cache.store.layout import DTYPES, METADATA
from cache.store.parts import CHUNK, SUM_BYTES, Part

# Fits in the processor's cache, so that summing and looking cost one trip to memory.
_BLOCK_BYTES = 1 << 20
_KEY = re.compile(f"[0-9a-f]{{{KEY_DIGITS}}}")
_EXPONENT = 0x7C00  # of float16: NaN and infinity have all exponent bits set


@dataclass(frozen=True)
class Finding:
    """Something wrong with a part.

    Attributes:
        reason: what.
        keys: of the utterances it concerns; None if they cannot be told.
    """

    reason: str
    keys: tuple[str, ...] | None


def inspect_part(part: Part) -> list[Finding]:
    """Everything that is wrong with a part whose metadata and size are right.

    Raises:
        FileNotFoundError: the part is gone.
    """
    findings = _wrong_keys(part)
    bad_rows: list[npt.NDArray[np.int64]] = []
    total, first_row = 0, 0
    try:
        with open(part.chunk, "rb", buffering=0) as file:
            for block in _blocks(file, part):
                data = np.frombuffer(block, np.uint8)
                total = google_crc32c.extend(total, data)
                frames = data.view(DTYPES[part.header.dtype]).reshape(-1, part.header.dim)
                bad_rows.append(first_row + np.flatnonzero(_unstorable(frames)))
                first_row += len(frames)
            stored = int.from_bytes(_read_all(file, SUM_BYTES), "little")
    except FileNotFoundError:
        raise
    except OSError as error:
        reason = f"{CHUNK} cannot be read ({error.strerror or error})"
        return [*findings, Finding(reason, tuple(part.keys))]
    if total != stored:
        reason = f"{CHUNK} has CRC-32C {total:08x} where {stored:08x} was stored"
        return [*findings, Finding(reason, tuple(part.keys))]
    rows = np.concatenate(bad_rows)
    if len(rows):
        ends = np.fromiter(accumulate(part.lengths), np.int64, len(part.lengths))
        numbers = np.unique(np.searchsorted(ends, rows, side="right"))
        value = "255, the fill value" if part.header.dtype == "uint8" else "NaN or infinity"
        concerned = tuple(part.keys[number] for number in numbers.tolist())
        findings.append(Finding(f"{len(rows)} of {part.frames} frames hold {value}", concerned))
    return findings


def listed_keys(part: Path) -> tuple[str, ...] | None:
    """The keys in a part's metadata, whatever else is wrong with it; None if they are lost."""
    try:
        keys = json.loads((part / METADATA).read_bytes())["attributes"]["keys"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    known = isinstance(keys, list) and all(isinstance(key, str) for key in keys)
    return tuple(keys) if known else None


def foreign_entries(part: Path) -> list[Path]:
    """What lies in a part's folder and is neither its metadata nor its chunk."""
    own = {METADATA, *(CHUNK[:end] for end in (1, 3, 5))}  # c, c/0, c/0/0
    found = []
    for folder, folders, files in os.walk(part):
        for name in sorted([*folders, *files]):
            path = Path(folder, name)
            if path.relative_to(part).as_posix() not in own:
                found.append(path)
        folders[:] = [name for name in folders if Path(folder, name) not in found]
    return found


def _wrong_keys(part: Part) -> list[Finding]:
    """Metadata have no checksum of their own: this is how a flipped bit in a key shows."""
    strange = sum(not _KEY.fullmatch(key) for key in part.keys)
    twice = len(part.keys) - len(set(part.keys))
    counts = ((strange, "that are no content keys"), (twice, "that it has already"))
    return [
        Finding(f"{METADATA} lists {count} keys {what}", None) for count, what in counts if count
    ]


def _blocks(file: Any, part: Part) -> Iterator[memoryview]:  # noqa: ANN401 - a raw file
    """The matrix, whole rows at a time, in memory that is used again."""
    rows = max(1, _BLOCK_BYTES // part.header.frame_bytes)
    buffer = bytearray(rows * part.header.frame_bytes)
    left = part.nbytes
    while left:
        block = memoryview(buffer)[: min(left, len(buffer))]
        filled = 0
        while filled < len(block):
            count = file.readinto(block[filled:])
            if not count:
                raise OSError(errno.EIO, "it ended early")
            filled += count
        left -= len(block)
        yield block


def _read_all(file: Any, count: int) -> bytes:  # noqa: ANN401 - a raw file
    found = b""
    while len(found) < count and (more := file.read(count - len(found))):
        found += more
    return found


def _unstorable(frames: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """`[T]`, which rows hold a value that a stream never stores."""
    if frames.dtype == np.uint8:
        bad = np.equal(frames, np.iinfo(np.uint8).max)
    elif frames.dtype.itemsize == 2:
        # Comparing as integers is many times faster than `isfinite` of halves.
        bad = np.bitwise_and(frames.view("<u2"), _EXPONENT) == _EXPONENT
    else:
        bad = ~np.isfinite(frames)
    rows: npt.NDArray[np.bool_] = np.any(bad, axis=1)
    return rows
