"""FrameCache: from a manifest to the frames of its utterances, read from the cache.

Where a run keeps its frames: on the GPU, in memory, or on disk, read as they are needed.

Chosen from the sizes and from what is free, and said in one sentence.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from torch import Tensor

from cache.frames import Frames
from cache.keys import utterance_keys
from cache.last_extraction import (
    Extraction,
    extract_command,
    moments_name,
    read_extraction,
    read_failures,
)
from cache.mapped import MappedFrames
from cache.moments import DEVIATION, MEAN, ROWS
from cache.recipe import LayersRead, layer_numbers, layers_text
from cache.stream import FrameStream
from corpora.base.errors import CacheError, MissingStepError
from corpora.base.terminal import bytes_text
from corpora.base.work import Work
from corpora.manifest import Manifest, Utterance

Place = Literal["gpu", "memory", "disk"]

# The rest of a GPU is for the heads, their optimizers and a batch's intermediate results.
GPU_SHARE = 0.7
# The rest of the memory is for batches, for the program, and for the system's cache of files.
MEMORY_SHARE = 0.6

_CGROUP = Path("/sys/fs/cgroup")
_MEMINFO = Path("/proc/meminfo")


@dataclass(frozen=True)
class Residence:
    """Where frames are kept; as text, one sentence with the figures.

    Attributes:
        place: `gpu`; `memory` (batches are sent to the device); `disk` (read as they
            are needed).
        nbytes: of all frames.
        device: where batches are needed.
        free_gpu: bytes; None without a GPU.
        free_memory: bytes.
    """

    place: Place
    nbytes: int
    device: str
    free_gpu: int | None
    free_memory: int

    def __str__(self) -> str:
        size, memory = bytes_text(self.nbytes), bytes_text(self.free_memory)
        gpu = "" if self.free_gpu is None else f"{bytes_text(self.free_gpu)} of GPU memory"
        if self.place == "gpu":
            return f"Frames are kept on the GPU: {size}, with {gpu} free."
        if self.place == "memory":
            besides = f", and {gpu}" if gpu else ""
            return f"Frames are kept in memory: {size}, with {memory} free{besides}."
        besides = f" and {gpu}" if gpu else ""
        return (
            f"Frames are read from disk as they are needed: {size} do not fit into {memory} of "
            f"free memory{besides}."
        )


def free_bytes(device: str) -> int:
    """Free memory of `cpu` or of a CUDA device such as `cuda` or `cuda:1`."""
    if device == "cpu":
        return _free_memory()
    import torch

    free, _ = torch.cuda.mem_get_info(torch.device(device))
    return int(free)


def choose_residence(
    nbytes: int, device: str, *, free: Callable[[str], int] = free_bytes
) -> Residence:
    """Choose where frames are kept.

    Args:
        nbytes: of all frames, in the dtype they will be kept in.
        device: where batches are needed: `cpu`, or a CUDA device.
        free: from `cpu` or the device to its free bytes.
    """
    memory = free("cpu")
    gpu = None if device == "cpu" else free(device)
    place: Place = "disk"
    if gpu is not None and nbytes <= gpu * GPU_SHARE:
        place = "gpu"
    elif nbytes <= memory * MEMORY_SHARE:
        place = "memory"
    return Residence(place, nbytes, device, gpu, memory)


def _free_memory() -> int:
    """What this process may still take: the system's estimate, or less under a container's limit.

    Files the system keeps in memory count as free, since it drops them when asked.
    """
    found = re.search(r"^MemAvailable:\s+(\d+) kB$", _read(_MEMINFO), re.MULTILINE)
    if found:
        free = int(found[1]) * 1024
    else:  # macOS: all memory is the only figure at hand
        free = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limit, used = _read(_CGROUP / "memory.max"), _read(_CGROUP / "memory.current")
    if limit.strip().isdigit() and used.strip().isdigit():
        files = re.search(r"^inactive_file (\d+)$", _read(_CGROUP / "memory.stat"), re.MULTILINE)
        left = int(limit) - int(used) + (int(files[1]) if files else 0)
        free = min(free, max(0, left))
    return free


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii")
    except OSError:
        return ""


SPEECH = "speech"


@dataclass(frozen=True, eq=False)
class Collection:
    """The utterances that have frames, and those frames.

    Attributes:
        utterances: in the manifest's order, without those that failed at extraction.
        frames: for each modality a batch of all of them, in that order.
        failed: reasons by id, for the utterances left out.
        extraction: where the frames come from.
        moments: mean and deviation `[n, D]` of each modality's utterances, where they were kept.
        others: by modality and layer the frames of further layers, where several were asked for.
        layers: by modality the number of the layer of `frames`, where it is an encoder's.
    """

    utterances: tuple[Utterance, ...]
    frames: Mapping[str, Frames]
    failed: Mapping[str, str]
    extraction: Extraction
    moments: Mapping[str, tuple[Tensor, Tensor]] = field(default_factory=dict)
    others: Mapping[str, Mapping[int, MappedFrames]] = field(default_factory=dict)
    layers: Mapping[str, int] = field(default_factory=dict)

    @property
    def all_layers(self) -> dict[str, Frames]:
        """By modality the frames of all layers asked for beside one another, lowest layer first."""
        everything = range(len(self.utterances))
        found = {}
        for name, frames in self.frames.items():
            others = self.others.get(name, {})
            parts = {layer: one.select(everything) for layer, one in others.items()}
            if parts:
                parts[self.layers[name]] = frames
            found[name] = Frames.beside([parts[n] for n in sorted(parts)] or [frames])
        return found


@dataclass(frozen=True, eq=False)
class Holdings:
    """What the cache holds of a manifest's utterances, found but not read.

    Attributes:
        utterances: in the manifest's order, without those that failed at extraction.
        streams: by modality, and `speech` where it was asked for.
        keys: for each stream those of the utterances, in that order.
        failed: reasons by id, for the utterances left out.
        extraction: where the frames come from.
        moments: as in `Collection`.
        others: as in `Collection`.
        layers: as in `Collection`.
    """

    utterances: tuple[Utterance, ...]
    streams: Mapping[str, FrameStream]
    keys: Mapping[str, tuple[str, ...]]
    failed: Mapping[str, str]
    extraction: Extraction
    moments: Mapping[str, tuple[Tensor, Tensor]]
    others: Mapping[str, Mapping[int, MappedFrames]] = field(default_factory=dict)
    layers: Mapping[str, int] = field(default_factory=dict)

    @property
    def nbytes(self) -> int:
        """Of all frames but those of further layers, as they are stored."""
        return sum(
            int(stream.lengths(self.keys[name]).sum()) * stream.dim * stream.dtype.itemsize
            for name, stream in self.streams.items()
        )

    def load(self, modality: str, device: str = "cpu") -> Frames:
        """All frames of a modality, in the memory of a device."""
        frames = self.streams[modality].load(self.keys[modality], device=device)
        speech = self._speech(modality)
        return frames if speech is None else frames.with_speech(speech.to(device))

    def mapped(self, modality: str) -> MappedFrames:
        """All frames of a modality, read from disk when they are asked for."""
        return MappedFrames(
            self.streams[modality], self.keys[modality], speech=self._speech(modality)
        )

    def _speech(self, modality: str) -> Tensor | None:
        if modality != "audio" or SPEECH not in self.streams:
            return None
        return self.streams[SPEECH].load(self.keys[SPEECH]).values[:, 0].float()


def collect_frames(
    work: Work,
    manifest: Manifest,
    modalities: Sequence[str],
    *,
    layers: Mapping[str, LayersRead] | None = None,
    speech: bool = True,
) -> Collection:
    """Load the frames of a manifest's utterances into memory.

    Args:
        work: the work folder that `extract` filled.
        manifest: whose utterances.
        modalities: `audio` and/or `text`.
        layers: for a modality another layer than its usual one; or several, of which the highest
            is loaded and the others are read when they are asked for.
        speech: whether audio frames get the voice activity detector's probabilities.

    Raises:
        MissingStepError: nothing was extracted, or utterances are neither cached nor listed as
            failed.
    """
    found = find_frames(work, manifest, modalities, layers=layers, speech=speech)
    frames = {name: found.load(name) for name in modalities}
    return Collection(
        found.utterances,
        frames,
        found.failed,
        found.extraction,
        found.moments,
        found.others,
        found.layers,
    )


def find_frames(
    work: Work,
    manifest: Manifest,
    modalities: Sequence[str],
    *,
    layers: Mapping[str, LayersRead] | None = None,
    main: Mapping[str, int] | None = None,
    speech: bool = True,
) -> Holdings:
    """Find the frames of a manifest's utterances; `collect_frames` without reading them.

    Args:
        work: see `collect_frames`.
        manifest: see `collect_frames`.
        modalities: see `collect_frames`.
        layers: see `collect_frames`.
        main: of several layers of a modality the one to be loaded, instead of the highest.
        speech: see `collect_frames`.
    """
    extraction = read_extraction(work)
    keys = utterance_keys(work, manifest.utterances)
    read = {name: layer_numbers((layers or {}).get(name, ())) for name in modalities}
    chosen = {name: numbers[-1] for name, numbers in read.items() if numbers} | dict(main or {})
    further = {name: [n for n in read[name] if n != chosen.get(name)] for name in modalities}
    # Of each modality the layer to be loaded (None), and the others.
    wanted: dict[tuple[str, int | None], FrameStream] = {
        (name, None): _open(work, extraction, name, chosen.get(name)) for name in modalities
    }
    wanted |= {
        (name, layer): _open(work, extraction, name, layer)
        for name in modalities
        for layer in further[name]
    }
    if speech and "audio" in modalities:
        wanted[SPEECH, None] = _open(work, extraction, SPEECH, None)
    kept: list[Utterance] = []
    missing: list[Utterance] = []
    held: dict[tuple[str, int | None], list[str]] = {name: [] for name in wanted}
    for utterance in manifest.utterances:
        plain = keys[utterance.id]
        own = {
            (name, layer): extraction.source(name).held_key(stream, plain.get(_key_kind(name), ""))
            for (name, layer), stream in wanted.items()
        }
        complete = all(own[name] in stream for name, stream in wanted.items())
        (kept if complete else missing).append(utterance)
        if complete:
            for which, key in own.items():
                held[which].append(key)
    known = read_failures(work.failures)
    unknown = [utterance.id for utterance in missing if utterance.id not in known]
    gone = [u for u in missing if u.id not in known and not u.audio.is_file()]
    if gone and "audio" in modalities:
        raise MissingStepError(
            f"{len(gone)} of {len(manifest.utterances)} recordings are not where the manifest says "
            f"(the first: {gone[0].audio}), so it cannot be told which frames are theirs. Mount or "
            "move them back, or run `prepare` on the folder where they are now: frames are kept by "
            "content, and are not extracted again."
        )
    if unknown:
        raise MissingStepError(
            f"{len(unknown)} of {len(manifest.utterances)} utterances are not in the cache"
            f"{_of_layers(read)} (the first: {unknown[0]}). "
            f"Run `{extract_command(work.root)}` again."
        )
    moments = {
        name: rows
        for name in modalities
        if (rows := _kept_moments(work, extraction, name, chosen, held[name, None])) is not None
    }
    heard = None
    if (SPEECH, None) in wanted and further.get("audio"):
        heard = wanted[SPEECH, None].load(held[SPEECH, None]).values[:, 0].float()
    others = {
        name: {
            layer: MappedFrames(
                wanted[name, layer],
                tuple(held[name, layer]),
                speech=heard if name == "audio" else None,
            )
            for layer in further[name]
        }
        for name in modalities
        if further[name]
    }
    for name, by_layer in others.items():
        lengths = wanted[name, None].lengths(held[name, None]).tolist()
        wrong = [layer for layer in by_layer if by_layer[layer].lengths.tolist() != lengths]
        if wrong:
            raise CacheError(
                f"layer {wrong[0]} of the {name} encoder has other numbers of frames than layer "
                f"{chosen[name]}. Run `cache verify`, or extract into another work folder."
            )
    return Holdings(
        tuple(kept),
        {name: stream for (name, layer), stream in wanted.items() if layer is None},
        {name: tuple(own) for (name, layer), own in held.items() if layer is None},
        {u.id: known[u.id] for u in missing},
        extraction,
        moments,
        others,
        {
            name: chosen.get(name, extraction.source(name).usual_layer)
            for name in modalities
            if extraction.source(name).layers
        },
    )


def _open(work: Work, extraction: Extraction, name: str, layer: int | None) -> FrameStream:
    return FrameStream.open(work.features / extraction.source(name).stream(layer))


def _of_layers(read: Mapping[str, Sequence[int]]) -> str:
    """Which layers are meant, where several are read."""
    several = [f"{name} {layers_text(tuple(own))}" for name, own in read.items() if len(own) > 1]
    return f" with {' and '.join(several)}" if several else ""


def _kept_moments(
    work: Work,
    extraction: Extraction,
    modality: str,
    layers: Mapping[str, int],
    keys: Sequence[str],
) -> tuple[Tensor, Tensor] | None:
    """Moments of utterances, if all were kept; with their frames in memory no file is needed."""
    source = extraction.source(modality)
    layer = layers.get(modality, source.usual_layer)
    path = work.features / source.recipe.folder / moments_name(layer)
    if not path.is_dir():
        return None
    stream = FrameStream.open(path)
    if not all(key in stream for key in keys):
        return None
    rows = stream.load(keys).values.view(len(keys), ROWS, -1)
    return rows[:, MEAN], rows[:, DEVIATION]


def _key_kind(stream: str) -> str:
    return "text" if stream == "text" else "audio"
