"""Training one phase: until the development set stops gaining, then back to the best weights.

Whether they are kept is decided by a score that luck has no part in: crosswise between the speakers
of dev (`finetune.training`), against what was there before, of which the same is asked. What does
not reach that goes back to where the phase began.

What a phase is worth on speakers who did not choose its epoch.

The best of a phase's epochs on dev is also the luckiest one. So the speakers of dev are dealt into
two halves, each half chooses its epoch, and the other half scores it: what is said of all
utterances, each by an epoch that it had no part in choosing, gives one score.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from corpora.base.codec import Jsonable
from corpora.base.errors import ConfigError
from corpora.base.terminal import progress_bar
from corpora.utterance import speaker_key
from finetune.batches import Examples
from finetune.launch import (
    Augment,
    Engine,
    predict_logits,
    start_engine,
    takes_spectrograms,
)
from finetune.model import EmotionModel
from finetune.objective import ExampleLoss, Score, score
from finetune.phases import (
    Part,
    PhaseConfig,
    StepConfig,
    TrainableRow,
    format_table,
    trainable_parts,
    trainable_table,
    unfreeze,
)
from finetune.steps import LogRow, Trainer
from finetune.upper import Boundary, layer_outputs
from heads.bootstrap import Floats
from heads.gold import Gold, objective_name
from heads.head import answers


def speaker_halves(speakers: Sequence[str]) -> Tensor:
    """`[n]` bool, the half of each utterance; both have about as many utterances.

    Args:
        speakers: of each utterance. One without a name, or the only one there is, cannot be kept
            together: such utterances are dealt one by one.
    """
    single = len(set(speakers)) == 1
    groups: dict[str, list[int]] = {}
    for row, name in enumerate(speakers):
        groups.setdefault(f"\n{row}" if single or not name else name, []).append(row)
    half = torch.zeros(len(speakers), dtype=torch.bool)
    sizes = [0, 0]
    # The largest first: what comes last evens out.
    for _, rows in sorted(groups.items(), key=lambda item: (-len(item[1]), item[0])):
        side = int(sizes[1] < sizes[0])
        half[rows] = bool(side)
        sizes[side] += len(rows)
    return half


def crosswise(said: Sequence[Floats], gold: Gold, half: Tensor) -> float:
    """The score of utterances whose epoch was chosen by the other half.

    Args:
        said: `[n, C + A]` after each epoch, at least one.
        gold: of the n utterances.
        half: `[n]` from `speaker_halves`.
    """
    joined = said[0].copy()
    for side in (half.numpy(), ~half.numpy()):
        chooses = side if side.any() else ~side  # of one utterance there is no other half
        judge = gold.at(chooses)
        best = max(said, key=lambda one: judge.score(one[chooses]))
        joined[~side] = best[~side]
    return gold.score(joined)


Tell = Callable[[str], None]


@dataclass(frozen=True)
class PhaseResult(Jsonable):
    """What a phase did.

    Attributes:
        config: how it was trained.
        table: what was trainable.
        start: development score before the first step.
        best: development score of the weights that were kept.
        best_epoch: after which epoch they stood; 0 is the start.
        epochs: passes made.
        log: a row for the start and for every step.
        crosswise: score of the phase on speakers who did not choose its epoch; None for phase 1,
            which makes all its epochs, or is stopped by the whole of dev.
        bar: what that was compared with: the score of the phase before, or the mean of heads like
            the searched one.
    """

    json_entries = "config trainable=table start best best_epoch epochs crosswise bar"

    config: PhaseConfig
    table: tuple[TrainableRow, ...]
    start: Score
    best: Score
    best_epoch: int
    epochs: int
    log: tuple[LogRow, ...]
    crosswise: float | None = None
    bar: float | None = None


@dataclass
class Progress:
    """Where a phase stands.

    Attributes:
        start: development score before the first step.
        first: the weights then.
        best: of the best weights after an epoch so far; of `first` before there are any.
        kept: those.
        best_epoch: after which epoch they stood.
        said: `[n, C + A]` of the development set after each epoch (see `Gold`).
        epoch: the pass that is being made, or was made last.
        done: steps of it.
        step: steps in all.
        log: a row for the start and for every step.
        scored: whether the pass was scored.
    """

    start: Score
    first: dict[str, Tensor]
    best: Score
    kept: dict[str, Tensor]
    best_epoch: int = 0
    said: list[Floats] = field(default_factory=list)
    epoch: int = 0
    done: int = 0
    step: int = 0
    log: list[LogRow] = field(default_factory=list)
    scored: bool = True


# Called after a step, with the trainer and where it stands.
AfterStep = Callable[[Trainer, Progress], None]
# Called at the end, with what the phase did and all weights that it can have changed.
AtEnd = Callable[[PhaseResult, dict[str, Tensor]], None]


@dataclass(frozen=True, eq=False)
class PhaseContext:
    """What a phase is trained with, beside its settings.

    Attributes:
        engine: this process among others.
        boundary: hidden states from the cache, where there are.
        bar: what the phase's crosswise score is compared with; the development score at its start
            where nothing better is known.
        after_step: for checkpoints and curves.
        at_end: likewise.
        resume: puts weights and optimiser back and says where the phase stood; None for the start.
        tell: called with the table of what is trainable, and with what came of it.
        show_progress: whether to draw a progress bar.
    """

    engine: Engine | None = None
    boundary: Boundary | None = None
    bar: float | None = None
    after_step: AfterStep | None = None
    at_end: AtEnd | None = None
    resume: Callable[[Trainer], Progress] | None = None
    tell: Tell | None = None
    show_progress: bool = False


def run_phase(
    model: EmotionModel,
    config: PhaseConfig,
    steps: StepConfig,
    train: Examples,
    dev: Examples,
    around: PhaseContext | None = None,
) -> PhaseResult:
    """Train one phase; the model is left with its best weights, frozen and in eval mode.

    Args:
        model: changed in place.
        config: the phase.
        steps: what all phases have in common.
        train: trained on.
        dev: scored after each epoch; decides when to stop, which weights are best, and whether they
            are kept.
        around: what else there is.

    Raises:
        TrainingError: a loss or gradient is not finite (the batch's utterances are named), or a
            batch does not fit the memory.
        AudioError: a recording cannot be read.
        ConfigError: there is nothing to train on or to score.
    """
    around = around or PhaseContext()
    if len(train) == 0 or len(dev) == 0:
        raise ConfigError(
            f"{len(train)} training and {len(dev)} development utterances can be used; "
            "fine-tuning needs both."
        )
    say = around.tell or (lambda _: None)
    engine = around.engine or start_engine(model.device)
    parts = trainable_parts(model, config.phase, config.unfreeze_layers, config.layer_decay)
    table = trainable_table(parts, config.learning_rate)
    say(f"Phase {config.phase} trains\n{format_table(table)}")
    unfreeze(model, parts)
    noise = augmentation(model, config, parts)
    trainer = Trainer(model, parts, config, steps, train, engine, around.boundary, noise)

    gold, name = dev.gold, objective_name(dev.labels, dev.attributes)
    dev_loss = ExampleLoss(dev, steps, class_weight=trainer.loss.class_weight)

    def evaluate() -> tuple[Score, Floats]:
        budget = steps.frame_budget
        logits = predict_logits(model, dev, budget, boundary=around.boundary, engine=engine)
        said = answers(model.head.config, logits.double()).numpy()
        return score(said, gold, float(dev_loss(logits, range(len(dev))))), said

    if around.resume is not None:
        now = around.resume(trainer)
    else:
        start, _ = evaluate()
        first = trainer.copy_weights()
        now = Progress(start, first, start, first)
        now.log.append(LogRow(config.phase, 0, 0, 0.0, None, start))
    bar = progress_bar(
        f"Phase {config.phase}",
        trainer.total_steps,
        "step",
        show=around.show_progress,
        initial=now.step,
    )
    with bar:
        while not now.scored or (
            now.epoch < config.epochs and now.epoch - now.best_epoch < config.patience
        ):
            if now.scored:
                now.epoch, now.done, now.scored = now.epoch + 1, 0, False
            bar.set_postfix_str(
                f"epoch {now.epoch}, dev {name} {now.best.value:.3f}", refresh=False
            )
            for row in trainer.run_epoch(now.epoch, now.done):
                now.log.append(row)
                now.done, now.step = now.done + 1, trainer.step
                bar.update()
                if around.after_step is not None:
                    around.after_step(trainer, now)
            found, said = evaluate()
            now.scored = True
            now.said.append(said)
            now.log[-1] = replace(now.log[-1], dev=found)
            if not now.best_epoch or found.better_than(now.best):
                now.kept = trainer.copy_weights(now.kept if now.best_epoch else None)
                now.best, now.best_epoch = found, now.epoch
    half = speaker_halves(["/".join(speaker_key(u) or ()) for u in dev.utterances])
    crossed = crosswise(now.said, gold, half)
    bar_score = now.start.value if around.bar is None else around.bar
    best = now.best
    if crossed <= bar_score:
        now.kept, now.best, now.best_epoch = now.first, now.start, 0
    trainer.restore(now.kept)
    model.requires_grad_(False).eval()
    model.zero_grad()  # gradients would stay, as large as the model
    say(
        f"dev {name} {now.start} at the start, best {best} of "
        f"{now.epoch} epochs; crosswise {crossed:.3f}, to beat {bar_score:.3f}: "
        f"{f'epoch {now.best_epoch} is kept' if now.best_epoch else 'its start is kept'}\n"
    )
    result = PhaseResult(
        config,
        table,
        now.start,
        now.best,
        now.best_epoch,
        now.epoch,
        tuple(now.log),
        crossed,
        bar_score,
    )
    if around.at_end is not None:
        around.at_end(result, now.kept)
    return result


def augmentation(model: EmotionModel, config: PhaseConfig, parts: tuple[Part, ...]) -> Augment:
    """The noise of a phase, for encoders of which something is trained.

    Raises:
        ConfigError: SpecAugment for an encoder without a spectrogram.
    """
    trained = {name for part in parts for name in part.parameters}
    listens = any(name.startswith("audio_encoder.") for name in trained)
    if config.spec_augment and listens and not takes_spectrograms(model):
        raise ConfigError(
            "SpecAugment masks mel bands, and this speech encoder reads waveforms. "
            "Leave --spec-augment out, or use --layerdrop."
        )
    layers, outputs = {}, {}
    for modality, encoder in model.encoders.items() if config.layerdrop else ():
        number = {p: n for n, layer in enumerate(encoder.stack or ()) for p in layer.parameters()}
        owners = {number.get(p) for part in parts for p in part.parameters.values()}
        found = tuple(sorted(n for n in owners if n is not None))
        if found:
            layers[modality], outputs[modality] = found, layer_outputs(encoder)
    spec = config.spec_augment if listens else 0.0
    return Augment(spec, config.layerdrop, layers, outputs)
