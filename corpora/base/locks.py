"""Who may touch a cache at the same time.

Adding parts takes the shared lock: any number of processes may add at once. Pruning, merging and
repairing take the exclusive lock: nobody adds meanwhile. Reading takes none: parts are never
changed in place, and a reader that finds a part gone looks again.

The locks are `flock` on an empty file beside the group, `WORK/.features.zarr.lock` (inside the
group it would be a foreign object to Zarr; in `.tmp` somebody may sweep it away, and two processes
would hold locks on two different files). The file is never deleted. A killed process loses its
locks with its descriptors. Linux and macOS; Windows has no `flock`.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from corpora.base.errors import CacheError


def lock_path(features: Path) -> Path:
    """The lock file of the group at `features`."""
    return features.with_name(f".{features.name}.lock")


@contextmanager
def shared_lock(features: Path) -> Iterator[None]:
    """Hold the lock for adding to `features`; waits for a running prune, merge or repair.

    Raises:
        CacheError: the file system has no locks.
    """
    with _flock(features, fcntl.LOCK_SH):
        yield


@contextmanager
def exclusive_lock(features: Path) -> Iterator[None]:
    """Hold the lock for removing from `features`; refuses at once, for adding may take hours.

    Raises:
        CacheError: somebody is adding or removing, or the file system has no locks.
    """
    with _flock(features, fcntl.LOCK_EX | fcntl.LOCK_NB):
        yield


@contextmanager
def _flock(features: Path, operation: int) -> Iterator[None]:
    path = lock_path(features)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        try:
            fcntl.flock(descriptor, operation)
        except BlockingIOError as error:
            raise CacheError(
                f"{features} is in use by another process, which is adding to it or changing it. "
                "Wait until that is done, or stop it, and try again."
            ) from error
        except OSError as error:
            if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
                raise
            raise CacheError(
                f"The file system of {features} has no file locks ({error.strerror}), so the cache "
                "cannot be kept safe there. Mount it with locks (Lustre: `-o flock`), or put the "
                "work folder elsewhere."
            ) from error
        yield
    finally:
        os.close(descriptor)
