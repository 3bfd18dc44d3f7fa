"""How anything enters the cache: built in `WORK/.tmp`, made durable, then renamed into place.

It leaves the other way round: renamed out, then deleted. What is not renamed does not exist. A
killed process leaves its building site behind; the next writer clears away those whose process is
dead, and those older than a day.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from corpora.base.files import abandoned, fsync_folder, new_stamp

_SITE = "site-"


def scratch_folder(features: Path) -> Path:
    """Where things for the group at `features` are built: on the same file system, beside it."""
    return features.parent / ".tmp"


def new_site(scratch: Path) -> Path:
    """Create an empty folder to build in. Its name says when, by which process, on which host."""
    scratch.mkdir(parents=True, exist_ok=True)
    site = scratch / f"{_SITE}{new_stamp()}"
    os.mkdir(site)
    return site


def write_new(path: Path, data: bytes) -> None:
    """Write a new file and fsync it; its folder is made durable by `publish`."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        write_at(descriptor, data, 0)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_at(descriptor: int, data: bytes | memoryview, offset: int) -> None:
    """Write all of `data` at `offset` (one `pwrite` may write only a part of it)."""
    view = memoryview(data)
    while len(view):
        written = os.pwrite(descriptor, view, offset)
        view, offset = view[written:], offset + written


def publish(site: Path, target: Path) -> None:
    """Rename a finished building site to `target`: the commit.

    The files in it have been fsynced by whoever wrote them; the folders are here.

    Raises:
        OSError: `target` exists and is not an empty folder, or the disk failed.
    """
    for folder, _, _ in os.walk(site, topdown=False):
        fsync_folder(Path(folder))
    os.rename(site, target)
    fsync_folder(target.parent)


def withdraw(folders: Sequence[Path], scratch: Path) -> None:
    """Take folders out of the cache: each leaves it by one rename, then is deleted.

    The renames are made durable before anything is deleted, so that a power cut leaves a folder
    whole in its place or takes it away. Readers that have its files mapped go on reading. The
    caller holds the exclusive lock; folders that are gone already are passed over.
    """
    if not folders:
        return
    site = new_site(scratch)
    for number, folder in enumerate(folders):
        with suppress(FileNotFoundError):
            os.rename(folder, site / f"{number}-{folder.name}")
    for parent in sorted({folder.parent for folder in folders}):
        fsync_folder(parent)
    discard(site)


def discard(site: Path) -> None:
    """Remove a building site; what cannot be removed is left to `clear_stale_sites`."""
    shutil.rmtree(site, ignore_errors=True)


def clear_stale_sites(scratch: Path) -> None:
    """Remove the building sites of processes that died."""
    try:
        names = os.listdir(scratch)
    except FileNotFoundError:
        return
    for name in names:  # other rooms may use the folder too
        if name.startswith(_SITE) and abandoned(name.removeprefix(_SITE)):
            discard(scratch / name)
