"""What a study notes of its trials, and whether they are still what was told."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import optuna
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from heads.config import STUDY_NAME
from heads.records import STUDY_FILE
from heads.search.storage import close, open_file, readable, silence_optuna, unreadable

# A trial's notes in the study: its seed, the name of the start it is (one of `STARTS`), if it is
# one, its share of the seconds that its cohort was trained for, and its cohort: the first one's
# number and how many there are.
SEED, START, SECONDS, COHORT = "seed", "start", "seconds", "cohort"
# A digest of what a finished trial is and gave: SQLite does not see a flipped bit in a value.
SEAL = "seal"


def read_trials(folder: Path) -> list[FrozenTrial]:
    """The trials of a search's own study, to be looked at; none where a database holds it.

    Raises:
        CacheError: it cannot be read.
    """
    path = folder / STUDY_FILE
    if not path.is_file():
        return []
    silence_optuna()
    with readable(str(path)):
        storage = open_file(path)
        try:
            return optuna.load_study(storage=storage, study_name=STUDY_NAME).get_trials()
        finally:
            close(storage)


def check_trials(study: Study, place: str, *, shared: bool = False) -> None:
    """Compare a study's trials with what was told: their values give heads their meaning.

    Args:
        study: as it is kept.
        place: where that is.
        shared: by several processes, in a database.

    Raises:
        CacheError: something was altered.
    """
    if study.directions != [StudyDirection.MAXIMIZE]:
        raise unreadable("it does not say what is sought", place, shared=shared)
    trials = study.get_trials(deepcopy=False)
    for trial in trials:
        last = trial.intermediate_values.get(trial.last_step or 0, trial.value)
        told = SEAL in trial.user_attrs and trial.state != TrialState.WAITING
        seed, cohort = trial.user_attrs.get(SEED), trial.user_attrs.get(COHORT, [0, 0])
        if trial.state == TrialState.COMPLETE and trial.value is None:
            what = "altered: it has no value"
        elif told and (trial.user_attrs[SEAL] != seal(trial) or trial.value not in (None, last)):
            what = "altered after it ended"
        elif seed is None and trial.state in (TrialState.COMPLETE, TrialState.PRUNED):
            what = "altered: it has no seed"
        elif not isinstance(seed, int | None) or not (
            isinstance(cohort, list) and [type(number) for number in cohort] == [int, int]
        ):
            what = "altered: its seed or cohort is no number"
        else:
            continue
        raise unreadable(f"trial {trial.number} was {what}", place, shared=shared)


def seal(trial: FrozenTrial) -> str:
    """A digest of what a trial is and gave so far."""
    what = [trial.params, trial.user_attrs.get(SEED), trial.user_attrs.get(START)]
    text = json.dumps([*what, sorted(trial.intermediate_values.items())], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def final_value(trial: FrozenTrial) -> float:
    """A trial's value; of a halved one the last it had, of any other minus infinity."""
    return float("-inf") if trial.value is None else trial.value
