"""The Optuna study of a search: one SQLite file that a stopped search goes on from.

Search asks for a whole cohort and tells results as they come. What a stopped or killed run had in
hand is asked again, with the same values and the same seed, so that nothing is lost.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import optuna
from optuna.exceptions import StorageInternalError
from optuna.trial import FrozenTrial, Trial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from corpora.errors import CacheError, ConfigError
from heads.results import STUDY_FILE
from heads.space import seed_from, trial_seed

STUDY_NAME = "heads"
# A trial whose last heartbeat is some multiple of this ago belongs to a dead process.
HEARTBEAT_SECONDS = 30.0
# How long a write waits for another reader or writer of the file.
BUSY_SECONDS = 60.0
# A trial's notes in the study: its seed, and the name of the published head it is, if it is one.
SEED, PUBLISHED = "seed", "published"
# Keeps the sampler's seeds apart from other numbers drawn from the study's seed.
_SAMPLER_DOMAIN = 2

T = TypeVar("T")


class HeadStudy:
    """A study that is being worked on; a context manager.

    Entering and leaving put running trials back into the queue: those a killed process had in hand,
    and those that this one did not finish.

    Args:
        folder: holds `study.db`; must exist, and be locked against other searches.
        identity: what makes values of two trials comparable; a study with another is refused.
        seed: of the study.

    Raises:
        ConfigError: the study was made from something else.
        CacheError: the file is not a study.
    """

    def __init__(self, folder: Path, identity: Mapping[str, Any], seed: int) -> None:
        self._path = folder / STUDY_FILE
        self._seed = seed
        # Its messages are for programs without a report of their own.
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        try:
            # The connection is made by `_connect`: an URL would trip over special characters.
            self._storage = optuna.storages.RDBStorage(
                f"sqlite:///{STUDY_FILE}", engine_kwargs={"creator": lambda: _connect(self._path)}
            )
            self._study = optuna.create_study(
                storage=self._storage,
                study_name=STUDY_NAME,
                direction="maximize",
                load_if_exists=True,
            )
        except (SQLAlchemyError, StorageInternalError, RuntimeError) as error:
            raise CacheError(
                f"{self._path} cannot be read as an Optuna study ({error}). "
                "Remove it, or search with --fresh, to start anew."
            ) from error
        self._held: set[int] = set()  # numbers of running trials
        self._stop = threading.Event()
        self._beating = threading.Thread(target=self._beat, name="heartbeat", daemon=True)
        try:
            self._check(json.loads(json.dumps(identity)))
        except ConfigError:
            self._close()
            raise

    def __enter__(self) -> HeadStudy:
        self._give_back_running()  # a killed process had them
        self._beating.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._beating.join()
        try:
            self._give_back_running()
        finally:
            self._close()

    @property
    def trials(self) -> list[FrozenTrial]:
        """All trials, by number."""
        return self._study.get_trials(deepcopy=False)

    @property
    def finished(self) -> int:
        """Trials with a result: completed and halved ones."""
        return sum(trial.state in (TrialState.COMPLETE, TrialState.PRUNED) for trial in self.trials)

    @property
    def ranked(self) -> list[FrozenTrial]:
        """Completed trials, the best first; of equals the earlier one."""
        complete = [trial for trial in self.trials if trial.state == TrialState.COMPLETE]
        return sorted(complete, key=lambda trial: (-final_value(trial), trial.number))

    def enqueue(self, configurations: Mapping[str, Mapping[str, Any]]) -> None:
        """Put published configurations, by name, into the queue, those that never were in it."""
        known = {
            trial.user_attrs.get(PUBLISHED)
            for trial in self.trials
            if trial.state != TrialState.FAIL
        }
        for name, params in configurations.items():
            if name not in known:
                self._study.enqueue_trial(dict(params), user_attrs={PUBLISHED: name})

    @property
    def queued_published(self) -> int:
        """Published configurations that are still to be trained."""
        return sum(
            trial.state == TrialState.WAITING and PUBLISHED in trial.user_attrs
            for trial in self.trials
        )

    def ask(self, count: int, draw: Callable[[Trial, int], T]) -> list[T]:
        """Take trials in hand: queued ones first, then new ones.

        A resumed sampler with the same seed would repeat its draws, so its seed depends on the
        number of trials. Trials in hand count as bad ones to it, which spreads out a cohort.

        Args:
            count: how many.
            draw: gets a trial and its seed, and draws all of its values.

        Returns:
            What `draw` returned.
        """
        seed = seed_from(self._seed, _SAMPLER_DOMAIN, len(self.trials))
        self._study.sampler = optuna.samplers.TPESampler(seed=seed)
        asked = []
        for _ in range(count):
            trial = self._study.ask()
            self._held.add(trial.number)
            self._record_heartbeat(trial.number)
            if SEED not in trial.user_attrs:
                trial.set_user_attr(SEED, trial_seed(self._seed, trial.number))
            asked.append(draw(trial, trial.user_attrs[SEED]))
        return asked

    def complete(self, trial: Trial, value: float) -> None:
        """Finish a trial with its value."""
        self._study.tell(trial, value)
        self._held.discard(trial.number)

    def prune(self, trial: Trial) -> None:
        """Finish a trial that was halved; its last reported value stays."""
        self._study.tell(trial, state=TrialState.PRUNED)
        self._held.discard(trial.number)

    def _give_back_running(self) -> None:
        """Fail running trials, of which no process is in charge, and queue their values again."""
        for trial in self.trials:
            if trial.state != TrialState.RUNNING:
                continue
            self._study.tell(trial.number, state=TrialState.FAIL)
            params = {**trial.system_attrs.get("fixed_params", {}), **trial.params}
            if params:  # else it was not drawn yet, and any other draw is as good
                self._study.enqueue_trial(params, user_attrs=dict(trial.user_attrs))

    def _check(self, identity: Mapping[str, Any]) -> None:
        """Note what the study is made from, or refuse to mix."""
        known = self._study.user_attrs
        if not self.trials:
            for name, value in identity.items():
                self._study.set_user_attr(name, value)
            return
        differences = [
            f"  {name}: {_shown(known.get(name))} -> {_shown(value)}"
            for name, value in identity.items()
            if known.get(name) != value
        ]
        if differences:
            raise ConfigError(
                f"{self._path} holds a search over something else, and their scores cannot be "
                "compared:\n" + "\n".join(differences) + "\nUse another --work, restore what "
                "changed, or search with --fresh, which removes the old trials."
            )

    def _beat(self) -> None:
        """Record heartbeats for the trials in hand: with ask and tell, Optuna does not."""
        while not self._stop.wait(HEARTBEAT_SECONDS):
            # A busy file is left alone until the next beat.
            with suppress(StorageInternalError):
                for number in list(self._held):
                    self._record_heartbeat(number)
        self._storage.remove_session()

    def _record_heartbeat(self, number: int) -> None:
        study_id = self._storage.get_study_id_from_name(STUDY_NAME)
        trial_id = self._storage.get_trial_id_from_study_id_trial_number(study_id, number)
        self._storage.record_heartbeat(trial_id)

    def _close(self) -> None:
        self._storage.remove_session()
        self._storage.engine.dispose()


def final_value(trial: FrozenTrial) -> float:
    """A trial's value; of a halved one the last it had, of any other minus infinity."""
    return float("-inf") if trial.value is None else trial.value


def _connect(path: Path) -> sqlite3.Connection:
    """Open the file with a write-ahead log: a commit then costs 1 ms instead of 10.

    Its twenty commits a trial would otherwise take longer than training on a small corpus. The log
    survives power cuts, but for the last moments, and is folded into the file on closing. File
    systems without shared memory refuse it and go on as usual.
    """
    connection = sqlite3.connect(path, timeout=BUSY_SECONDS, check_same_thread=False)
    try:
        mode = connection.execute("PRAGMA journal_mode=WAL").fetchone()[0]
    except sqlite3.OperationalError:
        mode = ""
    if mode == "wal":
        connection.execute("PRAGMA synchronous=NORMAL")
    return connection


def _shown(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 100 else text[:99] + "…"
