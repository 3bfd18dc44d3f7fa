"""`cache import` of a folder: features computed elsewhere become a stream that can be searched.

They are kept by the same content keys as extracted ones, and `extraction.json` then names them as
the source of their modality. No frame grid is known, so imported audio has no energy and speech;
when frames are, a clock of their own tells (`cache.clock`).
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError  # the exception alone: torch raises it for what is no tensor
from tokenize import TokenError
from typing import Any

import numpy as np
import numpy.typing as npt

from cache.clock import Clock
from cache.found import Floats, input_kind
from cache.keys import ENCODED, MODALITIES
from cache.last_extraction import (
    TIMES,
    Extraction,
    Source,
    layer_name,
    write_extraction,
    write_failures,
)
from cache.lookup import FrameCache
from cache.recipe import JSON, Recipe, canonical_json
from cache.store.layout import ensure_stream, open_features
from cache.store.writer import PartWriter
from cache.stream import FrameStream
from corpora.base.codec import Jsonable
from corpora.base.errors import CacheError, ConfigError, MissingStepError
from corpora.base.report import Report
from corpora.base.terminal import bytes_text, count_text, progress_bar, shortened
from corpora.base.work import Work, command_line
from corpora.manifest import Manifest
from corpora.recordings import cut_seconds, read_headers
from corpora.utterance import plain_name

_SHOWN = 5


@dataclass(frozen=True)
class AdoptReport(Jsonable):
    """What became of a folder.

    Attributes:
        folder: the folder.
        stream: `<recipe's folder>/<stream>` in the cache.
        dim: values per frame.
        utterances: of the manifest, that have frames now.
        added: different inputs that were written; others were there.
        nbytes: of those.
        missing: ids without a file.
        extra: files that no utterance has.
        refused: reasons by id.
        work: the work folder.
    """

    json_entries = "folder stream dim utterances added bytes=nbytes missing extra refused"

    folder: Path
    stream: str
    dim: int
    utterances: int
    added: int
    nbytes: int
    missing: tuple[str, ...]
    extra: tuple[str, ...]
    refused: Mapping[str, str]
    work: Path

    def to_text(self, manifest: Path | None = None) -> str:
        """The same to read; with the manifest that was named in place of the work folder's."""
        parts = [
            f"Imported {self.folder} as {self.stream}, {self.dim}-d: "
            f"{count_text(self.utterances, 'utterance')} ({self.added:,} different inputs added, "
            f"{bytes_text(self.nbytes)})."
        ]
        for what, names in (
            ("utterances of the manifest have no file", self.missing),
            ("files are named by no utterance", self.extra),
            ("files could not be used", tuple(self.refused.values())),
        ):
            if names:
                parts += [f"{len(names):,} {what}:", *shortened(names, _SHOWN)]
        step = command_line("search --trials 100", self.work, manifest)
        return Report("", parts, next=(step,)).to_text()


SUFFIXES = (".npy", ".pt")
# What the two readers are known to raise for files that are damaged or something else.
_UNREADABLE = (
    *(OSError, EOFError, RuntimeError, ValueError, TypeError, LookupError, OverflowError),
    *(AssertionError, AttributeError, SyntaxError, MemoryError),
    *(UnpicklingError, TokenError, struct.error),
)


def find_feature_files(folder: Path) -> dict[str, Path]:
    """Files by the utterance id that names them: the path inside the folder, less the suffix.

    Raises:
        MissingStepError: there is no such folder.
        ConfigError: two files have one id.
    """
    if not folder.is_dir():
        raise MissingStepError(f"{folder} is not a folder. Name one with .npy or .pt files.")
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix in SUFFIXES and path.is_file():
            name = plain_name(path.relative_to(folder).with_suffix("").as_posix())
            if name in found:
                raise ConfigError(
                    f"{found[name]} and {path} are both named by the utterance {name}. Remove one."
                )
            found[name] = path
    return found


def read_features(path: Path) -> npt.NDArray[Any]:
    """One file's frames, `[T, D]` of a float type. Nothing in the file is executed.

    Raises:
        CacheError: it cannot be read, holds something else, or a value that is not finite.
    """
    try:
        values = _read_pt(path) if path.suffix == ".pt" else np.load(path, allow_pickle=False)
    except UnpicklingError as error:  # whose advice is to run what is in the file
        raise CacheError(
            f"{path} cannot be read (it holds Python objects, which are never loaded: they could "
            "run any code). Expected one tensor [T, D]; save it anew, as torch.save(tensor, path)."
        ) from error
    except _UNREADABLE as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise CacheError(
            f"{path} cannot be read ({reason}). Expected one array or tensor [T, D], without "
            "Python objects."
        ) from error
    if not isinstance(values, np.ndarray) or values.dtype.kind != "f":
        raise CacheError(f"{path} holds {_kind_of(values)}, expected an array of floats [T, D].")
    if values.ndim != 2 or not values.size:
        raise CacheError(
            f"{path} has the shape {list(values.shape)}, expected frames [T, D], at least one."
        )
    finite = int(np.isfinite(values).sum())
    if finite < values.size:
        raise CacheError(f"{path}: {values.size - finite} of {values.size} values are not finite.")
    return values


def common_dim(shapes: Mapping[Path, tuple[int, ...]]) -> int:
    """The D of all files.

    Raises:
        ConfigError: they differ.
    """
    (first, (_, dim)), *others = shapes.items()
    for path, shape in others:
        if shape[1] != dim:
            raise ConfigError(
                f"{first} has {dim} values a frame and {path} {shape[1]}. One folder is one "
                "stream: expected the same number in all."
            )
    return dim


def _read_pt(path: Path) -> object:
    import torch  # here: .npy files need none

    value = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(value, torch.Tensor):
        return value
    # NumPy has no bfloat16; every one is a float32.
    return (value.float() if value.dtype == torch.bfloat16 else value).detach().numpy()


def _kind_of(value: object) -> str:
    return f"{value.dtype} values" if isinstance(value, np.ndarray) else f"a {type(value).__name__}"


# Two files for the same recording or text may differ by how they were computed (precision, padding,
# batch mates), but by no more than this share of the largest value.
SAME_INPUT_TOLERANCE = 0.01


def import_folder(
    work: Work,
    manifest: Manifest,
    folder: Path,
    kind: str,
    *,
    name: str = "",
    layer: int = 0,
    fps: float | None = None,
    times: Path | None = None,
    stored_dtype: str = "float16",
    show_progress: bool = False,
) -> AdoptReport:
    """Import a folder of `.npy` or `.pt` files, `[T, D]`, named `<utterance id>.npy`.

    Args:
        work: the work folder.
        manifest: whose utterances; its recordings (for text: its texts) give the keys.
        folder: may have subfolders: the path inside it is the id.
        kind: one of `MODALITIES`.
        name: what to call the features in reports; by default as the folder is called.
        layer: hidden-state number, if they are of an encoder's layer; else it says nothing.
        fps: frames a second, where they are frames in time; video has this or `times`.
        times: in its place a folder of `<utterance id>.npy`, `[T]` seconds.
        stored_dtype: float16 or float32.
        show_progress: a bar on standard error.

    Returns:
        The report. Utterances without usable files are listed there and in `failures.csv`.

    Raises:
        ConfigError: no file fits the manifest, the files' D differ, or two files differ although
            their utterances have the same recording or text; there is no clock, or one that does
            not fit the recordings.
        CacheError: no file can be used.
    """
    if kind not in MODALITIES:
        raise ConfigError(f"features to import are {' or '.join(MODALITIES)}, got {kind!r}")
    clock = _clock(kind, fps, times)
    files = find_feature_files(folder)
    ids = [utterance.id for utterance in manifest.utterances]
    matched = {name: files[name] for name in ids if name in files}
    if not matched:
        raise ConfigError(
            f"{folder}: {_example(list(files), 'file')}, but {_example(ids, 'utterance')}. "
            "Expected files named <utterance id>.npy or .pt."
        )
    cache = FrameCache(work)
    found = cache.keys(manifest.utterances, describe="")
    keys = {name: own[input_kind(kind)] for name, own in found.items() if input_kind(kind) in own}
    refused = {
        name: f"{path}: its recording is missing, by whose content features are kept"
        for name, path in matched.items()
        if name not in keys
    }
    shapes = _shapes(matched, refused, show_progress)
    at: dict[str, Floats] = {}
    if clock is not None:
        rows = [u for u in manifest.utterances if u.id in matched and u.id not in refused]
        seconds, _ = cut_seconds(rows, read_headers(u.audio for u in rows))
        at = clock.times({u.id: shapes[matched[u.id]][0] for u in rows}, seconds, refused)
    usable = {name: path for name, path in matched.items() if name not in refused}
    if not usable:
        reason = next(iter(refused.values()))
        raise CacheError(f"none of {len(matched)} files can be used. The first: {reason}")
    contents = cache.hashes(usable.values())
    hashes = {name: contents[path] for name, path in usable.items()}
    _check_same_inputs(usable, keys, hashes, kind)
    fields: dict[str, JSON] = {
        "imported": name or folder.resolve().name,
        "files": hashlib.sha256(canonical_json(sorted(hashes.items())).encode()).hexdigest(),
        "dim": common_dim(shapes),
        "stored_dtype": stored_dtype,
    }
    if clock is not None:
        told = hashlib.sha256(b"".join(at[name].tobytes() for name in sorted(usable)))
        own = {"times": told.hexdigest()} if clock.fps is None else {"fps": float(clock.fps)}
        fields["clock"] = own
    source = Source(Recipe(kind, fields), f"imported: {fields['imported']}", (layer,))
    stream, added, nbytes = _write(work.features, source, usable, keys, at, refused, show_progress)
    there = {name for name in ids if keys.get(name) in stream}
    missing = tuple(name for name in ids if name not in files and name not in there)
    no_file = {name: f"{folder}: no file is named {name}.npy or {name}.pt" for name in missing}
    lost = {name: reason for name, reason in refused.items() if name not in there}
    write_failures(work.failures, {**cache.failed, **no_file, **lost})
    # Energy and speech lie on the frames of the audio they were extracted with. A clock tells which
    # of its own frames speech lies on.
    beside = () if kind != "audio" else ("energy", "speech") if clock is None else ("energy",)
    replaced = (kind, *beside)
    kept = {other: one for other, one in cache.sources.items() if other not in replaced}
    write_extraction(work.extraction, Extraction({kind: source, **kept}))
    return AdoptReport(
        folder=folder,
        stream=source.stream(),
        dim=stream.dim,
        utterances=len(there),
        added=added,
        nbytes=nbytes,
        missing=missing,
        extra=tuple(str(path) for name, path in files.items() if name not in matched),
        refused=refused,
        work=work.root,
    )


def _clock(kind: str, fps: float | None, times: Path | None) -> Clock | None:
    """The clock that was named, if a kind has or needs one (ConfigError)."""
    if fps is not None and times is not None:
        raise ConfigError("--fps and --times are two clocks. Name one.")
    if fps is None and times is None:
        if kind not in ENCODED:
            raise ConfigError(
                f"{kind} frames need a clock: how many a second (--fps 25), or a folder with "
                "the time of each (--times DIR)."
            )
        return None
    if input_kind(kind) == "text":
        raise ConfigError("text has no clock. Leave --fps and --times out.")
    return Clock(fps) if times is None else Clock(files=find_feature_files(times))


def _shapes(
    files: Mapping[str, Path], refused: dict[str, str], show_progress: bool
) -> dict[Path, tuple[int, ...]]:
    """Shapes of the files that can be used; the others go to `refused`."""
    shapes = {}
    with progress_bar("reading", len(files), "file", show=show_progress) as bar:
        for name, path in files.items():
            try:
                shapes[path] = read_features(path).shape
            except CacheError as error:
                refused[name] = str(error)
            bar.update(1)
    return shapes


def _check_same_inputs(
    files: Mapping[str, Path], keys: Mapping[str, str], hashes: Mapping[str, str], kind: str
) -> None:
    """Refuse features that depend on more than the input they are kept by."""
    first: dict[str, str] = {}
    for name, path in files.items():
        other = first.setdefault(keys[name], name)
        if hashes[name] == hashes[other]:
            continue
        one, two = read_features(path), read_features(files[other])
        same = one.shape == two.shape and bool(
            np.abs(one.astype(np.float64) - two).max() <= SAME_INPUT_TOLERANCE * np.abs(two).max()
        )
        if not same:
            what = "text" if input_kind(kind) == "text" else "recording"
            raise ConfigError(
                f"{path} and {files[other]} differ, but {name} and {other} have the same {what}. "
                "Features are kept by what they are computed from, once for all that have it. "
                + ("Import them as audio if they depend on the recording." * (what == "text"))
            )


def _write(
    features: Path,
    source: Source,
    files: Mapping[str, Path],
    keys: Mapping[str, str],
    at: Mapping[str, Floats],
    refused: dict[str, str],
    show_progress: bool,
) -> tuple[FrameStream, int, int]:
    """Add what the stream lacks; the stream, and how many inputs and bytes were added."""
    dtype, dim = str(source.recipe.fields["stored_dtype"]), source.recipe.fields["dim"]
    assert isinstance(dim, int), "made so above"
    features = open_features(features)
    if at:  # first: where there are frames, there are their times
        beside = ensure_stream(features, source.recipe, TIMES, 1, np.float32)
        timed = set(FrameStream.open(beside).keys)
        with PartWriter(beside, 1, np.float32) as writer:
            for name in files:
                if keys[name] not in timed:
                    writer.add(keys[name], at[name][:, None].astype(np.float32))
                    timed.add(keys[name])
    folder = ensure_stream(features, source.recipe, layer_name(source.layers[0]), dim, dtype)
    before = FrameStream.open(folder)
    added: set[str] = set()
    with (
        PartWriter(folder, dim, dtype) as writer,
        progress_bar("importing", len(files), "file", show=show_progress) as bar,
    ):
        for name, path in files.items():
            key = keys[name]
            if key not in before and key not in added:
                try:
                    writer.add(key, read_features(path))
                    added.add(key)
                except CacheError as error:
                    refused[name] = str(error).replace(key, str(path))
            bar.update(1)
    after = FrameStream.open(folder)
    frames = int(after.lengths(sorted(added)).sum())
    return after, len(added), frames * dim * after.dtype.itemsize


def _example(names: Sequence[str], what: str) -> str:
    return f"the first {what} is {names[0]!r}" if names else f"there is no {what}"
