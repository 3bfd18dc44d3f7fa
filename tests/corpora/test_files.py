"""The one door for writing: whole files or none, and one error for a disk that fails."""

from __future__ import annotations

import errno
import json
import sqlite3
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors import SafetensorError

from cache.last_extraction import read_failures, write_failures
from corpora.base.encodings import encoding_of
from corpora.base.errors import ConfigError, EmopoolError, FormatVersionError
from corpora.base.files import (
    LFS_POINTER,
    atomic_path,
    check_folder,
    disk_error,
    new_folder,
    new_stamp,
    read_json,
    under_way,
    write_json,
)
from corpora.base.terminal import as_written, inert
from corpora.manifest import read_manifest
from corpora.textgrid import read_textgrid


def wrapped(inner: Exception) -> Exception:
    """As Optuna wraps SQLAlchemy's errors, and that SQLite's."""
    outer = RuntimeError("the storage failed")
    outer.__cause__ = inner
    return outer


@pytest.mark.parametrize(
    ("error", "number"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), errno.ENOSPC),
        (SafetensorError("I/O error: No space left on device (os error 28)"), errno.ENOSPC),
        (SafetensorError("I/O error: Input/output error (os error 5)"), errno.EIO),
        (OSError("Can't write data (file write failed: errno = 28, error message)"), errno.ENOSPC),
        (sqlite3.OperationalError("database or disk is full"), errno.ENOSPC),
        (wrapped(sqlite3.OperationalError("disk I/O error")), errno.EIO),
        (SafetensorError("header too large"), None),
        (OSError("no errno"), None),
        (KeyError("x"), None),
    ],
)
def test_what_the_disk_said_is_found_in_errors_of_all_libraries(
    error: Exception, number: int | None
) -> None:
    found = disk_error(error)
    assert (found and found.errno) == number


@pytest.mark.parametrize("door", [atomic_path, new_folder])
def test_a_full_disk_is_an_os_error_that_names_the_target(
    door: Callable[[Path], object], tmp_path: Path
) -> None:
    target = tmp_path / "model.bin"
    with pytest.raises(OSError, match="No space left") as caught, door(target):  # type: ignore[attr-defined]
        raise SafetensorError("I/O error: No space left on device (os error 28)")
    assert caught.value.errno == errno.ENOSPC
    assert caught.value.filename == str(target)
    assert not list(tmp_path.iterdir())


def test_other_errors_go_through_the_door_as_they_are(tmp_path: Path) -> None:
    with pytest.raises(ConfigError), atomic_path(tmp_path / "a"):
        raise ConfigError("os error 28 is no option")


def test_what_killed_processes_left_is_swept_and_nothing_else(tmp_path: Path) -> None:
    dead = subprocess.Popen(["true"])
    dead.wait()
    here = new_stamp().rsplit("-", 1)[1]
    stamps = {
        f"{time.time_ns():016x}-{dead.pid}-00000000-{here}": False,
        "0000000000000000-1-00000000-elsewhere": False,  # a day ago
        f"{time.time_ns():016x}-1-00000000-elsewhere": True,
        new_stamp(): True,
    }
    for stamp in stamps:
        under_way(tmp_path / "a.h5", stamp).touch()
        under_way(tmp_path / "model", stamp).mkdir()
    kept = {
        under_way(tmp_path / name, s).name
        for s in stamps
        if stamps[s]
        for name in ("a.h5", "model")
    }
    for name in (".hidden.tmp", ".a.tmp.h5", "a.h5"):
        (tmp_path / name).touch()
        kept.add(name)
    write_json(tmp_path / "new.json", {})
    assert {path.name for path in tmp_path.iterdir()} == {*kept, "new.json"}


@pytest.mark.parametrize("damage", ["altered", "missing"])
def test_damage_to_a_folder_that_was_made_here_is_named(damage: str, tmp_path: Path) -> None:
    with new_folder(tmp_path / "encoder") as folder:
        folder.mkdir()
        (folder / "config.json").write_text("{}")
    check_folder(tmp_path / "encoder")
    path = tmp_path / "encoder" / "config.json"
    path.unlink() if damage == "missing" else path.write_text("[]")
    with pytest.raises(FormatVersionError, match=r"config\.json in .*encoder was altered"):
        check_folder(tmp_path / "encoder")


SEALED = {"format": "x", "version": 1, "labels": ["b", "a"], "10": 1.5, "text": "é"}


@pytest.mark.parametrize(
    "change",
    [
        lambda value: value["labels"].reverse(),
        lambda value: value.update(text="e"),
        lambda value: value.update({"10": 1.25}),
        lambda value: value.update(more=None),
        lambda value: value.pop("text"),
        lambda value: value.update(digest="sha256:0"),
        lambda value: value.update(digest=[]),
    ],
)
def test_changed_values_do_not_fit_the_digest(
    change: Callable[[dict[str, object]], object], tmp_path: Path
) -> None:
    path = tmp_path / "a.json"
    write_json(path, SEALED)
    assert read_json(path, kind="x", version=1) == SEALED
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))
    with pytest.raises(FormatVersionError, match=r"a\.json was altered"):
        read_json(path, kind="x", version=1)


def test_a_digest_does_not_depend_on_layout_nor_on_how_often_it_was_written(
    tmp_path: Path,
) -> None:
    path = tmp_path / "a.json"
    numbered: dict[object, object] = dict(SEALED.items())
    numbered[10] = 1.5
    write_json(path, numbered)  # a number as a key is text in JSON
    first = json.loads(path.read_text())
    write_json(path, first)
    assert json.loads(path.read_text()) == first
    path.write_text(json.dumps(dict(reversed(first.items()))))
    assert read_json(path, kind="x", version=1) == SEALED


@pytest.mark.parametrize(
    ("cell", "written"),
    [
        ("=1+2", "'=1+2"),
        (" @SUM(A1)", "' @SUM(A1)"),
        ("+cmd|' /C calc'!A0", "'+cmd|' /C calc'!A0"),
        ("-anger", "'-anger"),
        ("-0.5", "-0.5"),
        ("+1e-05", "+1e-05"),
        ("\tjoy", "'\tjoy"),
        ("\r=1", "'\r=1"),
        ("'=1+2", "''=1+2"),
        ("'-0.5", "'-0.5"),
        ("'tis joy", "'tis joy"),
        ("joy", "joy"),
        ("", ""),
        (-1.5, -1.5),
    ],
)
def test_no_cell_of_a_table_is_a_formula(cell: object, written: object) -> None:
    assert inert(cell) == written
    if isinstance(cell, str):
        assert as_written(str(inert(cell))) == cell


def test_failures_are_no_formulas_and_are_read_as_they_were(tmp_path: Path) -> None:
    path = tmp_path / "failures.csv"
    failures = {"=1+1": '-it\'s, "empty"', "'=u": "@x", "-5": "too\rlong", "\tu": "\r=1"}
    write_failures(path, failures)
    assert read_failures(path) == failures
    lines = path.read_text(encoding="utf-8").splitlines()
    assert '"\'=1+1","\'-it\'s, ""empty"""' in lines


@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("a.json", lambda path: read_json(path, kind="emopool-x", version=1)),
        ("manifest.csv", read_manifest),
        ("table.csv", encoding_of),
        ("a.TextGrid", read_textgrid),
    ],
)
def test_what_git_lfs_leaves_in_place_of_a_file_is_called_so(
    name: str, read: Callable[[Path], object], tmp_path: Path
) -> None:
    path = tmp_path / name
    path.write_bytes(LFS_POINTER + b"v1\noid sha256:0\nsize 9\n")
    with pytest.raises((EmopoolError, ValueError), match=r"Git LFS pointer.*git lfs pull"):
        read(path)
