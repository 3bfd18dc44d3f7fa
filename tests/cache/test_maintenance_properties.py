"""Whatever is added, merged, pruned, damaged, repaired and killed, a stream equals a dict."""

import json
import os
import shutil
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

import cache.upkeep.compact
from cache.store.index import scan, seen_of_parts
from cache.store.layout import read_stream
from cache.store.parts import Part
from cache.stream import FrameStream, PartWriter
from cache.upkeep.compact import compact
from cache.upkeep.prune import apply, plan_for_keys
from cache.upkeep.verify import verify
from corpora.base.errors import CacheError
from corpora.base.work import Work
from tests.cache.faulty_disk import DIM, PART_BYTES, faulty
from tests.cache.streams import Array, add, fast_folder, make_stream

NEVER = 10**9  # operations until a kill


def flip(part: Path) -> None:
    content = bytearray((part / "c/0/0").read_bytes())
    content[3] ^= 1
    replace(part / "c/0/0", bytes(content))


def replace(path: Path, content: bytes) -> None:
    """Another file of that name: what is mapped stays as it was, as with a disk that lies."""
    path.with_suffix(".new").write_bytes(content)
    os.replace(path.with_suffix(".new"), path)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "flipped bit": flip,
    "no chunk": lambda part: (part / "c/0/0").unlink(),
    "short chunk": lambda part: replace(part / "c/0/0", b"short"),
    "no metadata": lambda part: (part / "zarr.json").unlink(),
}

keys = st.integers(0, 11).map(lambda number: f"{number:032x}")
operations = st.one_of(st.just(NEVER), st.integers(0, 40))


class MaintenanceMachine(RuleBasedStateMachine):
    """A stream and a dict of what it has to hold, with every value that a key ever had.

    Values of a key differ between copies, which in a real cache are equal: so it shows which of
    them is read. Only what is pruned, or was in a damaged part, may vanish or turn into an older
    copy that had been hidden.
    """

    def __init__(self) -> None:
        super().__init__()
        self.work = Work(Path(tempfile.mkdtemp(dir=fast_folder())))
        self.stream = make_stream(self.work.root, DIM)
        self.model: dict[str, Array] = {}
        self.history: dict[str, list[Array]] = {}
        self.readers: list[tuple[FrameStream, dict[str, Array], set[str]]] = []
        self.value = 0

    @rule(
        lengths=st.lists(st.tuples(keys, st.integers(1, 9)), min_size=1, max_size=6),
        operations=operations,
        power_cut=st.booleans(),
    )
    def add(self, lengths: list[tuple[str, int]], operations: int, power_cut: bool) -> None:
        """One part or several, perhaps killed: then the first so many are there."""
        values: dict[str, Array] = {}
        for key, length in lengths:
            self.value += 1
            values.setdefault(key, np.full((length, DIM), self.value, np.float16))
        for key, frames in values.items():
            self.history.setdefault(key, []).append(frames)
        done = False
        with faulty(operations, power_cut=power_cut):
            with PartWriter(self.stream, DIM, "float16") as writer:
                for key, frames in values.items():
                    writer.add(key, frames)
            done = True
        opened = FrameStream.open(self.stream)
        for key, frames in values.items():
            if done or key in opened:
                self.model.setdefault(key, frames)

    @rule(operations=operations, power_cut=st.booleans())
    def merge(self, operations: int, power_cut: bool) -> None:
        with faulty(operations, power_cut=power_cut):
            compact(self.work)
            assert compact(self.work).streams == ()

    @rule(kept=st.sets(keys), operations=operations, power_cut=st.booleans())
    def prune(self, kept: set[str], operations: int, power_cut: bool) -> None:
        with faulty(operations, power_cut=power_cut):
            plan = plan_for_keys(self.work, frozenset(kept))
            assert apply(self.work, plan) == plan
            if self.stream.exists():
                for part, seen in seen_of_parts(self.parts()):
                    assert any(part.keys[number] in kept for number in seen)
        self.forget(self.model.keys() - kept)

    @rule(
        number=st.integers(0, 9),
        damage=st.sampled_from([None, *DAMAGES]),
        operations=operations,
        power_cut=st.booleans(),
    )
    def repair(self, number: int, damage: str | None, operations: int, power_cut: bool) -> None:
        parts = self.parts()
        lost: set[str] = set()
        if damage and parts:
            part = parts[number % len(parts)]
            lost = set(part.keys)
            DAMAGES[damage](Path(part.path))
        with faulty(operations, power_cut=power_cut):
            report = verify(self.work, fix=True)
            assert report.ok
            assert len(report.problems) == bool(lost)
        if lost and verify(self.work).problems:  # killed before it was dropped
            with suppress(CacheError):  # it may be large enough to be left alone
                compact(self.work)
            assert verify(self.work, fix=True).ok
        assert verify(self.work).problems == ()
        self.forget(lost)

    @rule()
    def open(self) -> None:
        self.readers.append((FrameStream.open(self.stream), dict(self.model), set()))

    @invariant()
    def equals_the_dict(self) -> None:
        if not self.stream.exists():  # pruned with its last part
            assert not self.model
            make_stream(self.work.root, DIM)
        opened = FrameStream.open(self.stream)
        assert set(opened.keys) == self.model.keys()
        for key, frames in self.model.items():
            np.testing.assert_array_equal(opened.read(key), frames)
        gathered, _ = opened.gather(sorted(self.model))
        expected = [self.model[key] for key in sorted(self.model)]
        np.testing.assert_array_equal(gathered, np.concatenate([gathered[:0], *expected]))

    @invariant()
    def open_readers_read_what_is_left(self) -> None:
        for opened, values, lost in self.readers:
            for key, frames in values.items():
                try:
                    found = opened.read(key)
                except CacheError:
                    assert key in lost
                else:
                    known = self.history[key] if key in lost else [frames]
                    assert any(np.array_equal(found, one) for one in known)

    def parts(self) -> list[Part]:
        return scan(self.stream, read_stream(self.stream)).parts

    def forget(self, keys: set[str]) -> None:
        """These may be gone, or be what they were in another part."""
        there = FrameStream.open(self.stream) if self.stream.exists() else ()
        for key in keys & self.model.keys():
            for _, _, lost in self.readers:
                lost.add(key)
            del self.model[key]
            if isinstance(there, FrameStream) and key in there:
                found = there.read(key)
                assert any(np.array_equal(found, one) for one in self.history[key])
                self.model[key] = np.array(found)

    def teardown(self) -> None:
        shutil.rmtree(self.work.root)


TestMaintenance = MaintenanceMachine.TestCase
TestMaintenance.settings = settings(
    max_examples=120,
    stateful_step_count=20,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


def fill(work: Path) -> dict[str, Array]:
    """A stream of six small parts, with copies that are read and copies that are not."""
    stream = make_stream(work, DIM)
    model: dict[str, Array] = {}
    for number, held in enumerate(["ab", "bc", "de", "a", "fag", "h"]):
        values = {
            f"{ord(name):032x}": np.full((2, DIM), 10 * number + place, np.float16)
            for place, name in enumerate(held)
        }
        add(stream, values)
        model = {**values, **model}
    return model


@pytest.mark.parametrize("power_cut", [False, True])
def test_a_merge_killed_at_any_operation_loses_nothing_and_can_be_done_again(
    fast_path: Path, power_cut: bool
) -> None:
    model = fill(fast_path / "start")
    number, done = 0, False
    while not done:
        work = Work(fast_path / str(number))
        shutil.copytree(fast_path / "start", work.root)
        stream = make_stream(work.root, DIM)
        reader = FrameStream.open(stream)
        with faulty(number, power_cut=power_cut):
            report = compact(work)
            done = True
        for _ in range(2):
            for opened in (reader, FrameStream.open(stream)):
                assert set(opened.keys) == model.keys()
                for key, frames in model.items():
                    np.testing.assert_array_equal(opened.read(key), frames)
            with patch.object(cache.upkeep.compact, "PART_BYTES", PART_BYTES):
                compact(work)
        assert [len(part.keys) for part in scan(stream, read_stream(stream)).parts] == [8]
        number += 1
    assert number > 15
    assert report.streams[0].parts_before == 6


def test_a_reader_finds_everything_again_after_a_merge(fast_path: Path) -> None:
    model = fill(fast_path)
    stream = make_stream(fast_path, DIM)
    opened = FrameStream.open(stream)
    order = opened.keys
    compact(Work(fast_path))
    gathered, offsets = opened.gather(order)
    np.testing.assert_array_equal(gathered, np.concatenate([model[key] for key in order]))
    assert opened.lengths(order).tolist() == np.diff(offsets).tolist()
    assert len(list(stream.glob("part-*"))) == 1
    assert json.loads(next(stream.glob("part-*/zarr.json")).read_text())["shape"] == [16, DIM]
