"""Copies: parts that lie in an object store too, and how they come and go.

A part is built and committed here as ever, then sent as two objects, the matrix first. Its
`zarr.json`, put last and only where there is none, is the commit; what has none does not exist.
Below URL/features.zarr lies the same plain Zarr group as here, and objects never change.

Of each part there, `zarr.json` is here always; the matrix is a copy, brought when it is first
opened. It may go again, the one used longest ago first, so that copies take no more than the
folder's limit. An empty file `uploaded` marks parts that are there. A file that is open or mapped
is locked (`flock`), and never goes.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from io import BufferedReader
from pathlib import Path

from cache.store.remote import Remote, remote_of
from corpora.base.errors import ObjectStoreError

#: In a part's folder: it lies in the object store too.
UPLOADED = "uploaded"
_COMMIT = "zarr.json"
_CHUNK = os.path.join("c", "0", "0")


def is_uploaded(part: Path | str) -> bool:
    """Whether a part lies in the object store too, so that its matrix need not be here."""
    return os.path.exists(os.path.join(part, UPLOADED))


def open_matrix(part: str) -> BufferedReader:
    """Open the matrix of a part's folder for reading; brought first, if it is not here.

    As long as the file is open or mapped, it stays.

    Raises:
        FileNotFoundError: it is neither here nor there.
        ObjectStoreError: the store does not answer.
    """
    path = os.path.join(part, _CHUNK)
    while True:
        try:
            file = open(path, "rb")  # noqa: SIM115 - the caller closes it
        except FileNotFoundError:
            if not is_uploaded(part):
                raise
            _bring(Path(part))
            continue
        if is_uploaded(part):
            # Should it go before it is locked: what is open can be read to its end.
            fcntl.flock(file, fcntl.LOCK_SH)
            with suppress(OSError):  # a folder that can only be read
                os.utime(path)
        return file


def _work_of(part: Path) -> Path:
    return part.absolute().parents[3]


def _bring(part: Path) -> None:
    remote = remote_of(_work_of(part))
    if remote is None:
        raise ObjectStoreError(
            f"the frames of {part} lie in an object store, and {_work_of(part)} is not connected "
            "to it any more. Connect it again: `python cli.py cache connect URL`."
        )
    target = part.absolute() / _CHUNK
    with _turn(remote):
        if target.exists():  # another process was faster
            return
        name = remote.name(target)
        size = remote.size(name)
        _make_room(remote, size)
        remote.bring(name, target, size)


@contextmanager
def _turn(remote: Remote) -> Iterator[None]:
    """One process of a work folder at a time brings and makes room, so that the limit holds."""
    with open(remote.work / ".remote.lock", "wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def copied_bytes(work: Path) -> int:
    """What copies of matrices that lie in the store take in a work folder."""
    return sum(stat.st_size for _, stat in _copies(work))


def _copies(work: Path) -> list[tuple[Path, os.stat_result]]:
    found = []
    for mark in (work / "features.zarr").glob(f"*/*/*/{UPLOADED}"):
        path = mark.parent / _CHUNK
        with suppress(FileNotFoundError):
            found.append((path, path.stat()))
    return found


def _make_room(remote: Remote, incoming: int) -> None:
    """Remove the copies used longest ago until there is room; what is in use stays."""
    found = _copies(remote.work)
    over = sum(stat.st_size for _, stat in found) + incoming - remote.limit
    for path, stat in sorted(found, key=lambda one: one[1].st_mtime_ns):
        if over <= 0:
            return
        with suppress(OSError), path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()
            over -= stat.st_size


def upload(part: Path) -> int:
    """Send a committed part where its folder is connected; returns how many bytes.

    A part that is there is not sent again. Killed in between, there is no commit yet: whoever
    reads does not see the part, and the next `extract` of this folder sends it anew.

    Raises:
        ObjectStoreError: the store does not answer; the part is here.
    """
    remote = remote_of(_work_of(part))
    if remote is None or is_uploaded(part):
        return 0
    part = part.absolute()
    for group in (part.parents[2], part.parents[1], part.parent):
        remote.put(remote.name(group / _COMMIT), (group / _COMMIT).read_bytes())
    chunk = part / _CHUNK
    # Not conditional, since what a killed run left may be there; these are the same bytes.
    remote.put(remote.name(chunk), chunk, new=False)
    remote.put(remote.name(part / _COMMIT), (part / _COMMIT).read_bytes())
    nbytes = chunk.stat().st_size
    (part / UPLOADED).touch()
    with _turn(remote):
        _make_room(remote, 0)
    return nbytes


def remove(folders: Iterable[Path], work: Path) -> None:
    """Delete parts, streams or recipes there: commits first, so that no half of a part is seen."""
    remote = remote_of(work)
    if remote is None:
        return
    for folder in folders:
        names = list(remote.list(remote.name(folder)))
        remote.delete([name for name in names if name.endswith(_COMMIT)])
        remote.delete([name for name in names if not name.endswith(_COMMIT)])
