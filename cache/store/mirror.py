"""Mirror: what a work folder knows of the object store that it is connected to.

Of each part there the metadata are brought, which is enough to plan, to list and to find; parts
that are gone there go here; parts that only are here go there. Frames come when they are read
(`cache.store.copies`).
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cache.store.copies import UPLOADED, copied_bytes, upload
from cache.store.layout import METADATA, publishing, scratch_folder, withdraw, write_new
from cache.store.parts import CHUNK, PREFIX
from cache.store.remote import (
    FORMAT,
    RECORD,
    VERSION,
    Remote,
    checked_url,
    records,
    remote_of,
    upload_records,
)
from corpora.base.codec import Jsonable
from corpora.base.errors import CacheError, FormatVersionError, ObjectStoreError
from corpora.base.files import write_bytes, write_json
from corpora.base.terminal import bytes_text, count_text
from corpora.base.work import Work, exclusive_lock

#: Where processes that extract write what they work on (`cache.extract.claims`).
CLAIMS = ".claims"
# How often a process looks again what is there, where nothing tells it to.
_FRESH_S = 30.0
# Whoever works says so every few seconds, by its own clock and the store's.
_SILENT = timedelta(minutes=10)
# Nothing takes a day to send.
_LEFT = timedelta(days=1)
# Bytes of copies, where nothing else is said.
_LIMIT = 50_000_000_000
_looked: dict[Path, float] = {}


@dataclass(frozen=True)
class Connection(Jsonable):
    """What a work folder is connected to.

    Attributes:
        url: the object store.
        limit: bytes that copies may take here.
        parts: how many lie there.
        nbytes: of their matrices.
        copied: bytes of them that are here.
        sent: bytes sent now.
    """

    json_entries = "url limit parts bytes=nbytes copied_bytes=copied sent_bytes=sent"

    url: str
    limit: int
    parts: int
    nbytes: int
    copied: int
    sent: int

    def to_text(self) -> str:
        """The same to read."""
        return (
            f"{self.url}: {count_text(self.parts, 'part')}, {bytes_text(self.nbytes)}; here are "
            f"{bytes_text(self.copied)} of them, {bytes_text(self.limit)} at most. Sent now: "
            f"{bytes_text(self.sent)}."
        )


def connect(work: Work, url: str | None, limit: int | None) -> Connection:
    """Connect a work folder's cache to an object store, and bring both to the same state.

    Args:
        work: the work folder, with a cache or without.
        url: where to; None: where it is connected to.
        limit: bytes that copies may take here; None: as it was, or 50 GB.

    Raises:
        ConfigError: the URL is none of an object store.
        CacheError: it is connected to nothing and no URL is named, or the cache is in use.
        ObjectStoreError: the store does not answer.
        MissingExtraError: obstore is not installed.
    """
    before = remote_of(work.root)
    if url is not None:
        url = checked_url(url)
    elif before is not None:
        url = before.url
    else:
        raise CacheError(
            f"{work.root} is connected to no object store. Name one: cache connect "
            "s3://BUCKET/PREFIX."
        )
    now = Remote(url, limit or (_LIMIT if before is None else before.limit), work.root)
    now.list(CLAIMS)  # says what is wrong before anything is written
    work.root.mkdir(parents=True, exist_ok=True)
    if before is None or before.url != now.url:
        with exclusive_lock(work.features):
            _leave(work)
    value = {"format": FORMAT, "version": VERSION, "url": now.url, "limit": now.limit}
    write_json(work.root / RECORD, value)
    there = pull(work.root)
    now.delete([name for name, one in there.items() if _is_left(name, one, there)])
    sent = push(work.root)
    if work.extraction.is_file() and work.extraction.name not in there:
        upload_records(work.root)
    sizes = [one["size"] for name, one in now.list(work.features.name).items() if _is_matrix(name)]
    here = copied_bytes(work.root)
    return Connection(now.url, now.limit, len(sizes), sum(sizes), here, sent)


def refresh(work: Path) -> None:
    """Look what is there, unless that was a moment ago; nothing where nothing is connected."""
    if time.monotonic() - _looked.get(work, -_FRESH_S) >= _FRESH_S:
        pull(work)


def pull(work: Path) -> Mapping[str, Any]:
    """Bring the metadata of what is there and not here, and drop copies of what is gone there.

    Returns:
        What lies there, by name; nothing where nothing is connected.

    Raises:
        ObjectStoreError: the store does not answer, or holds nothing any more.
        FormatVersionError: what is there is of another version of the format.
    """
    remote = remote_of(work)
    if remote is None:
        return {}
    features = Work(work).features
    marked = list(features.glob(f"*/*/{PREFIX}*/{UPLOADED}"))  # before: these have been there
    there = remote.list("")
    _check_root(remote, features, there)
    # By depth: a group is there before what is in it.
    names = [n for n in there if n.startswith(f"{features.name}/") and n.endswith(f"/{METADATA}")]
    for depth in range(1, 5):
        wanted = [
            name
            for name in names
            if name.count("/") == depth
            and not (work / name).exists()
            and (work / name).parent.parent.is_dir()
            and (depth < 4 or f"{Path(name).parent.as_posix()}/{Path(CHUNK).as_posix()}" in there)
        ]
        for name, data in zip(wanted, remote.get_many(wanted), strict=True):
            if data is None:
                continue
            with publishing(scratch_folder(features), (work / name).parent) as site:
                write_new(site / METADATA, data)
                if depth == 4:  # a part, whose matrix is elsewhere
                    os.makedirs((site / CHUNK).parent)
                    write_new(site / UPLOADED, b"")
    gone = {m.parent for m in marked if remote.name(m.parent / METADATA) not in there}
    if gone:
        with suppress(CacheError), exclusive_lock(features):  # somebody adds: the next time
            withdraw(_whole(remote, gone, there), scratch_folder(features), here_alone=True)
    if not Work(work).extraction.is_file():
        for name, data in records(remote).items():
            write_bytes(work / name, data)
    _looked[work] = time.monotonic()
    return there


def push(work: Path) -> int:
    """Send the parts that only are here; returns how many bytes.

    Raises:
        ObjectStoreError: the store does not answer.
    """
    if remote_of(work) is None:
        return 0
    found = sorted(Work(work).features.glob(f"*/*/{PREFIX}*/{METADATA}"))
    return sum(upload(path.parent) for path in found)


def refuse_if_claimed(work: Path) -> None:
    """Refuse to remove while another machine extracts into the same store.

    Raises:
        CacheError: one does, or was killed less than ten minutes ago.
    """
    remote = remote_of(work)
    if remote is None:
        return
    for name, one in remote.list(CLAIMS).items():
        if datetime.now(UTC) - one["last_modified"] < _SILENT and json.loads(remote.get(name)[0]):
            raise CacheError(
                f"{remote.url} is in use by an extraction. Wait until that is done (if it was "
                "killed: ten minutes), and try again."
            )


def _whole(remote: Remote, gone: Collection[Path], there: Collection[str]) -> list[Path]:
    """Parts that are gone; where all of a stream is, the stream."""
    found: list[Path] = []
    for stream in sorted({part.parent for part in gone}):
        own = sorted(part for part in gone if part.parent == stream)
        whole = remote.name(stream / METADATA) not in there
        whole = whole and sorted(stream.glob(f"{PREFIX}*")) == own
        found += [stream] if whole else own
    return found


def _check_root(remote: Remote, features: Path, there: Mapping[str, Any]) -> None:
    name = f"{features.name}/{METADATA}"
    if name in there and (features / METADATA).is_file():
        found, own = (
            json.loads(d) for d in (remote.get(name)[0], (features / METADATA).read_bytes())
        )
        if found.get("attributes") != own.get("attributes"):
            raise FormatVersionError(
                f"{remote.url} holds {found.get('attributes')}, but this version of Emopool writes "
                f"{own.get('attributes')}. Use the Emopool version that wrote it, or another URL."
            )
    elif name not in there and any(features.glob(f"*/*/{PREFIX}*/{UPLOADED}")):
        raise ObjectStoreError(
            f"{remote.url} holds no cache any more, but parts of {features} were sent there. Mend "
            "the URL or the bucket, or connect to another URL (`cache connect URL`), which sends "
            "what is here."
        )


def _leave(work: Work) -> None:
    """Forget the store before: what is here will be sent to the next one, what is not here goes."""
    for mark in list(work.features.glob(f"*/*/{PREFIX}*/{UPLOADED}")):
        if (mark.parent / CHUNK).is_file():
            mark.unlink()
        else:
            withdraw([mark.parent], scratch_folder(work.features), here_alone=True)


def _is_left(name: str, one: Any, there: Mapping[str, Any]) -> bool:  # noqa: ANN401 - obstore's
    """Whether a matrix was sent by somebody who was killed, and is not on its way to a commit."""
    commit = f"{name.removesuffix(Path(CHUNK).as_posix())}{METADATA}"
    old = datetime.now(UTC) - one["last_modified"] > _LEFT
    return _is_matrix(name) and commit not in there and old


def _is_matrix(name: str) -> bool:
    return name.endswith(f"/{Path(CHUNK).as_posix()}")
