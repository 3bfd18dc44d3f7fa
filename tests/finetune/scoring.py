"""Scoring a head or a model, as tests ask for it."""

from __future__ import annotations

from pathlib import Path

from corpora.base.work import Work
from corpora.manifest import Manifest
from finetune.config import EvaluateConfig
from finetune.evaluate.evaluate import evaluate
from finetune.evaluate.evaluation import Evaluation


def evaluate_head(
    work: Work, manifest: Manifest, split: str = "test", *, head: Path | None = None
) -> Evaluation:
    """A searched head on cached frames; the search's best by default."""
    config = EvaluateConfig(models=(head,)) if head else EvaluateConfig(subject="head")
    return evaluate(work, manifest, split, config)


def evaluate_model(
    work: Work, manifest: Manifest, split: str = "test", *, directory: Path | None = None
) -> Evaluation:
    """A fine-tuned model on recordings, on the CPU; that of the work folder by default."""
    models = () if directory is None else (directory,)
    config = EvaluateConfig("" if models else "model", models, device="cpu")
    return evaluate(work, manifest, split, config)
