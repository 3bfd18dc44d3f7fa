"""The frames of recordings through a model's own encoders, in memory: bounded by the limit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

import torch
from torch import Tensor

from cache.encoders.energy import energy
from cache.encoders.files import Kind
from cache.encoders.names import resolve_encoder
from cache.encoders.padding import recorded_padding
from cache.encoders.vad import load_detector, speech
from cache.extraction import read_extraction
from cache.frames import Frames
from cache.keys import normalise_text
from corpora.base.errors import AudioError
from corpora.base.terminal import progress_bar
from corpora.base.work import Work
from corpora.utterance import Utterance
from explain.load import Material
from finetune.assembly import assemble
from finetune.batches import Batch, load_batches, plan_batches
from finetune.evaluating.subjects import FRAME_BUDGET, HeadSubject
from finetune.examples import gather_examples
from finetune.model import EmotionModel


def model_material(
    model: EmotionModel, utterances: Sequence[Utterance], *, title: str = ""
) -> Material:
    """Encode recordings and texts with a model.

    Args:
        model: in eval mode.
        utterances: labelled or not.
        title: of the progress bar; "" for none.

    Raises:
        AudioError: no recording could be read.
    """
    # Lengths are measured for labelled rows alone, and here labels play no part.
    own = {u.id: u for u in utterances}
    marked = [replace(u, label=model.labels[0]) for u in utterances]
    examples, skipped = gather_examples(model, marked, {})
    plan = plan_batches(examples.lengths, FRAME_BUDGET)
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
    kept = tuple(own[examples.utterances[row].id] for row in rows)
    kinds = None
    if model.text_encoder is not None:
        texts = [normalise_text(u.text) for u in kept]
        kinds = torch.cat([torch.from_numpy(k) for k in model.text_encoder.token_kinds(texts)])
    return Material(
        kept,
        laid,
        None if model.audio_encoder is None else model.audio_encoder.grid,
        torch.cat([levels[row] for row in rows]) if listens else None,
        kinds,
        skipped,
    )


def head_on_recordings(work: Work, subject: HeadSubject, device: str) -> EmotionModel:
    """A searched head on the encoders its frames came from, for recordings outside the cache.

    Raises:
        ConfigError: an encoder is not there any more.
    """
    source = subject.source
    directories: dict[str, Path] = {
        name: resolve_encoder(source.encoders[name], cast(Kind, name), work.root)
        for name in subject.record.head.modalities
    }
    padding = None
    if "audio" in directories:
        padding = recorded_padding(read_extraction(work).source("audio").recipe)
    return assemble(subject.head, directories, source.layers, device=device, padding=padding)


def _encode(model: EmotionModel, batch: Batch) -> dict[str, Frames]:
    return model.encode(batch.waveforms, batch.texts)
