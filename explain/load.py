"""From a work folder to what is explained: a head on cached frames, or a model on recordings."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor

from cache.audio import energy
from cache.encoders.files import Kind
from cache.encoders.grid import Grid, recorded_padding
from cache.encoders.names import resolve_encoder
from cache.encoders.vad import load_detector, speech
from cache.frames import Frames
from cache.keys import normalise_text, text_read
from cache.mapped import MappedFrames
from corpora.base.errors import AudioError, ConfigError, ManifestError
from corpora.base.terminal import progress_bar
from corpora.manifest import Manifest
from corpora.utterance import Utterance, split_name
from explain.pooled import (
    answering_head,
    as_importance,
    frame_view,
    gradient_saliency,
    is_attentive,
    logits_of,
    neighbours,
    one_thread_each,
    pooled,
    runs,
    scores,
)
from explain.ragged import Floats, floats
from explain.subject import ATTENTION, GRADIENT, Attribute, Subject
from finetune.assembly import assemble, check_streams, refuse_imported
from finetune.batches import Batch, counted, gather_examples, load_batches, plan_batches
from finetune.evaluate.scored import FRAME_BUDGET, ScoredHead
from finetune.evaluate.source import Source
from finetune.model import EmotionModel
from heads.head import Head
from heads.pooling.pooling import attention_weights
from heads.strength import Strength
from heads.words import with_words


def model_material(
    model: EmotionModel, utterances: Sequence[Utterance], *, title: str = ""
) -> LoadedRows:
    """Encode recordings and texts with a model.

    Args:
        model: in eval mode.
        utterances: labelled or not.
        title: of the progress bar; "" for none.

    Raises:
        AudioError: no recording could be read.
    """
    examples, skipped = gather_examples(model, utterances, {}, annotated=False)
    plan = plan_batches(counted(model, examples.lengths, FRAME_BUDGET), FRAME_BUDGET)
    listens = model.audio_encoder is not None
    detector = load_detector() if listens else None
    frames: dict[str, dict[int, Tensor]] = {}
    levels: dict[int, Tensor] = {}
    voiced: dict[int, Tensor] = {}
    bar = progress_bar(title, len(examples), "utterance", show=bool(title))
    with bar, torch.no_grad():
        for batch in load_batches(examples.utterances, plan, audio=listens, skipped=skipped):
            for name, values in _encode(model, batch).items():
                parts = values.values.cpu().split(values.lengths.tolist())
                frames.setdefault(name, {}).update(zip(batch.rows, parts, strict=True))
            if model.audio_encoder is not None and batch.waveforms is not None:
                assert detector is not None
                grid = model.audio_encoder.grid
                found = speech(batch.waveforms, grid, detector)
                voiced.update(zip(batch.rows, map(torch.from_numpy, found), strict=True))
                for row, waveform in zip(batch.rows, batch.waveforms, strict=True):
                    levels[row] = torch.from_numpy(energy(waveform, grid))
            bar.update(len(batch.rows))
    rows = sorted(next(iter(frames.values()), {}))
    if not rows:
        reason = next(iter(skipped.values()), "there is none")
        raise AudioError(f"no recording can be explained. First: {reason}")
    laid = {
        name: Frames.from_list(
            [parts[row] for row in rows],
            [voiced[row] for row in rows] if name == "audio" else None,
        )
        for name, parts in frames.items()
    }
    kept = tuple(examples.utterances[row] for row in rows)
    kinds = None
    if model.text_encoder is not None:
        texts = [normalise_text(u.text) for u in kept]
        kinds = torch.cat([torch.from_numpy(k) for k in model.text_encoder.token_kinds(texts)])
    return LoadedRows(
        kept,
        laid,
        None if model.audio_encoder is None else model.audio_encoder.grid,
        torch.cat([levels[row] for row in rows]) if listens else None,
        kinds,
        skipped,
    )


def head_on_recordings(scored: ScoredHead, device: str) -> EmotionModel:
    """A searched head on the encoders its frames came from, for recordings outside the cache.

    Raises:
        ConfigError: an encoder is not there any more, or frames were imported.
    """
    source, cache = scored.source, scored.cache
    refuse_imported(cache, scored.record)
    directories: dict[str, Path] = {
        name: resolve_encoder(source.encoders[name], cast(Kind, name), cache.root)
        for name in scored.record.head.modalities
    }
    padding = None
    if "audio" in directories:
        padding = recorded_padding(cache.extraction.source("audio").recipe)
    return assemble(
        scored.head,
        directories,
        source.layers,
        device=device,
        padding=padding,
        provenance={
            "search_manifest_sha256": source.manifest_sha256,
            "trained_on": source.trained_on,
        },
    )


def _encode(model: EmotionModel, batch: Batch) -> dict[str, Frames]:
    return model.encode(batch.waveforms, batch.texts)


# Frames worked on together: in float32 they stay in a processor's cache (8 MB at 1024-d).
CHUNK_FRAMES = 2_048


@dataclass(frozen=True, eq=False)
class LoadedRows:
    """Utterances with their frames and what else lies on them (see `Subject`)."""

    utterances: tuple[Utterance, ...]
    frames: Mapping[str, Frames | MappedFrames]
    grid: Grid | None = None
    energy: Tensor | None = None
    token_kinds: Tensor | None = None
    skipped: Mapping[str, str] = field(default_factory=dict)
    clocks: Mapping[str, Floats] = field(default_factory=dict)


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


def cached_material(scored: ScoredHead, rows: Manifest) -> LoadedRows:
    """The frames of a searched head, with energy, speech and token kinds where they are cached.

    Raises:
        MissingStepError: frames are missing.
        ConfigError: the frames at hand are not of the streams the head was searched on.
    """
    cache, modalities = scored.cache, scored.record.head.modalities
    check_streams(cache, scored.record)
    found = cache.find(rows, modalities, layers=dict(scored.source.layers))
    grid = energy = kinds = None
    if "audio" in modalities and found.utterances:
        grid = cache.extraction.grid
        energy = cache.companion("energy", found)
    clocks = {
        name: np.concatenate(times)
        for name in modalities
        if found.utterances
        and not isinstance(found.clocks.get(name), Grid)
        and (times := found.times(name)) is not None
    }
    if "text" in modalities and found.utterances:
        kinds = cache.companion("text", found)
    # Layers that are weighed lie beside one another, for which they have to be in memory.
    frames = found.all_layers() if found.others else found.read()[0]
    if scored.record.head.needs_words:
        frames, _ = with_words(cache, found.utterances, frames)
    read = tuple(replace(u, text=text_read(u, cache.describe)) for u in found.utterances)
    return LoadedRows(read, frames, grid, energy, kinds, found.failed, clocks)


def build_subject(
    head: Head,
    material: LoadedRows,
    *,
    kind: str = "head",
    source: Source | None = None,
    manifest: Manifest | None = None,
    split: str = "",
    strength: Strength | None = None,
    notes: Sequence[str] = (),
    attribute: str = "",
) -> Subject:
    """Run the head over the frames and weigh each of them.

    Args:
        head: trained; a copy of it is explained, on the CPU.
        material: the utterances and their frames, of at least one utterance.
        kind: see `Subject`.
        source: where the head or model comes from.
        manifest: the utterances' own, for corpus and synthetic.
        split: their split.
        strength: see `Subject`.
        notes: see `Subject`.
        attribute: of the head, which is explained; "" for its classes.
    """
    scales = head.config.attributes
    head = answering_head(head, attribute).to("cpu").eval().requires_grad_(False)
    frames = {name: material.frames[name] for name in head.config.modalities}
    attentive = [name for name in frames if is_attentive(head, name)]
    with one_thread_each() as threads:
        lengths = torch.stack([batch.lengths for batch in frames.values()]).sum(dim=0).tolist()
        layers = max(head.config.layers(name) for name in frames)
        chunks = runs(lengths, CHUNK_FRAMES // layers)
        seen = list(threads.map(lambda run: _weighed(head, frames, *run), chunks))
    vectors = {name: torch.cat([chunk.vectors[name] for chunk in seen]) for name in frames}
    utterances, explained = material.utterances, None
    if attribute:
        explained = _attribute(attribute, scales[attribute], logits_of(head, vectors), utterances)
        utterances = _on_sides(utterances, explained, head.config.labels)
    return Subject(
        kind=kind,
        head=head,
        labels=head.config.labels,
        utterances=utterances,
        frames=frames,
        probabilities=torch.cat([chunk.probabilities for chunk in seen]),
        vectors=vectors,
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
        clocks=material.clocks,
        token_kinds=material.token_kinds,
        encoders={} if source is None else source.encoders,
        layers={} if source is None else source.layers,
        split=split,
        corpus="" if manifest is None else manifest.corpus,
        synthetic=manifest is not None and manifest.synthetic,
        source=Path() if source is None else source.path,
        skipped=material.skipped,
        strength=strength,
        notes=tuple(notes),
        attribute=explained,
    )


def _attribute(
    name: str, scale: tuple[float, float], logits: Tensor, utterances: Sequence[Utterance]
) -> Attribute:
    """What is said of an attribute, of the logits `[n, 2]` of its sides, and how it was rated."""
    low, high = scale
    outputs = floats(logits[:, 1]).clip(-1, 1)
    rated = [float("nan") if (own := getattr(u, name)) is None else own for u in utterances]
    return Attribute(name, scale, (low + high) / 2 + outputs * (high - low) / 2, np.array(rated))


def _on_sides(
    utterances: Sequence[Utterance], attribute: Attribute, sides: Sequence[str]
) -> tuple[Utterance, ...]:
    """Utterances labelled by the side that they were rated on; none for the very middle."""
    middle = sum(attribute.scale) / 2
    return tuple(
        replace(u, label=sides[own > middle] if own < middle or own > middle else "")
        for u, own in zip(utterances, attribute.rated.tolist(), strict=True)
    )


@dataclass(frozen=True, eq=False)
class _Weighed:
    """What a head says about some utterances, and what weight it gives to their frames."""

    probabilities: Tensor
    vectors: Mapping[str, Tensor]
    weights: Mapping[str, Tensor]
    saliency: Mapping[str, Tensor]
    importance: Mapping[str, Tensor]


def _weighed(
    head: Head, frames: Mapping[str, Frames | MappedFrames], first: int, end: int
) -> _Weighed:
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
