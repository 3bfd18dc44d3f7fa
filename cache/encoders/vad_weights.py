"""The voice activity detector's weights file, found without importing its package or torch."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from cache.encoders.files import Hashes, hash_files
from cache.recipe import JSON
from corpora.base.errors import MissingExtraError

#: Samples of one chunk at 16 kHz (32 ms).
CHUNK = 512


def vad_fields(hashes: Hashes | None = None) -> dict[str, JSON]:
    """What decides the probabilities of speech besides the samples and the grid.

    Args:
        hashes: how to hash the weights file; by default it is read every time.

    Raises:
        MissingExtraError: see `weights_file`.
    """
    path = weights_file()
    digest = (hash_files if hashes is None else hashes)([path])[path]
    return {"detector": "silero-vad", "weights": digest, "chunk": CHUNK, "frame": "centre"}


def weights_file() -> Path:
    """The weights inside the installed `silero-vad` package.

    Raises:
        MissingExtraError: the package or the file is not there.
    """
    found = importlib.util.find_spec("silero_vad")
    for folder in (found.submodule_search_locations if found else None) or ():
        path = Path(folder) / "data" / "silero_vad_16k.safetensors"
        if path.is_file():
            return path
    raise MissingExtraError(
        "the voice activity detector's weights are missing: expected the package silero-vad with "
        "data/silero_vad_16k.safetensors. Install it: pip install 'silero-vad>=6.2.3'."
    )
