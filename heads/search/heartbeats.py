"""Signs of life for the trials that a process has in hand.

With ask and tell Optuna records none by itself. A process whose trials have had none for a while is
dead, and another one runs them.
"""

from __future__ import annotations

import threading
from contextlib import suppress

from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage


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
