"""From a work folder to what is explained: a head on cached frames, or a model on recordings."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cache.collect import collect_frames
from cache.encoders.grid import Grid
from cache.extraction import TOKEN_KIND, Extraction, read_extraction
from cache.frames import Frames
from cache.inputs import utterance_keys
from cache.stream import FrameStream
from corpora.base.errors import ConfigError, ManifestError
from corpora.base.work import Work
from corpora.manifest import Manifest
from corpora.utterance import Utterance, split_name
from explain.pooled import (
    frame_view,
    is_attentive,
    logits_of,
    neighbours,
    pooled,
    runs,
    scores,
)
from explain.saliency import as_importance, gradient_saliency
from explain.subject import ATTENTION, GRADIENT, Subject
from explain.workers import one_thread_each
from finetune.evaluating.subjects import HeadSubject, Source
from finetune.fitting import check_streams
from heads.head import Head
from heads.pooling.pooling import attention_weights

# Frames worked on together: in float32 they stay in a processor's cache (8 MB at 1024-d).
CHUNK_FRAMES = 2_048


@dataclass(frozen=True, eq=False)
class Material:
    """Utterances with their frames and what else lies on them (see `Subject`)."""

    utterances: tuple[Utterance, ...]
    frames: Mapping[str, Frames]
    grid: Grid | None = None
    energy: Tensor | None = None
    token_kinds: Tensor | None = None
    skipped: Mapping[str, str] = field(default_factory=dict)


def choose_rows(
    manifest: Manifest,
    split: str,
    *,
    limit: int | None = None,
    ids: Sequence[str] = (),
    seed: int = 0,
) -> Manifest:
    """The utterances to explain: those named, or a split's, at most `limit` drawn at random.

    Raises:
        ManifestError: an id that the manifest has not, or an empty split.
        ConfigError: a limit below 1.
    """
    if ids:
        known = {u.id: u for u in manifest.utterances}
        missing = [name for name in ids if name not in known]
        if missing:
            raise ManifestError(
                f"the manifest has no utterance {missing[0]!r}. Its ids are the column `id` of "
                "manifest.csv; the first is "
                f"{manifest.utterances[0].id!r}."
            )
        return replace(manifest, utterances=tuple(known[name] for name in dict.fromkeys(ids)))
    rows = manifest.in_split(split)
    if not rows:
        counts = {u.split or "(not used)": 0 for u in manifest.utterances}
        for u in manifest.utterances:
            counts[u.split or "(not used)"] += 1
        held = ", ".join(f"{name} {count:,}" for name, count in counts.items())
        raise ManifestError(
            f"the manifest has no utterance in {split_name(split)} (it has {held}). "
            "Choose another with --split."
        )
    if limit is not None and limit < 1:
        raise ConfigError(f"--limit {limit}: expected 1 utterance or more.")
    if limit is not None and limit < len(rows):
        kept = sorted(random.Random(seed).sample(range(len(rows)), limit))
        rows = tuple(rows[number] for number in kept)
    return replace(manifest, utterances=rows)


def cached_material(work: Work, subject: HeadSubject, rows: Manifest) -> Material:
    """The frames of a searched head, with energy, speech and token kinds where they are cached.

    Raises:
        MissingStepError: frames are missing.
        ConfigError: the frames at hand are not of the streams the head was searched on.
    """
    extraction = read_extraction(work)
    check_streams(work, subject.record, extraction)
    modalities = subject.record.head.modalities
    found = collect_frames(
        work,
        rows,
        modalities,
        layers=dict(subject.source.layers),
        speech="speech" in extraction.sources,
    )
    grid = energy = kinds = None
    if "audio" in modalities and found.utterances:
        grid = recorded_grid(extraction)
        if "energy" in extraction.sources:
            energy = _companion(work, extraction, "energy", found.utterances, found.frames["audio"])
    if "text" in modalities and found.utterances:
        kinds = _companion(work, extraction, "text", found.utterances, found.frames["text"])
    return Material(found.utterances, found.all_layers, grid, energy, kinds, found.failed)


def recorded_grid(extraction: Extraction) -> Grid:
    """The grid of the last extraction's audio frames."""
    fields: Any = extraction.source("audio").recipe.fields["grid"]
    return Grid(int(fields["hop"]), int(fields["window"]), str(fields["rule"]))


def _companion(
    work: Work,
    extraction: Extraction,
    kind: str,
    utterances: Sequence[Utterance],
    beside: Frames,
) -> Tensor | None:
    """`[N]`, a stream of one value a frame beside these frames; None where one is missing."""
    source = extraction.source(kind)
    folder = work.features / source.recipe.folder
    path = folder / TOKEN_KIND if kind == "text" else work.features / source.stream()
    if not path.is_dir():
        return None
    stream = FrameStream.open(path)
    found = utterance_keys(work, utterances)
    keys = [
        source.held_key(stream, found[u.id].get("text" if kind == "text" else "audio", ""))
        for u in utterances
    ]
    if not all(key in stream for key in keys):
        return None
    values = stream.load(keys)
    if not torch.equal(values.offsets, beside.offsets):
        return None  # of another extraction: it does not lie on these frames
    return values.values[:, 0]


def build_subject(
    head: Head,
    material: Material,
    *,
    kind: str = "head",
    source: Source | None = None,
    manifest: Manifest | None = None,
    split: str = "",
    notes: Sequence[str] = (),
) -> Subject:
    """Run the head over the frames and weigh each of them.

    Args:
        head: trained; put in eval mode, on the CPU.
        material: the utterances and their frames, of at least one utterance.
        kind: see `Subject`.
        source: where the head or model comes from.
        manifest: the utterances' own, for corpus and synthetic.
        split: their split.
        notes: see `Subject`.
    """
    head = head.to("cpu").eval().requires_grad_(False)
    frames = {name: material.frames[name] for name in head.config.modalities}
    attentive = [name for name in frames if is_attentive(head, name)]
    with one_thread_each() as threads:
        lengths = torch.stack([batch.lengths for batch in frames.values()]).sum(dim=0).tolist()
        layers = max(head.config.layers(name) for name in frames)
        chunks = runs(lengths, CHUNK_FRAMES // layers)
        seen = list(threads.map(lambda run: _weighed(head, frames, *run), chunks))
    return Subject(
        kind=kind,
        head=head,
        labels=head.config.labels,
        utterances=material.utterances,
        frames=frames,
        probabilities=torch.cat([chunk.probabilities for chunk in seen]),
        vectors={name: torch.cat([chunk.vectors[name] for chunk in seen]) for name in frames},
        weights={name: torch.cat([chunk.weights[name] for chunk in seen]) for name in attentive},
        saliency={
            name: torch.cat([chunk.saliency[name] for chunk in seen])
            for name in frames
            if name not in attentive
        },
        importance={name: torch.cat([chunk.importance[name] for chunk in seen]) for name in frames},
        methods={name: ATTENTION if name in attentive else GRADIENT for name in frames},
        grid=material.grid,
        energy=material.energy,
        token_kinds=material.token_kinds,
        encoders={} if source is None else source.encoders,
        layers={} if source is None else source.layers,
        split=split,
        corpus="" if manifest is None else manifest.corpus,
        synthetic=manifest is not None and manifest.synthetic,
        source=Path() if source is None else source.path,
        skipped=material.skipped,
        notes=tuple(notes),
    )


@dataclass(frozen=True, eq=False)
class _Weighed:
    """What a head says about some utterances, and what weight it gives to their frames."""

    probabilities: Tensor
    vectors: Mapping[str, Tensor]
    weights: Mapping[str, Tensor]
    saliency: Mapping[str, Tensor]
    importance: Mapping[str, Tensor]


def _weighed(head: Head, frames: Mapping[str, Frames], first: int, end: int) -> _Weighed:
    """Run the head over some utterances that lie side by side."""
    batch = {name: neighbours(values, first, end) for name, values in frames.items()}
    vectors: dict[str, Tensor] = {}
    weights: dict[str, Tensor] = {}
    importance: dict[str, Tensor] = {}
    with torch.no_grad():
        for name in frames:
            view = frame_view(head, batch[name], name)
            scored = scores(head, view, name) if is_attentive(head, name) else None
            vectors[name] = pooled(head, view, name, scored)
            if scored is not None:
                weights[name] = attention_weights(scored, view)
                importance[name] = weights[name].double().mean(dim=1)
        probabilities = torch.softmax(logits_of(head, vectors), dim=1)
    saliency = gradient_saliency(head, batch) if len(weights) < len(frames) else {}
    for name in set(frames) - set(weights):
        importance[name] = as_importance(saliency[name], batch[name].lengths.tolist())
    return _Weighed(probabilities, vectors, weights, saliency, importance)
