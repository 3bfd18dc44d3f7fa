"""Whether the model on recordings says what its head said on cached frames, before any step."""

from __future__ import annotations

import torch

from cache.collect import collect_frames
from corpora.base.work import Work
from corpora.manifest import Manifest
from finetune.examples import Examples
from finetune.model import EmotionModel
from finetune.scoring import predict_logits
from heads.dataset import Dataset, VectorStore
from heads.results import HeadRecord
from heads.training import predict


def label_agreement(
    work: Work,
    manifest: Manifest,
    model: EmotionModel,
    record: HeadRecord,
    examples: Examples,
    frame_budget: int,
) -> tuple[int, int]:
    """On how many utterances both say the same class, and of how many.

    In float32 they do on all but ties. In bf16 a batch's company changes the last of eight bits.

    Args:
        work: the work folder with the cache.
        manifest: the utterances.
        model: as assembled, on no step yet.
        record: its head.
        examples: of one split, all of them in the cache.
        frame_budget: see `finetune.batches.plan_batches`.
    """
    wanted = {utterance.id for utterance in examples.utterances}
    rows = tuple(u for u in manifest.utterances if u.id in wanted)
    collection = collect_frames(
        work,
        Manifest(rows, manifest.labels, corpus=manifest.corpus),
        record.head.modalities,
        layers={name: record.origin.layers[name] for name in record.head.modalities},
        speech=record.head.needs_speech,
    )
    dataset = Dataset(
        collection.utterances,
        model.labels,
        collection.frames,
        others=collection.others,
        layers=collection.layers,
    )
    store = VectorStore(dataset, device=model.device)
    cached = predict([model.head], store, torch.arange(len(dataset)))[0].argmax(dim=1).cpu()
    said = {u.id: int(c) for u, c in zip(collection.utterances, cached, strict=True)}
    heard = predict_logits(model, examples, frame_budget).argmax(dim=1).tolist()
    pairs = [
        (said[u.id], c) for u, c in zip(examples.utterances, heard, strict=True) if u.id in said
    ]
    return sum(a == b for a, b in pairs), len(pairs)
