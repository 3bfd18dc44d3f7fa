"""A work folder as `extract` leaves it, with invented frames: no encoder, no torch."""

from pathlib import Path
from typing import Any

import numpy as np

from cache.last_extraction import Extraction, Source, write_extraction
from cache.lookup import FrameCache
from cache.recipe import JSON, Recipe
from cache.stream import PartWriter, ensure_stream, open_features
from corpora.base.work import Work
from corpora.manifest import Manifest, write_manifest
from tests.cache.recordings import make_manifest

GRID: dict[str, JSON] = {"hop": 320, "window": 560, "rule": "whole windows"}
DECODER: dict[str, JSON] = {"soundfile": "0.14.0", "soxr": "1.1.0"}


def audio_recipe(**changes: JSON) -> Recipe:
    fields: dict[str, JSON] = {
        "weights": ["ab" * 32],
        "config": {"model_type": "wav2vec2-bert", "hidden_size": 4, "layers": 3},
        "front_end": {"stride": 2},
        "transformers": "5.22.0",
        "compute_dtype": "fp32",
        "grid": GRID,
        "decoder": DECODER,
    }
    return Recipe("audio", {**fields, **changes})


SOURCES = {
    "audio": Source(audio_recipe(), "facebook/w2v-bert-2.0", (2, 3)),
    "text": Source(
        Recipe("text", {"transformers": "5.22.0", "config": {"model_type": "deberta-v2"}}),
        "microsoft/deberta-v3-base",
        (12,),
    ),
    "energy": Source(Recipe("energy", {"level": "rms", "unit": "dB", "grid": GRID})),
    "speech": Source(Recipe("speech", {"detector": "silero-vad", "grid": GRID})),
}


def fill_work(folder: Path, count: int = 6) -> tuple[Work, Manifest]:
    """Six recordings with four texts; every stream has the first three inputs in one part."""
    work = Work(folder / "work")
    work.root.mkdir()
    manifest = make_manifest(folder, count)
    write_manifest(manifest, work.manifest)
    write_extraction(work.extraction, Extraction(SOURCES))
    for kind, source in SOURCES.items():
        for layer in source.layers or (None,):
            name = source.stream(layer).split("/")[1]
            dim = 4 if source.layers else 1
            fill_stream(work, manifest, source.recipe, name, dim)
        if kind == "text":
            fill_stream(work, manifest, source.recipe, "token_kind", 1, "uint8")
    return work, manifest


def fill_stream(
    work: Work,
    manifest: Manifest,
    recipe: Recipe,
    name: str,
    dim: int = 4,
    dtype: str = "float16",
    inputs: slice = slice(None),
) -> Path:
    """Add a manifest's inputs to a stream, three a part; the same input has the same length."""
    folder = ensure_stream(open_features(work.features), recipe, name, dim, dtype)
    keys = input_keys(work, manifest, "text" if recipe.kind == "text" else "audio")
    rng = np.random.default_rng(0)
    with PartWriter(folder, dim, dtype) as writer:
        for number, key in enumerate(keys[inputs]):
            values: Any = rng.integers(0, 100, (3 + int(key[0], 16), dim))
            writer.add(key, values.astype(dtype))
            if number % 3 == 2:
                writer.commit()
    return folder


def input_keys(work: Work, manifest: Manifest, kind: str) -> list[str]:
    """The different content keys of a manifest, in its order."""
    found = FrameCache(work).keys(manifest.utterances)
    return list(dict.fromkeys(found[u.id][kind] for u in manifest.utterances))


def parts(folder: Path) -> list[Path]:
    """The parts of a stream, by name."""
    return sorted(folder.glob("part-*"))
