"""FrameStream: reads one recipe's features of any number of inputs, by content key.

Importing this, opening a stream and asking what it holds do not import torch: a plan that finds
nothing to do answers at once. `cache.store.layout` tells the folders, `cache.store.parts` the
bytes.
"""

from __future__ import annotations

import resource
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt

from cache.store.index import Index, Run, scan, seen_of_parts
from cache.store.layout import DTYPES, StreamHeader, ensure_stream, open_features, read_stream
from cache.store.mirror import pull
from cache.store.parts import PART_BYTES, check_sum, map_part, read_rows, read_through
from cache.store.remote import remote_of
from cache.store.writer import PartWriter
from corpora.base.errors import CacheError

if TYPE_CHECKING:
    import torch

    from cache.frames import Frames
    from cache.store.delivery import Piece

__all__ = ["FrameStream", "PartWriter", "ensure_stream", "open_features"]

T = TypeVar("T")
# Each open map costs a file descriptor, of which a process has 1,024 on Linux and 256 on macOS by
# default, and a work folder has half a dozen streams. Opening one again takes some 20 µs.
OPEN_MAPS = 128


class FrameStream:
    """A stream's utterances, memory-mapped. Made by `FrameStream.open`.

    >>> stream = FrameStream.open(layer)  # WORK/features.zarr/audio-<fingerprint>/layer_24
    >>> stream.keys, stream.dim
    (('key of a', 'key of b'), 4)
    >>> stream.load(["key of b", "key of a"]).offsets.tolist()
    [0, 2, 5]

    Parts never change, so what was read stays right; parts added later are seen by opening again.
    When a part turns out to be gone, because another process merged or pruned it, the folder is
    read once more. Each part's checksum is checked when it is first touched and whenever it is
    read as a whole. One thread may use it at a time; open it again for another.
    """

    def __init__(self, path: Path, header: StreamHeader) -> None:
        self.path = path
        self._header = header
        self._index = self._scan()
        self._maps: dict[int, npt.NDArray[Any]] = {}  # by part number; the last used one last
        self._most_maps = _most_maps(path)
        self._summed: set[str] = set()  # paths of parts whose checksum was right

    @classmethod
    def open(cls, path: Path | str) -> FrameStream:
        """Open a layer folder such as `WORK/features.zarr/audio-<fingerprint>/layer_24`.

        Raises:
            MissingStepError: there is no such folder.
            FormatVersionError: it is no stream, or one of another version.
            CacheError: a part lacks a file, or one has the wrong size.
        """
        return cls(Path(path), read_stream(Path(path)))

    @property
    def keys(self) -> tuple[str, ...]:
        """Keys of all utterances, each once, in the order they lie on disk."""
        return self._index.keys

    @property
    def dim(self) -> int:
        """Values per frame."""
        return self._header.dim

    @property
    def dtype(self) -> np.dtype[Any]:
        """As stored: float16, float32 or uint8."""
        return DTYPES[self._header.dtype]

    @property
    def nbytes(self) -> int:
        """Bytes of all utterances' frames as stored: what `load()` without a dtype returns."""
        return int(self.lengths().sum()) * self.frame_bytes

    @property
    def frame_bytes(self) -> int:
        """Bytes of one frame as stored."""
        return self._header.frame_bytes

    def __contains__(self, key: object) -> bool:
        return key in self._index

    def lengths(self, keys: Sequence[str] | None = None) -> npt.NDArray[np.int64]:
        """`[B]` frames of each utterance, of all by default.

        Raises:
            CacheError: a key is not in the stream.
        """
        return self._index.lengths(self._positions(keys))

    def read(self, key: str) -> npt.NDArray[Any]:
        """`[T, dim]`, one utterance: a read-only view of the map, without a copy.

        The view keeps its part's map open.

        Raises:
            CacheError: the key is not in the stream, or its part is damaged.
        """

        def view() -> npt.NDArray[Any]:
            (run,) = self._index.runs(self._positions([key]))
            return self._frames(run.part)[run.source : run.source + run.frames]

        return self._rescanning(view)

    def each(self) -> Iterator[tuple[str, npt.NDArray[Any]]]:
        """Every utterance once, `[T, dim]`, in the order they lie on disk.

        Read and not mapped: memory holds one utterance, where pages of a map would count as this
        process's. The checksum of a part is compared behind its last utterance.

        Raises:
            CacheError: a part is damaged, or the stream is being pruned.
        """
        given: set[str] = set()
        lookings = 0  # since the last utterance
        while True:
            before = len(given)
            try:
                for part, seen in seen_of_parts(self._index.parts):
                    numbers = [number for number in seen if part.keys[number] not in given]
                    keys = [part.keys[number] for number in numbers]
                    parts = read_through(part, {*numbers}) if numbers else ()
                    for key, values in zip(keys, parts, strict=True):
                        given.add(key)
                        yield key, values
                return
            except FileNotFoundError as error:
                # Its part was merged into another, where the rest is.
                lookings = 1 if len(given) > before else lookings + 1
                if lookings > 1:
                    raise self._going(error) from error
                left = [key for key in self.keys if key not in given]
                self._look_again()
                self._positions(left)  # says so if one was pruned

    def gather(
        self, keys: Sequence[str] | None = None, *, out: npt.NDArray[Any] | None = None
    ) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64]]:
        """Lay utterances end to end, as stored and without torch.

        Args:
            keys: which, in which order, repeats allowed; all by default.
            out: `[at least N, dim]` of the stored dtype, C order: memory to use again. Fresh memory
                costs several times what the copying does.

        Returns:
            values `[N, dim]` (the beginning of `out`, if given) and offsets `[B+1]`.

        Raises:
            CacheError: a key is not in the stream, or a part is damaged.
            ValueError: `out` does not fit.
        """

        def copy() -> tuple[npt.NDArray[Any], npt.NDArray[np.int64]]:
            positions, offsets = self._layout(keys)
            frames = int(offsets[-1])
            values = np.empty((frames, self.dim), self.dtype) if out is None else out[:frames]
            fits = values.shape == (frames, self.dim) and values.dtype == self.dtype
            if not (fits and values.flags.c_contiguous):
                raise ValueError(
                    f"out must be [at least {frames}, {self.dim}] {self.dtype} in C order, got "
                    f"{values.shape} {values.dtype}"
                )
            for number, runs in groupby(self._index.runs(positions), key=lambda run: run.part):
                self._copy(number, list(runs), values)
            return values, offsets

        return self._rescanning(copy)

    def load(
        self,
        keys: Sequence[str] | None = None,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype | None = None,
        out: npt.NDArray[Any] | None = None,
    ) -> Frames:
        """Utterances as a ragged batch.

        Converted and sent to the device in small blocks, so beside the result there is hardly
        anything in memory (`cache.store.delivery`).

        Args:
            keys: which, in which order, repeats allowed; all by default.
            device: where the values go.
            dtype: what the values become; as stored by default.
            out: memory to use again, as for `gather`; only without a device and a dtype.

        Raises:
            CacheError: a key is not in the stream, or a part is damaged.
            ValueError: `out` does not fit.
        """
        # Here and not above: planning an extraction opens streams and must not wait for torch.
        import torch

        from cache.frames import Frames
        from cache.store.delivery import deliver, new_tensor

        stored = getattr(torch, self._header.dtype)
        target = torch.device(device)
        if target.type == "cpu" and dtype in (None, stored):
            values, offsets = self.gather(keys, out=out)
            return Frames(torch.from_numpy(values), torch.from_numpy(offsets))
        if out is not None:
            raise ValueError("out can only be used on the CPU and with the dtype as stored")

        def send() -> Frames:
            positions, offsets = self._layout(keys)
            values = new_tensor(int(offsets[-1]), self.dim, dtype or stored, target)
            whole: list[str] = []
            deliver(self._pieces(positions, whole), values)
            self._summed.update(whole)
            return Frames(values, torch.from_numpy(offsets))

        return self._rescanning(send)

    def _pieces(self, positions: npt.NDArray[np.int64], whole: list[str]) -> Iterator[Piece]:
        """What to deliver; the paths of parts delivered as a whole are added to `whole`."""
        from cache.store.delivery import Piece

        for run in self._index.runs(positions):
            part = self._index.parts[run.part]
            if run.frames == part.frames:
                yield Piece(self._frames(run.part, check=False), run.target, part)
                whole.append(part.path)
            else:
                frames = self._frames(run.part)[run.source : run.source + run.frames]
                yield Piece(frames, run.target)

    def _layout(self, keys: Sequence[str] | None) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64]]:
        """Positions `[B]` of utterances and their offsets `[B+1]` when laid end to end."""
        positions = self._positions(keys)
        offsets = np.zeros(len(positions) + 1, np.int64)
        np.cumsum(self._index.lengths(positions), out=offsets[1:])
        return positions, offsets

    def _positions(self, keys: Iterable[str] | None) -> npt.NDArray[np.int64]:
        wanted = self.keys if keys is None else tuple(keys)
        try:
            return self._index.positions(wanted)
        except KeyError as error:
            missing = sum(key not in self._index for key in wanted)
            raise CacheError(
                f"{self.path} does not hold {error.args[0]!r} ({missing} of the {len(wanted)} "
                f"utterances asked for are missing, {len(self.keys)} are there). Run `extract`."
            ) from error

    def _copy(self, number: int, runs: Sequence[Run], out: npt.NDArray[Any]) -> None:
        """Copy runs of one part: from its map, but where all of it has to be read anyway.

        That is for its checksum the first time, and where most of it is wanted. Pages of a map
        count as this process's memory, so what is loaded would be held twice.
        """
        part = self._index.parts[number]
        apart = all(a.source + a.frames <= b.source for a, b in pairwise(runs))
        most = part.path not in self._summed or 2 * sum(r.frames for r in runs) >= part.frames
        if number not in self._maps and apart and most:
            read_rows(part, [(run.source, run.target, run.frames) for run in runs], out)
            self._summed.add(part.path)
            return
        frames = self._frames(number)
        for run in runs:
            out[run.target : run.target + run.frames] = frames[run.source : run.source + run.frames]

    def _frames(self, number: int, *, check: bool = True) -> npt.NDArray[Any]:
        """A part's matrix `[frames, dim]`, mapped; the maps used last stay open."""
        part = self._index.parts[number]
        frames = self._maps.pop(number, None)
        if frames is None:
            frames = map_part(part)
        self._maps[number] = frames
        while len(self._maps) > self._most_maps:
            self._maps.pop(next(iter(self._maps)))
        if check and part.path not in self._summed:
            check_sum(part, frames)
            self._summed.add(part.path)
        return frames

    def _scan(self) -> Index:
        return Index(scan(self.path, self._header).whole(self.path))

    def _rescanning(self, action: Callable[[], T]) -> T:
        """Do it; when a part is gone, look again where everything is, and do it once more."""
        try:
            return action()
        except FileNotFoundError:
            self._look_again()
        try:
            return action()
        except FileNotFoundError as error:
            raise self._going(error) from error

    def _look_again(self) -> None:
        pull(self.path.absolute().parents[2])
        read_stream(self.path)  # says so if the whole stream is gone
        self._index = self._scan()
        self._maps.clear()

    def _going(self, error: FileNotFoundError) -> CacheError:
        return CacheError(
            f"{self.path} is being pruned or merged by another process ({error.filename} is gone). "
            "Wait for it to end and try again."
        )


def open_if_there(path: Path) -> FrameStream | None:
    """A stream; None where there is no such folder."""
    return FrameStream.open(path) if path.is_dir() else None


def _most_maps(stream: Path) -> int:
    """How many maps a stream keeps open: never more than an eighth of what the process may.

    Nor more than an eighth of what copies from an object store may take: what is mapped stays.
    """
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = OPEN_MAPS if soft == resource.RLIM_INFINITY else min(OPEN_MAPS, soft // 8)
    remote = remote_of(stream.absolute().parents[2])
    if remote is not None:
        most = min(most, remote.limit // (8 * PART_BYTES))
    return max(1, most)
