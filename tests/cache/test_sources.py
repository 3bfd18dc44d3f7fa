"""The index of content hashes: right whatever happens to the files, and read once."""

import hashlib
import os
import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import pytest

import cache.sources
from cache.sources import SourceIndex
from corpora.base.errors import CacheError

LONG_AGO_NS = 1_600_000_000_000_000_000


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files whose content was read."""
    seen: list[Path] = []
    original = cache.sources._hash

    def noting(path: Path) -> object:
        seen.append(path)
        return original(path)

    monkeypatch.setattr(cache.sources, "_hash", noting)
    return seen


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trust files however young: tests cannot set a file's change time."""
    monkeypatch.setattr(cache.sources, "_MARGIN_NS", 0)


def make(folder: Path, name: str, content: bytes) -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


def sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def hashes(index: Path, *paths: Path) -> dict[Path, str]:
    with SourceIndex(index) as sources:
        return sources.content_hashes(paths)


def test_hashes_are_those_of_the_bytes(tmp_path: Path) -> None:
    big = os.urandom(3_000_000)
    paths = [make(tmp_path, "a", b""), make(tmp_path, "b", b"x"), make(tmp_path, "c", big)]
    found = hashes(tmp_path / "s.sqlite", *paths)
    assert found == dict(zip(paths, [sha(b""), sha(b"x"), sha(big)], strict=True))


def test_an_unchanged_file_is_read_once(tmp_path: Path, read: list[Path], settled: None) -> None:
    path = make(tmp_path, "a", b"x")
    for _ in range(3):
        assert hashes(tmp_path / "s.sqlite", path, path) == {path: sha(b"x")}
    assert read == [path]


def test_more_files_than_one_statement_may_name(
    tmp_path: Path, read: list[Path], settled: None
) -> None:
    paths = [make(tmp_path, f"{number}", b"%d" % number) for number in range(2_500)]
    first = hashes(tmp_path / "s.sqlite", *paths)
    assert first == {path: sha(path.name.encode()) for path in paths}
    assert hashes(tmp_path / "s.sqlite", *reversed(paths)) == first
    assert len(read) == len(paths)


def test_a_changed_file_is_read_again_though_size_and_mtime_are_the_same(
    tmp_path: Path, settled: None
) -> None:
    path = make(tmp_path, "a", b"old")
    os.utime(path, ns=(LONG_AGO_NS, LONG_AGO_NS))
    hashes(tmp_path / "s.sqlite", path)
    path.write_bytes(b"new")
    os.utime(path, ns=(LONG_AGO_NS, LONG_AGO_NS))
    assert hashes(tmp_path / "s.sqlite", path) == {path: sha(b"new")}


def test_a_replaced_file_is_read_again(tmp_path: Path, settled: None) -> None:
    path = make(tmp_path, "a", b"old")
    hashes(tmp_path / "s.sqlite", path)
    os.replace(make(tmp_path, "b", b"new"), path)
    assert hashes(tmp_path / "s.sqlite", path) == {path: sha(b"new")}


def test_a_file_changed_just_now_is_not_trusted_yet(tmp_path: Path, read: list[Path]) -> None:
    path = make(tmp_path, "a", b"x")
    hashes(tmp_path / "s.sqlite", path)
    hashes(tmp_path / "s.sqlite", path)
    assert read == [path, path]


def test_files_that_cannot_be_read_are_absent(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    present = make(tmp_path, "a", b"x")
    paths = [present, tmp_path / "none", tmp_path / "pipe", tmp_path, present / "below"]
    assert set(hashes(tmp_path / "s.sqlite", *paths)) == {present}


def test_a_file_name_need_not_be_text(tmp_path: Path, read: list[Path], settled: None) -> None:
    name = os.fsdecode(b"caf\xe9.wav")
    try:
        path = make(tmp_path, name, b"x")
    except OSError:
        pytest.skip("this file system takes only Unicode names")
    for _ in range(2):
        assert hashes(tmp_path / "s.sqlite", path) == {path: sha(b"x")}
    assert len(read) == 1


@pytest.mark.parametrize("damage", ["text", "truncated", "version", "zeroed pages"])
def test_a_damaged_index_is_built_anew(tmp_path: Path, damage: str, settled: None) -> None:
    paths = [make(tmp_path, f"{number}", b"%d" % number) for number in range(500)]
    index = tmp_path / "s.sqlite"
    first = hashes(index, *paths)
    content = index.read_bytes()
    if damage == "text":
        index.write_bytes(b"not a database " * 1000)
    elif damage == "truncated":
        index.write_bytes(content[: len(content) // 2])
    elif damage == "zeroed pages":
        index.write_bytes(content[:4096] + bytes(len(content) - 4096))
    else:
        database = sqlite3.connect(index)
        database.execute("PRAGMA user_version = 99")
        database.close()
    assert hashes(index, *paths) == first
    assert hashes(index, *paths) == first


def test_an_index_that_cannot_be_created_is_named(tmp_path: Path) -> None:
    with pytest.raises(CacheError, match=r"none/s\.sqlite cannot be used"):
        SourceIndex(tmp_path / "none" / "s.sqlite")


def test_several_users_at_once(tmp_path: Path, settled: None) -> None:
    paths = [make(tmp_path, f"{number}", b"%d" % number) for number in range(300)]
    found: list[dict[Path, str]] = []
    threads = [
        threading.Thread(target=lambda: found.append(hashes(tmp_path / "s.sqlite", *paths)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [{path: sha(path.name.encode()) for path in paths}] * 4


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE sources SET sha256 = '00' || substr(sha256, 3)",
        "UPDATE sources SET path = path || x'00'",
        "UPDATE sources SET size = NULL",
        "UPDATE sources SET sha256 = CAST(x'ff' AS TEXT)",
        "DROP TABLE sources",
    ],
)
@pytest.mark.usefixtures("settled")
def test_an_index_with_altered_values_is_built_anew(damage: str, tmp_path: Path) -> None:
    index, path = tmp_path / "s.sqlite", make(tmp_path, "a.wav", b"x")
    hashes(index, path)
    with closing(sqlite3.connect(index)) as database, database:
        database.execute(damage)
    assert hashes(index, path) == {path: sha(b"x")}
    assert hashes(index, path) == {path: sha(b"x")}
