"""The folders of a cache: plain Zarr v3 groups, written and read as the JSON they are.

```
WORK/features.zarr/               attributes: {"format": "emopool-features", "version": 1}
  <kind>-<fingerprint>/           a recipe's; attributes: {"kind": …, "fields": {…}}
    <stream>/                     attributes: {"dim": 1024, "dtype": "float16"}
      part-<time>-<random>/       a Zarr array; see `cache.store.parts`
```

Groups are published by rename as parts are, so none is ever seen half-made.

How anything enters the cache: built in `WORK/.tmp`, made durable, then renamed into place.

It leaves the other way round: renamed out, then deleted. What is not renamed does not exist. A
killed process leaves its building site behind; the next writer clears away those whose process is
dead, and those older than a day.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cache.recipe import JSON, Recipe, difference
from cache.store.copies import remove
from corpora.base.errors import CacheError, ConfigError, FormatVersionError, MissingStepError
from corpora.base.files import abandoned, fsync_folder, new_stamp
from corpora.base.work import shared_lock

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


def withdraw(folders: Sequence[Path], scratch: Path, *, here_alone: bool = False) -> None:
    """Take folders out of the cache: each leaves it by one rename, then is deleted.

    Where the cache lies in an object store too, they leave that first, so that a kill in between
    does not bring them back; unless they are to leave `here_alone`.

    The renames are made durable before anything is deleted, so that a power cut leaves a folder
    whole in its place or takes it away. Readers that have its files mapped go on reading. The
    caller holds the exclusive lock; folders that are gone already are passed over.
    """
    if not folders:
        return
    if not here_alone:
        remove(folders, scratch.parent)
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


FORMAT = "emopool-features"
VERSION = 1
METADATA = "zarr.json"
# What a stream may hold. Little-endian on every machine: files are mapped, never converted.
DTYPES = {name: np.dtype(name).newbyteorder("<") for name in ("float16", "float32", "uint8")}


@dataclass(frozen=True)
class StreamHeader:
    """What all parts of a stream share.

    Attributes:
        dim: values per frame.
        dtype: "float16", "float32" or "uint8".
    """

    dim: int
    dtype: str

    @property
    def frame_bytes(self) -> int:
        """Bytes of one frame."""
        return self.dim * DTYPES[self.dtype].itemsize


def open_features(work_features: Path) -> Path:
    """Create the cache's root group if there is none; check that it is one of this version.

    Args:
        work_features: `WORK/features.zarr`.

    Raises:
        FormatVersionError: the folder is something else, or of another version.
    """
    if not work_features.exists():
        work_features.parent.mkdir(parents=True, exist_ok=True)
        _publish_group(
            scratch_folder(work_features), work_features, {"format": FORMAT, "version": VERSION}
        )
    _check_root(work_features)
    return work_features


def ensure_stream(
    features: Path, recipe: Recipe, stream: str, dim: int, dtype: npt.DTypeLike
) -> Path:
    """Create the folder of one stream of a recipe, or check the one that is there.

    Args:
        features: the root group, from `open_features`.
        recipe: what makes the numbers.
        stream: "layer_24", "values", "token_kind", …
        dim: values per frame.
        dtype: float16, float32 or uint8.

    Returns:
        `features/<kind>-<fingerprint>/<stream>`, for `FrameStream.open` and `PartWriter`.

    Raises:
        CacheError: the folder exists with another recipe, dim or dtype.
        ConfigError: a name, dim or dtype that the format does not have.
    """
    header = _checked_header(stream, dim, dtype)
    folder = features / recipe.folder
    with shared_lock(features):
        _check_root(features)
        scratch = scratch_folder(features)
        if not folder.exists():
            _publish_group(scratch, folder, {"kind": recipe.kind, "fields": recipe.fields})
        found = read_recipe(folder)
        if found != recipe:
            raise CacheError(
                f"{folder} was made by another recipe than its name says: "
                f"{'; '.join(difference(found, recipe))}. Move it away and run `extract` again."
            )
        if not (folder / stream).exists():
            _publish_group(scratch, folder / stream, {"dim": dim, "dtype": header.dtype})
    there = read_stream(folder / stream)
    if there != header:
        raise CacheError(
            f"{folder / stream} holds {there.dim}-d {there.dtype} frames, but {dim}-d "
            f"{header.dtype} frames are to be added. One recipe gives one shape: name what "
            "differs in the recipe's fields."
        )
    return folder / stream


def read_recipe(folder: Path) -> Recipe:
    """The recipe of a folder directly inside `features.zarr`.

    Raises:
        FormatVersionError: the folder is not a recipe's.
    """
    attributes = _read_group(folder)
    try:
        return Recipe(attributes["kind"], attributes["fields"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise FormatVersionError(
            f"{folder} is not a recipe's folder: its attributes are {sorted(attributes)}, expected "
            "['fields', 'kind']. Move it out of the cache."
        ) from error


def read_stream(path: Path) -> StreamHeader:
    """Check that `path` is a stream folder of this version of the format, and read its header.

    Raises:
        MissingStepError: there is no such folder.
        FormatVersionError: it is something else, or belongs to another version.
    """
    if not path.exists():
        raise MissingStepError(f"{path} does not exist: these features were not extracted yet.")
    _check_root(path.parent.parent)
    attributes = _read_group(path)
    dim, dtype = attributes.get("dim"), attributes.get("dtype")
    if not (isinstance(dim, int) and dim > 0 and dtype in DTYPES):
        raise FormatVersionError(
            f"{path} is not a stream: its dim is {dim!r} and its dtype {dtype!r}. A stream is a "
            f"folder such as features.zarr/audio-<fingerprint>/layer_24, of {_names(DTYPES)}."
        )
    return StreamHeader(dim, str(dtype))


def _checked_header(stream: str, dim: int, dtype: npt.DTypeLike) -> StreamHeader:
    if not re.fullmatch(r"[a-z][a-z0-9_]*", stream):
        raise ConfigError(
            f"a stream's name is lower case letters, digits and underscores, got {stream!r}"
        )
    name = np.dtype(dtype).name
    if name not in DTYPES or dim < 1:
        raise ConfigError(
            f"stream {stream}: expected dim of at least 1 and one of {_names(DTYPES)}, got "
            f"dim {dim} and {name}"
        )
    return StreamHeader(dim, name)


def _check_root(features: Path) -> None:
    attributes = _read_group(features)
    found = (attributes.get("format"), attributes.get("version"))
    if found != (FORMAT, VERSION):
        raise FormatVersionError(
            f"{features} has format {found}, but this version of Emopool reads "
            f"{(FORMAT, VERSION)}. Use the Emopool version that wrote it, or another work folder."
        )


def _read_group(folder: Path) -> dict[str, Any]:
    """The attributes of the Zarr v3 group at `folder`."""
    try:
        metadata = json.loads((folder / METADATA).read_bytes())
        if metadata["zarr_format"] != 3 or metadata["node_type"] != "group":
            raise ValueError("not a Zarr v3 group")
        return dict(metadata.get("attributes", {}))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FormatVersionError(
            f"{folder} is not a folder of a feature cache ({METADATA}: {error}). Expected a Zarr "
            "v3 group made by Emopool; check the path, or use another work folder."
        ) from error


def _publish_group(scratch: Path, folder: Path, attributes: Mapping[str, JSON]) -> None:
    """Create a group; of two processes that do so at once one wins, and both may go on."""
    metadata = {"zarr_format": 3, "node_type": "group", "attributes": attributes}
    with publishing(scratch, folder) as site:
        write_new(site / METADATA, json.dumps(metadata, indent=2, allow_nan=False).encode())


@contextmanager
def publishing(scratch: Path, folder: Path) -> Iterator[Path]:
    """Yield a site that becomes `folder`, unless another process was faster.

    Raises:
        OSError: the disk is full or failed.
    """
    site = new_site(scratch)
    try:
        yield site
        publish(site, folder)
    except OSError:
        # Renaming onto a folder with something in it fails.
        if not os.path.exists(folder / METADATA):
            raise
    finally:
        discard(site)


def _names(values: Mapping[str, object]) -> str:
    return ", ".join(values)
