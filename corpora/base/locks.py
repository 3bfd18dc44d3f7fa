"""Processes beside one another: who may touch a folder, and which of several this one is.

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
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from corpora.base.errors import CacheError, ConfigError


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


@dataclass(frozen=True)
class Rank:
    """One process of a job.

    Attributes:
        number: 0 to `count - 1`; 0 speaks and writes the record for all.
        count: how many there are.
        local: its number on this machine, which picks the GPU.
    """

    number: int = 0
    count: int = 1
    local: int = 0

    @property
    def leads(self) -> bool:
        """Whether it is the one that speaks."""
        return self.number == 0


def current_rank(environment: Mapping[str, str] | None = None) -> Rank:
    """This process's rank: from RANK, WORLD_SIZE and LOCAL_RANK, or the only one without them.

    Raises:
        ConfigError: one of them is not a number that fits the others.
    """
    values = os.environ if environment is None else environment
    if "RANK" not in values or "WORLD_SIZE" not in values:
        return Rank()
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
    try:
        number, count, local = (int(values.get(name, "0")) for name in names)
    except ValueError:
        number, count, local = -1, 0, 0
    if not 0 <= number < count or local < 0:
        found = ", ".join(f"{name}={values.get(name, '')}" for name in names)
        raise ConfigError(
            f"{found} in the environment is no rank of a job. torchrun sets them; unset them to "
            "run one process."
        )
    return Rank(number, count, local)
