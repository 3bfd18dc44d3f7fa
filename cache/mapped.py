"""Where a run keeps its frames: on the GPU, in memory, or on disk, read as they are needed.

Chosen from the sizes and from what is free, and said in one sentence. `MappedFrames` are a stream's
utterances as if they were in memory, read from its maps when asked for: the system keeps of them
what it has room for, and any order of reading costs what the disk costs.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Lock
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from cache.frames import Frames
from cache.stream import FrameStream
from corpora.base.terminal import bytes_text

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
    place = torch.device(device)
    free, _ = torch.cuda.mem_get_info(place)
    # Torch holds on to blocks that nothing lies in any more.
    kept = torch.cuda.memory_reserved(place) - torch.cuda.memory_allocated(place)
    return int(free + kept)


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


@dataclass(frozen=True, eq=False)
class MappedFrames:
    """Frames of B utterances on disk, with the reading half of what `Frames` offers.

    Several threads may read at once: they take turns, as a stream asks for.

    Attributes:
        stream: where they lie.
        keys: of the utterances, in their order.
        speech: `[N]` probability of speech per frame, in memory, where a detector was run.
        words: `[N, 2]`, as those of `Frames`, in memory.
    """

    stream: FrameStream
    keys: tuple[str, ...]
    speech: Tensor | None = None
    words: Tensor | None = None
    lengths: Tensor = field(init=False)
    offsets: Tensor = field(init=False)
    _turn: Lock = field(init=False, repr=False, default_factory=Lock)

    def __post_init__(self) -> None:
        lengths = torch.from_numpy(np.asarray(self.stream.lengths(self.keys), dtype=np.int64))
        offsets = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
        object.__setattr__(self, "lengths", lengths)
        object.__setattr__(self, "offsets", offsets)

    @property
    def dim(self) -> int:
        """Features per frame."""
        return self.stream.dim

    @property
    def total(self) -> int:
        """Frames of all utterances."""
        return int(self.offsets[-1])

    @property
    def dtype(self) -> torch.dtype:
        """Of the values as they are stored."""
        return torch.from_numpy(np.empty(0, dtype=self.stream.dtype)).dtype

    @property
    def device(self) -> torch.device:
        """Where values are when they have been read."""
        return torch.device("cpu")

    def __len__(self) -> int:
        return len(self.keys)

    def utterance(self, index: int) -> Tensor:
        """`[T, D]`, one utterance's frames."""
        with self._turn:
            return torch.from_numpy(np.array(self.stream.read(self.keys[index])))

    def select(self, indices: Sequence[int] | Tensor) -> Frames:
        """A batch in memory of the utterances at `indices`, in that order (repeats allowed)."""
        chosen = torch.as_tensor(indices, dtype=torch.int64).tolist()
        with self._turn:
            loaded = self.stream.load([self.keys[index] for index in chosen])
        speech, words = (
            None
            if one is None
            else torch.cat([one[self.offsets[i] : self.offsets[i + 1]] for i in chosen])
            for one in (self.speech, self.words)
        )
        return replace(loaded, speech=speech, words=words)
