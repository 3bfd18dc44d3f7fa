"""PartWriter: adds utterances to a stream, a part at a time.

Values go to the building site as they come, so memory stays small however many streams are open.
A writer that is killed loses the part it was building, nothing else; on a full disk what was added
before is committed when the writer closes, if there is room to, and the cache stays readable.
"""

from __future__ import annotations

import json
import os
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import numpy.typing as npt

from cache.store.copies import upload
from cache.store.layout import (
    DTYPES,
    METADATA,
    StreamHeader,
    clear_stale_sites,
    discard,
    new_site,
    publish,
    read_stream,
    scratch_folder,
    write_at,
    write_new,
)
from cache.store.parts import CHUNK, MAX_PART_BYTES, PART_BYTES, SUM_BYTES, metadata, part_name
from corpora.base.errors import CacheError
from corpora.base.work import shared_lock

# A killed run loses at most about two minutes; fewer, larger parts are quicker to index.
PART_SECONDS = 120.0
# Fill values say "nothing is here", so they are never stored.
_LARGEST_UINT8 = 254


@dataclass(frozen=True, slots=True)
class _Entry:
    """State after an utterance was written. Entering it in the site is what adds the utterance."""

    frames: int
    end: int  # bytes
    total: int  # CRC-32C of all bytes before `end`


class PartSite:
    """A part being built in `.tmp`. Whoever makes one holds a lock, and closes it in the end.

    Args:
        scratch: where to build; on the stream's file system.
        header: of the stream the part is for.

    Attributes:
        since: when it was made, by `time.monotonic`.
    """

    def __init__(self, scratch: Path, header: StreamHeader) -> None:
        self._header = header
        self._entries: dict[str, _Entry] = {}
        self._folder = new_site(scratch)
        chunk = self._folder / CHUNK
        os.mkdir(chunk.parent.parent)
        os.mkdir(chunk.parent)
        self._descriptor = os.open(chunk, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        self.since = time.monotonic()

    def __contains__(self, key: str) -> bool:
        return key in self._entries

    @property
    def nbytes(self) -> int:
        """Bytes of the matrix so far."""
        return self._last.end

    @property
    def _last(self) -> _Entry:
        return next(reversed(self._entries.values()), _Entry(0, 0, 0))

    def add(self, key: str, frames: npt.NDArray[Any]) -> None:
        """Add an utterance: `[T, dim]`, C order, as the stream stores them."""
        last, data = self._last, frames.reshape(-1).view(np.uint8)
        # At its offset, not at the file's end: what an interrupted call wrote is written over.
        write_at(self._descriptor, data.data, last.end)
        total = google_crc32c.extend(last.total, data)
        self._entries[key] = _Entry(len(frames), last.end + data.nbytes, total)

    def publish(self, stream_folder: Path, time_ns: int | None = None) -> None:
        """Finish the part and rename it into the stream; without utterances there is none.

        Where the work folder is connected to an object store, it is then sent there.

        Args:
            stream_folder: where to.
            time_ns: for its name; by default now, which is after all that takes long: of two parts
                with the same key the one committed first wins, and a reader's choice does not
                change when the second one arrives.
        """
        if not self._entries:
            return
        end, total = self._last.end, self._last.total
        os.ftruncate(self._descriptor, end)  # without what an interrupted call may have left
        write_at(self._descriptor, total.to_bytes(SUM_BYTES, "little"), end)
        os.fsync(self._descriptor)
        lengths = [entry.frames for entry in self._entries.values()]
        described = metadata(self._header, list(self._entries), lengths)
        write_new(self._folder / METADATA, json.dumps(described, separators=(",", ":")).encode())
        name = part_name(time.time_ns() if time_ns is None else time_ns)
        publish(self._folder, stream_folder / name)
        upload(stream_folder / name)

    def close(self) -> None:
        """Clear the site away, if it was not published."""
        os.close(self._descriptor)
        discard(self._folder)


class PartWriter:
    """Adds utterances to one stream; a context manager. Not to be shared by threads.

    Any number of writers, in any number of processes, may add to one stream at once. All hold the
    shared lock as long as they are open, so nothing is pruned under them. Leaving the context
    commits what was added, also after an error: each utterance is complete by itself.

    A part closes when the next utterance would make it larger than 128 MB, or two minutes after
    its first one, which is looked at when something is added: whoever adds nothing for a while
    calls `commit_if_old` now and then.

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
        self._site: PartSite | None = None
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

    def __exit__(self, *_: object) -> None:
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
        if self._site is not None and key in self._site:
            return
        if self._site is not None and self._site.nbytes + stored.nbytes > PART_BYTES:
            self.commit()
        if self._site is None:
            self._site = PartSite(self._scratch, self._header)
        site = self._site
        site.add(key, stored)
        if site.nbytes >= PART_BYTES:
            self.commit()
        self.commit_if_old()

    def commit_if_old(self) -> None:
        """Commit the part being built if its first utterance came two minutes ago.

        Raises:
            OSError: the disk is full or failed; the part is dropped.
        """
        if self._site is not None and time.monotonic() - self._site.since >= PART_SECONDS:
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
            site.publish(self._folder)
        finally:
            site.close()

    def close(self) -> None:
        """Commit what is left and release the lock. Closing twice is harmless."""
        try:
            self.commit()
        finally:
            self._lock.close()


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
