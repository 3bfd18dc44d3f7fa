"""The one way files are written: a temporary file beside the target, fsync, `os.replace`.

JSON that says its format also holds a digest of its values, for it gives weights their meaning:
labels in another order turn one emotion into another. What was changed is refused; in the
manifest's, which is made to be changed by hand, it is said.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import secrets
import shutil
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from corpora.base.errors import EmopoolError, FormatVersionError

DIGEST = "digest"
#: What a folder that was made here consists of, so that damage to it is known.
CONTENTS = "sha256.json"
_FOLDER = "emopool-folder"
# A name of something under way says when, by which process, on which host it was begun. Nothing
# takes a day to write: what is older belongs to nobody, whatever its machine.
STALE_S = 24 * 3600
_STAMP = re.compile(r"(?P<ns>[0-9a-f]{16})-(?P<pid>\d+)-[0-9a-f]{8}-(?P<host>[A-Za-z0-9._-]+)")
_UNDER_WAY = re.compile(rf"\.[^/]*\.(?P<stamp>{_STAMP.pattern})\.(?P<kind>tmp|old)(\.[^/.]*)?")
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


#: How a pointer of Git LFS begins (its specification, version 1).
LFS_POINTER = b"version https://git-lfs.github.com/spec/"
LFS_SENTENCE = (
    "is a Git LFS pointer, a few lines in place of the file. Run `git lfs pull` in its repository."
)


def fsync_folder(folder: Path) -> None:
    """Make the folder's entries durable (a rename is only on disk after this)."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def new_stamp() -> str:
    """A unique part of a name that says whose something under way is."""
    return f"{time.time_ns():016x}-{os.getpid()}-{secrets.token_hex(4)}-{_host()}"


def abandoned(stamp: str) -> bool:
    """Whether what has this stamp belongs to a process that died, or is older than a day."""
    found = _STAMP.fullmatch(stamp)
    if found is None:
        return False
    age_s = (time.time_ns() - int(found["ns"], 16)) / 1e9
    return age_s > STALE_S or (found["host"] == _host() and not _alive(int(found["pid"])))


def under_way(target: Path, stamp: str, kind: str = "tmp") -> Path:
    """The hidden name beside `target` of something under way; its suffix is the target's."""
    stem = target.stem.encode()[:100].decode(errors="ignore")  # names hold 255 bytes
    return target.with_name(f".{stem}.{stamp}.{kind}{target.suffix}")


def left_under_way(target: Path, kind: str) -> list[str]:
    """Stamps of what killed processes left under way to `target`."""
    found = []
    with suppress(OSError):
        for name in sorted(os.listdir(target.parent)):
            parts = _UNDER_WAY.fullmatch(name)
            stamp = parts["stamp"] if parts is not None else ""
            if under_way(target, stamp, kind).name == name and abandoned(stamp):
                found.append(stamp)
    return found


def sweep(folder: Path) -> int:
    """Remove what killed processes left unfinished in a folder; returns how many there were.

    What stepped aside for something new ("old"), and that, are left to those who put them there.
    """
    removed = 0
    with suppress(OSError):
        names = os.listdir(folder)
        found = [parts for name in names if (parts := _UNDER_WAY.fullmatch(name))]
        aside = {parts["stamp"] for parts in found if parts["kind"] == "old"}
        for parts in found:
            if parts["stamp"] not in aside and abandoned(parts["stamp"]):
                remove(folder / parts[0])
                removed += 1
    return removed


def sweep_below(root: Path, *apart: Path) -> int:
    """The same for a folder and all below it, for those that nobody writes into again.

    Args:
        root: the folder. Hidden ones in it are somebody's own, or under way.
        apart: folders left out.
    """
    removed = 0
    for folder, inner, _ in os.walk(root):
        inner[:] = [n for n in inner if n[0] != "." and Path(folder, n) not in apart]
        removed += sweep(Path(folder))
    return removed


def remove(path: Path) -> None:
    """Remove a file or a folder, as far as that is possible."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _host() -> str:
    """This machine's name as part of a file name."""
    return re.sub(r"[^A-Za-z0-9.]", "_", socket.gethostname())[:60] or "unknown"


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)  # signal 0 tests only
    except ProcessLookupError:
        return False
    except PermissionError:
        return True  # somebody else's process
    return True


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the same folder; on success it becomes `path`, else it is removed.

    The name keeps the suffix, because some writers choose their format by it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    sweep(path.parent)
    temporary = under_way(path, new_stamp())
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
    sweep(target.parent)
    temporary = under_way(target, new_stamp())
    try:
        with writing(target):
            yield temporary
        files = {path.name: file_sha256(path) for path in sorted(temporary.iterdir())}
        write_json(temporary / CONTENTS, {"format": _FOLDER, "version": 1, "files": files})
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


def check_folder(folder: Path) -> None:
    """Compare a folder's files with what `new_folder` made; one made otherwise is taken as it is.

    Raises:
        FormatVersionError: files were altered or are missing.
    """
    if not (folder / CONTENTS).is_file():
        return
    expected = read_json(folder / CONTENTS, kind=_FOLDER, version=1)["files"]
    wrong = [
        name
        for name, digest in expected.items()
        if not (folder / name).is_file() or file_sha256(folder / name) != digest
    ]
    if wrong:
        raise FormatVersionError(
            f"{', '.join(wrong)} in {folder} was altered after it was written, or is missing. "
            "Delete the folder and run the command again, which makes it anew."
        )


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_bytes(path: Path, data: bytes) -> None:
    """Write `data` to `path` atomically."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` as UTF-8, atomically and without newline translation."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path, value: object) -> None:
    """Write `value` as indented UTF-8 JSON, atomically. Key order is kept as given.

    An object that says its format gets a digest, which `read_json` compares.
    """
    if isinstance(value, dict) and "format" in value:
        bare = {name: entry for name, entry in value.items() if name != DIGEST}
        value = {**bare, DIGEST: _digest(bare)}
    write_text(path, json.dumps(value, ensure_ascii=False, indent=2, allow_nan=False) + "\n")


def is_lfs_pointer(path: Path) -> bool:
    """Whether a file is what Git LFS leaves where the file itself was not fetched."""
    try:
        with path.open("rb") as file:
            return file.read(len(LFS_POINTER)) == LFS_POINTER
    except OSError:
        return False


def read_json(
    path: Path, *, kind: str, version: int, altered: Callable[[], None] | None = None
) -> dict[str, Any]:
    """Read a JSON object that says which format and version it has.

    Args:
        path: the file.
        kind: the value its "format" entry must have.
        version: the value its "version" entry must have.
        altered: called where the values do not fit the digest, for files that a person may change;
            by default that is an error.

    Raises:
        FormatVersionError: the file is not JSON, another format or version, or was altered.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        if is_lfs_pointer(path):
            raise FormatVersionError(f"{path} {LFS_SENTENCE}") from error
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
        if altered is not None:
            altered()
            return dict(value)
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
