"""`cache info`: every stream of the cache, what made it, and how much of a manifest it holds."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from cache.encoders.grid import SAMPLE_RATE, recorded_grid
from cache.found import input_kind
from cache.keys import MODALITIES, windowed_key
from cache.last_extraction import Source
from cache.lookup import FrameCache
from cache.recipe import JSON, Recipe
from cache.store.index import Index, scan
from cache.store.layout import METADATA, StreamHeader, open_features, read_recipe, read_stream
from cache.store.parts import PREFIX, SUM_BYTES
from cache.store.parts import Part as StoredPart
from corpora.base.codec import Jsonable
from corpora.base.errors import CacheError, FormatVersionError, MissingStepError
from corpora.base.report import Part, Report, Table
from corpora.base.terminal import bytes_text, count_text, time_text
from corpora.base.work import Work
from corpora.manifest import Manifest

#: The kind of streams that hold acoustic cues, which `explain` computes.
CUES = "cues"
_LAYER = re.compile(r"layer_(\d+)")
_MOMENTS = re.compile(r"moments_\d+")


@dataclass(frozen=True)
class Stream:
    """One stream folder.

    Attributes:
        path: its folder.
        recipe: what made it.
        header: dim and dtype.
    """

    path: Path
    recipe: Recipe
    header: StreamHeader

    @property
    def label(self) -> str:
        """`<recipe's folder>/<stream>`: its path inside the group."""
        return f"{self.path.parent.name}/{self.path.name}"

    @property
    def layer(self) -> int | None:
        """The hidden-state number, where it is one."""
        found = _LAYER.fullmatch(self.path.name)
        return int(found[1]) if found else None

    @property
    def frames_per_second(self) -> float | None:
        """Of the recipe's frame grid or clock; None for text, moments, and where none is known."""
        if _MOMENTS.fullmatch(self.path.name):
            return None
        clock = self.recipe.fields.get("clock")
        if isinstance(clock, dict) and isinstance(clock.get("fps"), float):
            return float(clock["fps"])
        grid = recorded_grid(self.recipe)
        return None if grid is None else SAMPLE_RATE / grid.hop

    def is_of(self, source: Source | None) -> bool:
        """Whether an extraction asked for it: one of the layers of a source, or beside them."""
        same = source is not None and source.recipe == self.recipe
        return same and source is not None and self.layer in (None, *source.layers)

    def parts(self) -> list[StoredPart]:
        """Its parts by name, for work that needs every one to be usable.

        Raises:
            CacheError: a part is damaged.
        """
        return scan(self.path, self.header).whole(self.path)


@dataclass(frozen=True)
class Stray:
    """Something inside the group that is no part of a cache, or cannot be used as one."""

    path: Path
    reason: str


@dataclass(frozen=True)
class Catalogue:
    """The streams by label, and what else lies between them."""

    streams: tuple[Stream, ...]
    strays: tuple[Stray, ...]

    def all_streams(self) -> tuple[Stream, ...]:
        """The streams, for work that would be wrong without one of them.

        Raises:
            CacheError: a folder that holds parts cannot be read as a stream.
        """
        hidden = [stray for stray in self.strays if _holds_parts(stray.path)]
        if hidden:
            raise CacheError(
                f"{len(hidden)} folders with frames cannot be used. The first: {hidden[0].path}: "
                f"{hidden[0].reason} Run `python cli.py cache verify --fix`, which sets them "
                "aside, then `extract`, and try again."
            )
        return self.streams


def read_catalogue(features: Path) -> Catalogue:
    """List the streams of a cache, by its Zarr group. Parts are not looked at.

    Raises:
        MissingStepError: there is no cache.
        FormatVersionError: it is of another version of the format.
    """
    if not features.exists():
        raise MissingStepError(
            f"No features in {features.parent}: {features} does not exist. Run "
            "`python cli.py extract` first, or name another work folder with --work."
        )
    open_features(features)
    streams: list[Stream] = []
    strays: list[Stray] = []
    for folder in _folders(features, strays, "a recipe's folder"):
        try:
            recipe = read_recipe(folder)
        except FormatVersionError as error:
            strays.append(Stray(folder, str(error)))
            continue
        if recipe.folder != folder.name:
            strays.append(Stray(folder, f"its recipe's fingerprint is {recipe.fingerprint}"))
            continue
        for path in _folders(folder, strays, "a stream"):
            try:
                streams.append(Stream(path, recipe, read_stream(path)))
            except FormatVersionError as error:
                strays.append(Stray(path, str(error)))
    for stream in streams:
        for path in _folders(stream.path, strays, "a part"):
            if not path.name.startswith(PREFIX):
                strays.append(Stray(path, "not a part of a stream"))
    return Catalogue(tuple(streams), tuple(strays))


def _holds_parts(folder: Path) -> bool:
    """Whether a folder looks like a stream or a recipe's, whatever its own metadata says."""
    return any(any(folder.glob(f"{between}{PREFIX}*")) for between in ("", "*/"))


def _folders(folder: Path, strays: list[Stray], expected: str) -> list[Path]:
    """The folders directly inside, by name; other things than metadata are strays."""
    found = []
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            if entry.is_dir():
                found.append(Path(entry.path))
            elif entry.name != METADATA:
                strays.append(Stray(Path(entry.path), f"not {expected}"))
    return found


# Fields of recipes that are versions of libraries, at the top or among the decoder's.
_VERSIONS = ("transformers", "tokenizers", "soundfile", "libsndfile", "soxr")
_HEADER = (
    "stream",
    "encoder",
    "utterances",
    "audio",
    "frames",
    "size",
    "parts",
    "of the manifest",
)
_LEFT_COLUMNS = 2


@dataclass(frozen=True)
class StreamInfo(Jsonable):
    """One stream.

    Attributes:
        stream: `<recipe's folder>/<stream>`.
        kind: audio, text, video, energy, speech, cues.
        encoder: as the user named it, where the last extraction made it; else what the recipe
            says: the model's type, the detector, the set of cues, the name of the import.
        layer: hidden-state number, where it is one.
        fingerprint: of the recipe.
        versions: of the libraries that made it.
        dim: values per frame.
        dtype: as stored.
        utterances: different inputs.
        frames: of those.
        hours: by the frame grid or clock; None where that is not known, and for text.
        nbytes: on disk, of frames and their sums.
        parts: how many.
        damaged: parts that cannot be used.
        last: whether the last extraction asked for it.
        present: how many inputs of the manifest it holds; None without a manifest.
        wanted: how many different inputs the manifest has.
    """

    json_entries = "* -nbytes complete bytes=nbytes"

    stream: str
    kind: str
    encoder: str
    layer: int | None
    fingerprint: str
    versions: Mapping[str, str]
    dim: int
    dtype: str
    utterances: int
    frames: int
    hours: float | None
    nbytes: int
    parts: int
    damaged: int
    last: bool
    present: int | None
    wanted: int | None

    @property
    def complete(self) -> bool | None:
        """Whether it holds the whole manifest; None without a manifest."""
        return None if self.present is None else self.present == self.wanted


@dataclass(frozen=True)
class Info(Jsonable):
    """All streams, and what else was noticed.

    Attributes:
        features: the cache.
        streams: in the order of their paths.
        strays: things in the cache that do not belong there, with reasons.
        absent: recordings of the manifest that are not there.
    """

    features: Path
    streams: tuple[StreamInfo, ...]
    strays: Mapping[str, str]
    absent: int

    def to_text(self) -> str:
        """The same to read."""
        return self.to_report().to_text()

    def to_report(self) -> Report:
        """The same in parts."""
        total = sum(one.nbytes for one in self.streams)
        count = count_text(len(self.streams), "stream")
        parts: list[Part] = [f"{self.features}: {count}, {bytes_text(total)}"]
        if self.streams:
            known = any(one.present is not None for one in self.streams)
            columns = _HEADER[: len(_HEADER) - (not known)]
            rows = [_row(one)[: len(columns)] for one in self.streams]
            parts.append(Table("", columns, rows, right=range(_LEFT_COLUMNS, len(columns))))
            versions = {one.stream.split("/")[0]: one.versions for one in self.streams}
            made = (f"  {folder}: {_versions_text(found)}" for folder, found in versions.items())
            parts.append("\n".join(["Made with:", *made]))
        if any(one.last for one in self.streams):
            parts.append("* what the last extraction asked for, and later commands read")
        if any(one.kind == CUES for one in self.streams):
            parts.append("cues: computed and kept by explain and prepare describe")
        return Report("", [*parts, *_warnings(self)])


def cache_info(work: Work, manifest: Manifest | None) -> Info:
    """Look at every stream's metadata; no frame is read.

    Args:
        work: the work folder.
        manifest: to tell what is missing from each stream.

    Raises:
        MissingStepError: there is no cache.
        FormatVersionError: it is of another version of the format.
    """
    cache = FrameCache(work)
    catalogue = read_catalogue(work.features)
    keys: dict[tuple[str, str], set[str]] | None = None
    absent = 0
    if manifest is not None:
        keys = {}
        # With descriptions a text is another input: each stream has to hold those that it reads.
        for describe in {stream.recipe.describe for stream in catalogue.streams} | {""}:
            found = cache.keys(manifest.utterances, describe=describe).values()
            absent = sum("audio" not in own for own in found)
            for kind in {input_kind(name) for name in MODALITIES}:
                keys[kind, describe] = {own[kind] for own in found if kind in own}
    return Info(
        features=work.features,
        streams=tuple(_look_at(stream, cache.sources, keys) for stream in catalogue.streams),
        strays={str(stray.path): stray.reason for stray in catalogue.strays},
        absent=absent,
    )


def _look_at(
    stream: Stream,
    sources: Mapping[str, Source],
    keys: Mapping[tuple[str, str], set[str]] | None,
) -> StreamInfo:
    found = scan(stream.path, stream.header)
    index = Index(found.parts)
    frames = int(index.lengths(index.positions(index.keys)).sum())
    rate = stream.frames_per_second
    wanted = None if keys is None else keys[input_kind(stream.recipe.kind), stream.recipe.describe]
    source = sources.get(stream.recipe.kind)
    same = source is not None and source.recipe == stream.recipe
    fields = stream.recipe.fields
    return StreamInfo(
        stream=stream.label,
        kind=stream.recipe.kind,
        encoder=(source.encoder if same and source is not None else "") or _maker(fields),
        layer=stream.layer,
        fingerprint=stream.recipe.fingerprint,
        versions=_versions(fields),
        dim=stream.header.dim,
        dtype=stream.header.dtype,
        utterances=len(index.keys),
        frames=frames,
        hours=None if rate is None else frames / rate / 3600,
        nbytes=sum(part.nbytes + SUM_BYTES for part in found.parts),
        parts=len(found.parts),
        damaged=len(found.damaged),
        last=stream.is_of(source),
        present=None if wanted is None else _present(stream, index, wanted),
        wanted=None if wanted is None else len(wanted),
    )


def _present(stream: Stream, index: Index, wanted: set[str]) -> int:
    """How many inputs a stream holds, as a whole or encoded in windows."""
    there = {key for key in wanted if key in index}
    if stream.recipe.kind == "audio":
        there |= {key for key in wanted - there if windowed_key(key) in index}
    return len(there)


def _maker(fields: Mapping[str, JSON]) -> str:
    """What a recipe says of whatever made the numbers."""
    config = fields.get("config")
    if isinstance(config, Mapping) and "model_type" in config:
        return str(config["model_type"])
    if "imported" in fields:
        return f"imported: {fields['imported']}"
    if "set" in fields:
        return f"{fields['set']} set"
    named = [str(fields[name]) for name in ("detector", "level", "unit") if name in fields]
    return " ".join(named)


def _versions(fields: Mapping[str, JSON]) -> dict[str, str]:
    decoder = fields.get("decoder")
    known = {**fields, **(decoder if isinstance(decoder, Mapping) else {})}
    return {name: str(known[name]) for name in _VERSIONS if name in known}


def _versions_text(versions: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items()) or "not recorded"


def _row(one: StreamInfo) -> tuple[str, ...]:
    mark = "* " if one.last else "  "
    return (
        mark + one.stream,
        one.encoder,
        f"{one.utterances:,}",
        "" if one.hours is None else time_text(3600 * one.hours),
        f"{one.frames:,}",
        bytes_text(one.nbytes),
        f"{one.parts:,}",
        "complete" if one.complete else f"{one.present or 0:,} of {one.wanted or 0:,}",
    )


def _warnings(info: Info) -> Iterable[str]:
    damaged = sum(one.damaged for one in info.streams)
    if info.absent:
        yield f"{count_text(info.absent, 'recording')} of the manifest cannot be read."
    if damaged:
        yield (
            f"{count_text(damaged, 'part')} damaged, not counted above. Run `python cli.py cache "
            "verify`."
        )
    for path, reason in info.strays.items():
        yield f"Does not belong there: {path} ({reason})"
