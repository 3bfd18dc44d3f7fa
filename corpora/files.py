"""The one way files are written: a temporary file beside the target, fsync, `os.replace`."""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from corpora.errors import FormatVersionError

#: How a pointer of Git LFS begins (its specification, version 1).
LFS_POINTER = b"version https://git-lfs.github.com/spec/"


def fsync_folder(folder: Path) -> None:
    """Make the folder's entries durable (a rename is only on disk after this)."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the same folder; on success it becomes `path`, else it is removed.

    The name keeps the suffix, because some writers choose their format by it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{uuid.uuid4().hex}.tmp{path.suffix}")
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
        fsync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """Yield the path of a folder to be made; on success it becomes `target`, else it is removed.

    Of two processes that make the same folder at once one wins, and both find it there.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}.tmp")
    try:
        yield temporary
        for path in temporary.iterdir():
            with path.open("rb+") as file:
                os.fsync(file.fileno())
        fsync_folder(temporary)
        try:
            os.rename(temporary, target)
        except OSError:
            if not target.is_dir():  # another process was faster otherwise
                raise
        fsync_folder(target.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_bytes(path: Path, data: bytes) -> None:
    """Write `data` to `path` atomically."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` as UTF-8, atomically and without newline translation."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path, value: object) -> None:
    """Write `value` as indented UTF-8 JSON, atomically. Key order is kept as given."""
    write_text(path, json.dumps(value, ensure_ascii=False, indent=2, allow_nan=False) + "\n")


def is_lfs_pointer(path: Path) -> bool:
    """Whether a file is what Git LFS leaves where the file itself was not fetched."""
    try:
        with path.open("rb") as file:
            return file.read(len(LFS_POINTER)) == LFS_POINTER
    except OSError:
        return False


def read_json(path: Path, *, kind: str, version: int) -> dict[str, Any]:
    """Read a JSON object that says which format and version it has.

    Args:
        path: the file.
        kind: the value its "format" entry must have.
        version: the value its "version" entry must have.

    Raises:
        FormatVersionError: the file is not JSON, or another format or version.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise FormatVersionError(
            f"{path} is not readable as JSON ({error}). "
            "Restore the file, or delete it and run the command that writes it again."
        ) from error
    found = (value.get("format"), value.get("version")) if isinstance(value, dict) else None
    if found != (kind, version):
        raise FormatVersionError(
            f"{path} has format {found}, but this version of Emopool reads "
            f"('{kind}', {version}). Use the Emopool version that wrote it, or another work folder."
        )
    return dict(value)
