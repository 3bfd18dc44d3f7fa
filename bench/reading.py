"""Reading: a stream against a flat memory map, HDF5, Zarr's own reader and NumPy.

All hold the same utterances: 1 GB of 1,024-d float16, 50 to 450 frames each (1 to 9 s), in the
system's cache of files, as they are after a first epoch. A draw is 64 random utterances into a
buffer that is used again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
import zarr

from bench.table import Outcome, Settings, compare, rate_outcome
from cache.recipe import Recipe
from cache.store.layout import ensure_stream, open_features
from cache.store.writer import PartWriter
from cache.stream import FrameStream

DIM = 1024
BYTES = 1_000_000_000
SHORTEST, LONGEST = 50, 450
DRAW = 64
DRAWS = 30
ZARR_ROWS = 1_024

Array = npt.NDArray[Any]
Copy = Callable[[int, Array], object]  # one utterance, by number, into rows of the buffer


@dataclass(frozen=True, eq=False)
class Data:
    """The same utterances as a stream and as one flat file.

    Attributes:
        stream: path of the stream.
        flat: path of the raw matrix `[frames, 1024]`.
        offsets: `[n+1]`, utterance i is rows `offsets[i]` to `offsets[i+1]`.
    """

    stream: Path
    flat: Path
    offsets: npt.NDArray[np.int64]

    @property
    def nbytes(self) -> int:
        """Of all frames."""
        return int(self.offsets[-1]) * DIM * 2

    @property
    def keys(self) -> list[str]:
        """Of the utterances, in their order."""
        return [_key(number) for number in range(len(self.offsets) - 1)]

    def utterances(self) -> Iterator[Array]:
        """One after the other, as views of a map of the flat file."""
        matrix = self.matrix()
        for start, stop in zip(self.offsets[:-1], self.offsets[1:], strict=True):
            yield matrix[start:stop]

    def matrix(self) -> Array:
        """`[frames, 1024]`, mapped."""
        return np.memmap(self.flat, "<f2", "r", shape=(int(self.offsets[-1]), DIM))

    def draws(self) -> list[npt.NDArray[np.int64]]:
        """`[64]` utterance numbers each."""
        random = np.random.default_rng(7)
        return [random.integers(0, len(self.offsets) - 1, DRAW) for _ in range(DRAWS)]


def make_data(settings: Settings) -> Data:
    """Write the utterances, unless an earlier row did."""
    folder = settings.folder / "reading"
    flat, lengths = folder / "flat.bin", folder / "lengths.npy"
    features = open_features(folder / "features.zarr")
    stream = ensure_stream(features, Recipe("audio", {"made": "up"}), "layer_24", DIM, "float16")
    if not lengths.exists():
        random = np.random.default_rng(0)
        pool = random.standard_normal((2 * LONGEST, DIM)).astype(np.float16)
        found: list[int] = []
        with open(flat, "wb") as file, PartWriter(stream, DIM, "float16") as writer:
            while sum(found) * DIM * 2 < BYTES * settings.size:
                frames = int(random.integers(SHORTEST, LONGEST + 1))
                values = pool[(start := int(random.integers(LONGEST))) : start + frames]
                writer.add(_key(len(found)), values)
                file.write(values.tobytes())
                found.append(frames)
        np.save(lengths, found)
    return Data(stream, flat, np.concatenate([[0], np.cumsum(np.load(lengths))]))


def against_flat(settings: Settings) -> Outcome:
    """Random utterances against NumPy's memory map of one file."""
    data = make_data(settings)
    matrix = data.matrix()
    offsets = data.offsets

    def copy(number: int, rows: Array) -> None:
        rows[:] = matrix[offsets[number] : offsets[number + 1]]

    return _random_reads(settings, data, copy, 0.8)


def against_hdf5(settings: Settings) -> Outcome:
    """Random utterances against h5py, one dataset an utterance."""
    data = make_data(settings)
    path = data.flat.with_name("datasets.h5")
    with h5py.File(path, "w") as file:
        for key, values in zip(data.keys, data.utterances(), strict=True):
            file.create_dataset(key, data=values)
    try:
        with h5py.File(path, "r") as file:
            keys = data.keys

            def copy(number: int, rows: Array) -> None:
                file[keys[number]].read_direct(rows)

            return _random_reads(settings, data, copy, 2.0)
    finally:
        path.unlink()


def against_zarr(settings: Settings) -> Outcome:
    """Random utterances against zarr-python on chunks of 1,024 rows, not compressed."""
    data = make_data(settings)
    path = data.flat.with_name("chunked.zarr")
    shape, chunks = (int(data.offsets[-1]), DIM), (ZARR_ROWS, DIM)
    array: Any = zarr.create_array(
        path, shape=shape, chunks=chunks, dtype="float16", compressors=None
    )
    array[:] = data.matrix()
    offsets = data.offsets

    def copy(number: int, rows: Array) -> None:
        rows[:] = array[offsets[number] : offsets[number + 1]]

    return _random_reads(settings, data, copy, 10.0)


def whole(settings: Settings) -> Outcome:
    """The whole stream into fresh memory, sums checked, against `np.fromfile` of the same bytes."""
    data = make_data(settings)
    found = compare(
        lambda: FrameStream.open(data.stream).load(),
        lambda: np.fromfile(data.flat, "<f2"),
        settings.times(9),
    )
    return rate_outcome(found, data.nbytes, 0.6)


def _random_reads(settings: Settings, data: Data, copy: Copy, least: float) -> Outcome:
    """Draws through the stream against draws copied one by one, into the same buffer."""
    stream = FrameStream.open(data.stream)
    keys, draws = data.keys, data.draws()
    by_key = [[keys[number] for number in draw] for draw in draws]
    starts = data.offsets.tolist()
    buffer = np.zeros((DRAW * LONGEST, DIM), np.float16)

    def ours() -> None:
        for chosen in by_key:
            stream.gather(chosen, out=buffer)

    def theirs() -> None:
        for draw in draws:
            row = 0
            for number in draw.tolist():
                frames = starts[number + 1] - starts[number]
                copy(number, buffer[row : row + frames])
                row += frames

    found = compare(ours, theirs, settings.times(9))
    frames = sum(starts[number + 1] - starts[number] for draw in draws for number in draw.tolist())
    return rate_outcome(found, frames * DIM * 2, least)


def _key(number: int) -> str:
    return f"{number:032x}"
