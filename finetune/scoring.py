"""What a model says about examples, from their recordings and texts."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from corpora.progress import progress_bar
from finetune.batches import load_batches, plan_batches
from finetune.examples import Examples
from finetune.model import EmotionModel
from heads.losses import Loss
from heads.statistics.confusion import confusion_matrix, macro_f1


@dataclass(frozen=True)
class Score:
    """How good a model is on a split.

    Attributes:
        macro_f1: mean F1 over the classes that occur.
        loss: the training loss on the same utterances.
    """

    macro_f1: float
    loss: float

    def better_than(self, other: Score) -> bool:
        """Higher macro-F1; among equals, which a small split has many of, the lower loss."""
        return (self.macro_f1, -self.loss) > (other.macro_f1, -other.loss)


def predict_logits(
    model: EmotionModel,
    examples: Examples,
    frame_budget: int,
    *,
    skipped: dict[str, str] | None = None,
    title: str = "",
) -> Tensor:
    """Logits `[N, C]` of examples in their order, float32 on the CPU.

    Args:
        model: put in eval mode.
        examples: what to score.
        frame_budget: see `plan_batches`.
        skipped: where given, reasons of unreadable recordings are put here, and their rows are NaN;
            otherwise an unreadable recording raises.
        title: of the progress bar; "" for none.

    Raises:
        AudioError: a recording cannot be read, and `skipped` is None.
    """
    model.eval()
    logits = torch.full((len(examples), len(examples.labels)), float("nan"))
    plan = plan_batches(examples.lengths, frame_budget)
    batches = load_batches(
        examples.utterances, plan, audio=model.audio_encoder is not None, skipped=skipped
    )
    bar = progress_bar(title, len(examples), "utterance", show=bool(title))
    # Not inference mode: some encoders keep position embeddings for the next call, and those of
    # inference mode cannot be trained through.
    with bar, torch.no_grad():
        for batch in batches:
            logits[list(batch.rows)] = model(batch.waveforms, batch.texts).float().cpu()
            bar.update(len(batch.rows))
    return logits


def score(logits: Tensor, targets: Tensor, loss: Loss) -> Score:
    """Score logits `[N, C]` against class indices `[N]`."""
    predicted = logits.argmax(dim=1)
    confusion = confusion_matrix(targets.numpy(), predicted.numpy(), logits.shape[1])
    return Score(float(macro_f1(confusion)), float(loss(logits, targets)))
