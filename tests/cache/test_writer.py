"""PartWriter: when parts close, what is refused, and what a failure leaves behind."""

import errno
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import cache.store.writer
from cache.store.index import scan
from cache.store.layout import clear_stale_sites, new_site, read_stream
from cache.stream import FrameStream, PartWriter
from corpora.base.errors import CacheError
from corpora.base.work import exclusive_lock
from tests.cache.streams import Array, add, make_stream, utterances


def parts(stream: Path) -> list[int]:
    """Utterances of each part, in order of their names."""
    return [len(part.keys) for part in scan(stream, read_stream(stream)).parts]


def row(value: float, frames: int = 1) -> Array:
    return np.full((frames, 4), value, np.float32)


def test_nothing_is_in_the_stream_before_the_commit(tmp_path: Path) -> None:
    stream = make_stream(tmp_path)
    with PartWriter(stream, 4, "float16") as writer:
        writer.add("a", row(1))
        assert FrameStream.open(stream).keys == ()
        writer.commit()
        assert FrameStream.open(stream).keys == ("a",)
        writer.add("b", row(2))
    assert parts(stream) == [1, 1]


def test_a_part_closes_before_it_is_too_large(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache.store.writer, "PART_BYTES", 80)  # ten frames
    stream = make_stream(tmp_path)
    with PartWriter(stream, 4, "float16") as writer:
        for number, frames in enumerate([4, 4, 4, 6, 1, 15, 1]):
            writer.add(f"{number}", row(number, frames))
    assert parts(stream) == [2, 2, 1, 1, 1]


def test_an_utterance_longer_than_a_part_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache.store.writer, "MAX_PART_BYTES", 80)
    stream = make_stream(tmp_path)
    with PartWriter(stream, 4, "float16") as writer:
        writer.add("fits", row(1, 10))
        with pytest.raises(CacheError, match="long has 11 frames, which take 88 bytes"):
            writer.add("long", row(1, 11))
    assert FrameStream.open(stream).keys == ("fits",)


def test_a_part_closes_after_two_minutes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    stream = make_stream(tmp_path)
    with PartWriter(stream, 4, "float16") as writer:
        for number in range(6):
            writer.add(f"{number}", row(number))
            now += 50.0
    assert parts(stream) == [4, 2]


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_values_float16_cannot_hold_are_refused(tmp_path: Path, dtype: str) -> None:
    stream = make_stream(tmp_path)
    cases = {np.nan: "not finite", np.inf: "not finite", -np.inf: "not finite"}
    if dtype != "float16":
        cases |= {65505.0: "outside what float16", -1e30: "outside what float16"}
    with PartWriter(stream, 4, "float16") as writer:
        for number, (value, message) in enumerate(cases.items()):
            values = np.ones((5, 4), dtype)
            values[3, 2] = value
            with pytest.raises(CacheError, match=f"bad{number}: .*{message}"):
                writer.add(f"bad{number}", values)
        writer.add("good", np.full((2, 4), -65504, dtype))
    opened = FrameStream.open(stream)
    assert opened.keys == ("good",)
    assert opened.read("good").min() == -65504


def test_float32_holds_what_float16_does_not(tmp_path: Path) -> None:
    stream = make_stream(tmp_path, dtype="float32")
    with PartWriter(stream, 4, "float32") as writer:
        writer.add("a", row(1e30))
        with pytest.raises(CacheError, match="outside what float32"):
            writer.add("b", np.full((1, 4), 1e300))
        with pytest.raises(CacheError, match="not finite"):
            writer.add("c", row(np.nan))
    assert FrameStream.open(stream).keys == ("a",)


def test_uint8_takes_small_whole_numbers(tmp_path: Path) -> None:
    stream = make_stream(tmp_path, dim=1, dtype="uint8")
    with PartWriter(stream, 1, "uint8") as writer:
        writer.add("a", np.array([[0], [2], [254]]))
        for bad in (np.array([[255]]), np.array([[-1]]), np.array([[1.0]]), np.array([[np.nan]])):
            with pytest.raises(CacheError, match="bad"):
                writer.add("bad", bad)
    assert FrameStream.open(stream).read("a").tolist() == [[0], [2], [254]]


@pytest.mark.parametrize("shape", [(0, 4), (3, 5), (4,), (1, 1, 4)])
def test_other_shapes_are_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    refused = pytest.raises(CacheError, match=r"bad: expected frames \[T, 4\]")
    with PartWriter(make_stream(tmp_path), 4, "float16") as writer, refused:
        writer.add("bad", np.zeros(shape))


def test_any_memory_layout_is_stored_alike(tmp_path: Path) -> None:
    values = np.arange(24, dtype=np.float32).reshape(6, 4)
    variants: dict[str, Array] = {
        "transposed": np.asfortranarray(values),
        "strided": np.repeat(values, 2, axis=0)[::2],
        "half": values.astype(np.float16)[:, ::-1][:, ::-1],
        "big-endian": values.astype(">f2"),
        "read-only": np.frombuffer(values.tobytes(), np.float32).reshape(6, 4),
    }
    stream = make_stream(tmp_path)
    with PartWriter(stream, 4, "float16") as writer:
        for key, variant in variants.items():
            writer.add(key, variant)
    opened = FrameStream.open(stream)
    for key in variants:
        np.testing.assert_array_equal(opened.read(key), values)


def test_what_was_added_before_an_error_is_kept(tmp_path: Path) -> None:
    stream = make_stream(tmp_path)
    values = {"a": row(1), "b": row(np.nan)}
    with pytest.raises(CacheError, match="b: 4 of 4"):
        add(stream, values)
    assert FrameStream.open(stream).keys == ("a",)


def test_a_full_disk_leaves_a_readable_stream_and_no_litter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = make_stream(tmp_path)
    add(stream, utterances(2, seed=1))
    pwrite, room = os.pwrite, 100

    def limited(descriptor: int, data: bytes, offset: int) -> int:
        nonlocal room
        if not room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written = pwrite(descriptor, data[:room], offset)
        room -= written
        return written

    monkeypatch.setattr(os, "pwrite", limited)
    with pytest.raises(OSError, match="No space left"):
        add(stream, utterances(9, seed=2))
    assert FrameStream.open(stream).keys == tuple(utterances(2, seed=1))
    assert list((tmp_path / ".tmp").iterdir()) == []


def test_room_that_is_left_is_used_for_what_was_added_before_the_disk_was_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = make_stream(tmp_path)
    pwrite, calls = os.pwrite, 0

    def once_full(descriptor: int, data: bytes, offset: int) -> int:
        nonlocal calls
        calls += 1
        if calls == 2:  # the second utterance: half of it is written
            pwrite(descriptor, data[: len(data) // 2], offset)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return pwrite(descriptor, data, offset)

    monkeypatch.setattr(os, "pwrite", once_full)
    with pytest.raises(OSError, match="No space left"):
        add(stream, {"a": row(1, 3), "b": row(2, 50)})
    assert FrameStream.open(stream).load().values.tolist() == row(1, 3).tolist()


def test_nothing_is_pruned_under_an_open_writer(tmp_path: Path) -> None:
    stream = make_stream(tmp_path)
    features = tmp_path / "features.zarr"
    refused = pytest.raises(CacheError, match="in use")
    with PartWriter(stream, 4, "float16"), refused, exclusive_lock(features):
        pytest.fail("got the lock")
    with exclusive_lock(features):
        pass


def test_a_refused_writer_holds_no_lock(tmp_path: Path) -> None:
    stream = make_stream(tmp_path)
    with pytest.raises(CacheError):
        PartWriter(stream, 5, "float16")
    with exclusive_lock(tmp_path / "features.zarr"):
        pass


def test_a_part_can_be_built_in_another_folder(tmp_path: Path) -> None:
    stream = make_stream(tmp_path)
    with PartWriter(stream, 4, np.float16, tmp_path / "elsewhere") as writer:
        writer.add("a", row(1))
        assert len(list((tmp_path / "elsewhere").iterdir())) == 1
    assert FrameStream.open(stream).keys == ("a",)


def test_sites_of_dead_processes_and_of_other_days_are_cleared(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    now, day = time.time_ns(), 24 * 3600 * 10**9
    host = socket.gethostname()
    mine = new_site(tmp_path)
    names = {
        "dead": f"site-{now:016x}-{process.pid}-00000000-{host}",
        "old elsewhere": f"site-{now - 2 * day:016x}-1-00000000-another-host",
        "young elsewhere": f"site-{now:016x}-{process.pid}-00000000-another-host",
        "not ours": "download",
    }
    for name in names.values():
        (tmp_path / name / "c").mkdir(parents=True)
    clear_stale_sites(tmp_path)
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {mine.name, names["young elsewhere"], names["not ours"]}
