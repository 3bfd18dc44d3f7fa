"""Remote: the object store that a work folder is connected to (S3, Google Cloud, Azure).

`WORK/remote.json` says which. Objects are put and fetched through obstore, which is imported when
there is something to ask; whatever the store answers is one error of ours, or what was asked for.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any

from corpora.base.errors import ConfigError, MissingExtraError, ObjectStoreError
from corpora.base.files import atomic_path, read_json

SCHEMES = ("s3", "gs", "az")
#: In the work folder: what it is connected to.
RECORD = "remote.json"
FORMAT, VERSION = "emopool-remote", 1
# Brought side by side: one connection to S3 gives some 80 MB/s.
_BLOCK_BYTES, _CONNECTIONS = 16_000_000, 8
# What later commands read beside the frames.
_RECORDS = ("extraction.json", "failures.csv")


@dataclass(frozen=True)
class Remote:
    """Where a work folder's cache lies beside itself.

    Attributes:
        url: such as `s3://bucket/prefix`.
        limit: bytes that copies of what lies there may take here.
        work: the work folder.
    """

    url: str
    limit: int
    work: Path

    def name(self, path: Path | str) -> str:
        """Of something in the work folder: the object's name below the URL."""
        return os.path.relpath(path, self.work.absolute()).replace(os.sep, "/")

    def get(self, name: str) -> tuple[bytes, dict[str, Any]]:
        """An object, and which version of it that is, for `put`.

        Raises:
            FileNotFoundError: there is none.
        """
        with self._asking():
            found = _obstore().get(self._store, name)
            return bytes(found.bytes()), _version(found.meta)

    def get_many(self, names: Sequence[str]) -> Iterator[bytes | None]:
        """Small objects side by side, in order; None of one that is gone meanwhile."""

        def one(name: str) -> bytes | None:
            with suppress(FileNotFoundError):
                return self.get(name)[0]
            return None

        with ThreadPoolExecutor(_CONNECTIONS) as pool:
            yield from pool.map(one, names)

    def put(
        self, name: str, data: bytes | Path, *, onto: dict[str, Any] | None = None, new: bool = True
    ) -> bool:
        """Put an object; False where the condition does not hold, and nothing is put then.

        Args:
            name: the object's.
            data: bytes, or the file that has them.
            onto: only in place of this version.
            new: else: only where there is none.
        """
        obstore = _obstore()
        mode: Any = onto or ("create" if new else "overwrite")
        held = (obstore.exceptions.AlreadyExistsError, obstore.exceptions.PreconditionError)
        with self._asking(), suppress(*held):
            try:
                obstore.put(self._store, name, data, mode=mode)
            except FileNotFoundError as error:  # no such bucket
                raise self._failed(error) from error
            return True
        return False

    def list(self, prefix: str) -> dict[str, Any]:
        """Objects below a prefix by name, with `size` in bytes and `last_modified`."""
        with self._asking():
            chunks = _obstore().list(self._store, prefix)
            return {str(one["path"]): one for chunk in chunks for one in chunk}

    def delete(self, names: Sequence[str]) -> None:
        """Delete objects; those that are gone already are passed over."""
        with self._asking(), suppress(FileNotFoundError):
            if names:
                _obstore().delete(self._store, list(names))

    def size(self, name: str) -> int:
        """Bytes of an object.

        Raises:
            FileNotFoundError: there is none.
        """
        with self._asking():
            return int(_obstore().head(self._store, name)["size"])

    def bring(self, name: str, path: Path, size: int) -> None:
        """Write an object of a known size to a file, atomically.

        Raises:
            FileNotFoundError: there is no such object.
        """
        starts = range(0, size, _BLOCK_BYTES)

        def block(start: int) -> Any:  # noqa: ANN401 - a buffer of obstore's
            with self._asking():
                end = min(start + _BLOCK_BYTES, size)
                return _obstore().get_range(self._store, name, start=start, end=end)

        with (
            atomic_path(path) as temporary,
            temporary.open("xb") as file,
            ThreadPoolExecutor(_CONNECTIONS) as pool,
        ):
            for data in pool.map(block, starts):
                file.write(data)

    @property
    def _store(self) -> Any:  # noqa: ANN401 - obstore's
        with self._asking():
            return _store_of(self.url)

    @contextmanager
    def _asking(self) -> Iterator[None]:
        """Whatever the store answers, but that an object is not there, is one error of ours."""
        base = _obstore().exceptions.BaseError
        try:
            yield
        except base as error:
            raise self._failed(error) from error

    def _failed(self, error: Exception) -> ObjectStoreError:
        said = str(error).partition("\n")[0].partition(": <?xml")[0]
        code = str(error).partition("<Code>")[2].partition("</Code>")[0]
        return ObjectStoreError(
            f"{self.url}: {said}{f' ({code})' if code else ''}. Check bucket, network and "
            f"credentials (docs/scale.md) and run the same command again; what was stored in "
            f"{self.work} is kept."
        )


def _obstore() -> Any:  # noqa: ANN401 - a module
    try:
        import obstore
        import obstore.exceptions
        import obstore.store
    except ImportError as error:
        raise MissingExtraError(
            "the package that talks to object stores is not installed. Run "
            "`python -m pip install -c constraints.txt -e '.[objects]'`."
        ) from error
    return obstore


@lru_cache(maxsize=8)
def _store_of(url: str) -> Any:  # noqa: ANN401 - obstore's
    # Credentials, endpoint and whether that may be http come from the environment.
    retry = {"max_retries": 8, "retry_timeout": timedelta(seconds=60)}
    return _obstore().store.from_url(url, retry_config=retry)


def _version(meta: Any) -> dict[str, Any]:  # noqa: ANN401 - obstore's
    return {name: meta[name] for name in ("e_tag", "version") if meta[name] is not None}


def checked_url(url: str) -> str:
    """A URL without a slash at its end.

    Raises:
        ConfigError: it is not one of an object store, or names no bucket.
    """
    scheme, colon, place = url.partition("://")
    if not colon or scheme not in SCHEMES or not place.strip("/") or "?" in url:
        known = ", ".join(f"{name}://BUCKET/PREFIX" for name in SCHEMES)
        raise ConfigError(f"{url!r} is no object store; expected one of {known}.")
    return url.rstrip("/")


def remote_of(work: Path) -> Remote | None:
    """What a work folder is connected to; None where it is to nothing.

    Raises:
        FormatVersionError: the record is of another version, or was altered.
    """
    path = work / RECORD
    if not path.is_file():
        return None
    value = read_json(path, kind=FORMAT, version=VERSION)
    return Remote(value["url"], value["limit"], work)


def upload_records(work: Path) -> None:
    """Send what the last extraction asked for and could not use; of two writers the last counts."""
    remote = remote_of(work)
    if remote is None:
        return
    for name in _RECORDS:
        path = remote.work / name
        if path.is_file():
            remote.put(name, path.read_bytes(), new=False)
        else:
            remote.delete([name])


def records(remote: Remote) -> dict[str, bytes]:
    """What another folder's last extraction left."""
    found = zip(_RECORDS, remote.get_many(_RECORDS), strict=True)
    return {name: data for name, data in found if data is not None}
