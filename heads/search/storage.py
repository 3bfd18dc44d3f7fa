"""Where a study is kept: a SQLite file of its own, or a database that many machines share.

Signs of life for the trials that a process has in hand.

With ask and tell Optuna records none by itself. A process whose trials have had none for a while is
dead, and another one runs them.
"""

from __future__ import annotations

import json
import sqlite3
import threading
import time
import uuid
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from traceback import walk_tb
from typing import Any

import optuna
from optuna.exceptions import ExperimentalWarning, StorageInternalError
from optuna.storages import RDBStorage
from optuna.study import Study
from optuna.trial import FrozenTrial
from sqlalchemy import event
from sqlalchemy.engine import Connection, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError

from corpora.base.errors import CacheError, ConfigError, EmopoolError, MissingExtraError
from corpora.base.files import disk_error


class Heartbeats:
    """Records heartbeats in a thread of its own, from `start` to `stop`.

    Args:
        storage: of the study.
        study: its name.
        seconds: between two beats.

    Attributes:
        held: numbers of the trials in hand; change it at will.
    """

    def __init__(self, storage: RDBStorage, study: str, seconds: float) -> None:
        self.held: set[int] = set()
        self._storage = storage
        self._study = storage.get_study_id_from_name(study)
        self._seconds = seconds
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    def start(self) -> None:
        """Begin to beat."""
        self._thread.start()

    def stop(self) -> None:
        """Beat no more."""
        self._stop.set()
        self._thread.join()

    def record(self, number: int) -> None:
        """One beat, of one trial."""
        trial = self._storage.get_trial_id_from_study_id_trial_number(self._study, number)
        self._storage.record_heartbeat(trial)

    def _beat(self) -> None:
        while not self._stop.wait(self._seconds):
            # A busy database is left alone until the next beat.
            with suppress(StorageInternalError):
                for number in list(self.held):
                    self.record(number)
        self._storage.remove_session()


# The study's note that tells it from any other, even one of the same name.
STUDY_ID = "study_id"


def note_identity(study: Study, identity: Mapping[str, Any]) -> None:
    """Note what a new study is made from."""
    for name, value in identity.items():
        study.set_user_attr(name, value)
    study.set_user_attr(STUDY_ID, uuid.uuid4().hex)


def check_identity(study: Study, identity: Mapping[str, Any], place: str, remedy: str) -> None:
    """Refuse to go on with a study that was made from something else.

    Args:
        study: with its notes.
        identity: what makes values of two trials comparable.
        place: where the study is kept.
        remedy: what the user can do.

    Raises:
        ConfigError: they differ; each difference is shown.
    """
    known, now = (made.get("axis pooling", []) for made in (study.user_attrs, identity))
    if set(known) < set(now):
        since = ", ".join(name for name in now if name not in known)
        remedy = (
            f"If {since} came since: with --space FILE that has the line pooling = "
            f"{json.dumps(known)} the study goes on without. {remedy}"
        )
    refuse_differences(study.user_attrs, identity, f"{place} holds a search", remedy)


def refuse_differences(
    known: Mapping[str, Any], identity: Mapping[str, Any], holds: str, remedy: str
) -> None:
    """Refuse to mix with numbers that were made from something else.

    Args:
        known: what those that are kept were made from, as JSON reads it back.
        identity: what the new ones would be made from.
        holds: what is kept where, such as `work/compare holds a comparison`.
        remedy: what the user can do.

    Raises:
        ConfigError: they differ; each difference is shown.
    """
    differences = [
        f"  {name}: {_shown(known.get(name))} -> {_shown(value)}"
        for name, value in json.loads(json.dumps(identity)).items()
        if known.get(name) != value
    ]
    if differences:
        raise ConfigError(
            f"{holds} over something else, and their scores cannot be compared:\n"
            + "\n".join(differences)
            + f"\n{remedy}"
        )


def _shown(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 100 else text[:99] + "…"


# Whose code handles what is in a database.
_DATABASE = ("optuna.storages._rdb", "optuna.storages._cached_storage", "sqlalchemy.")
# How long a write waits for another reader or writer of a SQLite file.
BUSY_SECONDS = 60.0
# Making the tables of a new database takes less, on a machine that has nothing else to do.
OPENING_SECONDS, OPENINGS = 2.0, 5


def open_file(path: Path) -> RDBStorage:
    """The storage in a SQLite file, which nobody else works on."""
    # The connection is made by `_connect`: an URL would trip over special characters.
    return RDBStorage(f"sqlite:///{path.name}", engine_kwargs={"creator": lambda: _connect(path)})


def open_shared(
    url: str, retry: Callable[[Study, FrozenTrial], None], heartbeat: int, grace: int
) -> RDBStorage:
    """The storage at a database URL, with heartbeats.

    Args:
        url: such as `postgresql+psycopg://user@host/database` or `sqlite:////shared/study.db`.
        retry: what is done with the trial of a dead process, once, by one process.
        heartbeat: seconds between two signs of life.
        grace: seconds without one after which a process counts as dead.

    Raises:
        ConfigError: not a database URL.
        MissingExtraError: the database's driver is not installed.
        CacheError: the database cannot be reached.
    """
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise ConfigError(
            f"{url!r} is not a database URL. Expected one such as "
            "postgresql+psycopg://user@host/database or sqlite:////shared/study.db."
        ) from error
    options = {}
    if parsed.drivername.startswith("sqlite") and parsed.database:
        path = Path(parsed.database)
        options["creator"] = lambda: _connect(path)

    def open_once() -> RDBStorage:
        with quiet():
            return RDBStorage(
                url,
                engine_kwargs=options,
                heartbeat_interval=heartbeat,
                grace_period=grace,
                heartbeat_stale_trial_callback=retry,
            )

    try:
        for _ in range(OPENINGS):
            with suppress(DBAPIError):  # another process is making the tables at the same moment
                storage = open_once()
                break
            time.sleep(OPENING_SECONDS)
        else:
            storage = open_once()
    except ImportError as error:
        raise MissingExtraError(
            f"{parsed.drivername} needs a database driver that is not installed ({error}). "
            "For PostgreSQL: pip install 'emopool[postgresql]', and postgresql+psycopg://…."
        ) from error
    except (SQLAlchemyError, sqlite3.Error, RuntimeError) as error:
        # The URL may hold a password, so it is shown without.
        raise CacheError(
            f"The study's database {parsed.render_as_string()} cannot be used: {error}"
        ) from error
    if options:
        _lock_on_begin(storage)
    return storage


def unreadable(error: object, place: str, *, shared: bool = False) -> CacheError:
    """The one sentence for a study that is damaged, with what can be done.

    Args:
        error: what is wrong with it.
        place: where it is kept.
        shared: by several processes, in a database.
    """
    # Optuna and SQLAlchemy hide the database's own words behind general ones, a query and a link.
    cause = getattr(error, "__cause__", None) or error
    found = str(getattr(cause, "orig", cause)) or repr(error)
    if isinstance(error, KeyError):
        found = f"it lacks {error}"
    remedy = (
        "it was damaged or altered, or its database does not answer. Mend that, or start another "
        "study with --study-name."
        if shared
        else "it was damaged or altered. The heads kept beside it, best.json and trials/, can "
        "still be used. search --fresh removes them with it and starts anew; to keep them, move "
        "the folder away first."
    )
    return CacheError(
        f"{place} cannot be read as an Optuna study ({found.splitlines()[0]}): {remedy}"
    )


@contextmanager
def readable(place: str, *, shared: bool = False) -> Iterator[None]:
    """Read a study inside: what Optuna stumbles over in a damaged one becomes one sentence.

    Optuna and SQLAlchemy raise whatever their code meets, from KeyError to errors of JSON: what
    counts is that it comes out of the database.

    Raises:
        CacheError: the study is damaged.
    """
    try:
        yield
    except Exception as error:
        if from_database(error):
            raise unreadable(error, place, shared=shared) from error
        raise


def from_database(error: BaseException | None) -> bool:
    """Whether reading or writing a study raised this, and not for want of a disk."""
    if not isinstance(error, Exception) or isinstance(error, EmopoolError) or disk_error(error):
        return False
    modules = (frame.f_globals.get("__name__", "") for frame, _ in walk_tb(error.__traceback__))
    return any(module.startswith(_DATABASE) for module in modules)


def _lock_on_begin(storage: RDBStorage) -> None:
    """Let every transaction on a SQLite file begin by taking its lock.

    Optuna takes a trial from the queue by reading its state and then changing it, in a transaction
    that locks the row. SQLite has no such locks and by itself begins a transaction at the change:
    two processes then take the same trial (seen once in some twenty searches of two processes).
    """

    def connected(connection: sqlite3.Connection, _record: object) -> None:
        connection.isolation_level = None  # Python's module begins no transactions of its own

    def begun(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    storage.engine.dispose()  # connections made so far
    event.listen(storage.engine, "connect", connected)
    event.listen(storage.engine, "begin", begun)


@contextmanager
def quiet() -> Iterator[None]:
    """Without Optuna's warnings that heartbeats are experimental, and not meant for ask and tell.

    They are recorded here, by a thread of our own.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        warnings.filterwarnings("ignore", "Heartbeat of storage")
        yield


def close(storage: RDBStorage) -> None:
    """Close all connections."""
    storage.remove_session()
    storage.engine.dispose()


def silence_optuna() -> None:
    """Optuna's messages are for programs without a report of their own."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)


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
