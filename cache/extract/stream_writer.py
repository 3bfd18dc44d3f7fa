"""StreamWriter: one thread that stores batches while the next ones are encoded.

What waits to be stored is bounded, so a slow disk slows the encoder down instead of filling the
memory. Parts are committed in time also where nothing is added any more. Leaving early (an
interrupt, an error of the encoder) stores what was encoded.

How processes divide an extraction without a coordinator: shares of the keys, held by locks.

Every content key belongs to one of 1,024 shares. A process works only on shares it holds, and
holds them by byte-range locks on `WORK/.extract.lock`, which a killed process loses with its life:
whoever looks next takes them over and finds from the cache what is missing. A process without
anything to do says so by a shared lock on one more byte; whoever has much left then commits what it
has done and lets go of half of its shares.

A process on its own holds all shares, so it keeps one global order of length. The ranks of torchrun
begin with every n-th share each. Extractions of other streams use other bytes of the file and never
wait for one another. Locks of this kind (`fcntl`) also work on network file systems.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Collection, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np

from cache.extract.claims import Claimed, open_claims
from cache.extract.encoding import Encoded, Row
from cache.extract.summary import ExtractReport
from cache.extract.targets import Target
from cache.store.layout import ensure_stream
from cache.store.remote import remote_of
from cache.store.writer import PartWriter
from corpora.base.errors import CacheError
from corpora.base.work import Rank

# Enough for hundreds of processes; taking them all is a thousand system calls (2 ms; 1 s over NFS).
SHARES = 1024
# How often somebody without work looks for some.
POLL_SECONDS = 0.5
# Others need a moment to take what was let go before they are asked again.
_PAUSE_SECONDS = 3 * POLL_SECONDS


def share_of(key: str) -> int:
    """The share of a content key: even, because keys are hashes."""
    return int(key[:8], 16) % SHARES


class Shares:
    """The shares this process holds. Made by `open_shares`; one at a time in a process.

    Args:
        descriptor: of the lock file.
        base: first byte of this extraction's range.
        rank: this process's.
    """

    def __init__(self, descriptor: int, base: int, rank: Rank) -> None:
        self._descriptor = descriptor
        self._base = base
        self._rank = rank
        self._given = time.monotonic() - _PAUSE_SECONDS
        self._begun = False

    def take(self, wanted: Collection[int]) -> list[int]:
        """Take those of the wanted shares that are free; at first only this rank's own."""
        own = [share for share in wanted if share % self._rank.count == self._rank.number]
        begun, self._begun = self._begun, True
        asked = sorted(wanted if begun else own)
        return [share for share in asked if self._hold(share, fcntl.LOCK_EX)]

    def release(self, shares: Iterable[int]) -> None:
        """Let go; what was done in them must have been committed."""
        for share in shares:
            fcntl.lockf(self._descriptor, fcntl.LOCK_UN, 1, self._base + share)

    def wait(self) -> None:
        """Say that this process has nothing to do, and wait a little.

        It goes on saying so until `busy`.
        """
        self._hold(SHARES, fcntl.LOCK_SH)
        time.sleep(POLL_SECONDS)

    def busy(self) -> None:
        """This process has something to do again."""
        self.release([SHARES])

    def is_anyone_waiting(self) -> bool:
        """Whether another process has nothing to do, and had time to take what was let go last."""
        if time.monotonic() - self._given < _PAUSE_SECONDS:
            return False
        if self._hold(SHARES, fcntl.LOCK_EX):
            self.release([SHARES])
            return False
        return True

    def give(self, shares: Iterable[int]) -> None:
        """Let go of shares for the sake of others; what was done in them is committed."""
        self.release(shares)
        self._given = time.monotonic()

    def _hold(self, share: int, kind: int) -> bool:
        try:
            fcntl.lockf(self._descriptor, kind | fcntl.LOCK_NB, 1, self._base + share)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):
                return False
            raise CacheError(
                f"the file system of the work folder has no file locks ({error.strerror}), so "
                "processes cannot divide an extraction. Mount it with locks (Lustre: `-o flock`), "
                "or put the work folder elsewhere."
            ) from error
        return True


@contextmanager
def open_shares(root: Path, streams: Iterable[str], rank: Rank) -> Iterator[Shares | Claimed]:
    """Shares of the extraction of some streams; leaving lets go of all.

    Of a work folder that is connected to an object store they are held there.

    Args:
        root: the work folder.
        streams: paths of the streams to be filled; processes with the same ones work together.
        rank: this process's.
    """
    named = hashlib.sha256("\n".join(sorted(streams)).encode()).digest()
    # 32 bits of the hash: two extractions meet once in billions, and then only wait for each other.
    base = int.from_bytes(named[:4], "big") * 2 * SHARES
    remote = remote_of(root)
    if remote is not None:
        with open_claims(remote, named.hex()[:32], rank) as claimed:
            yield claimed
        return
    path = root / ".extract.lock"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        yield Shares(descriptor, base, rank)
    finally:
        os.close(descriptor)


# Bytes that may wait to be stored, beside one batch whatever its size: enough to bridge the fsync
# of a part (128 MB), little beside an encoder.
QUEUE_BYTES = 256_000_000
# How often parts are looked at that nothing is added to.
IDLE_SECONDS = 5.0


class StreamWriter:
    """A context manager; the part writers live in its thread.

    Args:
        features: the Zarr group of all streams.
        report: what is stored is noted here, and what cannot be; all after `commit` or leaving.
    """

    def __init__(self, features: Path, report: ExtractReport) -> None:
        self._report = report
        self._features = features
        self._queue: deque[Encoded | threading.Event] = deque()
        self._bytes = 0
        self._changed = threading.Condition()
        self._closing = False
        self._ended = False
        # Its future carries an error over. Not a daemon: what was encoded is stored even if the
        # main thread is interrupted twice.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="stream-writer")
        self._result: Future[None] | None = None

    def __enter__(self) -> StreamWriter:
        self._result = self._thread.submit(self._run)
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.shutdown()
        if error is None and self._result is not None:
            self._result.result()

    def put(self, batch: Encoded) -> None:
        """Hand over a batch; waits while too much is waiting.

        Raises:
            OSError: an earlier batch could not be stored: the disk is full or failed.
        """
        with self._changed:
            while self._queue and self._bytes + batch.nbytes > QUEUE_BYTES and not self._ended:
                self._changed.wait()
            self._raise_if_ended()
            self._queue.append(batch)
            self._bytes += batch.nbytes
            self._changed.notify_all()

    def commit(self) -> None:
        """Wait until everything handed over is in the cache.

        Raises:
            OSError: it cannot be.
        """
        done = threading.Event()
        with self._changed:
            self._raise_if_ended()
            self._queue.append(done)
            self._changed.notify_all()
        done.wait()
        self._raise_if_ended()

    def _raise_if_ended(self) -> None:
        """Before it is told to, the thread only ends by an error."""
        if self._ended and self._result is not None:
            self._result.result()

    def _run(self) -> None:
        writers: dict[str, PartWriter] = {}
        try:
            with ExitStack() as stack:
                while (task := self._next(writers)) is not None:
                    if isinstance(task, threading.Event):
                        try:
                            for writer in writers.values():
                                writer.commit()
                        finally:
                            self._ended = sys.exception() is not None
                            task.set()
                    else:
                        task.ready()
                        for row in task.rows:
                            self._store(row, writers, stack)
        finally:
            with self._changed:
                self._ended = True
                for left in self._queue:  # nobody may wait for a thread that is gone
                    if isinstance(left, threading.Event):
                        left.set()
                self._queue.clear()
                self._changed.notify_all()

    def _next(self, writers: dict[str, PartWriter]) -> Encoded | threading.Event | None:
        """The next task; None when there are no more. Commits old parts while waiting."""
        while True:
            with self._changed:
                if not self._queue and not self._closing:
                    self._changed.wait(IDLE_SECONDS)
                task = self._queue.popleft() if self._queue else None
                if isinstance(task, Encoded):
                    self._bytes -= task.nbytes
                self._changed.notify_all()
                if task is None and self._closing:
                    return None
            for writer in writers.values():
                writer.commit_if_old()
            if task is not None:
                return task

    def _store(self, row: Row, writers: dict[str, PartWriter], stack: ExitStack) -> None:
        """Store one input in all its streams; what cannot be stored is a failure of its own."""
        try:
            for target, key, values in row.values:
                if target.path not in writers:
                    writer = _open(self._features, target, values.shape[1])
                    writers[target.path] = stack.enter_context(writer)
                writers[target.path].add(key, values)
                self._report.add(target.path)
        except CacheError as error:
            utterance = row.item.utterance
            self._report.fail(row.item, f"utterance {utterance.id}: {error}")


def _open(features: Path, target: Target, dim: int) -> PartWriter:
    folder = ensure_stream(features, target.recipe, target.name, dim, target.dtype)
    return PartWriter(folder, dim, np.dtype(target.dtype))
