"""`cache export`: the whole cache as one HDF5 file; `cache.hdf5` reads it back.

```
FILE                                     attributes: format, version
  <kind>-<fingerprint>/<stream>          attributes: kind, recipe (JSON), dim, dtype; of the streams
                                         the last extraction asked for also encoder
    <key>                                [frames, dim]; attributes: key, and of a manifest's
                                         utterances with this input: ids, labels, and label if
                                         they agree on one
```
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import FileIO
from itertools import chain, islice
from pathlib import Path
from typing import Any, TypeVar

import h5py
import numpy as np

from cache.keys import possible_keys
from cache.last_extraction import Extraction, Source, write_extraction
from cache.lookup import FrameCache
from cache.recipe import Recipe, canonical_json
from cache.store.layout import DTYPES, StreamHeader, ensure_stream, open_features
from cache.store.parts import MAX_PART_BYTES
from cache.store.writer import PartWriter
from cache.stream import FrameStream
from cache.upkeep.info import Stream, read_catalogue
from corpora.base.codec import Jsonable
from corpora.base.errors import CacheError, FormatVersionError, MissingStepError
from corpora.base.files import atomic_path
from corpora.base.report import Report
from corpora.base.terminal import bytes_text, count_text, progress_bar
from corpora.base.work import Work, command_line
from corpora.manifest import Manifest, Utterance

FORMAT, VERSION = "emopool-hdf5", 1
# HDF5 1.8 (2008) and later read it; older layouts hold at most 64 kB of attributes, and a text may
# belong to many utterances.
_LIBRARY = ("v108", "latest")
# Utterances written or read before the file is closed and opened again (0.5 ms): what HDF5 keeps in
# memory of each one, some 5 kB, is only given back then.
AT_ONCE = 500

T = TypeVar("T")


@dataclass(frozen=True)
class TransferReport(Jsonable):
    """What was written to a file, or read from one.

    Attributes:
        path: the file.
        streams: utterances transferred by stream.
        present: utterances by stream that were there already.
        nbytes: of frames transferred.
        imported: into the cache, rather than out of it.
        work: the work folder.
    """

    json_entries = "file=path imported streams present bytes=nbytes"

    path: Path
    streams: Mapping[str, int]
    present: Mapping[str, int]
    nbytes: int
    imported: bool
    work: Path

    def to_text(self) -> str:
        """The same to read."""
        done = "Imported from" if self.imported else "Wrote"
        parts = [f"{done} {self.path}: {bytes_text(self.nbytes)} of frames."]
        for stream, count in self.streams.items():
            there = self.present.get(stream, 0)
            more = f" ({there:,} were there already)" if there else ""
            parts.append(f"  {stream}: {count_text(count, 'utterance')}{more}")
        step = command_line(f"cache import {shlex.quote(str(self.path))}", "OTHER-WORK")
        if self.imported:
            step = command_line("cache info", self.work)
        return Report("", parts, next=(step,)).to_text()


def export_hdf5(
    work: Work, path: Path, manifest: Manifest | None = None, *, show_progress: bool = False
) -> TransferReport:
    """Write every stream of a work folder's cache to one file, which is there whole or not at all.

    Args:
        work: the work folder.
        path: the file; an old one is replaced.
        manifest: whose ids and labels are written beside the frames.
        show_progress: a bar on standard error.

    Raises:
        MissingStepError: there is no cache.
        CacheError: a stream or a part is damaged.
    """
    cache = FrameCache(work)
    streams = read_catalogue(work.features).all_streams()
    total = sum(FrameStream.open(stream.path).nbytes for stream in streams)
    utterances = _by_key(cache, manifest)
    encoders = _encoders(cache.sources, streams)
    counts = {}
    with (
        atomic_path(path) as temporary,
        progress_bar("exporting", total / 1e6, "MB", show=show_progress) as bar,
    ):
        with _opened(temporary, "w") as file:
            file.attrs["format"], file.attrs["version"] = FORMAT, VERSION
        for stream in streams:
            # One at a time: what a stream holds of each utterance's key adds up over ten of them.
            frames = FrameStream.open(stream.path)
            with _opened(temporary) as file:
                group = file.create_group(stream.label, track_order=True)
                group.attrs["kind"] = stream.recipe.kind
                group.attrs["recipe"] = canonical_json(stream.recipe.fields)
                group.attrs["dim"], group.attrs["dtype"] = frames.dim, frames.dtype.name
                if stream.label in encoders:
                    group.attrs["encoder"] = encoders[stream.label]
            counts[stream.label] = 0
            for some in in_runs(frames.each()):
                with _opened(temporary) as file:
                    group = file[stream.label]
                    for key, values in some:
                        dataset = group.create_dataset(key, data=values)
                        _describe(dataset, key, utterances.get(key, ()))
                        counts[stream.label] += 1
                        bar.update(values.nbytes / 1e6)
    return TransferReport(path, counts, {}, total, False, work.root)


def in_runs(items: Iterator[T]) -> Iterator[Iterator[T]]:
    """The same in runs of so many, each of which has to be used up before the next."""
    for first in items:
        yield chain([first], islice(items, AT_ONCE - 1))


class _Disk(FileIO):
    """A file that keeps the disk's first error to itself, and takes what is written after it.

    HDF5 cannot close a file whose disk is full: it fails again when the process ends, and crashes.
    """

    error: OSError | None = None

    def write(self, data: Any) -> int:  # noqa: ANN401 - a buffer
        """All of `data`, or nothing once the disk has failed."""
        view = memoryview(data)
        try:
            while self.error is None and len(view):
                view = view[super().write(view) :]
        except OSError as error:
            self.error = error
        return memoryview(data).nbytes

    def truncate(self, size: int | None = None) -> int:
        """The same."""
        try:
            return super().truncate(size)
        except OSError as error:
            self.error = self.error or error
            return size or 0


@contextmanager
def _opened(path: Path, mode: str = "r+") -> Iterator[Any]:
    """An HDF5 file to be written: a new one (`w`), or one to go on with.

    Raises:
        OSError: the disk is full or failed.
    """
    with _Disk(path, "w+" if mode == "w" else "r+") as disk:
        with h5py.File(disk, mode, libver=_LIBRARY) as file:
            yield file
        if disk.error is not None:
            raise disk.error


def _describe(dataset: Any, key: str, utterances: Sequence[Utterance]) -> None:  # noqa: ANN401
    text = h5py.string_dtype()
    dataset.attrs["key"] = key
    if utterances:
        labels = [utterance.label for utterance in utterances]
        dataset.attrs["ids"] = np.array([utterance.id for utterance in utterances], text)
        dataset.attrs["labels"] = np.array(labels, text)
        if len(set(labels)) == 1:
            dataset.attrs["label"] = labels[0]


def _by_key(cache: FrameCache, manifest: Manifest | None) -> dict[str, list[Utterance]]:
    """The utterances with each recording or text."""
    found: dict[str, list[Utterance]] = {}
    if manifest is not None:
        keys = cache.keys(manifest.utterances)
        for utterance in manifest.utterances:
            for key in possible_keys(utterance, keys[utterance.id]):
                found.setdefault(key, []).append(utterance)
    return found


def _encoders(sources: Mapping[str, Source], streams: Sequence[Stream]) -> dict[str, str]:
    """The encoder of each stream that the last extraction asked for; "" where there is none."""
    return {
        stream.label: source.encoder
        for stream in streams
        for source in sources.values()
        if stream.is_of(source)
    }


def import_hdf5(work: Work, path: Path, *, show_progress: bool = False) -> TransferReport:
    """Add to a work folder's cache what `export_hdf5` wrote and it does not have.

    Where nothing was extracted yet, later commands read what the exported extraction asked for.
    Stopped half-way, it goes on from there when called again.

    Raises:
        MissingStepError: there is no such file.
        FormatVersionError: it is another file, or of another version.
        CacheError: a stream or utterance in it is not what its name says; or a stream is in the
            cache with another shape.
    """
    if not path.is_file():
        raise MissingStepError(f"{path} does not exist: name a file that `cache export` wrote.")
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise FormatVersionError(f"{path} is not a readable HDF5 file ({error}).") from error
    with file:
        found = (file.attrs.get("format"), file.attrs.get("version"))
        if found != (FORMAT, VERSION):
            raise FormatVersionError(
                f"{path} has format {found[0]}, version {found[1]}, but this version of Emopool "
                f"reads {FORMAT}, version {VERSION}. Expected a file that `cache export` wrote."
            )
        groups = [_Group(path, label, file) for label in _labels(file)]
    open_features(work.features)
    added, present, nbytes = {}, {}, 0
    with progress_bar("importing", sum(map(len, groups)), "utt", show=show_progress) as bar:
        for group in groups:
            new, size = group.add_to(work.features, bar)
            added[group.label], present[group.label] = new, len(group) - new
            nbytes += size
    if not work.extraction.exists():
        _record(work.extraction, groups)
    return TransferReport(path, added, present, nbytes, True, work.root)


class _Group:
    """A stream in a file, its attributes checked."""

    def __init__(self, path: Path, label: str, file: Any) -> None:  # noqa: ANN401 - h5py
        self.label = label
        self._path = path
        self._where = f"{path}: {label}"
        group = file[label]
        attributes = group.attrs
        try:
            self._count = len(group)
            self.recipe = Recipe(str(attributes["kind"]), json.loads(attributes["recipe"]))
            self._header = StreamHeader(int(attributes["dim"]), str(attributes["dtype"]))
            self._dtype = DTYPES[self._header.dtype]
        except (KeyError, TypeError, ValueError) as error:
            raise FormatVersionError(
                f"{self._where} is not a stream: expected attributes kind, recipe, dim and dtype "
                f"({error}). Export it again."
            ) from error
        if self.recipe.folder != label.split("/")[0]:
            raise CacheError(
                f"{self._where} has a recipe whose fingerprint is {self.recipe.fingerprint}: it "
                "was changed after the export. Export it again."
            )
        self.encoder = attributes.get("encoder")

    def __len__(self) -> int:
        return self._count

    @property
    def name(self) -> str:
        """The stream's name."""
        return self.label.split("/")[1]

    def add_to(self, features: Path, bar: Any) -> tuple[int, int]:  # noqa: ANN401 - tqdm
        """Add what is missing; how many utterances and bytes that was."""
        header, added, nbytes = self._header, 0, 0
        folder = ensure_stream(features, self.recipe, self.name, header.dim, header.dtype)
        there = FrameStream.open(folder)
        with PartWriter(folder, header.dim, header.dtype) as writer:
            for keys in in_runs(iter(self._keys())):
                with h5py.File(self._path, "r") as file:
                    group = file[self.label]
                    for key in keys:
                        if key not in there:
                            values = self._read(key, group[key])
                            try:
                                writer.add(key, values)
                            except CacheError as error:
                                where = f"{self._where}/{error}"
                                raise CacheError(f"{where}. Export it again.") from error
                            added, nbytes = added + 1, nbytes + values.nbytes
                        bar.update(1)
        return added, nbytes

    def _keys(self) -> list[str]:
        with h5py.File(self._path, "r") as file:
            return list(file[self.label])

    def _read(self, key: str, dataset: Any) -> Any:  # noqa: ANN401 - h5py
        where = f"{self._where}/{key}"
        if not isinstance(dataset, h5py.Dataset) or dataset.dtype != self._dtype:
            raise CacheError(f"{where} is not a {self._header.dtype} dataset. Export it again.")
        if dataset.attrs.get("key") != key:
            raise CacheError(f"{where} does not say that this is its key. Export it again.")
        if dataset.nbytes > MAX_PART_BYTES:
            raise CacheError(
                f"{where} claims to hold {dataset.nbytes:,} bytes; an utterance has at most "
                f"{MAX_PART_BYTES:,}. Export it again."
            )
        try:
            return dataset[()]
        except OSError as error:
            raise CacheError(f"{where} cannot be read ({error}). Copy the file again.") from error


def _labels(file: Any) -> list[str]:  # noqa: ANN401 - h5py
    """`<recipe's folder>/<stream>` of all streams in a file."""
    return [
        f"{folder}/{stream}"
        for folder, group in file.items()
        if isinstance(group, h5py.Group)
        for stream in group
    ]


def _record(path: Path, groups: Sequence[_Group]) -> None:
    """Write `extraction.json` as it was where the file comes from."""
    sources: dict[str, Source] = {}
    for group in groups:
        if group.encoder is not None:
            before = sources.get(group.recipe.kind)
            layers = before.layers if before else ()
            if group.name.startswith("layer_"):
                layers = tuple(sorted({*layers, int(group.name.removeprefix("layer_"))}))
            sources[group.recipe.kind] = Source(group.recipe, str(group.encoder), layers)
    if sources:
        write_extraction(path, Extraction(sources))
