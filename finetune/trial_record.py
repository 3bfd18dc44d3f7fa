"""What a study knows about a trial whose head was not kept, enough to train it again."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from cache.lookup import FrameCache
from corpora.base.errors import EmopoolError, MissingStepError
from corpora.manifest import Manifest
from heads.axes import Choice, Range
from heads.config import STUDY_NAME
from heads.dataset import Dataset
from heads.load import load_dataset, read_origin
from heads.records import (
    STUDY_FILE,
    HeadRecord,
    Origin,
    as_learnt,
    origin_of_head,
    package_versions,
)
from heads.search.layer_axes import OTHERS
from heads.search.space import Space, trial_configs
from heads.search.storage import (
    close,
    open_file,
    readable,
    refuse_differences,
    silence_optuna,
    unreadable,
)
from heads.search.trials import SEED, START, check_trials, final_value
from heads.training import Schedule, TrainingConfig

# Of a study's notes: what the frames that its heads were trained on are known by.
_FRAMES = ("labels", "streams", "frames", "manifest_sha256")
_AXIS = "axis "


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
    scales = notes.get("attributes", {})
    attributes = {name: (float(low), float(high)) for name, (low, high) in scales.items()}
    manifest = as_learnt(manifest, notes["labels"])
    dataset = load_dataset(cache, manifest, others=True, attributes=attributes)
    dataset = dataset.reading(notes.get(OTHERS, {}))
    origin = read_origin(cache, manifest, dataset.frames, attributes)
    check_origin({name: notes[name] for name in _FRAMES}, origin)
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


def check_origin(searched: Mapping[str, Any], now: Origin) -> None:
    """Refuse other frames or rows than a search had; each difference is named (ConfigError)."""
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
