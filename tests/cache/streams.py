"""Small streams for tests."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cache.recipe import Recipe
from cache.store.layout import read_stream
from cache.stream import PartWriter, ensure_stream, open_features

Array = npt.NDArray[Any]
RECIPE = Recipe("audio", {"weights": "ab12", "versions": {"transformers": "5.23"}})


def fast_folder() -> Path | None:
    """Where fsync costs nothing, for tests that do it thousands of times; None is the default."""
    memory = Path("/dev/shm")
    return memory if os.access(memory, os.W_OK) else None


def make_stream(work: Path, dim: int = 4, dtype: str = "float16", name: str = "layer_24") -> Path:
    """An empty stream in `work/features.zarr`."""
    return ensure_stream(open_features(work / "features.zarr"), RECIPE, name, dim, dtype)


def utterances(count: int, dim: int = 4, dtype: str = "float16", seed: int = 0) -> dict[str, Array]:
    """Ragged utterances of 1 to 9 frames."""
    rng = np.random.default_rng(seed)
    return {
        f"{seed:08x}{number:024x}": (rng.uniform(0, 200, (rng.integers(1, 10), dim))).astype(dtype)
        for number in range(count)
    }


def add(stream: Path, values: Mapping[str, Array]) -> Path:
    """Add one part; returns its folder."""
    before = set(stream.glob("part-*"))
    first = next(iter(values.values()))
    with PartWriter(stream, first.shape[1], read_stream(stream).dtype) as writer:
        for key, frames in values.items():
            writer.add(key, frames)
    (part,) = set(stream.glob("part-*")) - before
    return part
