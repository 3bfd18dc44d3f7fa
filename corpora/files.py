"""The one way files are written: a temporary file beside the target, fsync, `os.replace`.

JSON that says its format also holds a digest of its values, for it gives weights their meaning:
labels in another order turn one emotion into another. What a person changed is refused, except
in files that are made to be changed by hand (the manifest's).
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from corpora.errors import EmopoolError, FormatVersionError

DIGEST = "digest"
# How libraries written in other languages tell what the system said: safetensors and HDF5.
_SYSTEM_ERROR = re.compile(r"(?:os error |errno = )(\d+)")
# SQLite has words of its own.
_SQLITE_ERRORS = {
    "database or disk is full": errno.ENOSPC,
    "disk I/O error": errno.EIO,
    "attempt to write a readonly database": errno.EROFS,
}


def disk_error(error: BaseException) -> OSError | None:
    """What the disk said, where an error of any library comes from it: full, failed, read-only."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno is not None:
            return cause
        text = str(cause)
        found = _SYSTEM_ERROR.search(text)
        number = int(found[1]) if found else None
        for words, known in _SQLITE_ERRORS.items():
            if words in text:
                number = known
        if number is not None:
            return OSError(number, os.strerror(number))
        cause = cause.__cause__
    return None


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Whatever library writes `path` inside: where the disk fails, that is an OSError.

    Raises:
        OSError: the disk is full or failed.
    """
    try:
        yield
    except EmopoolError:
        raise
    except Exception as error:
        found = disk_error(error)
        if found is None or (found is error and found.filename):
            raise
        raise OSError(found.errno, found.strerror, str(path)) from error


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
        with writing(path):
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
        with writing(target):
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


def write_json(path: Path, value: object, *, sealed: bool = True) -> None:
    """Write `value` as indented UTF-8 JSON, atomically. Key order is kept as given.

    Args:
        path: the file.
        value: JSON values.
        sealed: whether an object that says its format gets a digest, which `read_json` compares.
    """
    if sealed and isinstance(value, dict) and "format" in value:
        bare = {name: entry for name, entry in value.items() if name != DIGEST}
        value = {**bare, DIGEST: _digest(bare)}
    write_text(path, json.dumps(value, ensure_ascii=False, indent=2, allow_nan=False) + "\n")


def read_json(path: Path, *, kind: str, version: int) -> dict[str, Any]:
    """Read a JSON object that says which format and version it has.

    Args:
        path: the file.
        kind: the value its "format" entry must have.
        version: the value its "version" entry must have.

    Raises:
        FormatVersionError: the file is not JSON, another format or version, or was altered.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
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
    if DIGEST in value and value.pop(DIGEST) != _digest(value):
        raise FormatVersionError(
            f"{path} was altered after it was written: its values do not fit its {DIGEST}. "
            "Restore the file, or delete it and run the command that writes it again."
        )
    return dict(value)


def _digest(value: Mapping[str, Any]) -> str:
    """SHA-256 of an object's canonical JSON: keys sorted, no spaces."""
    plain = json.loads(json.dumps(value))  # numbers as keys become text before they are sorted
    text = json.dumps(plain, ensure_ascii=True, sort_keys=True, separators=(",", ":"))
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()
