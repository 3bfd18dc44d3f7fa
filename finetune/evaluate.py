"""Scoring on a split: the search's head on cached frames, or the fine-tuned model on recordings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from cache.collect import collect_frames
from cache.extraction import read_extraction
from corpora.errors import ConfigError, ManifestError
from corpora.manifest import Manifest, require_splits
from corpora.work import Work
from finetune.evaluation import (
    SUBJECTS,
    Evaluation,
    check_writable,
    evaluation_folder,
    write_evaluation,
)
from finetune.examples import gather_examples
from finetune.fitting import check_streams
from finetune.model import EmotionModel
from finetune.model_files import CONFIG
from finetune.provenance import other_manifest_note
from finetune.scoring import predict_logits
from heads.dataset import Dataset, VectorStore
from heads.metrics import Report, classification_report
from heads.results import load_head
from heads.training import predict

# Frames of a batch when nothing is trained: no activations are kept.
FRAME_BUDGET = 8_000


def evaluate(
    work: Work,
    manifest: Manifest,
    split: str = "test",
    *,
    subject: str = "",
    device: str = "cpu",
    show_progress: bool = False,
) -> Evaluation:
    """Score the fine-tuned model where there is one, else the search's best head.

    Args:
        work: the work folder.
        manifest: whose utterances.
        split: train, dev or test.
        subject: `head` or `model`, to choose.
        device: for the model, `cpu` or `cuda`.
        show_progress: whether to draw a progress bar.

    Raises:
        MissingStepError: there is neither, or not the one asked for.
        ConfigError: an unknown subject; what is scored does not fit the frames at hand; the
            manifest has changed since (see `other_manifest_note`); or the scores cannot be written.
        ManifestError: the split has no labelled utterance, or a label is unknown.
    """
    if subject not in ("", *SUBJECTS):
        raise ConfigError(f"expected {' or '.join(SUBJECTS)} to evaluate, got {subject!r}.")
    chosen = subject or ("model" if (work.model / CONFIG).is_file() else "head")
    if chosen == "head":
        return evaluate_head(work, manifest, split)
    return evaluate_model(work, manifest, split, device=device, show_progress=show_progress)


def evaluate_head(
    work: Work, manifest: Manifest, split: str = "test", *, head: Path | None = None
) -> Evaluation:
    """Score a searched head on cached frames.

    Args:
        work: the work folder.
        manifest: whose utterances.
        split: train, dev or test.
        head: its JSON file; the search's best by default.

    Raises:
        MissingStepError: there is no head, or frames are missing.
        ConfigError: the frames at hand are not of the streams it was searched on, the manifest has
            changed since, or the scores cannot be written.
        ManifestError: the split has no labelled utterance, or a label is unknown.
    """
    source = work.search if head is None else head
    module, record = load_head(source)
    rows = _labelled(manifest, split, record.head.labels)
    note = other_manifest_note(
        "head", record.origin.corpus, record.origin.manifest_sha256, manifest
    )
    check_streams(work, record, read_extraction(work))
    folder = evaluation_folder(work, "head", split)
    check_writable(folder)
    modalities = record.head.modalities
    collection = collect_frames(
        work,
        rows,
        modalities,
        layers={name: record.origin.layers[name] for name in modalities},
        speech=record.head.needs_speech,
    )
    dataset = Dataset(collection.utterances, record.head.labels, collection.frames)
    probabilities = predict([module], VectorStore(dataset), dataset.rows(split))[0]
    described = Evaluation(
        subject="head",
        source=source,
        split=split,
        corpus=manifest.corpus,
        synthetic=manifest.synthetic,
        encoders={name: record.origin.encoders[name] for name in modalities},
        layers={name: record.origin.layers[name] for name in modalities},
        report=_report(dataset, split, probabilities, collection.failed),
        skipped=collection.failed,
        folder=folder,
        note=note,
    )
    return write_evaluation(described, manifest, dataset, probabilities)


def evaluate_model(
    work: Work,
    manifest: Manifest,
    split: str = "test",
    *,
    directory: Path | None = None,
    device: str = "cpu",
    show_progress: bool = False,
) -> Evaluation:
    """Score a fine-tuned model on recordings and texts.

    Args:
        work: the work folder, for the scores. What failed at its extraction plays no part:
            decoding says what cannot be read.
        manifest: whose utterances; they need not be in the cache.
        split: train, dev or test.
        directory: the model; `WORK/model` by default.
        device: `cpu` or `cuda`.
        show_progress: whether to draw a progress bar.

    Raises:
        MissingStepError: there is no model.
        ConfigError: the model was altered, nothing could be read, the manifest has changed since
            the training, or the scores cannot be written.
        ManifestError: the split has no labelled utterance, or a label is unknown.
    """
    source = work.model if directory is None else directory
    model = EmotionModel.from_pretrained(source, device=device)
    rows = _labelled(manifest, split, model.labels)
    made_from = model.provenance
    note = other_manifest_note(
        "model",
        str(made_from.get("corpus", "")),
        str(made_from.get("manifest_sha256", "")),
        manifest,
        searched=str(made_from.get("search_manifest_sha256", "")),
    )
    folder = evaluation_folder(work, "model", split)
    check_writable(folder)
    examples, skipped = gather_examples(model, rows.utterances, {})
    logits = predict_logits(
        model,
        examples,
        FRAME_BUDGET,
        skipped=skipped,
        title=f"Score {split}" if show_progress else "",
    )
    kept = [row for row, u in enumerate(examples.utterances) if u.id not in skipped]
    dataset = Dataset(tuple(examples.utterances[row] for row in kept), model.labels, {})
    probabilities = torch.softmax(logits[kept], dim=-1)
    encoders = made_from.get("encoders", {})
    described = Evaluation(
        subject="model",
        source=source,
        split=split,
        corpus=manifest.corpus,
        synthetic=manifest.synthetic,
        encoders={name: str(encoders.get(name, "unknown")) for name in model.layers},
        layers=model.layers,
        report=_report(dataset, split, probabilities, skipped),
        skipped=skipped,
        folder=folder,
        note=note,
    )
    return write_evaluation(described, manifest, dataset, probabilities)


def _labelled(manifest: Manifest, split: str, labels: tuple[str, ...]) -> Manifest:
    """The labelled utterances of a split, once their labels are known to be the model's."""
    require_splits(manifest, (split,))
    rows = tuple(u for u in manifest.in_split(split) if u.label)
    unknown = sorted({u.label for u in rows} - set(labels))
    if unknown:
        raise ManifestError(
            f"the {split} split has the labels {', '.join(unknown)}, which are not among those "
            f"that are told apart: {', '.join(labels)}. Evaluate on the manifest of the search, "
            "or search again."
        )
    return replace(manifest, utterances=rows)


def _report(
    dataset: Dataset, split: str, probabilities: Tensor, skipped: Mapping[str, str]
) -> Report:
    if not len(dataset):
        raise ConfigError(
            f"no utterance of the {split} split could be used, of {len(skipped):,} in it. "
            f"First: {next(iter(skipped.values()))}"
        )
    rows = dataset.rows(split)
    return classification_report(
        dataset.targets(rows).numpy(),
        probabilities.numpy(),
        dataset.labels,
        dataset.speakers(rows),
    )
