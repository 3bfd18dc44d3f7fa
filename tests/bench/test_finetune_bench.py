"""`python -m bench finetune` with toy encoders: every row is measured and cleans up."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from bench import finetune
from bench.table import choose, run


@pytest.mark.parametrize("name", ["boundary", "padding", "encoders"])
def test_a_row_is_measured_and_leaves_nothing_behind(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    for size in ("AUDIO", "TEXT"):
        monkeypatch.setattr(finetune, size, {"layers": 4, "dim": 32, "heads": 2})
    ((row, outcome),) = run(choose(finetune.ROWS, [name]), size=0.001, repeats=1)
    assert row.name == name
    assert outcome.here
    assert list(tmp_path.iterdir()) == []


def test_little_of_a_batch_is_padding(tmp_path: Path) -> None:
    ((_, outcome),) = run(choose(finetune.ROWS, ["padding"]))
    assert outcome.passed
