"""Which head a fine-tuning starts from, and its weights.

A head that was trained on train and dev is trained again on train alone.

A searched head trained again from its seed, on the frames of the search.

Phase 1 is this: the same trainer, batches and seeds as in the search. Where the search chose by dev
it ends with the search's head, and so does one whose weights were not kept. Where it chose by
folds, that head learnt from dev too, which later phases are chosen by: this one has train alone.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import optuna
import torch
from optuna.trial import FrozenTrial, TrialState
from torch import Tensor

from cache.lookup import FrameCache
from cache.recipe import layer_numbers
from corpora.base.errors import (
    ConfigError,
    EmopoolError,
    FormatVersionError,
    MissingStepError,
)
from corpora.base.files import read_json
from corpora.base.terminal import progress_bar
from corpora.base.work import Work
from corpora.manifest import Manifest
from finetune.assembly import FOLDER, refuse_imported
from finetune.launch import Score, score
from finetune.model import EmotionModel
from finetune.phases import PhaseConfig, format_table, trainable_parts, trainable_table
from finetune.steps import LogRow
from finetune.training import PhaseResult, Tell
from heads.axes import Choice, Range
from heads.bootstrap import confusion_matrix, macro_f1
from heads.config import STUDY_NAME
from heads.dataset import Dataset, VectorStore
from heads.head import Head
from heads.load import OTHERS, choose_precision, load_dataset, read_origin, suitable_threads
from heads.losses import LossConfig, inverse_frequency, loss_function, soft_targets
from heads.records import (
    BEST,
    FORMAT,
    STUDY_FILE,
    TRIALS_FOLDER,
    VERSION,
    HeadRecord,
    Origin,
    load_head,
    origin_of_head,
    package_versions,
    refuse_attributes,
    save_head,
)
from heads.runs import Run, Runs, seed_from
from heads.search.space import Space, trial_configs
from heads.search.storage import (
    close,
    open_file,
    readable,
    refuse_differences,
    silence_optuna,
    unreadable,
)
from heads.search.study import SEED, START, check_trials, final_value
from heads.training import Schedule, TrainingConfig


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
    tell(
        f"dev macro-F1 {scores[0].macro_f1:.3f} at the start, {scores[found.best].macro_f1:.3f} "
        f"after epoch {found.best} of {len(scores) - 1}\n"
    )
    return PhaseResult(
        config, table, scores[0], scores[found.best], found.best, len(scores) - 1, log
    )


# Heads that say what one of this kind is worth.
SEEDS = 5
# Keeps their seeds apart from other numbers drawn from a trial's seed.
_SEED_DOMAIN = 4
_AXIS = "axis "
# Of a study's notes: what the frames that its heads were trained on are known by.
_FRAMES = ("labels", "streams", "frames", "manifest_sha256")


@dataclass(frozen=True, eq=False)
class Retrained:
    """A head that was trained again.

    Attributes:
        head: after the last epoch; with patience, after the best.
        dev: probabilities `[epochs + 1, n, C]` of the development set, before the first epoch and
            after each.
        scores: of these.
        steps: optimiser steps of an epoch.
        best: after how many epochs the head stood so.
    """

    head: Head
    dev: tuple[Tensor, ...]
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
    origin = origin_of_head(read_origin(cache, manifest, dataset.frames), dataset, record.head)
    _check_origin(record.origin.to_json(), origin)
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
        said = [runs.probabilities(dev)[0]]
        scores = [*_scores(dataset, training.loss, said)]
        best, kept = 0, copy.deepcopy(head.state_dict())

        def look() -> bool:
            nonlocal best, kept
            said.append(runs.probabilities(dev)[0])
            scores.extend(_scores(dataset, training.loss, said[-1:]))
            bar.update()
            if patience is None or scores[-1].better_than(scores[best]):
                best, kept = runs.epoch, copy.deepcopy(head.state_dict())
            return patience is not None and runs.epoch - best >= patience

        runs.train(look)
    head.load_state_dict(kept)
    return Retrained(head, tuple(said), tuple(scores), runs.steps_per_epoch, best)


def scores_of_seeds(
    cache: FrameCache,
    manifest: Manifest,
    record: HeadRecord,
    learning_rate: float | None = None,
    *,
    device: str = "cpu",
) -> tuple[float, ...]:
    """Macro-F1 on dev of heads like this one, trained on train alone from `SEEDS` other seeds.

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
        said = runs.probabilities(dev).argmax(dim=-1)
    confusion = confusion_matrix(dataset.targets(dev), said, len(dataset.labels))
    return tuple(macro_f1(confusion).tolist())


def _frames_of(cache: FrameCache, manifest: Manifest, record: HeadRecord, device: str) -> Dataset:
    """The frames of these utterances that a head reads."""
    dataset = load_dataset(cache, manifest, tuple(record.origin.frames), device, others=True)
    return dataset.reading(
        {name: layer_numbers(read) for name, read in record.origin.layers.items()}
    )


def _scores(dataset: Dataset, config: LossConfig, said: Sequence[Tensor]) -> tuple[Score, ...]:
    """Of the development set, with the loss of the training rows."""
    dev, train = dataset.rows("dev"), dataset.rows("train")

    def learnt(rows: Tensor) -> Tensor:
        if config.from_votes:
            return soft_targets(dataset, rows, config.smoothing)
        return dataset.targets(rows)

    loss = loss_function(config, inverse_frequency(learnt(train), len(dataset.labels)))
    tiny = torch.finfo(torch.float32).tiny
    # Losses take logits, for which logarithms of probabilities do.
    return tuple(
        score(one.clamp_min(tiny).log(), dataset.targets(dev), loss, learnt(dev)) for one in said
    )


def trial_record(cache: FrameCache, manifest: Manifest, head: Path) -> HeadRecord:
    """What is known about a trial of a search whose head was not kept.

    Args:
        cache: see `retrain`.
        manifest: see `retrain`.
        head: the JSON file that it would have, in the folder of the search's trials.

    Raises:
        MissingStepError: there is no such trial, or it was not trained.
        ConfigError: the frames, labels or rows are not those of the search.
    """
    study, number = head.parents[1] / STUDY_FILE, int(head.stem)
    trials, notes = _read_study(study) if study.is_file() else ({}, {})
    if number not in trials:
        trained = f"; trained ones are {_ranges(sorted(trials))}" if trials else ""
        raise MissingStepError(
            f"No trial {number} in {study}{trained}. Name one of these, or search first."
        )
    try:
        return _recorded(cache, manifest, trials[number], notes)
    except EmopoolError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise unreadable(error, str(study)) from error


def _recorded(
    cache: FrameCache, manifest: Manifest, trial: FrozenTrial, notes: Mapping[str, Any]
) -> HeadRecord:
    """A trial's record, from the study's notes."""
    if notes.get("attributes"):
        raise ConfigError("finetune reads classes alone, and that search was for attributes too.")
    dataset = load_dataset(cache, manifest, others=True).reading(notes.get(OTHERS, {}))
    origin = read_origin(cache, manifest, dataset.frames)
    _check_origin({name: notes[name] for name in _FRAMES}, origin)
    head, training = trial_configs(trial, _space(dataset, notes), trial.user_attrs[SEED])
    return HeadRecord(
        trial=trial.number,
        start=trial.user_attrs.get(START, ""),
        params=trial.params,
        head=head,
        training=TrainingConfig.from_json(training.to_json()),
        schedule=Schedule(notes["epochs"], notes["batch_size"], data_seed=notes["seed"]),
        origin=origin_of_head(origin, dataset, head),
        study_seed=notes["seed"],
        versions=package_versions(),
        dev_macro_f1=final_value(trial),
        selected_on="dev" if notes["folds"] == "off" else str(notes["folds"]),
    )


def _read_study(path: Path) -> tuple[dict[int, FrozenTrial], dict[str, Any]]:
    """The trained trials of a study by number, and its notes."""
    silence_optuna()
    with readable(str(path)), ExitStack() as stack:
        storage = open_file(path)
        stack.callback(close, storage)
        study = optuna.load_study(storage=storage, study_name=STUDY_NAME)
        check_trials(study, str(path))
        known = study.get_trials(states=(TrialState.COMPLETE, TrialState.PRUNED))
        return {trial.number: trial for trial in known}, study.user_attrs


def _space(dataset: Dataset, notes: Mapping[str, Any]) -> Space:
    """The space of a study, every axis as it was."""
    axes = {
        name.removeprefix(_AXIS): Range(**value)
        if isinstance(value, dict)
        else Choice(tuple(value))
        for name, value in notes.items()
        if name.startswith(_AXIS)
    }
    return replace(Space.of(dataset, tied=bool(notes["tied"])), narrowed=axes)


def _check_origin(searched: Mapping[str, Any], now: Origin) -> None:
    refuse_differences(
        searched,
        {name: now.to_json()[name] for name in _FRAMES},
        "the search was",
        "A head can be trained again on the frames and rows of its search alone: restore them, or "
        "search again.",
    )


def _ranges(numbers: list[int]) -> str:
    """`0 to 99` or `0, 3, 4`."""
    if numbers == list(range(len(numbers))):
        return f"0 to {numbers[-1]}"
    return ", ".join(map(str, numbers))


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
    refuse_attributes(record, "finetune")
    refuse_imported(cache, record)
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
