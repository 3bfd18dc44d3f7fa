"""The streams an extraction fills, and what each of them lacks. Imports no torch."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from cache.keys import windowed_key
from cache.last_extraction import TOKEN_KIND, VALUES, Source, layer_name, moments_name
from cache.recipe import Recipe
from cache.store.layout import DTYPES
from cache.store.parts import PART_BYTES
from cache.store.remote import remote_of
from cache.stream import FrameStream, open_if_there
from corpora.base.errors import CacheError
from corpora.base.terminal import bytes_text
from corpora.manifest import Utterance


@dataclass(frozen=True)
class Target:
    """One stream to fill.

    Attributes:
        recipe: the recipe's folder is made on first use.
        name: the stream's folder inside the recipe's.
        layer: hidden-state number, where it is one's frames or moments.
        moments: whether it holds each utterance's mean and deviation instead of frames.
    """

    recipe: Recipe
    name: str
    layer: int | None = None
    moments: bool = False

    @property
    def path(self) -> str:
        """Inside the features group."""
        return f"{self.recipe.folder}/{self.name}"

    @property
    def dtype(self) -> str:
        """As stored."""
        if self.moments:
            return "float32"
        return "uint8" if self.name == TOKEN_KIND else str(self.recipe.fields["stored_dtype"])


@dataclass(frozen=True, slots=True)
class Item:
    """One input that some streams lack.

    Attributes:
        key: its content key.
        utterances: all that have it; one is read for all.
        targets: the streams that lack it and need the encoder (or the recording).
        derived: streams of moments that lack it, whose frames are there: a run that was killed may
            have committed the one and not the other. They are computed from those frames.
    """

    key: str
    utterances: tuple[Utterance, ...]
    targets: tuple[Target, ...]
    derived: tuple[Target, ...] = ()

    @property
    def utterance(self) -> Utterance:
        """The first utterance that has this input."""
        return self.utterances[0]


def targets_of(source: Source) -> tuple[Target, ...]:
    """The streams of a source: of each layer its frames and their moments, or these alone."""
    recipe = source.recipe
    frames = tuple(Target(recipe, layer_name(layer), layer) for layer in source.layers)
    moments = tuple(
        Target(recipe, moments_name(layer), layer, moments=True)
        for layer in sorted({*source.layers, *source.moments})
    )
    if recipe.kind == "text":
        return (*frames, *moments, Target(recipe, TOKEN_KIND))
    return (*frames, *moments) or (Target(recipe, VALUES),)


def lacking(
    features: Path,
    inputs: Mapping[str, Sequence[Utterance]],
    targets: Sequence[Target],
    *,
    windowed: bool = False,
) -> tuple[Item, ...]:
    """The inputs that at least one of the streams lacks.

    Args:
        features: the Zarr group of all streams.
        inputs: utterances by content key.
        targets: the streams.
        windowed: whether what was encoded in windows counts as there.
    """
    own = {target: open_if_there(features / target.path) for target in targets}
    frames = {t: open_if_there(features / frames_path(t)) for t in targets if t.moments}

    def has(stream: FrameStream | None, target: Target, key: str) -> bool:
        if stream is None or key in stream:
            return stream is not None
        of_windows = windowed and target.recipe.kind == "audio" and target.layer is not None
        return of_windows and windowed_key(key) in stream

    items = []
    for key, utterances in inputs.items():
        missing = [target for target in targets if not has(own[target], target, key)]
        if missing:
            derived = tuple(t for t in missing if t.moments and has(frames[t], t, key))
            needed = tuple(target for target in missing if target not in derived)
            items.append(Item(key, tuple(utterances), needed, derived))
    return tuple(items)


def still_lacking(features: Path, items: Sequence[Item], *, windowed: bool) -> list[Item]:
    """Of what was missing when it was planned, what is missing now."""
    targets = list(dict.fromkeys(t for item in items for t in (*item.targets, *item.derived)))
    wanted = {item.key: {*item.targets, *item.derived} for item in items}
    found = []
    for item in lacking(features, {i.key: i.utterances for i in items}, targets, windowed=windowed):
        needed, derived = (
            tuple(target for target in group if target in wanted[item.key])
            for group in (item.targets, item.derived)
        )
        if needed or derived:
            found.append(replace(item, targets=needed, derived=derived))
    return found


def frames_path(target: Target) -> str:
    """The stream of the frames that a stream of moments belongs to."""
    assert target.layer is not None
    return f"{target.recipe.folder}/{layer_name(target.layer)}"


# Beside its frames an utterance takes its key and length in its part's metadata, and a part its
# checksum, the rest of the metadata and the ends of two disk blocks.
_UTTERANCE_BYTES = 40
_PART_BYTES = 4_500


@dataclass(frozen=True)
class Estimate:
    """Bytes to be added.

    Attributes:
        streams: by path inside the cache.
        seconds: of audio to be encoded.
    """

    streams: Mapping[str, int]
    seconds: float = 0.0

    @property
    def nbytes(self) -> int:
        """Of all streams."""
        return sum(self.streams.values())


def estimate(
    wanted: Iterable[tuple[Target, int]], dims: Mapping[str, int], seconds: float = 0.0
) -> Estimate:
    """Add up what is to be stored.

    Args:
        wanted: each utterance of each stream with its number of rows: frames, tokens, or 2 of
            moments.
        dims: values per frame of the encoders, by modality.
        seconds: of audio to be encoded.
    """
    rows: dict[Target, int] = {}
    utterances: dict[Target, int] = {}
    for target, count in wanted:
        rows[target] = rows.get(target, 0) + count
        utterances[target] = utterances.get(target, 0) + 1
    streams = {}
    for target, count in rows.items():
        dim = dims[target.recipe.kind] if target.layer is not None else 1
        matrix = count * dim * DTYPES[target.dtype].itemsize
        parts = -(-matrix // PART_BYTES)
        streams[target.path] = matrix + utterances[target] * _UTTERANCE_BYTES + parts * _PART_BYTES
    return Estimate(streams, seconds)


def check_space(folder: Path, needed: Estimate) -> int:
    """Refuse what cannot fit.

    Args:
        folder: on the disk in question.
        needed: what is to be added.

    Returns:
        Bytes free.

    Raises:
        CacheError: the disk has less.
    """
    free = shutil.disk_usage(folder).free
    remote = remote_of(folder)  # what lies there need not stay here
    if min(needed.nbytes, needed.nbytes if remote is None else remote.limit) > free:
        largest = sorted(needed.streams.items(), key=lambda entry: -entry[1])[:3]
        listed = ", ".join(f"{path} {bytes_text(nbytes)}" for path, nbytes in largest)
        raise CacheError(
            f"the features need {bytes_text(needed.nbytes)} ({listed}), and {folder} has "
            f"{bytes_text(free)} free: {bytes_text(needed.nbytes - free)} too little. Make room, "
            "name a work folder on another disk, ask for fewer layers, or keep --moments-only."
        )
    return free
