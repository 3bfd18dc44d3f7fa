"""Which head a fine-tuning starts from, and its weights.

A head that was trained on train and dev is trained again on train alone.

A searched head trained again from its seed, on the frames of the search.

Phase 1 is this: the same trainer, batches and seeds as in the search. Where the search chose by dev
it ends with the search's head, and so does one whose weights were not kept. Where it chose by
folds, that head learnt from dev too, which later phases are chosen by: this one has train alone.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from cache.lookup import FrameCache
from cache.recipe import layer_numbers
from corpora.base.errors import (
    FormatVersionError,
    MissingStepError,
)
from corpora.base.files import read_json
from corpora.base.terminal import progress_bar
from corpora.base.work import Work
from corpora.manifest import Manifest
from finetune.assembly import FOLDER, refuse_imported
from finetune.batches import Examples
from finetune.model import EmotionModel
from finetune.objective import ExampleLoss, Score, score
from finetune.phases import (
    PhaseConfig,
    StepConfig,
    format_table,
    trainable_parts,
    trainable_table,
)
from finetune.steps import LogRow
from finetune.training import PhaseResult, Tell
from finetune.trial_record import check_origin, trial_record
from heads.dataset import Dataset
from heads.gold import Gold, objective_name, selection_scores
from heads.head import Head, as_outputs
from heads.load import (
    choose_precision,
    load_dataset,
    read_origin,
    suitable_threads,
)
from heads.records import (
    BEST,
    FORMAT,
    STUDY_FILE,
    TRIALS_FOLDER,
    VERSION,
    HeadRecord,
    as_learnt,
    load_head,
    origin_of_head,
    save_head,
)
from heads.runs import Run, Runs, seed_from
from heads.training import Schedule, TrainingConfig
from heads.vector_store import VectorStore


def run_head_phase(
    cache: FrameCache,
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
        cache: with the frames of the search.
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
        cache,
        manifest,
        record,
        config.learning_rate,
        device=str(model.device),
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
    name = objective_name(record.head.labels, record.head.attributes)
    tell(
        f"dev {name} {scores[0]} at the start, {scores[found.best]} "
        f"after epoch {found.best} of {len(scores) - 1}\n"
    )
    return PhaseResult(
        config, table, scores[0], scores[found.best], found.best, len(scores) - 1, log
    )


# Heads that say what one of this kind is worth.
SEEDS = 5
# Keeps their seeds apart from other numbers drawn from a trial's seed.
_SEED_DOMAIN = 4


@dataclass(frozen=True, eq=False)
class Retrained:
    """A head that was trained again.

    Attributes:
        head: after the last epoch; with patience, after the best.
        scores: on the development set, before the first epoch and after each.
        steps: optimiser steps of an epoch.
        best: after how many epochs the head stood so.
    """

    head: Head
    scores: tuple[Score, ...]
    steps: int
    best: int


def retrain(
    cache: FrameCache,
    manifest: Manifest,
    record: HeadRecord,
    learning_rate: float | None = None,
    *,
    device: str = "cpu",
    patience: int | None = None,
    title: str = "",
) -> Retrained:
    """Train a head from its seed, on train alone: dev is what later phases are chosen by.

    Args:
        cache: with the frames of the search.
        manifest: the utterances, with their splits.
        record: what is known about the head.
        learning_rate: instead of the searched one.
        device: where.
        patience: epochs without a better one on dev after which training stops, and the head is as
            it was in the best; None: all epochs of the search, as the search does.
        title: of the progress bar; "" for none.

    Raises:
        ConfigError: the frames, labels or rows are not those of the search; each difference is
            named.
    """
    dataset = _frames_of(cache, manifest, record, device)
    read = read_origin(cache, manifest, dataset.frames, record.head.attributes)
    origin = origin_of_head(read, dataset, record.head)
    check_origin(record.origin.to_json(), origin)
    training, schedule = record.training, record.schedule
    if learning_rate is not None:
        training = replace(training, learning_rate=learning_rate)
    precision = choose_precision("auto", dataset, schedule.batch_size, device)
    store = VectorStore(dataset, precision, device)
    dev = dataset.rows("dev")
    with (
        suitable_threads(dataset, schedule.batch_size),
        progress_bar(title, schedule.epochs, "epoch", show=bool(title)) as bar,
    ):
        runs = Runs([Run(record.head, training)], store, schedule, dataset.rows("train"))
        (head,) = runs.heads
        judge = _judge(dataset, training)
        scores = [judge(runs.probabilities(dev)[0])]
        best, kept = 0, copy.deepcopy(head.state_dict())

        def look() -> bool:
            nonlocal best, kept
            scores.append(judge(runs.probabilities(dev)[0]))
            bar.update()
            if patience is None or scores[-1].better_than(scores[best]):
                best, kept = runs.epoch, copy.deepcopy(head.state_dict())
            return patience is not None and runs.epoch - best >= patience

        runs.train(look)
    head.load_state_dict(kept)
    return Retrained(head, tuple(scores), runs.steps_per_epoch, best)


def scores_of_seeds(
    cache: FrameCache,
    manifest: Manifest,
    record: HeadRecord,
    learning_rate: float | None = None,
    *,
    device: str = "cpu",
) -> tuple[float, ...]:
    """The score on dev of heads like this one, trained on train alone from `SEEDS` other seeds.

    The head itself was chosen for its score, so that score is a lucky one; theirs are not.

    Args:
        cache: see `retrain`.
        manifest: the utterances, which need not be those of the search.
        record: see `retrain`.
        learning_rate: see `retrain`.
        device: see `retrain`.

    Raises:
        MissingStepError: utterances are not in the cache.
    """
    dataset = _frames_of(cache, manifest, record, device)
    schedule, dev = record.schedule, dataset.rows("dev")
    rate = learning_rate or record.training.learning_rate
    seeds = [seed_from(record.training.seed, _SEED_DOMAIN, number) for number in range(SEEDS)]
    training = [replace(record.training, learning_rate=rate, seed=seed) for seed in seeds]
    precision = choose_precision("auto", dataset, schedule.batch_size, device)
    store = VectorStore(dataset, precision, device)
    with suitable_threads(dataset, schedule.batch_size):
        runs = Runs(
            [Run(record.head, own) for own in training], store, schedule, dataset.rows("train")
        )
        runs.train()
        return tuple(selection_scores(runs.probabilities(dev), Gold.of(dataset, dev)))


def _frames_of(cache: FrameCache, manifest: Manifest, record: HeadRecord, device: str) -> Dataset:
    """The frames of these utterances that a head reads."""
    dataset = load_dataset(
        cache,
        manifest,
        tuple(record.origin.frames),
        device,
        others=True,
        attributes=record.head.attributes,
    )
    return dataset.reading(
        {name: layer_numbers(read) for name, read in record.origin.layers.items()}
    )


def _judge(dataset: Dataset, training: TrainingConfig) -> Callable[[Tensor], Score]:
    """What scores what is said of the development set, with the loss of the training rows.

    It takes `[n, C + A]` class probabilities, and attributes in the units of their scales.
    """
    train, dev = (_examples(dataset, dataset.rows(split)) for split in ("train", "dev"))
    steps = StepConfig(loss=training.loss, attribute_weight=training.attribute_weight)
    loss = ExampleLoss(dev, steps, class_weight=ExampleLoss(train, steps).class_weight)
    gold, classes = dev.gold, len(dev.labels)

    def judge(said: Tensor) -> Score:
        # Losses take logits, for which logarithms of probabilities do.
        tiny = torch.finfo(torch.float32).tiny
        logits = said[:, :classes].clamp_min(tiny).log()
        outputs = torch.cat([logits, as_outputs(dev.attributes, said[:, classes:])], dim=1)
        return score(said.double().numpy(), gold, float(loss(outputs, range(len(said)))))

    return judge


def _examples(dataset: Dataset, rows: Tensor) -> Examples:
    """These utterances of a data set, of whatever length."""
    utterances = tuple(dataset.utterances[row] for row in rows.tolist())
    return Examples(utterances, (1,) * len(utterances), dataset.labels, dataset.attributes)


def starting_head(
    work: Work,
    manifest: Manifest,
    head: Path | None = None,
    *,
    device: str = "cpu",
    show_progress: bool = False,
) -> Path:
    """The JSON file of a head with its weights, which are trained again where they were not kept.

    Args:
        work: the work folder of the search.
        manifest: the utterances, with their splits.
        head: a JSON file that the search wrote, or would have written for a trial that it did not
            keep; the search's best by default.
        device: where it is trained again.
        show_progress: whether to draw a progress bar.

    Raises:
        MissingStepError: there is no such head or trial.
        ConfigError: the head has to be trained again, and its frames or rows have changed.
    """
    cache, path = FrameCache(work), work.search / BEST if head is None else head
    again = work.finetune / FOLDER / path.name
    if path.is_file():
        record = _weightless(path)
        if record is None:
            whole = load_head(path)[1]  # says what is wrong with it
            if whole.trained_on == "train":
                return path
            # It learnt from dev, which phases are chosen by: dev would say nothing of them.
            record = replace(whole, trained_on="train", scores={})
    elif path.parent == work.search / TRIALS_FOLDER and path.stem.isdecimal():
        _check_study(path)
        record = trial_record(cache, manifest, path)
    else:
        load_head(path)  # says that it is missing
        return path
    refuse_imported(cache, record)
    manifest = as_learnt(manifest, record.head.labels)
    title = f"Training the head of trial {record.trial} again" if show_progress else ""
    found = retrain(cache, manifest, record, device=device, title=title)
    save_head(again, again.with_suffix(".safetensors"), found.head, record)
    return again


def _check_study(head: Path) -> None:
    """Name the trials that were kept, where no study says how to train another (MissingStepError).

    There is none where the search was shared, in a database.
    """
    kept = sorted(path.stem for path in head.parent.glob("*.json"))
    if (head.parents[1] / STUDY_FILE).is_file() or not kept:
        return
    numbers = ", ".join(str(int(name)) for name in kept if name.isdecimal())
    raise MissingStepError(
        f"No head of trial {int(head.stem)} in {head.parent}, and no {STUDY_FILE} beside it to "
        f"train it again from: a search keeps its best ones only, here those of trials {numbers}. "
        "Name one of these."
    )


def _weightless(path: Path) -> HeadRecord | None:
    """The record of a head whose weights are not beside it."""
    value = read_json(path, kind=FORMAT, version=VERSION)
    try:
        if path.with_name(Path(value["weights"]["file"]).name).is_file():
            return None
        return HeadRecord.from_json(value)
    except (KeyError, TypeError, ValueError) as error:
        raise FormatVersionError(
            f"{path} was altered: {error!r}. Restore it, or run `search` again."
        ) from error
