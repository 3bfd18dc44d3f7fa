"""`cache import` of an HDF5 file: what `cache export` wrote, back into a cache, bit for bit."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py

from cache.exchange.hdf5 import FORMAT, VERSION, TransferReport, in_runs
from cache.extraction import Extraction, Source, write_extraction
from cache.recipe import Recipe
from cache.store.layout import DTYPES, StreamHeader, ensure_stream, open_features
from cache.store.parts import MAX_PART_BYTES
from cache.store.writer import PartWriter
from cache.stream import FrameStream
from corpora.base.errors import CacheError, FormatVersionError, MissingStepError
from corpora.base.terminal import progress_bar
from corpora.base.work import Work


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
            new, size = group.add_to(work, bar)
            added[group.label], present[group.label] = new, len(group) - new
            nbytes += size
    if not work.extraction.exists():
        _record(work, groups)
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

    def add_to(self, work: Work, bar: Any) -> tuple[int, int]:  # noqa: ANN401 - tqdm
        """Add what is missing; how many utterances and bytes that was."""
        header, added, nbytes = self._header, 0, 0
        folder = ensure_stream(work.features, self.recipe, self.name, header.dim, header.dtype)
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


def _record(work: Work, groups: Sequence[_Group]) -> None:
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
        write_extraction(work, Extraction(sources))
