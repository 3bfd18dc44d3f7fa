"""Training one phase: until the development set stops gaining, then back to the best weights.

The weights a phase starts from are its first candidate, so no phase ends below where it began.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from corpora.errors import ConfigError
from corpora.progress import progress_bar
from finetune.examples import Examples
from finetune.model import EmotionModel
from finetune.phases import TrainableRow, format_table, trainable_parts, trainable_table, unfreeze
from finetune.scoring import Score, predict_logits, score
from finetune.steps import LogRow, PhaseConfig, StepConfig, Trainer

Tell = Callable[[str], None]


@dataclass(frozen=True)
class PhaseResult:
    """What a phase did.

    Attributes:
        config: how it was trained.
        table: what was trainable.
        start: development score before the first step.
        best: development score of the weights that were kept.
        best_epoch: after which epoch they stood; 0 is the start.
        epochs: passes made.
        log: a row for the start and for every step.
    """

    config: PhaseConfig
    table: tuple[TrainableRow, ...]
    start: Score
    best: Score
    best_epoch: int
    epochs: int
    log: tuple[LogRow, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; the log is `training.csv`."""
        return {
            "config": asdict(self.config),
            "trainable": [asdict(row) for row in self.table],
            "start": asdict(self.start),
            "best": asdict(self.best),
            "best_epoch": self.best_epoch,
            "epochs": self.epochs,
        }


def run_phase(
    model: EmotionModel,
    config: PhaseConfig,
    steps: StepConfig,
    train: Examples,
    dev: Examples,
    *,
    tell: Tell | None = None,
    show_progress: bool = False,
) -> PhaseResult:
    """Train one phase; the model is left with its best weights, frozen and in eval mode.

    Args:
        model: changed in place.
        config: the phase.
        steps: what all phases have in common.
        train: trained on.
        dev: scored after each epoch; decides when to stop and which weights are kept.
        tell: called with the table of what is trainable, and with what came of it.
        show_progress: whether to draw a progress bar.

    Raises:
        TrainingError: a loss or gradient is not finite; the batch's utterances are named.
        AudioError: a recording cannot be read.
        ConfigError: there is nothing to train on or to score.
    """
    if len(train) == 0 or len(dev) == 0:
        raise ConfigError(
            f"{len(train)} training and {len(dev)} development utterances can be used; "
            "fine-tuning needs both."
        )
    say = tell or (lambda _: None)
    parts = trainable_parts(model, config.phase, config.unfreeze_layers)
    table = trainable_table(parts, config.learning_rate)
    say(f"Phase {config.phase} trains\n{format_table(table)}")
    trainer = Trainer(model, unfreeze(model, parts), config, steps, train)

    def evaluate() -> Score:
        return score(predict_logits(model, dev, steps.frame_budget), dev.targets, trainer.loss)

    start = best = evaluate()
    best_epoch, kept = 0, trainer.weights()
    log = [LogRow(config.phase, 0, 0, 0.0, None, start)]
    epoch = 0
    bar = progress_bar(f"Phase {config.phase}", trainer.total_steps, "step", show=show_progress)
    with bar:
        while epoch < config.epochs and epoch - best_epoch < config.patience:
            epoch += 1
            bar.set_postfix_str(f"epoch {epoch}, dev macro-F1 {best.macro_f1:.3f}", refresh=False)
            for row in trainer.run_epoch(epoch):
                log.append(row)
                bar.update()
            now = evaluate()
            log[-1] = replace(log[-1], dev=now)
            if now.better_than(best):
                best, best_epoch, kept = now, epoch, trainer.weights()
    trainer.restore(kept)
    model.requires_grad_(False).eval()
    say(
        f"dev macro-F1 {start.macro_f1:.3f} at the start, best {best.macro_f1:.3f} after epoch "
        f"{best_epoch} of {epoch}\n"
    )
    return PhaseResult(config, table, start, best, best_epoch, epoch, tuple(log))


def log_text(results: Sequence[PhaseResult]) -> str:
    """The steps of all phases as CSV."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["phase", "epoch", "step", "lr", "loss", "dev_macro_f1", "dev_loss"])
    for result in results:
        for row in result.log:
            dev = ("", "") if row.dev is None else (repr(row.dev.macro_f1), repr(row.dev.loss))
            loss = "" if row.loss is None else repr(row.loss)
            writer.writerow([row.phase, row.epoch, row.step, repr(row.learning_rate), loss, *dev])
    return out.getvalue()
