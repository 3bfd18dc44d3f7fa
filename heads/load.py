"""From the cache to the data set of heads, and the threads and precision that suit its size."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace

import torch

from cache.encoders.device import has_bf16_units
from cache.frames import Frames
from cache.keys import MODALITIES
from cache.last_extraction import SURPRISAL
from cache.lookup import FrameCache
from cache.mapped import MappedFrames
from corpora.base.errors import ConfigError, ManifestError
from corpora.manifest import Manifest
from corpora.manifest_fields import SHOWN_PROBLEMS
from corpora.utterance import ATTRIBUTES, where_of
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
    """How many groups of heads are trained beside one another, a thread each."""
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
    attributes: Mapping[str, tuple[float, float]] | None = None,
) -> Dataset:
    """Read the frames of a manifest's utterances, each modality's usual layer.

    They are kept on the device, in memory, or mapped, where they fit: `residence` tells. Utterances
    that failed at extraction are left out.

    Args:
        cache: of the work folder.
        manifest: whose utterances.
        modalities: some of `MODALITIES`; by default all that there are.
        device: where batches are needed; frames are kept there if they fit.
        others: whether the other cached layers are found too, for heads that read one of them or
            weigh them all; they are read when they are needed.
        attributes: that are learnt (see `aimed`).

    Raises:
        ConfigError: an unknown modality.
        MissingStepError: nothing was extracted, or not these.
        CacheError: no utterance has frames, or the cache is damaged.
    """
    chosen = cache.modalities if modalities is None else modalities
    unknown = [name for name in chosen if name not in MODALITIES]
    if unknown or not chosen:
        raise ConfigError(
            f"modalities are {', '.join(MODALITIES)}, got {', '.join(unknown) or 'none'}"
        )
    found = cache.find(manifest, chosen, others=others)
    frames, residence = found.read(device)
    words = ""
    if SURPRISAL in cache.sources:
        # Reads alignments, which nothing else here needs.
        from heads.words import with_words

        frames, words = with_words(cache, found.utterances, frames)
    return Dataset(
        found.utterances,
        manifest.labels,
        frames,
        found.moments,
        f"{residence} {words}".rstrip(),
        found.others,
        found.layers,
        attributes or {},
    )


def aimed(manifest: Manifest, targets: str) -> tuple[Manifest, dict[str, tuple[float, float]]]:
    """The manifest with the labels that are learnt, and the attributes that are, by their scales.

    Args:
        manifest: the utterances.
        targets: one of `TARGETS`; attributes are those that a used utterance was rated for.

    Raises:
        ManifestError: no ratings, on no known scale, or beyond its ends.
    """
    if targets == "emotion":
        return manifest, {}
    used = [u for u in manifest.utterances if u.split or u.fold]
    held = [name for name in ATTRIBUTES if any(getattr(u, name) is not None for u in used)]
    if not held:
        raise ManifestError(
            f"--targets {targets} needs ratings, and the manifest's columns "
            f"{', '.join(ATTRIBUTES)} are absent or empty. Fill them in, and say their scales in "
            'manifest.json, for example "scales": {"arousal": [1, 7]}.'
        )
    scales = {name: manifest.scales.get(name, (0.0, 0.0)) for name in held}
    unknown = [name for name, (low, high) in scales.items() if not low < high]
    if unknown:
        raise ManifestError(
            f"The scale of {' and '.join(unknown)} is not known: say its lowest and highest value "
            f'in manifest.json, for example "scales": {{"{unknown[0]}": [1, 7]}}.'
        )
    outside = [
        f"{name} {value:g} of {where_of(u)}"
        for name, (low, high) in scales.items()
        for u in used
        if (value := getattr(u, name)) is not None and not low <= value <= high
    ]
    if outside:
        more = f" and {len(outside) - SHOWN_PROBLEMS} more" * (len(outside) > SHOWN_PROBLEMS)
        ends = ", ".join(f"{name} {low:g} to {high:g}" for name, (low, high) in scales.items())
        raise ManifestError(
            f"Ratings beyond their scale ({ends}): {'; '.join(outside[:SHOWN_PROBLEMS])}{more}. "
            "Correct them, or the scales in manifest.json."
        )
    labels = () if targets == "attributes" else manifest.labels
    return replace(manifest, labels=labels), scales


def read_origin(
    cache: FrameCache,
    manifest: Manifest,
    frames: Mapping[str, Frames | MappedFrames],
    attributes: Mapping[str, tuple[float, float]] | None = None,
) -> Origin:
    """Where the frames of a data set loaded by `load_dataset` come from."""
    extraction = cache.extraction
    sources = {name: extraction.source(name) for name in frames}
    streams = {name: source.stream() for name, source in sources.items()}
    if any(batch.speech is not None for batch in frames.values()):
        streams["speech"] = extraction.source("speech").stream()
    if any(batch.words is not None for batch in frames.values()):
        streams[SURPRISAL] = extraction.source(SURPRISAL).stream()
    return Origin(
        corpus=manifest.corpus,
        synthetic=manifest.synthetic,
        labels=manifest.labels,
        encoders={name: source.encoder for name, source in sources.items()},
        layers={name: source.usual_layer for name, source in sources.items()},
        streams=streams,
        frames={name: batch.total for name, batch in frames.items()},
        manifest_sha256=manifest_digest(manifest, attributes),
    )


# Frame values of a batch from which on `auto` is bf16, where the processor has units for it. Small
# batches gain nothing.
WORTHWHILE_VALUES = 2**22


def choose_precision(asked: str, dataset: Dataset, batch_size: int, device: str = "cpu") -> str:
    """`fp32` or `bf16`: what was asked for, or what is faster on this processor."""
    if asked != "auto":
        return asked
    worthwhile = batch_values(dataset, batch_size) >= WORTHWHILE_VALUES
    return "bf16" if worthwhile and has_bf16_units(device) else "fp32"
