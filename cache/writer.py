"""PartWriter: adds utterances to a stream, a part at a time.

Values go to the building site as they come, so memory stays small however many streams are open.
A writer that is killed loses the part it was building, nothing else; on a full disk what was added
before is committed when the writer closes, if there is room to, and the cache stays readable.
"""

from __future__ import annotations

import json
import os
import secrets
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import google_crc32c
import numpy as np
import numpy.typing as npt

from cache.layout import DTYPES, METADATA, StreamHeader, read_stream
from cache.locks import shared_lock
from cache.parts import CHUNK, MAX_PART_BYTES, PART_BYTES, PREFIX, SUM_BYTES, metadata
from cache.scratch import (
    clear_stale_sites,
    discard,
    new_site,
    publish,
    scratch_folder,
    write_at,
    write_new,
)
from corpora.errors import CacheError

# A killed run loses at most about two minutes; fewer, larger parts are quicker to index.
PART_SECONDS = 120.0
# Fill values say "nothing is here", so they are never stored.
_LARGEST_UINT8 = 254


@dataclass(frozen=True)
class _Entry:
    """State after an utterance was written. Entering it in the site is what adds the utterance."""

    frames: int
    end: int  # bytes
    total: int  # CRC-32C of all bytes before `end`


@dataclass
class _Site:
    """A part being built."""

    folder: Path
    descriptor: int
    since: float  # time.monotonic
    entries: dict[str, _Entry] = field(default_factory=dict)

    @property
    def last(self) -> _Entry:
        return next(reversed(self.entries.values()), _Entry(0, 0, 0))


class PartWriter:
    """Adds utterances to one stream; a context manager. Not to be shared by threads.

    Any number of writers, in any number of processes, may add to one stream at once. All hold the
    shared lock as long as they are open, so nothing is pruned under them. Leaving the context
    commits what was added, also after an error: each utterance is complete by itself.

    A part closes when the next utterance would make it larger than 128 MB, or two minutes after
    its first one, which is looked at when something is added: whoever will add nothing for a while
    calls `commit`.

    Args:
        stream_folder: from `ensure_stream`.
        dim: values per frame, as the stream has it.
        dtype: as the stream has it.
        tmp: where to build; on the stream's file system. Default: `WORK/.tmp`.

    Raises:
        CacheError: the stream has another dim or dtype.
    """

    def __init__(
        self, stream_folder: Path, dim: int, dtype: npt.DTypeLike, tmp: Path | None = None
    ) -> None:
        features = stream_folder.parent.parent
        self._folder = stream_folder
        self._scratch = scratch_folder(features) if tmp is None else tmp
        self._site: _Site | None = None
        with ExitStack() as held:
            held.enter_context(shared_lock(features))
            self._header = read_stream(stream_folder)
            if self._header != StreamHeader(dim, np.dtype(dtype).name):
                raise CacheError(
                    f"{stream_folder} holds {self._header.dim}-d {self._header.dtype} frames, not "
                    f"{dim}-d {np.dtype(dtype).name} ones."
                )
            clear_stale_sites(self._scratch)
            self._lock = held.pop_all()

    def __enter__(self) -> PartWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def add(self, key: str, values: npt.NDArray[Any]) -> None:
        """Add one utterance. It is in the cache once its part is committed.

        A key that the part being built has already is ignored: the first one wins, as it does
        between parts.

        Args:
            key: its content key.
            values: `[frames, dim]`, at least one frame, any float type for float streams.

        Raises:
            CacheError: this utterance cannot be stored (its shape, a value that is not finite or
                that the stream's dtype cannot hold, too long); nothing of it is written and the
                writer can go on with others.
            OSError: the disk is full or failed.
        """
        stored = _storable(key, values, self._header)
        if stored.nbytes > MAX_PART_BYTES:
            raise CacheError(
                f"{key} has {stored.shape[0]} frames, which take {stored.nbytes:,} bytes; a part "
                f"holds at most {MAX_PART_BYTES:,}. Cut the recording into shorter segments."
            )
        if self._site is not None and key in self._site.entries:
            return
        if self._site is not None and self._site.last.end + stored.nbytes > PART_BYTES:
            self.commit()
        if self._site is None:
            self._site = self._new_site()
        site = self._site
        data = stored.reshape(-1).view(np.uint8)
        # At its offset, not at the file's end: what an interrupted call wrote is written over.
        write_at(site.descriptor, data.data, site.last.end)
        total = google_crc32c.extend(site.last.total, data)
        site.entries[key] = _Entry(len(stored), site.last.end + data.nbytes, total)
        if site.last.end >= PART_BYTES or time.monotonic() - site.since >= PART_SECONDS:
            self.commit()

    def commit(self) -> None:
        """Commit the part being built, if any.

        Raises:
            OSError: the disk is full or failed; the part is dropped.
        """
        site, self._site = self._site, None
        if site is None:
            return
        try:
            if site.entries:
                self._finish(site)
        finally:
            os.close(site.descriptor)
            discard(site.folder)  # gone already when it was committed

    def close(self) -> None:
        """Commit what is left and release the lock. Closing twice is harmless."""
        try:
            self.commit()
        finally:
            self._lock.close()

    def _new_site(self) -> _Site:
        folder = new_site(self._scratch)
        chunk = folder / CHUNK
        os.mkdir(chunk.parent.parent)
        os.mkdir(chunk.parent)
        descriptor = os.open(chunk, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        return _Site(folder, descriptor, time.monotonic())

    def _finish(self, site: _Site) -> None:
        end, total = site.last.end, site.last.total
        os.ftruncate(site.descriptor, end)  # without what an interrupted call may have left
        write_at(site.descriptor, total.to_bytes(SUM_BYTES, "little"), end)
        os.fsync(site.descriptor)
        lengths = [entry.frames for entry in site.entries.values()]
        described = metadata(self._header, list(site.entries), lengths)
        write_new(site.folder / METADATA, json.dumps(described, separators=(",", ":")).encode())
        # Named now, not when begun: of two parts with the same key the one committed first wins,
        # and a reader's choice does not change when the second one arrives.
        name = f"{PREFIX}{time.time_ns():016x}-{secrets.token_hex(4)}"
        publish(site.folder, self._folder / name)


def _storable(key: str, values: npt.NDArray[Any], header: StreamHeader) -> npt.NDArray[Any]:
    """`values` as the stream stores them: `[frames, dim]`, contiguous, little-endian, in range."""
    values = np.asarray(values)
    if values.ndim != 2 or values.shape[1] != header.dim or not len(values):
        raise CacheError(
            f"{key}: expected frames [T, {header.dim}] with T of at least 1, got shape "
            f"{list(values.shape)}"
        )
    if values.dtype.kind not in ("f" if header.dtype != "uint8" else "iu"):
        raise CacheError(f"{key}: a {header.dtype} stream cannot hold {values.dtype} values")
    if not _in_range(values, header.dtype):
        raise CacheError(f"{key}: {_complaint(values, header.dtype)}")
    return np.ascontiguousarray(values, dtype=DTYPES[header.dtype])


def _in_range(values: npt.NDArray[Any], dtype: str) -> bool:
    if values.dtype == np.float16:
        # NaN and infinity have all exponent bits set; comparing as integers is 100 times faster.
        bits = np.ascontiguousarray(values, dtype="<f2").view("<u2") & 0x7FFF
        return bool(bits.max() < 0x7C00)
    low, high = _limits(dtype)
    # NaN fails both comparisons.
    return bool(values.min() >= low) and bool(values.max() <= high)


def _complaint(values: npt.NDArray[Any], dtype: str) -> str:
    bad = values.size - int(np.isfinite(values).sum())
    if bad:
        return f"{bad} of {values.size} values are not finite"
    low, high = _limits(dtype)
    worst = max(values.min(), values.max(), key=abs)
    return f"a value of {worst:g} is outside what {dtype} holds here, {low:g} to {high:g}"


def _limits(dtype: str) -> tuple[float, float]:
    if dtype == "uint8":
        return 0.0, float(_LARGEST_UINT8)
    largest = float(np.finfo(dtype).max)
    return -largest, largest
