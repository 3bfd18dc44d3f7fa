"""What a model says about examples, from their recordings and texts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from corpora.base.terminal import progress_bar
from finetune.batches import Examples, load_batches, plan_batches
from finetune.boundary import Boundary
from finetune.launch import Trainee
from finetune.model import EmotionModel
from heads.bootstrap import confusion_matrix, macro_f1
from heads.losses import Loss

if TYPE_CHECKING:  # accelerate, which scoring alone does not need, takes half a second to import
    from finetune.launch import Engine


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
    boundary: Boundary | None = None,
    engine: Engine | None = None,
) -> Tensor:
    """Logits `[N, C]` of examples in their order, float32 on the CPU.

    Args:
        model: put in eval mode.
        examples: what to score.
        frame_budget: see `plan_batches`.
        skipped: where given, reasons of unreadable recordings are put here, and their rows are NaN;
            otherwise an unreadable recording raises.
        title: of the progress bar; "" for none.
        boundary: hidden states from the cache, which take the place of recordings or texts.
        engine: the processes that share the work; each gets all logits.

    Raises:
        AudioError: a recording cannot be read, and `skipped` is None.
    """
    model.eval()
    rank, world = (0, 1) if engine is None else (engine.rank, engine.world)
    # With several processes a sum puts the rows together.
    logits = torch.full((len(examples), len(examples.labels)), float("nan") if world == 1 else 0.0)
    plan = plan_batches(examples.lengths, frame_budget)[rank::world]
    batches = load_batches(
        examples.utterances,
        plan,
        audio=model.audio_encoder is not None,
        skipped=skipped,
        boundary=boundary,
    )
    trainee = Trainee(model, boundary)
    bar = progress_bar(title, sum(map(len, plan)), "utterance", show=bool(title))
    # Not inference mode: some encoders keep position embeddings for the next call, and those of
    # inference mode cannot be trained through.
    with bar, torch.no_grad():
        for batch in batches:
            logits[list(batch.rows)] = trainee(batch).float().cpu()
            bar.update(len(batch.rows))
    return logits if engine is None else engine.sum(logits).cpu()


def score(logits: Tensor, targets: Tensor, loss: Loss, learnt: Tensor | None = None) -> Score:
    """Score logits `[N, C]` against class indices `[N]`.

    Args:
        logits: of all utterances.
        targets: their classes.
        loss: the training loss.
        learnt: what it learns of them, where that is not their classes.
    """
    predicted = logits.argmax(dim=1)
    confusion = confusion_matrix(targets.numpy(), predicted.numpy(), logits.shape[1])
    return Score(
        float(macro_f1(confusion)), float(loss(logits, targets if learnt is None else learnt))
    )
