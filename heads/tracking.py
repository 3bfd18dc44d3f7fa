"""What a run does, handed to a tracker as it goes: curves, configuration, tables.

By Hugging Face accelerate's trackers. Each writes into a folder of its own inside the run's, and
none sends anything unless the user's own environment says where to: wandb is offline, mlflow and
trackio keep SQLite files; what these packages would report about themselves is off.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import redirect_stdout
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from types import TracebackType
from typing import Any

from corpora.base.codec import plain
from corpora.base.errors import MissingExtraError
from corpora.base.report import Table, csv_text, markdown_table

# Settings of the packages that hold unless the user has set them: where they write, and silence.
_ENVIRONMENT: Mapping[str, Mapping[str, str]] = {
    "tensorboard": {},
    "trackio": {"TRACKIO_DIR": "{folder}", "HF_HUB_DISABLE_TELEMETRY": "1"},
    "mlflow": {
        "MLFLOW_TRACKING_URI": "sqlite:///{folder}/mlflow.db",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    },
    "wandb": {
        "WANDB_MODE": "offline",
        "WANDB_SILENT": "true",
        "WANDB_ERROR_REPORTING": "false",
        **{f"WANDB_{kind}_DIR": "{folder}" for kind in ("ARTIFACT", "CACHE", "CONFIG", "DATA")},
    },
}


class Tracker:
    """What takes in one run; a context manager. Without a name it does nothing.

    Args:
        name: one of `corpora.base.command_options.TRACKERS`; "" for none.
        folder: of the run; the tracker's is inside it, by its name.
        project: what runs of this kind are grouped under.

    Raises:
        MissingExtraError: its package is not installed.
    """

    def __init__(self, name: str, folder: Path, project: str) -> None:
        if name and find_spec(name) is None:
            raise MissingExtraError(
                f"--log {name} needs a package: pip install 'emopool[{name}]'. Leave it out "
                "otherwise; the same numbers are in CSV files of the work folder."
            )
        self._name, self._project = name, project
        self._folder = folder.resolve() / name
        self._own: Any = None  # accelerate's
        self._set: list[str] = []  # in the environment

    def __enter__(self) -> Tracker:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._own is not None:
            with redirect_stdout(StringIO()):  # where a result may go as JSON
                if self._name == "trackio":  # accelerate's way leaves it to be finished again
                    import trackio

                    trackio.finish()
                else:
                    self._own.finish()
            self._own = None
        for name in self._set:
            os.environ.pop(name, None)

    def start(self, config: object, device: str, begin: int = 0) -> None:
        """Begin the run.

        Args:
            config: what was asked: a dataclass or a mapping.
            device: that the run computes on.
            begin: the first step that is going to be logged: what a killed run logged beyond its
                last checkpoint is taken back, where the tracker can (tensorboard).
        """
        if not self._name:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        for name, value in _ENVIRONMENT[self._name].items():
            if name not in os.environ:
                os.environ[name] = value.format(folder=self._folder)
                self._set.append(name)
        from accelerate import PartialState
        from accelerate.tracking import LOGGER_TYPE_TO_CLASS

        PartialState(cpu=device == "cpu")  # accelerate's trackers ask it who leads
        run = self._folder.parent.parent.name
        options: dict[str, dict[str, Any]] = {
            "tensorboard": {"logging_dir": self._folder.parent, "purge_step": begin},
            "trackio": {"embed": False, "auto_log_cpu": False, "auto_log_gpu": False},
            "mlflow": {"logging_dir": (self._folder / "files").as_uri(), "run_name": run},
            "wandb": {"dir": str(self._folder), "name": run},
        }
        title = self._name if self._name == "tensorboard" else self._project
        own = LOGGER_TYPE_TO_CLASS[self._name](title, **options[self._name])
        with redirect_stdout(StringIO()):
            own.start()
        self._own = own
        own.store_init_configuration(flat(config))

    def log(self, values: Mapping[str, float | int], step: int) -> None:
        """Numbers of a step, by the names of their curves."""
        if self._own is not None:
            self._own.log(dict(values), step=step)

    def table(self, name: str, table: Table) -> None:
        """A table, in the form that the tracker has for one."""
        if self._own is None:
            return
        rows = [list(row) for row in table.rows]
        if self._name == "tensorboard":
            self._own.log({name: markdown_table(table.columns, table.shown)})
        elif self._name == "wandb":
            self._own.log_table(name, columns=list(table.columns), data=rows)
        elif self._name == "mlflow":
            import mlflow

            mlflow.log_text(csv_text(table.columns, rows), f"{name}.csv")
        else:
            import trackio

            self._own.log({name: trackio.Table(columns=list(table.columns), data=rows)})


def flat(config: object) -> dict[str, Any]:
    """A configuration as trackers take it: names with text, numbers and truth values."""
    values: Mapping[str, Any] = plain(config)
    return {
        name: value if isinstance(value, str | bool | int | float) else _text(value)
        for name, value in values.items()
    }


def _text(value: object) -> str:
    return "" if value is None else json.dumps(value, ensure_ascii=False)
