"""Whatever is added, killed and opened again, a stream equals a plain dict of arrays."""

import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

import cache.store.writer
from cache.stream import FrameStream, PartWriter
from tests.cache.faulty_disk import DIM, PART_BYTES, faulty
from tests.cache.streams import Array, fast_folder, make_stream

ROOT = Path(__file__).parents[2]


frames_of_utterance = st.integers(1, 25)
keys = st.integers(0, 15).map(lambda number: f"{number:032x}")


class StreamMachine(RuleBasedStateMachine):
    """A stream and, beside it, a dict. Two writers at once; each adds, commits, or is killed."""

    def __init__(self) -> None:
        super().__init__()
        self.work = Path(tempfile.mkdtemp(dir=fast_folder()))
        self.stream = make_stream(self.work, DIM)
        self.model: dict[str, Array] = {}
        self.pending: list[dict[str, Array]] = [{}, {}]
        self.writers = [self.new_writer(), self.new_writer()]
        self.readers: list[tuple[FrameStream, dict[str, Array]]] = []
        self.value = 0

    def new_writer(self) -> PartWriter:
        return PartWriter(self.stream, DIM, "float16")

    @rule(which=st.integers(0, 1), key=keys, frames=frames_of_utterance)
    def add(self, which: int, key: str, frames: int) -> None:
        values = self.fresh(frames)
        with patch.object(cache.store.writer, "PART_BYTES", PART_BYTES):
            self.writers[which].add(key, values)
        for part in self.expected(which, key, values):
            self.commit_to_model(part)

    @rule(which=st.integers(0, 1))
    def commit(self, which: int) -> None:
        self.writers[which].commit()
        self.commit_to_model(self.pending[which])
        self.pending[which] = {}

    @rule(which=st.integers(0, 1))
    def close_and_go_on(self, which: int) -> None:
        self.writers[which].close()
        self.commit_to_model(self.pending[which])
        self.pending[which] = {}
        self.writers[which] = self.new_writer()

    @rule(
        which=st.integers(0, 1),
        key=keys,
        frames=frames_of_utterance,
        operations=st.integers(0, 30),
        power_cut=st.booleans(),
    )
    def be_killed(
        self, which: int, key: str, frames: int, operations: int, power_cut: bool
    ) -> None:
        """Killed while adding and closing: each part is there as a whole, or not at all.

        And what `add` or `close` committed before they returned is there whatever comes.
        """
        values = self.fresh(frames)
        parts = [*self.expected(which, key, values), self.pending[which]]
        self.pending[which] = {}
        safe, done = 0, False
        with faulty(operations, power_cut=power_cut):
            self.writers[which].add(key, values)
            safe = len(parts) - 1
            self.writers[which].close()
            done = True
        outcomes = [dict(self.model)]
        for part in parts:
            self.commit_to_model(part)
            outcomes.append(dict(self.model))
        if not done:
            found = set(FrameStream.open(self.stream).keys)
            outcomes = outcomes[safe:]
            assert any(found == outcome.keys() for outcome in outcomes)
            # Prefixes with the same keys are the same: the first part with a key counts.
            self.model = next(outcome for outcome in outcomes if found == outcome.keys())
            self.writers[which]._lock.close()  # as the system does for a dead process
        self.writers[which] = self.new_writer()

    @rule()
    def open(self) -> None:
        self.readers.append((FrameStream.open(self.stream), dict(self.model)))

    @rule()
    def make_again(self) -> None:
        assert make_stream(self.work, DIM) == self.stream

    @invariant()
    def equals_the_dict(self) -> None:
        check(FrameStream.open(self.stream), self.model)

    @invariant()
    def earlier_readers_still_read_what_they_saw(self) -> None:
        for opened, values in self.readers:
            check(opened, values)

    def fresh(self, frames: int) -> Array:
        """Values no other utterance has, so that duplicates can be told apart."""
        self.value += 1
        return np.full((frames, DIM), self.value, np.float16)

    def expected(self, which: int, key: str, values: Array) -> list[dict[str, Array]]:
        """The parts that adding commits, by the rules; updates what is pending."""
        done = []
        pending = self.pending[which]
        if key in pending:
            return []
        if pending and size(pending) + values.nbytes > PART_BYTES:
            done.append(pending)
            pending = {}
        pending = {**pending, key: values}
        if size(pending) >= PART_BYTES:
            done.append(pending)
            pending = {}
        self.pending[which] = pending
        return done

    def commit_to_model(self, part: dict[str, Array]) -> None:
        for key, values in part.items():
            self.model.setdefault(key, values)

    def teardown(self) -> None:
        for writer in self.writers:
            writer.close()
        shutil.rmtree(self.work)


def size(values: dict[str, Array]) -> int:
    return sum(frames.nbytes for frames in values.values())


def check(opened: FrameStream, values: dict[str, Array]) -> None:
    assert opened.keys == tuple(values)
    for key, frames in values.items():
        np.testing.assert_array_equal(opened.read(key), frames)
    gathered, offsets = opened.gather()
    assert offsets[-1] == sum(map(len, values.values()))
    if values:
        np.testing.assert_array_equal(gathered, np.concatenate(list(values.values())))


TestStream = StreamMachine.TestCase
TestStream.settings = settings(
    max_examples=80,
    stateful_step_count=25,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


@pytest.mark.parametrize("power_cut", [False, True])
def test_a_kill_at_any_operation_leaves_all_of_a_part_or_nothing(
    fast_path: Path, power_cut: bool
) -> None:
    """Every operation of a whole small extraction, one after another."""
    values = {f"{number}": np.full((9, DIM), number, np.float16) for number in range(5)}
    operations, done = 0, False
    while not done:
        work = fast_path / str(operations)
        with faulty(operations, power_cut=power_cut):
            stream = make_stream(work, DIM)
            with PartWriter(stream, DIM, "float16") as writer:
                for key, frames in values.items():
                    writer.add(key, frames)
            done = True
        # Start again from whatever is there, add what is missing.
        stream = make_stream(work, DIM)
        there = dict(list(values.items())[: len(FrameStream.open(stream).keys)])
        check(FrameStream.open(stream), there)
        with PartWriter(stream, DIM, "float16") as writer:
            for key in values.keys() - there.keys():
                writer.add(key, values[key])
        assert FrameStream.open(stream).keys[: len(there)] == tuple(there)
        assert set(FrameStream.open(stream).keys) == set(values)
        operations += 1
    assert operations > 40


ADDER = """
import sys, numpy as np
from pathlib import Path
from cache.stream import PartWriter
stream, first, count = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
with PartWriter(stream, 3, "float16") as writer:
    for number in range(first, first + count):
        writer.add(f"{number:08d}", np.full((1 + number % 7, 3), number % 1000, np.float16))
        if number % 5 == 0:
            writer.commit()
            print(number, flush=True)
"""


def test_a_stream_survives_kill_9_while_several_processes_add(tmp_path: Path) -> None:
    stream = make_stream(tmp_path, 3)
    command = [sys.executable, "-c", ADDER, str(stream)]

    def start(first: int, count: int) -> subprocess.Popen[bytes]:
        arguments = [*command, str(first), str(count)]
        return subprocess.Popen(arguments, cwd=ROOT, stdout=subprocess.PIPE)

    with start(0, 10**9) as victim, start(50, 60) as survivor:
        assert victim.stdout is not None
        committed = [int(victim.stdout.readline()) for _ in range(8)]
        victim.send_signal(signal.SIGKILL)
        victim.wait()
        survivor.communicate()
        assert survivor.returncode == 0
    opened = FrameStream.open(stream)
    assert all(f"{number:08d}" in opened for number in range(committed[-1] + 1))
    assert all(f"{number:08d}" in opened for number in range(50, 110))
    for key in opened.keys:
        number = int(key)
        assert opened.read(key).tolist() == [[number % 1000] * 3] * (1 + number % 7)
    # The next writer clears the dead one's building site away.
    PartWriter(stream, 3, "float16").close()
    assert list((tmp_path / ".tmp").iterdir()) == []
