"""How many bytes an extraction will add, and whether the disk has them."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from cache.extracting.targets import Target
from cache.store.layout import DTYPES
from cache.store.parts import PART_BYTES
from corpora.base.errors import CacheError
from corpora.base.terminal import bytes_text

# Beside its frames an utterance takes its key and length in its part's metadata, and a part its
# checksum, the rest of the metadata and the ends of two disk blocks.
_UTTERANCE_BYTES = 40
_PART_BYTES = 4_500


@dataclass(frozen=True)
class Estimate:
    """Bytes to be added.

    Attributes:
        streams: by path inside the cache.
        hours: of audio to be encoded.
    """

    streams: Mapping[str, int]
    hours: float = 0.0

    @property
    def nbytes(self) -> int:
        """Of all streams."""
        return sum(self.streams.values())


def estimate(
    wanted: Iterable[tuple[Target, int]], dims: Mapping[str, int], hours: float = 0.0
) -> Estimate:
    """Add up what is to be stored.

    Args:
        wanted: each utterance of each stream with its number of rows: frames, tokens, or 2 of
            moments.
        dims: values per frame of the encoders, by modality.
        hours: of audio to be encoded.
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
    return Estimate(streams, hours)


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
    if needed.nbytes > free:
        largest = sorted(needed.streams.items(), key=lambda entry: -entry[1])[:3]
        listed = ", ".join(f"{path} {bytes_text(nbytes)}" for path, nbytes in largest)
        raise CacheError(
            f"the features need {bytes_text(needed.nbytes)} ({listed}), and {folder} has "
            f"{bytes_text(free)} free: {bytes_text(needed.nbytes - free)} too little. Make room, "
            "name a work folder on another disk, ask for fewer layers, or keep --moments-only."
        )
    return free
