"""Scoring on a split: the search's head on cached frames, or the fine-tuned model on recordings."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from cache.collect import collect_frames
from cache.extraction import read_extraction
from cache.failures import read_failures
from corpora.errors import ConfigError, ManifestError
from corpora.manifest import Manifest, require_splits
from corpora.work import Work
from finetune.evaluation import (
    SUBJECTS,
    Evaluation,
    evaluation_folder,
    write_evaluation,
)
from finetune.examples import gather_examples
from finetune.fitting import check_streams
from finetune.model import EmotionModel
from finetune.model_files import CONFIG
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
        ConfigError: an unknown subject, or what is scored does not fit the frames at hand.
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
        ConfigError: the frames at hand are not of the streams it was searched on.
        ManifestError: the split has no labelled utterance, or a label is unknown.
    """
    source = work.search if head is None else head
    module, record = load_head(source)
    rows = _labelled(manifest, split, record.head.labels)
    check_streams(work, record, read_extraction(work))
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
        report=_report(dataset, split, probabilities),
        skipped=collection.failed,
        folder=evaluation_folder(work, "head", split),
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
        work: the work folder; what failed at its extraction is left out.
        manifest: whose utterances; they need not be in the cache.
        split: train, dev or test.
        directory: the model; `WORK/model` by default.
        device: `cpu` or `cuda`.
        show_progress: whether to draw a progress bar.

    Raises:
        MissingStepError: there is no model.
        ConfigError: the model was altered, or nothing could be read.
        ManifestError: the split has no labelled utterance, or a label is unknown.
    """
    source = work.model if directory is None else directory
    model = EmotionModel.from_pretrained(source, device=device)
    rows = _labelled(manifest, split, model.labels)
    examples, skipped = gather_examples(model, rows.utterances, read_failures(work.failures))
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
    encoders = model.provenance.get("encoders", {})
    described = Evaluation(
        subject="model",
        source=source,
        split=split,
        corpus=manifest.corpus,
        synthetic=manifest.synthetic,
        encoders={name: str(encoders.get(name, "unknown")) for name in model.layers},
        layers=model.layers,
        report=_report(dataset, split, probabilities),
        skipped=skipped,
        folder=evaluation_folder(work, "model", split),
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


def _report(dataset: Dataset, split: str, probabilities: Tensor) -> Report:
    if not len(dataset):
        raise ConfigError(
            f"no utterance of the {split} split could be used. See failures.csv for the reasons."
        )
    rows = dataset.rows(split)
    return classification_report(
        dataset.targets(rows).numpy(),
        probabilities.numpy(),
        dataset.labels,
        dataset.speakers(rows),
    )
