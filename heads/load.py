"""From the cache to the data set that heads are trained and scored on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch

from cache.frames import Frames
from cache.keys import MODALITIES
from cache.lookup import FrameCache
from cache.mapped import MappedFrames
from corpora.base.errors import ConfigError
from corpora.manifest import Manifest
from heads.dataset import Dataset
from heads.pooling.segments import sharing
from heads.records import Origin, manifest_digest

# Frame values of a batch (utterances × frames × features, all modalities) from which on its work is
# shared between threads: about 64 utterances of 2.5 s at 512 features. Below, two threads
# save little on an idle machine, and on a busy one they wait for each other at every product: a
# cohort of eleven at 128 features took 110 ms a step on one thread and 900 to 3,000 on two.
SHARED_VALUES = 2**22


@contextmanager
def suitable_threads(dataset: Dataset, batch_size: int) -> Iterator[None]:
    """Inside, as many threads as torch had share the work where batches are large; else one."""
    small = batch_values(dataset, batch_size) < SHARED_VALUES
    with sharing(1 if small else torch.get_num_threads()):
        yield


def suitable_workers(dataset: Dataset, batch_size: int) -> int:
    """How many companies of heads are trained beside one another, a thread each."""
    small = batch_values(dataset, batch_size) < SHARED_VALUES
    return torch.get_num_threads() if small else 1


def batch_values(dataset: Dataset, batch_size: int) -> float:
    """How many values the frames of a batch have on average, all modalities together."""
    values = sum(frames.total * frames.dim for frames in dataset.frames.values())
    return values / max(1, len(dataset)) * batch_size


def load_dataset(
    cache: FrameCache,
    manifest: Manifest,
    modalities: Sequence[str] | None = None,
    device: str = "cpu",
    *,
    others: bool = False,
) -> Dataset:
    """Read the frames of a manifest's utterances, each modality's usual layer.

    They are kept on the device, in memory, or mapped, where they fit: `residence` tells. Utterances
    that failed at extraction are left out.

    Args:
        cache: of the work folder.
        manifest: whose utterances.
        modalities: `audio` and/or `text`; all extracted ones by default.
        device: where batches are needed; frames are kept there if they fit.
        others: whether the other cached layers are found too, for heads that read one of them or
            weigh them all; they are read when they are needed.

    Raises:
        ConfigError: an unknown modality.
        MissingStepError: nothing was extracted, or not these.
        CacheError: no utterance has frames, or the cache is damaged.
    """
    chosen = cache.modalities if modalities is None else modalities
    unknown = [name for name in chosen if name not in MODALITIES]
    if unknown or not chosen:
        raise ConfigError(
            f"modalities must be {' and/or '.join(MODALITIES)}, got {', '.join(unknown) or 'none'}"
        )
    found = cache.find(manifest, chosen, others=others)
    frames, residence = found.read(device)
    return Dataset(
        found.utterances,
        manifest.labels,
        frames,
        found.moments,
        str(residence),
        found.others,
        found.layers,
    )


def read_origin(
    cache: FrameCache, manifest: Manifest, frames: Mapping[str, Frames | MappedFrames]
) -> Origin:
    """Where the frames of a data set loaded by `load_dataset` come from."""
    extraction = cache.extraction
    sources = {name: extraction.source(name) for name in frames}
    streams = {name: source.stream() for name, source in sources.items()}
    if any(batch.speech is not None for batch in frames.values()):
        streams["speech"] = extraction.source("speech").stream()
    return Origin(
        corpus=manifest.corpus,
        synthetic=manifest.synthetic,
        labels=manifest.labels,
        encoders={name: source.encoder for name, source in sources.items()},
        layers={name: source.usual_layer for name, source in sources.items()},
        streams=streams,
        frames={name: batch.total for name, batch in frames.items()},
        manifest_sha256=manifest_digest(manifest),
    )
