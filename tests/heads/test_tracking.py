"""Runs handed to each tracker: curves, configuration and tables, below the run's folder."""

from __future__ import annotations

import os
import socket
import sqlite3
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

import pytest

from corpora.base.command_options import TRACKERS
from corpora.base.errors import ConfigError, MissingExtraError
from corpora.base.report import Table
from heads import tracking
from heads.config import SearchConfig
from heads.search.space import PROBES
from heads.tracking import Tracker, flat
from tests.heads.searches import small_search, stored_trials

CONFIG = SearchConfig(trials=3, log="tensorboard")
TABLE = Table("", ("trial", "score"), [("1", 0.25), ("2", None)])


@pytest.fixture
def outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A home and a working folder where nothing may be written; and no address is looked up."""
    folder = tmp_path / "home"
    folder.mkdir()
    asked: list[object] = []
    look_up = socket.getaddrinfo

    def record(host: Any, *more: Any, **named: Any) -> Any:
        asked.append(host)
        return look_up(host, *more, **named)

    monkeypatch.setattr(socket, "getaddrinfo", record)
    for name in ("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME"):
        monkeypatch.setenv(name, str(folder))
    monkeypatch.chdir(folder)
    yield folder
    assert not list(folder.iterdir())
    assert set(asked) <= {"localhost", "127.0.0.1", "::1"}


def follow(name: str, folder: Path) -> Path:
    """A short run; returns the tracker's folder."""
    if find_spec(name) is None:  # not imported here: trackio takes its folder at import
        pytest.skip(f"{name} is not installed")
    before = dict(os.environ)
    with Tracker(name, folder, "emopool-search") as tracker:
        tracker.start(CONFIG, "cpu")
        for step, score in enumerate((0.25, 0.5)):
            tracker.log({"trial/score": score, "best/score": score}, step)
        tracker.table("trials", TABLE)
    changed = {key: value for key, value in os.environ.items() if before.get(key) != value}
    assert not any(str(folder) in value for value in changed.values())
    return folder / name


def test_without_a_name_nothing_is_done(tmp_path: Path) -> None:
    with Tracker("", tmp_path, "emopool") as tracker:
        tracker.start(CONFIG, "cpu")
        tracker.log({"a": 1}, 0)
        tracker.table("t", TABLE)
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("outside")
def test_tensorboard_gets_curves_configuration_and_tables(tmp_path: Path) -> None:
    folder = follow("tensorboard", tmp_path / "search")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    found = [(event.step, event.value) for event in events.Scalars("best/score")]
    assert found == [(0, 0.25), (1, 0.5)]
    (event,) = events.Tensors("trials/text_summary")
    assert b"| 1 | 0.250 |" in event.tensor_proto.string_val[0]
    (written,) = folder.rglob("hparams.yml")
    assert "trials: 3" in written.read_text()


@pytest.mark.usefixtures("outside")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of SQLAlchemy 2.1
def test_mlflow_gets_them_in_a_database_of_the_run(tmp_path: Path) -> None:
    folder = follow("mlflow", tmp_path / "search")
    (artifact,) = folder.rglob("trials.csv")
    assert artifact.read_text().splitlines() == ["trial,score", "1,0.25", "2,"]
    with sqlite3.connect(folder / "mlflow.db") as base:
        found = base.execute("SELECT key, step, value FROM metrics ORDER BY key, step").fetchall()
        options = dict(base.execute("SELECT key, value FROM params"))
    assert found[:2] == [("best/score", 0, 0.25), ("best/score", 1, 0.5)]
    assert options["trials"] == "3"


@pytest.mark.usefixtures("outside")
def test_trackio_gets_them_in_a_database_of_the_run(tmp_path: Path) -> None:
    folder = follow("trackio", tmp_path / "search")
    (path,) = folder.glob("*.db")
    with sqlite3.connect(path) as base:
        found = base.execute("SELECT step, metrics FROM metrics ORDER BY id").fetchall()
    assert [step for step, _ in found][:2] == [0, 1]
    assert '"best/score"' in str(found[0][1])
    assert "trackio.table" in str(found[-1][1])


@pytest.mark.usefixtures("outside")
def test_wandb_is_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WANDB_MODE", raising=False)
    folder = follow("wandb", tmp_path / "search")
    assert list(folder.glob("wandb/offline-run-*/*.wandb"))


@pytest.mark.parametrize("name", TRACKERS)
def test_without_its_package_the_extra_is_named(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracking, "find_spec", lambda _: None)
    with pytest.raises(MissingExtraError, match=rf"emopool\[{name}\]"):
        Tracker(name, tmp_path, "emopool")


def test_options_are_text_numbers_and_truth_values() -> None:
    found = flat(CONFIG)
    assert (found["trials"], found["tied"], found["space"]) == (3, True, "")
    assert all(isinstance(value, str | bool | int | float) for value in found.values())


def test_several_searches_are_not_followed() -> None:
    with pytest.raises(ConfigError, match="--test-folds makes several"):
        SearchConfig(log="tensorboard", test_folds="speaker")


class Notebook(Tracker):
    """Keeps what it is given."""

    seen: ClassVar[list[tuple[int, Mapping[str, float | int]]]] = []
    tables: ClassVar[dict[str, Table]] = {}

    def __init__(self, name: str, folder: Path, project: str) -> None:
        super().__init__("", folder, project)

    def log(self, values: Mapping[str, float | int], step: int) -> None:
        self.seen.append((step, values))

    def table(self, name: str, table: Table) -> None:
        self.tables[name] = table


def test_a_search_is_followed_trial_by_trial_and_goes_on_where_it_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("heads.search.search.Tracker", Notebook)
    for trials in (len(PROBES), len(PROBES) + 3):
        report = small_search(tmp_path, trials, log="tensorboard", cohort=3, epochs=3)
    steps, values = zip(*Notebook.seen, strict=True)
    assert list(steps) == list(range(len(PROBES) + 3))  # each once
    stored = [one for one in stored_trials(tmp_path) if one.state.is_finished()]
    assert [value["trial/number"] for value in values] == [trial.number for trial in stored]
    assert [value["trial/score"] for value in values] == [trial.value for trial in stored]
    best = [value["best/score"] for value in values]
    assert best == sorted(best)
    assert best[-1] == report.top[0].dev_macro_f1
    assert len(Notebook.tables["trials"].rows) == len(stored_trials(tmp_path))  # waiting ones too
    axes = {str(name): value for name, value in Notebook.tables["best"].rows}
    assert axes["trial"] == str(report.best.trial)
    assert axes.keys() > {"modalities", "input_norm"}
    assert "scores" in Notebook.tables
