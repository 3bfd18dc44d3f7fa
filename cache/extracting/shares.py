"""How processes divide an extraction without a coordinator: shares of the keys, held by locks.

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
import time
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from corpora.base.errors import CacheError
from corpora.base.ranks import Rank

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
        taken = [share for share in sorted(wanted if begun else own) if self._lock(share)]
        return taken

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

    def _lock(self, share: int) -> bool:
        return self._hold(share, fcntl.LOCK_EX)

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
def open_shares(root: Path, streams: Iterable[str], rank: Rank) -> Iterator[Shares]:
    """Shares of the extraction of some streams; leaving lets go of all.

    Args:
        root: the work folder.
        streams: paths of the streams to be filled; processes with the same ones work together.
        rank: this process's.
    """
    named = hashlib.sha256("\n".join(sorted(streams)).encode()).digest()
    # 32 bits of the hash: two extractions meet once in billions, and then only wait for each other.
    base = int.from_bytes(named[:4], "big") * 2 * SHARES
    path = root / ".extract.lock"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        yield Shares(descriptor, base, rank)
    finally:
        os.close(descriptor)
