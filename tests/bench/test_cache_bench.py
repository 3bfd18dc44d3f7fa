"""`python -m bench cache` at a hundredth of its size: it runs, cleans up and prints the table."""

import tempfile
from pathlib import Path

import pytest
from click.testing import CliRunner

from bench.__main__ import main
from bench.cache import ROWS
from bench.table import Outcome, choose, compare, lines, machine, markdown, run, write_section
from corpora.base.errors import ConfigError


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary folders are made."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(
    "name", ["flat", "hdf5", "zarr", "whole", "front-end", "extract", "whisper", "auto"]
)
def test_a_row_is_measured_and_leaves_nothing_behind(scratch: Path, name: str) -> None:
    ((row, outcome),) = run(choose(ROWS, [name]), size=0.001, repeats=1)
    assert row.name == name
    assert outcome.ratio.endswith("×")
    assert list(scratch.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", ["no-op", "memory"])
def test_a_row_with_processes_is_measured(scratch: Path, name: str) -> None:
    ((_, outcome),) = run(choose(ROWS, [name]), size=0.001, repeats=1)
    assert outcome.here
    assert list(scratch.iterdir()) == []


def test_the_command_prints_the_table(scratch: Path) -> None:
    result = CliRunner().invoke(main, ["cache", "--rows", "whole", "--size", "0.001"])
    assert result.exit_code in (0, 1)  # at this size the ratio means nothing
    assert "np.fromfile" in result.output
    assert "at least 0.6×" in result.output


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--rows", "falt"], "Did you mean 'flat'?"),
        (["--size", "2"], "up to 1; got 2"),
        (["--write", "--size", "0.1"], "all rows at full size"),
        (["--write", "--rows", "flat"], "all rows at full size"),
    ],
)
def test_what_cannot_be_measured_is_refused(options: list[str], message: str) -> None:
    result = CliRunner().invoke(main, ["cache", *options])
    assert result.exit_code != 0
    assert message in result.output


def test_rows_are_named_once_and_keep_their_order() -> None:
    assert len({row.name for row in ROWS}) == len(ROWS)
    assert choose(ROWS, ()) == ROWS
    assert [row.name for row in choose(ROWS, ["memory", "flat"])] == ["flat", "memory"]
    with pytest.raises(ConfigError, match="front-end"):
        choose(ROWS, ["nothing"])


def test_the_table_is_aligned_and_marks_what_fails() -> None:
    results = [
        (ROWS[0], Outcome("9.00 GB/s", "10.00 GB/s", "0.90×", passed=True)),
        (ROWS[2], Outcome("9.00 GB/s", "3.00 GB/s", "3.00×", passed=False)),
    ]
    shown = lines(results)
    assert shown[1].endswith("pass")
    assert shown[2].endswith("FAIL")
    assert len({line.index("at least") for line in shown[1:2]}) == 1
    assert markdown(results).count("\n| ") == 4


def test_the_machine_is_described_without_its_name() -> None:
    import platform

    assert "cores" in machine()
    assert platform.node() not in machine()


def test_a_section_of_the_readme_is_replaced_and_nothing_else(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text("before\n<!-- cache:begin -->\nold\n<!-- cache:end -->\nafter\n")
    write_section(readme, "cache", "new")
    text = readme.read_text()
    assert text == "before\n<!-- cache:begin -->\nnew\n<!-- cache:end -->\nafter\n"
    with pytest.raises(ValueError, match="gpu:begin"):
        write_section(readme, "gpu", "new")


def test_both_ways_run_equally_often() -> None:
    calls: list[str] = []
    found = compare(lambda: calls.append("ours"), lambda: calls.append("theirs"), 3)
    assert calls == ["theirs", "ours", "theirs", "ours", "ours", "theirs", "theirs", "ours"]
    assert found.ratio > 0
