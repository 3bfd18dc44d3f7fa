"""StreamWriter: one thread that stores batches while the next ones are encoded.

What waits to be stored is bounded, so a slow disk slows the encoder down instead of filling the
memory. Parts are committed in time also where nothing is added any more. Leaving early (an
interrupt, an error of the encoder) stores what was encoded.
"""

from __future__ import annotations

import sys
import threading
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from types import TracebackType

import numpy as np

from cache.extracting.encoding import Encoded, Row
from cache.extracting.targets import Item, Target
from cache.store.layout import ensure_stream
from cache.store.writer import PartWriter
from corpora.base.errors import CacheError
from corpora.base.work import Work

# Bytes that may wait to be stored, beside one batch whatever its size: enough to bridge the fsync
# of a part (128 MB), little beside an encoder.
QUEUE_BYTES = 256_000_000
# How often parts are looked at that nothing is added to.
IDLE_SECONDS = 5.0


@dataclass
class Stored:
    """What was stored: new utterances by stream path, and what could not be, with reasons."""

    added: dict[str, int] = field(default_factory=dict)
    failed: list[tuple[Item, str]] = field(default_factory=list)


class StreamWriter:
    """A context manager; the part writers live in its thread.

    Args:
        work: the work folder.

    Attributes:
        stored: grows as the thread goes on; complete after `commit`, or after leaving.
    """

    def __init__(self, work: Work) -> None:
        self.stored = Stored()
        self._work = work
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

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
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
                    writer = _open(self._work, target, values.shape[1])
                    writers[target.path] = stack.enter_context(writer)
                writers[target.path].add(key, values)
                self.stored.added[target.path] = self.stored.added.get(target.path, 0) + 1
        except CacheError as error:
            utterance = row.item.utterance
            self.stored.failed.append((row.item, f"utterance {utterance.id}: {error}"))


def _open(work: Work, target: Target, dim: int) -> PartWriter:
    folder = ensure_stream(work.features, target.recipe, target.name, dim, target.dtype)
    return PartWriter(folder, dim, np.dtype(target.dtype))
