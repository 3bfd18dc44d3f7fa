"""The Optuna study of a search: taken up where it stopped, by one process or by many.

Search asks for a whole cohort and tells results as they come. What a stopped or killed run had in
hand is asked again before anything else, in the same company, with the same number, values and
seed: the search ends as if nobody had stopped it.

By default the study is a SQLite file that one search at a time works on. In a database that
several machines share (`SharedStudy`) a process that died is known by its heartbeats, and no
process relies on having seen what another is about to do: who creates the study also queues the
starting configurations, and of trials taken in excess those with the highest numbers are given
back, so that N means N in all.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import optuna
from optuna.exceptions import (
    DuplicatedStudyError,
    StorageInternalError,
    UpdateFinishedTrialError,
)
from optuna.samplers import BaseSampler, PartialFixedSampler, RandomSampler, TPESampler
from optuna.study import Study
from optuna.trial import FrozenTrial, Trial, TrialState

from heads.config import HEARTBEAT_SECONDS, STUDY_NAME, SharedStudy
from heads.records import STUDY_FILE
from heads.runs import seed_from
from heads.search.space import PROBES, trial_seed
from heads.search.storage import (
    STUDY_ID,
    Heartbeats,
    check_identity,
    close,
    from_database,
    note_identity,
    open_file,
    open_shared,
    quiet,
    readable,
    silence_optuna,
    unreadable,
)
from heads.search.trials import COHORT, SEAL, SECONDS, SEED, START, check_trials, final_value, seal

_SAMPLERS: Mapping[str, Callable[..., BaseSampler]] = {"tpe": TPESampler, "random": RandomSampler}
# The study's note that whoever created it has also queued the published configurations.
READY = "ready"
# How long to wait for that; its creator died if it takes longer.
READY_SECONDS = 30.0
# Keeps the sampler's seeds apart from other numbers drawn from the study's seed.
_SAMPLER_DOMAIN = 2

T = TypeVar("T")


class HeadStudy:
    """A study that is being worked on; a context manager.

    Leaving puts the trials that this process did not finish back into the queue. Entering does so
    with those of a killed process; in a shared study that happens whenever one is found dead.
    Either way they come before all others.

    Args:
        folder: holds `study.db`; must exist, and be locked against other searches.
        identity: what makes values of two trials comparable; a study with another is refused.
        seed: of the study.
        starts: configurations to be trained first, by name.
        sampler: `tpe` or `random`, as in `SearchConfig`.
        shared: the study of several processes instead of `study.db`.

    Raises:
        ConfigError: the study was made from something else.
        CacheError: it cannot be read as a study.
    """

    def __init__(
        self,
        folder: Path,
        identity: Mapping[str, Any],
        seed: int,
        starts: Mapping[str, Mapping[str, Any]] | None = None,
        *,
        sampler: str = "tpe",
        shared: SharedStudy | None = None,
    ) -> None:
        self._place = str(folder / STUDY_FILE) if shared is None else f"Study '{shared.name}'"
        self._seed = seed
        self._starts = dict(starts or {})
        self._sampler = _SAMPLERS[sampler]
        self._shared = shared
        self._seen: set[int] = set()  # running trials of others
        silence_optuna()
        with self._readable():
            if shared is None:
                self._storage = open_file(folder / STUDY_FILE)
            else:
                self._storage = open_shared(
                    shared.url, self._queue_again, shared.heartbeat, shared.grace
                )
        with self._readable(), self._closing():
            self._study, self._created = self._create_or_load()
            beat = shared.heartbeat if shared else HEARTBEAT_SECONDS
            self._heart = Heartbeats(self._storage, self._study.study_name, beat)
            self._check(identity)

    def __enter__(self) -> HeadStudy:
        with self._readable(), self._closing():
            if self._shared is None:
                for trial in self.trials:  # a killed process had them
                    if trial.state == TrialState.RUNNING:
                        self._give_back(trial.number)
            check_trials(self._study, self._place, shared=self.shared)
            self._queue_starts()
        self._heart.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._heart.stop()
        try:
            for number in sorted(self._heart.held):
                self._give_back(number)
        except Exception as second:  # noqa: BLE001 - the first one says more
            error = error or second
        finally:
            close(self._storage)
        if from_database(error):
            raise unreadable(error, self._place, shared=self.shared) from error
        if error is not None and kind is None:
            raise error

    def _readable(self) -> AbstractContextManager[None]:
        return readable(self._place, shared=self.shared)

    @contextmanager
    def _closing(self) -> Iterator[None]:
        """Close the storage where something is wrong."""
        try:
            yield
        except BaseException:
            close(self._storage)
            raise

    @property
    def id(self) -> str:
        """Tells the study from any other."""
        return str(self._study.user_attrs.get(STUDY_ID, ""))

    @property
    def shared(self) -> bool:
        """Whether other processes may work on the study."""
        return self._shared is not None

    @property
    def trials(self) -> list[FrozenTrial]:
        """All trials, by number."""
        return self._study.get_trials(deepcopy=False)

    @property
    def ended(self) -> list[FrozenTrial]:
        """Trials with a result, by number: completed and halved ones."""
        return [t for t in self.trials if t.state in (TrialState.COMPLETE, TrialState.PRUNED)]

    @property
    def finished(self) -> int:
        """How many have a result."""
        return len(self.ended)

    @property
    def taken(self) -> int:
        """Trials with a result, and those in anybody's hands."""
        states = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING)
        return sum(trial.state in states for trial in self.trials)

    @property
    def ranked(self) -> list[FrozenTrial]:
        """Completed trials, the best first; of equals the earlier one."""
        complete = [trial for trial in self.trials if trial.state == TrialState.COMPLETE]
        return sorted(complete, key=lambda trial: (-final_value(trial), trial.number))

    @property
    def queued_probes(self) -> int:
        """Probes that are still to be trained."""
        return sum(
            trial.state == TrialState.WAITING and trial.user_attrs.get(START) in PROBES
            for trial in self.trials
        )

    def ask(self, count: int, draw: Callable[[Trial, int], T], *, total: int) -> list[T]:
        """Take trials in hand: queued ones first, then new ones.

        Where a killed run left a cohort, that one is what comes back, whatever `count` is, with
        those of it that have a result already: a trial is halved, and rounded, in company.

        A resumed sampler with the same seed would repeat its draws, and so would those of two
        processes: each trial has its own, seeded from its number.

        Samplers learn from sampled trials alone, all of which were halved at the same rungs.
        Starts would hold them: they share most values, and a completed trial outranks every halved
        one, whatever their scores (measured: 91 % of draws were then the starts' loss).

        Args:
            count: how many.
            draw: gets a trial and its seed, and draws all of its values.
            total: how many there may be in all, finished and in anybody's hands.

        Returns:
            What `draw` returned, for each; fewer than `count` where `total` is reached.
        """
        asked: dict[int, T] = {}
        learnt_from = optuna.create_study(direction="maximize")
        learnt_from.add_trials([trial for trial in self.ended if START not in trial.user_attrs])
        cohort, finished = self._interrupted()
        for one in finished:
            trial = Trial(self._study, one._trial_id)
            asked[one.number] = draw(trial, one.user_attrs[SEED])
        while len(asked) < (cohort[1] if cohort else count) and self.taken < total:
            trial = self._take()
            self._heart.held.add(trial.number)
            self._heart.record(trial.number)
            if self._surplus(trial.number, total):
                self._give_back(trial.number)
                break
            if not self.shared:
                cohort = cohort or [trial.number, count]
                trial.set_user_attr(COHORT, cohort)
            if SEED not in trial.user_attrs:
                trial.set_user_attr(SEED, trial_seed(self._seed, trial.number))
            seed = seed_from(self._seed, _SAMPLER_DOMAIN, trial.number)
            learnt_from.sampler = self._sampler(seed=seed)
            proposed = learnt_from.ask()
            draw(proposed, trial.user_attrs[SEED])
            with quiet():
                self._study.sampler = PartialFixedSampler(proposed.params, RandomSampler())
                asked[trial.number] = draw(trial, trial.user_attrs[SEED])
        return [asked[number] for number in sorted(asked)]

    def _take(self) -> Trial:
        """A trial to be run again; else the next one in the queue, or a new one.

        Optuna's queue has one order, of numbers, in which what a dead process left in a shared
        study comes last.
        """
        for waiting in self.trials if self.shared else ():
            if waiting.state == TrialState.WAITING and SEED in waiting.user_attrs:
                # Neither where another process was faster.
                with suppress(UpdateFinishedTrialError):
                    if self._storage.set_trial_state_values(waiting._trial_id, TrialState.RUNNING):
                        return Trial(self._study, waiting._trial_id)
        with quiet():
            return self._study.ask()

    def report(self, trial: Trial, value: float, step: int) -> None:
        """Note a trial's value at an epoch."""
        if step in self._noted(trial).intermediate_values:
            return  # a killed run came as far, and to the same value
        with suppress(UpdateFinishedTrialError):  # given to another: see `complete`
            trial.report(value, step=step)

    def _noted(self, trial: Trial) -> FrozenTrial:
        """What the study holds of one trial: `trials` reads all that are not finished anew."""
        return self._storage.get_trial(trial._trial_id)

    def note_seconds(self, trial: Trial, seconds: float) -> None:
        """Note a trial's share of the time that its cohort was trained for."""
        with suppress(UpdateFinishedTrialError):
            trial.set_user_attr(SECONDS, round(seconds, 2))

    def complete(self, trial: Trial, value: float) -> None:
        """Finish a trial with its value.

        If this process was taken for dead, another one runs the trial again; that one counts.
        """
        self._tell(trial, value=value)

    def prune(self, trial: Trial) -> None:
        """Finish a trial that was halved; its last reported value stays."""
        self._tell(trial, state=TrialState.PRUNED)

    def wait(self) -> None:
        """Let others go on for a moment, and queue the trials of those that are dead."""
        assert self._shared is not None
        time.sleep(min(2.0, self._shared.heartbeat / 2))
        self._retry_dead()

    def _retry_dead(self) -> None:
        with suppress(StorageInternalError), quiet():
            optuna.storages.fail_stale_trials(self._study)
            running = {t.number for t in self.trials if t.state == TrialState.RUNNING}
            # A process that dies between taking a trial and its first heartbeat would never be
            # missed: so whoever sees the trial first gives it one.
            for number in running - self._heart.held - self._seen:
                self._seen.add(number)
                self._heart.record(number)

    def _tell(
        self, trial: Trial, value: float | None = None, state: TrialState | None = None
    ) -> None:
        with suppress(UpdateFinishedTrialError):
            trial.set_user_attr(SEAL, seal(self._noted(trial)))
            self._study.tell(trial, value, state=state, skip_if_finished=True)
        self._heart.held.discard(trial.number)

    def _surplus(self, number: int, total: int) -> bool:
        """Whether so many others come before a trial just taken that it is one too many.

        Two processes that take the last one at the same time both see both, and agree.
        """
        if not self.shared:
            return False
        before = [trial for trial in self.trials[:number] if trial.state != TrialState.FAIL]
        return len(before) >= total

    def _give_back(self, number: int) -> None:
        """Let go of a running trial, of which no process is in charge any more.

        In a study of its own it waits where it was; in a shared one it is failed and queued again.
        """
        self._heart.held.discard(number)
        # Both say that it is finished: this process was taken for dead, and another queued it.
        with suppress(UpdateFinishedTrialError, ValueError):
            if self.shared:
                self._queue_again(self._study, self._study.tell(number, state=TrialState.FAIL))
            else:
                trial = self.trials[number]._trial_id
                self._storage.set_trial_state_values(trial, TrialState.WAITING)

    def _interrupted(self) -> tuple[list[int] | None, list[FrozenTrial]]:
        """The cohort that a killed run left, if any: its first number and size, and those told."""
        trials = self.trials
        for trial in trials:
            if trial.state == TrialState.WAITING and COHORT in trial.user_attrs:
                first, size = trial.user_attrs[COHORT]
                members = trials[first : first + size]
                return [first, size], [one for one in members if one.state.is_finished()]
        return None, []

    def _queue_again(self, study: Study, trial: FrozenTrial) -> None:
        """Queue a failed trial's values and seed."""
        params = {**trial.system_attrs.get("fixed_params", {}), **trial.params}
        if params:  # else it was not drawn yet, and any other draw is as good
            study.enqueue_trial(params, user_attrs=dict(trial.user_attrs))

    def _queue_starts(self) -> None:
        """Queue the starting configurations that never were in the queue."""
        if self._shared is None or self._created or READY not in self._study.user_attrs:
            known = {
                trial.user_attrs.get(START)
                for trial in self.trials
                if trial.state != TrialState.FAIL
            }
            for name, params in self._starts.items():
                if name not in known:
                    self._study.enqueue_trial(dict(params), user_attrs={START: name})
        self._study.set_user_attr(READY, True)

    def _create_or_load(self) -> tuple[Study, bool]:
        """The study, and whether it is this process that created it."""
        name = STUDY_NAME if self._shared is None else self._shared.name
        with suppress(DuplicatedStudyError):
            return (
                optuna.create_study(storage=self._storage, study_name=name, direction="maximize"),
                True,
            )
        study = optuna.load_study(storage=self._storage, study_name=name)
        end = time.monotonic() + (READY_SECONDS if self._shared else 0)
        while READY not in study.user_attrs and time.monotonic() < end:
            time.sleep(0.1)
        return study, False

    def _check(self, identity: Mapping[str, Any]) -> None:
        """Note what the study is made from, or refuse to mix."""
        if not self.trials and READY not in self._study.user_attrs:
            note_identity(self._study, identity)
            return
        remedy = (
            "Restore what changed, or start another study with --study-name."
            if self.shared
            else "Use another --work, restore what changed, or search with --fresh, which removes "
            "the old trials."
        )
        check_identity(self._study, identity, self._place, remedy)
