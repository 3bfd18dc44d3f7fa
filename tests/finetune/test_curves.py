"""Curves: a row a step, through all phases, in every form."""

from __future__ import annotations

from pathlib import Path

import pytest

from corpora.base.report import render
from finetune.curves import Curves, curves_figure, global_steps
from finetune.objective import Score
from finetune.steps import LogRow
from heads.tracking import Tracker


def phase(number: int, steps: int) -> list[LogRow]:
    rows = [LogRow(number, 0, 0, 0.0, None, Score(0.2, 1.0))]
    rows += [LogRow(number, 1, n, 1e-3 / n, 1.0 / n) for n in range(1, steps)]
    return [*rows, LogRow(number, 1, steps, 1e-5, 0.1, Score(0.4, 0.5))]


ROWS = [*phase(2, 3), *phase(3, 2)]


def test_steps_are_counted_through_all_phases() -> None:
    assert global_steps(ROWS) == [0, 1, 2, 3, 3, 4, 5]


def test_the_file_grows_with_the_phase_and_goes_on_behind_earlier_ones(tmp_path: Path) -> None:
    first = Curves(tmp_path)
    first.write(ROWS[:2])
    assert len((tmp_path / "curves.csv").read_text().splitlines()) == 3
    first.end_phase(ROWS[:4])
    resumed = Curves(tmp_path, ROWS[:4])
    resumed.end_phase(ROWS[4:])
    lines = (tmp_path / "curves.csv").read_text().splitlines()
    assert lines[0] == "phase,epoch,step,lr,loss,dev_macro_f1,dev_loss"
    assert len(lines) == 1 + len(ROWS)
    assert lines[-1] == "3,1,2,1e-05,0.1,0.4,0.5"


def test_the_picture_is_drawn() -> None:
    pytest.importorskip("matplotlib")
    assert render(curves_figure(ROWS))[".png"].startswith(b"\x89PNG")


def test_a_tracker_gets_every_number_once(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with Tracker("tensorboard", tmp_path, "emopool-finetune") as tracker:
        tracker.start({"seed": 0}, "cpu")
        found = Curves(tmp_path, tracker=tracker)
        found.write(ROWS[:3])
        found.end_phase(ROWS[:4])
        found.end_phase(ROWS[4:])
        found.close()
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [event.step for event in events.Scalars("train/loss")] == [1, 2, 3, 4, 5]
    assert [event.step for event in events.Scalars("dev/macro_f1")] == [0, 3, 3, 5]
