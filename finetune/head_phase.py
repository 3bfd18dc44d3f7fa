"""Phase 1: the head alone, from scratch, on frozen frames, by the trainer of the search."""

from __future__ import annotations

from corpora.base.work import Work
from corpora.manifest import Manifest
from finetune.model import EmotionModel
from finetune.phases import format_table, trainable_parts, trainable_table
from finetune.retraining import retrain
from finetune.settings import PhaseConfig
from finetune.steps import LogRow
from finetune.training import PhaseResult, Tell
from heads.results import HeadRecord
from heads.training import Schedule


def run_head_phase(
    work: Work,
    manifest: Manifest,
    record: HeadRecord,
    model: EmotionModel,
    config: PhaseConfig,
    *,
    tell: Tell,
    show_progress: bool = False,
) -> PhaseResult:
    """Train the model's head anew; it is left with the weights after the last epoch, as in search.

    With a patience below the epochs it stops early, and is left with the best weights on dev.

    Args:
        work: the work folder of the search.
        manifest: the utterances, with their splits.
        record: the searched head.
        model: whose head is replaced.
        config: phase 1; as many epochs as the search made.
        tell: for lines to be read.
        show_progress: whether to draw a progress bar.

    Raises:
        ConfigError: frames or rows are not those of the search.
    """
    table = trainable_table(trainable_parts(model, 1), config.learning_rate)
    tell(f"Phase 1 trains\n{format_table(table)}")
    title = "Phase 1" if show_progress else ""
    found = retrain(
        work,
        manifest,
        record,
        config.learning_rate,
        patience=config.patience if config.patience < config.epochs else None,
        title=title,
    )
    model.head.load_state_dict(found.head.state_dict())
    scores = found.scores
    schedule = Schedule(config.epochs, warmup=record.schedule.warmup)
    total = config.epochs * found.steps
    log = tuple(
        LogRow(
            1,
            epoch,
            epoch * found.steps,
            config.learning_rate * schedule.factor(epoch * found.steps - 1, total)
            if epoch
            else 0.0,
            None,
            dev,
        )
        for epoch, dev in enumerate(scores)
    )
    tell(
        f"dev macro-F1 {scores[0].macro_f1:.3f} at the start, {scores[found.best].macro_f1:.3f} "
        f"after epoch {found.best} of {len(scores) - 1}\n"
    )
    return PhaseResult(
        config, table, scores[0], scores[found.best], found.best, len(scores) - 1, log
    )
