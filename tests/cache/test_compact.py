"""cache compact: what is merged, what is left alone, and what is refused."""

from pathlib import Path

import numpy as np
import pytest

import cache.upkeep.compact
from cache.store.index import scan
from cache.store.layout import read_stream
from cache.stream import FrameStream
from cache.upkeep.compact import compact
from corpora.base.errors import CacheError, MissingStepError
from corpora.base.work import Work, shared_lock
from tests.cache.streams import Array, add, make_stream

FRAME_BYTES = 8  # four halves


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts of ten frames; with fewer than five they are small."""
    monkeypatch.setattr(cache.upkeep.compact, "PART_BYTES", 10 * FRAME_BYTES)


def fill(work: Path, parts: list[dict[str, int]]) -> Path:
    """Parts with utterances of so many frames; every value says which part it is from."""
    stream = make_stream(work)
    for number, utterances in enumerate(parts):
        values: dict[str, Array] = {
            key: np.full((frames, 4), number, np.float16) for key, frames in utterances.items()
        }
        add(stream, values)
    return stream


def layout(stream: Path) -> list[list[str]]:
    return [part.keys for part in scan(stream, read_stream(stream)).parts]


def test_small_parts_become_parts_of_up_to_the_limit(fast_path: Path) -> None:
    stream = fill(fast_path, [{"a": 4}, {"b": 3}, {"c": 2}, {"d": 2}, {"e": 1}])
    (report,) = compact(Work(fast_path)).streams
    assert layout(stream) == [["a", "b", "c"], ["d", "e"]]
    assert (report.parts_before, report.parts_after) == (5, 2)
    assert (report.rewritten, report.freed) == (12 * FRAME_BYTES, 0)
    assert "5 parts -> 2" in compact_text(report)


def compact_text(report: cache.upkeep.compact.CompactedStream) -> str:
    return cache.upkeep.compact.CompactReport((report,), 1).to_text()


def test_parts_of_half_the_limit_are_left_alone(fast_path: Path) -> None:
    stream = fill(fast_path, [{"a": 5}, {"b": 1}, {"c": 10}, {"d": 1}, {"e": 30}])
    large = {path for path in stream.glob("part-*") if (path / "c/0/0").stat().st_size > 5 * 8}
    compact(Work(fast_path))
    assert large < set(stream.glob("part-*"))
    assert layout(stream) == [["a"], ["b", "d"], ["c"], ["e"]]


def test_with_nothing_to_merge_nothing_happens(fast_path: Path) -> None:
    stream = fill(fast_path, [{"a": 7}, {"b": 1}])
    before = sorted(stream.rglob("*"))
    report = compact(Work(fast_path))
    assert report.streams == ()
    assert report.to_text() == "Nothing to merge in 1 stream."
    assert sorted(stream.rglob("*")) == before


def test_copies_that_nobody_reads_are_dropped(fast_path: Path) -> None:
    stream = fill(fast_path, [{"a": 8}, {"a": 2}, {"b": 1, "a": 8}, {"b": 6, "c": 6}])
    (report,) = compact(Work(fast_path)).streams
    # The second part goes; the third is rewritten without its copy; the fourth is large enough.
    assert layout(stream) == [["a"], ["b"], ["b", "c"]]
    assert report.freed == 10 * FRAME_BYTES
    opened = FrameStream.open(stream)
    assert [int(opened.read(key)[0, 0]) for key in "abc"] == [0, 2, 3]


def test_what_is_read_of_a_merged_part_wins_over_later_copies_of_it(fast_path: Path) -> None:
    stream = fill(fast_path, [{"a": 1}, {"a": 5, "b": 5}, {"c": 1}])
    compact(Work(fast_path))
    opened = FrameStream.open(stream)
    assert {key: int(opened.read(key)[0, 0]) for key in "abc"} == {"a": 0, "b": 1, "c": 2}


def test_a_part_that_somebody_renamed_is_left_alone(fast_path: Path) -> None:
    stream = fill(fast_path, [{"a": 1}, {"b": 1}, {"c": 1}])
    next(iter(stream.glob("part-*"))).rename(stream / "part-mine")
    compact(Work(fast_path))
    assert (stream / "part-mine").is_dir()
    assert len(layout(stream)) == 2


def test_damage_is_not_given_a_new_checksum(fast_path: Path) -> None:
    stream = fill(fast_path, [{"a": 1}, {"b": 1}])
    part = sorted(stream.glob("part-*"))[1]
    content = bytearray((part / "c/0/0").read_bytes())
    content[0] ^= 1
    (part / "c/0/0").write_bytes(content)
    with pytest.raises(CacheError, match=r"CRC-32C.*1 utterances affected"):
        compact(Work(fast_path))
    assert layout(stream) == [["a"], ["b"]]
    assert list((fast_path / ".tmp").iterdir()) == []
    (part / "zarr.json").unlink()
    with pytest.raises(CacheError, match="verify --fix"):
        compact(Work(fast_path))


def test_a_full_disk_loses_nothing(fast_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = fill(fast_path, [{"a": 1}, {"b": 1}])

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("cache.store.writer.write_at", full)
    with pytest.raises(OSError, match="No space"):
        compact(Work(fast_path))
    assert layout(stream) == [["a"], ["b"]]
    assert list((fast_path / ".tmp").iterdir()) == []


def test_nothing_is_merged_while_somebody_adds(fast_path: Path) -> None:
    fill(fast_path, [{"a": 1}, {"b": 1}])
    with shared_lock(fast_path / "features.zarr"), pytest.raises(CacheError, match="in use"):
        compact(Work(fast_path))


def test_without_a_cache_there_is_nothing_to_merge(fast_path: Path) -> None:
    with pytest.raises(MissingStepError, match="extract"):
        compact(Work(fast_path))
    assert list(fast_path.iterdir()) == []


def test_many_tiny_parts_need_one_pass(fast_path: Path) -> None:
    stream = fill(fast_path, [{f"{number}": 1} for number in range(40)])
    expected = FrameStream.open(stream).load().values.clone()
    compact(Work(fast_path))
    assert [len(keys) for keys in layout(stream)] == [10, 10, 10, 10]
    assert FrameStream.open(stream).load().values.equal(expected)
    assert compact(Work(fast_path)).streams == ()
