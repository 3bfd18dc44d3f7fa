"""The frames of a cache, read with Zarr and nothing of Emopool's.

    python examples/read_the_cache.py WORK

A stream is a folder `WORK/features.zarr/<recipe>/layer_<n>`; each `part-…` in it is one Zarr
array, the frames `[frames, features]` of some inputs laid end to end. Its attributes say whose:
`keys[i]` is the content key of an input (a hash of a recording's bytes, or of a text), `lengths[i]`
how many of the rows are its frames. Of a key that stands in two parts the one in the part of the
lowest name counts. docs/formats.md has the rest.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import zarr


def utterances(stream: Path) -> Iterator[tuple[str, np.ndarray]]:
    """Key and frames `[frames, features]` of each input that a stream holds."""
    seen = set()
    for folder in sorted(stream.glob("part-*")):
        part = zarr.open_array(folder, mode="r")
        rows = np.asarray(part[:])
        attributes: dict[str, Any] = dict(part.attrs)
        ends = np.cumsum(attributes["lengths"]).tolist()
        for key, first, end in zip(attributes["keys"], [0, *ends[:-1]], ends, strict=True):
            if key not in seen:
                seen.add(key)
                yield str(key), rows[first:end]


def main(work: Path) -> None:
    """Print each stream, how much it holds, and the mean of one utterance's frames."""
    for stream in sorted((work / "features.zarr").glob("*/*")):
        if not any(stream.glob("part-*")):
            continue
        held = list(utterances(stream))
        key, frames = held[0]
        total = sum(len(own) for _, own in held)
        print(f"{stream.parent.name}/{stream.name}: {len(held)} inputs, {total} frames")
        print(f"  {key}: {frames.shape} {frames.dtype}, mean {frames.mean(dtype=np.float64):.4f}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
