"""SourceIndex: the SHA-256 of recordings' bytes, so that unchanged files are not read again.

A table in `WORK/sources.sqlite`: path, size, times, inode → hash, and a seal of the row, for SQLite
does not see a flipped bit in a value. It holds nothing of value: a damaged file, or one of another
version, is deleted and built anew without a word, and one that cannot be written costs time only.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
import stat
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import NamedTuple, TypeVar

from corpora.base.errors import CacheError

T = TypeVar("T")

_VERSION = 2
_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS sources (path BLOB PRIMARY KEY, size INTEGER, mtime_ns INTEGER, "
    "ctime_ns INTEGER, inode INTEGER, sha256 TEXT, seal TEXT) WITHOUT ROWID"
)
# A file changed twice within one tick of the file system's clock looks unchanged the second time
# (git calls it racy). Ticks are up to 2 s (FAT); so a hash is kept only if the last change was
# longer ago than that when the file was read. Younger files are read again next time.
_MARGIN_NS = 3_000_000_000
#: Variables in one statement: SQLite's limit on them was 999 for long.
QUERY = 900
# Files hashed between two commits: a killed run reads at most these again.
_BATCH = 1024
# Reading waits for the disk; hashing runs outside the interpreter's lock.
_THREADS = min(16, (os.cpu_count() or 1) + 4)
#: So long another process may hold a database.
BUSY_S = 60.0
# Errors that say nothing of the file's contents; after any other one it is built anew.
_NO_DAMAGE = frozenset(
    {
        *(sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM),
        *(sqlite3.SQLITE_READONLY, sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_NOMEM),
    }
)


class _State(NamedTuple):
    """What changes when a file does."""

    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int


class SourceIndex:
    """Content hashes of files, remembered between runs; a context manager.

    Several processes may use one index at once. One thread may use this object.

    Args:
        path: of the SQLite file; its folder must exist.

    Raises:
        CacheError: it can be neither opened nor created.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._database = self._open()

    def __enter__(self) -> SourceIndex:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the database."""
        self._database.close()

    def content_hashes(self, paths: Iterable[Path], *, read: bool = True) -> dict[Path, str]:
        """SHA-256 of each file's bytes, as 64 hexadecimal digits.

        Only files that are new or have changed are read. A file that is missing, is no regular
        file or cannot be read is absent from the result: decoding it says what is wrong.

        Args:
            paths: of the files.
            read: else those that would have to be read are absent, too.
        """
        states = {path: state for path in dict.fromkeys(paths) if (state := _state(path))}
        known = self._known(list(states))
        hashes = {path: sha256 for path, (state, sha256) in known.items() if state == states[path]}
        if not read:
            return hashes
        with ThreadPoolExecutor(_THREADS) as threads:
            for batch in in_batches((path for path in states if path not in hashes), _BATCH):
                rows = []
                for path, hashed in zip(batch, threads.map(_hash, batch), strict=True):
                    if hashed is not None:
                        hashes[path], settled = hashed
                        if settled is not None:
                            row = (_name(path), *settled, hashes[path])
                            rows.append((*row, seal_of(row)))
                self._store(rows)
        return hashes

    def _open(self) -> sqlite3.Connection:
        try:
            database = sqlite3.connect(self._path, timeout=BUSY_S)
        except sqlite3.OperationalError as error:
            raise self._unusable(error) from error
        try:
            # No write-ahead log: it does not work for work folders on network file systems.
            (version,) = database.execute("PRAGMA user_version").fetchone()
            if version not in (0, _VERSION):
                raise sqlite3.DatabaseError(f"version {version}")
            if version == 0:
                with database:
                    database.execute(_SCHEMA)
                    database.execute(f"PRAGMA user_version = {_VERSION}")
            return database
        except sqlite3.DatabaseError as error:
            database.close()
            # Locked, full and read-only are errors of this class; those are no damage.
            if not _damaged(error):
                raise self._unusable(error) from error
        return self._rebuild()

    def _rebuild(self) -> sqlite3.Connection:
        self._path.unlink(missing_ok=True)
        self._path.with_name(self._path.name + "-journal").unlink(missing_ok=True)
        return self._open()

    def _known(self, paths: Sequence[Path]) -> dict[Path, tuple[_State, str]]:
        """Rows of the table for `paths`."""
        known: dict[Path, tuple[_State, str]] = {}
        try:
            for batch in in_batches(paths, QUERY):
                names = {_name(path): path for path in batch}
                marks = ",".join("?" * len(names))
                query = f"SELECT * FROM sources WHERE path IN ({marks})"
                with closing(self._database.execute(query, list(names))) as rows:
                    for *row, seal in rows:
                        name, *state, sha256 = row
                        if seal != seal_of(row) or name not in names:
                            raise sqlite3.DatabaseError("a row was altered")
                        known[names[name]] = (_State(*state), sha256)
        except sqlite3.DatabaseError as error:
            if not _damaged(error):
                raise self._unusable(error) from error
            self._database.close()
            self._database = self._rebuild()
            return {}
        return known

    def _unusable(self, error: sqlite3.Error) -> CacheError:
        return CacheError(
            f"{self._path} cannot be used ({error}). It must lie in a folder that can be written, "
            "and no other program may hold it open for long. It can be deleted at any time."
        )

    def _store(self, rows: Sequence[tuple[bytes | int | str, ...]]) -> None:
        try:
            with self._database:
                self._database.executemany(
                    "INSERT OR REPLACE INTO sources VALUES (?, ?, ?, ?, ?, ?, ?)", rows
                )
        except sqlite3.DatabaseError as error:
            if not _damaged(error):
                # Full, read-only, or locked for a minute: these files are read again next time.
                return
            self._database.close()
            self._database = self._rebuild()


def _state(path: Path) -> _State | None:
    """The file's state; None if it is not there or no regular file (a pipe would block)."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return _state_of(found) if stat.S_ISREG(found.st_mode) else None


def _state_of(found: os.stat_result) -> _State:
    # SQLite's integers are signed 64-bit; some file systems use all 64 bits of an inode.
    inode = found.st_ino % (1 << 63)
    return _State(found.st_size, found.st_mtime_ns, found.st_ctime_ns, inode)


def _hash(path: Path) -> tuple[str, _State | None] | None:
    """SHA-256 of a file, and its state if that can be relied on next time.

    Returns:
        None if the file cannot be read.
    """
    try:
        with open(path, "rb") as file:
            now_ns = time.time_ns()
            before = _state_of(os.fstat(file.fileno()))
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            after = _state_of(os.fstat(file.fileno()))
    except OSError:
        return None
    quiet = before == after and max(before.mtime_ns, before.ctime_ns) < now_ns - _MARGIN_NS
    return digest, before if quiet else None


def _name(path: Path) -> bytes:
    """Bytes, because a file name need not be text."""
    return os.fsencode(os.path.abspath(path))


def in_batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Items in lists of so many, the last of what is left."""
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch


def _damaged(error: sqlite3.Error) -> bool:
    # The low byte is the kind, what is above it the details.
    return getattr(error, "sqlite_errorcode", 0) & 0xFF not in _NO_DAMAGE


def seal_of(row: Sequence[object]) -> str:
    """A checksum of a row's values."""
    return hashlib.sha256(repr(tuple(row)).encode()).hexdigest()[:16]
