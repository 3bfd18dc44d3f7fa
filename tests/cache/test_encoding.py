"""The pipeline's pieces: halving, storing in a thread, shares, ranks, batches."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cache.audio import batches
from cache.extract.encoding import Encoded, Encoding, Row
from cache.extract.stream_writer import SHARES, StreamWriter, open_shares, share_of
from cache.extract.summary import ExtractReport
from cache.extract.targets import Item, Target
from cache.recipe import Recipe
from cache.store.writer import PartWriter
from cache.stream import FrameStream
from corpora.base.errors import ConfigError
from corpora.base.work import Rank, Work, current_rank
from corpora.manifest import Utterance

TARGET = Target(Recipe("audio", {"stored_dtype": "float16"}), "layer_3", 3)


def encoded(*values: float) -> Encoded:
    """A batch of utterances of two frames, named and filled by a number each."""
    rows = [
        Row(
            Item(str(value), (Utterance(f"u{value}", Path("a.wav"), ""),), (TARGET,)),
            [(TARGET, str(value), np.full((2, 3), value, np.float32))],
        )
        for value in values
    ]
    return Encoded(rows, lambda: None, 24 * len(rows))


@pytest.fixture
def work(tmp_path: Path) -> Work:
    from cache.store.layout import open_features

    open_features(tmp_path / "features.zarr")
    return Work(tmp_path)


def stored(work: Work) -> set[str]:
    path = work.features / TARGET.path
    return set(FrameStream.open(path).keys) if path.exists() else set()


def test_a_batch_that_does_not_fit_is_halved_and_said_so_once() -> None:
    told: list[str] = []
    refused: list[int] = []

    def encode(batch: Sequence[int]) -> Encoded:
        if sum(batch) > 10:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return encoded(*batch)

    encoding = Encoding(encode, refused.append, told.append, lambda one: one)
    found = encoding([5, 5, 4, 99, 3, 1])
    keys = [row.item.key for batch in found for row in batch.rows]
    assert keys == ["5", "5", "4", "3", "1"]
    assert refused == [99]
    assert len(told) == 1


@pytest.mark.parametrize("error", [torch.OutOfMemoryError, MemoryError])
def test_what_fitted_is_remembered(error: type[Exception]) -> None:
    tried: list[list[int]] = []
    refused: list[int] = []

    def encode(batch: Sequence[int]) -> Encoded:
        tried.append(list(batch))
        if max(batch) * len(batch) > 10:
            raise error("out of memory")
        return encoded(*batch)

    encoding = Encoding(encode, refused.append, lambda _: None, lambda one: one)
    first = encoding([4] * 8)
    assert sum(len(one.rows) for one in first) == 8
    assert [len(batch) for batch in tried] == [8, 4, *[2] * 4]
    tried.clear()
    encoding([4] * 8)
    assert [len(batch) for batch in tried] == [2] * 4
    tried.clear()
    encoding([2] * 6)
    assert [len(batch) for batch in tried] == [4, 2]
    assert refused == []


def test_another_error_is_no_want_of_memory() -> None:
    refused: list[int] = []
    told: list[str] = []

    def encode(_: Sequence[int]) -> Encoded:
        raise RuntimeError("CUDA error: device-side assert triggered")

    with pytest.raises(RuntimeError, match="assert"):
        Encoding(encode, refused.append, told.append, lambda one: one)([1, 2])
    assert refused == []
    assert told == []


def test_what_was_handed_over_is_stored_also_after_an_error_elsewhere(work: Work) -> None:
    with pytest.raises(KeyboardInterrupt), StreamWriter(work.features, ExtractReport()) as writer:  # noqa: PT012
        writer.put(encoded(1, 2))
        writer.put(encoded(3))
        raise KeyboardInterrupt
    assert stored(work) == {"1", "2", "3"}


def test_commit_puts_everything_into_the_cache(work: Work) -> None:
    report = ExtractReport()
    with StreamWriter(work.features, report) as writer:
        writer.put(encoded(1))
        writer.commit()
        assert stored(work) == {"1"}
        writer.put(encoded(2))
    assert report.added == {TARGET.path: 2}


def test_an_utterance_that_cannot_be_stored_is_a_failure_of_its_own(work: Work) -> None:
    report = ExtractReport()
    with StreamWriter(work.features, report) as writer:
        writer.put(encoded(1, float("nan"), 70_000, 2))
    assert stored(work) == {"1", "2"}
    assert list(report.failures) == ["unan", "u70000"]


@pytest.mark.parametrize("commits", [False, True])
def test_an_error_of_the_disk_reaches_whoever_hands_over(
    work: Work, monkeypatch: pytest.MonkeyPatch, commits: bool
) -> None:
    def fail(*_: object) -> None:
        raise OSError("no such disk")

    monkeypatch.setattr(PartWriter, "add", fail)
    with (  # noqa: PT012
        pytest.raises(OSError, match="no such disk"),
        StreamWriter(work.features, ExtractReport()) as writer,
    ):
        while True:
            writer.put(encoded(1))
            if commits:
                writer.commit()


def test_a_slow_disk_holds_the_encoder_back(work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cache.extract.stream_writer.QUEUE_BYTES", 24)
    handed = seen = 0
    add = PartWriter.add

    def slowly(self: PartWriter, key: str, values: np.ndarray) -> None:
        nonlocal seen
        time.sleep(0.005)
        seen += 1
        assert handed - seen <= 2
        add(self, key, values)

    monkeypatch.setattr(PartWriter, "add", slowly)
    with StreamWriter(work.features, ExtractReport()) as writer:
        for number in range(10):
            writer.put(encoded(number))
            handed += 1
    assert len(stored(work)) == 10


def test_an_old_part_is_committed_although_nothing_is_added(
    work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cache.extract.stream_writer.IDLE_SECONDS", 0.01)
    monkeypatch.setattr("cache.store.writer.PART_SECONDS", 0.02)
    with StreamWriter(work.features, ExtractReport()) as writer:
        writer.put(encoded(1))
        end = time.monotonic() + 30
        while stored(work) != {"1"}:
            assert time.monotonic() < end
            time.sleep(0.005)


@given(sizes=st.lists(st.integers(1, 30), max_size=40), budget=st.integers(1, 60))
def test_batches_keep_order_and_budget(sizes: list[int], budget: int) -> None:
    found = list(batches(sizes, lambda size: size, budget))
    assert [size for batch in found for size in batch] == sizes
    assert all(len(batch) == 1 or max(batch) * len(batch) <= budget for batch in found)


def test_shares_are_taken_once_and_free_again_when_their_holder_dies(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    code = (
        "import sys, time; from pathlib import Path; from corpora.base.work import Rank;"
        "from cache.extract.stream_writer import open_shares\n"
        f"with open_shares(Path({str(tmp_path)!r}), ['s'], Rank()) as shares:\n"
        "    print(len(shares.take(range(10))), flush=True); time.sleep(600)"
    )
    root = Path(__file__).parents[2]
    with (
        subprocess.Popen(
            [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=root
        ) as other,
        open_shares(tmp_path, ["s"], Rank()) as shares,
        open_shares(tmp_path / "other", ["s"], Rank()) as elsewhere,
    ):
        assert other.stdout is not None
        assert int(other.stdout.readline()) == 10
        assert shares.take(range(12)) == [10, 11]
        assert elsewhere.take(range(3)) == [0, 1, 2]
        other.kill()
        other.wait()
        assert shares.take(range(10)) == list(range(10))


def test_ranks_begin_with_disjoint_shares_that_cover_all(tmp_path: Path) -> None:
    first = []
    for number in range(3):
        with open_shares(tmp_path, [str(number)], Rank(number, 3)) as shares:
            first += shares.take(range(SHARES))
    assert sorted(first) == list(range(SHARES))


def test_keys_spread_over_the_shares() -> None:
    found = {share_of(os.urandom(16).hex()) for _ in range(20_000)}
    assert len(found) == SHARES


def test_a_rank_comes_from_the_environment() -> None:
    assert current_rank({}) == Rank(0, 1, 0)
    world = {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1"}
    assert current_rank(world) == Rank(5, 8, 1)
    assert not current_rank(world).leads
    for wrong in ({"RANK": "8"}, {"RANK": "x"}):
        with pytest.raises(ConfigError, match="torchrun"):
            current_rank({**world, **wrong})
