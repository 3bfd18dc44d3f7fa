"""Streaming: every utterance once an epoch, as stored, in bounded memory, whatever lies where."""

import shutil
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cache.frames import Frames
from cache.stream import FrameStream
from cache.streaming import StreamedFrames
from corpora.errors import CacheError, ConfigError
from tests.cache.streams import Array, add, fast_folder, make_stream, utterances

FRAME_BYTES = 8  # 4-d float16


def filled(work: Path, parts: Sequence[int]) -> tuple[FrameStream, dict[str, Array]]:
    """A stream with so many utterances in each part."""
    stream = make_stream(work)
    values: dict[str, Array] = {}
    for seed, count in enumerate(parts):
        add(stream, utterances(count, seed=seed))
        values |= utterances(count, seed=seed)
    return FrameStream.open(stream), values


def order(streamed: StreamedFrames, epoch: int = 0) -> list[int]:
    return [int(number) for positions, _ in streamed.epoch(epoch) for number in positions]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    parts=st.lists(st.integers(1, 12), min_size=1, max_size=6),
    seed=st.integers(0, 5),
    batch_size=st.integers(1, 9),
    buffer_frames=st.integers(18, 200),
    data=st.data(),
)
def test_each_utterance_comes_once_an_epoch_as_it_is_stored(
    parts: list[int], seed: int, batch_size: int, buffer_frames: int, data: st.DataObject
) -> None:
    work = Path(tempfile.mkdtemp(dir=fast_folder()))
    try:
        stream, values = filled(work, parts)
        keys = data.draw(st.lists(st.sampled_from(list(values)), max_size=40))
        streamed = StreamedFrames(
            stream, keys, batch_size=batch_size, buffer_bytes=buffer_frames * FRAME_BYTES, seed=seed
        )
        for epoch in (0, 3):
            batches = list(streamed.epoch(epoch))
            assert [len(frames) for _, frames in batches[:-1]] == [batch_size] * (len(batches) - 1)
            assert len(batches) == len(streamed)
            seen = []
            for positions, frames in batches:
                for number, position in enumerate(positions.tolist()):
                    expected = values[keys[position]]
                    np.testing.assert_array_equal(frames.utterance(number).numpy(), expected)
                seen += positions.tolist()
            assert sorted(seen) == list(range(len(keys)))
    finally:
        shutil.rmtree(work)


def test_the_order_depends_on_seed_and_epoch_alone(fast_path: Path) -> None:
    stream, values = filled(fast_path, [20, 20, 20])

    def streamed(seed: int) -> StreamedFrames:
        return StreamedFrames(stream, list(values), batch_size=7, buffer_bytes=800, seed=seed)

    first = streamed(1)
    assert order(first, 4) == order(streamed(1), 4)
    assert order(first, 4) == order(first, 4)
    assert order(first, 4) != order(first, 5)
    assert order(first, 4) != order(streamed(2), 4)


def test_a_buffer_for_all_shuffles_all(fast_path: Path) -> None:
    stream, values = filled(fast_path, [100, 100])
    found = np.array(order(StreamedFrames(stream, list(values), buffer_bytes=10**6)))
    # Of the first hundred about half come from each part, not all from one.
    assert 30 < int((found[:100] < 100).sum()) < 70


def test_windows_never_hold_more_than_the_buffer(fast_path: Path) -> None:
    stream, values = filled(fast_path, [30, 30, 30])
    streamed = StreamedFrames(stream, list(values), batch_size=5, buffer_bytes=60 * FRAME_BYTES)
    for windows in (streamed._windows(np.random.default_rng(seed)) for seed in range(5)):
        assert len(windows) > 3
        assert max(int(streamed._lengths[window].sum()) for window in windows) <= 30
    # Both windows, and what is kept and given out: five utterances of at most 9 frames, twice.
    assert streamed.memory_bytes <= (60 + 2 * 45) * FRAME_BYTES


def test_memory_given_out_is_not_written_again(fast_path: Path) -> None:
    stream, values = filled(fast_path, [30, 30])
    streamed = StreamedFrames(stream, list(values), batch_size=3, buffer_bytes=400)
    batches = [
        (positions, frames, frames.values.clone()) for positions, frames in streamed.epoch(0)
    ]
    assert all(torch.equal(frames.values, copy) for _, frames, copy in batches)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_batches_are_converted(fast_path: Path, dtype: torch.dtype) -> None:
    stream, values = filled(fast_path, [10, 10])
    keys = list(values)
    for positions, frames in StreamedFrames(stream, keys, batch_size=6, dtype=dtype).epoch(0):
        expected = torch.cat([torch.from_numpy(values[keys[p]]) for p in positions]).to(dtype)
        assert torch.equal(frames.values, expected)


def test_batches_go_to_the_device(fast_path: Path) -> None:
    stream, values = filled(fast_path, [4])
    ((_, frames),) = StreamedFrames(stream, list(values), device="meta").epoch(0)
    assert frames.values.device.type == "meta"


def test_speech_comes_with_its_frames(fast_path: Path) -> None:
    stream, values = filled(fast_path, [9, 9])
    probabilities = {key: frames[:, :1] / 256 for key, frames in values.items()}
    folder = make_stream(fast_path, dim=1, name="values")
    add(folder, dict(reversed(probabilities.items())))
    speech = FrameStream.open(folder)
    for _, frames in StreamedFrames(
        stream, list(values), batch_size=4, buffer_bytes=900, speech=speech
    ).epoch(0):
        assert frames.speech is not None
        assert torch.equal(frames.speech, (frames.values[:, 0] / 256).float())


def test_speech_of_another_grid_is_refused(fast_path: Path) -> None:
    stream, values = filled(fast_path, [3])
    folder = make_stream(fast_path, dim=1, name="values")
    add(folder, {key: np.ones((len(frames) + 1, 1), "f2") for key, frames in values.items()})
    with pytest.raises(ConfigError, match="not one value for each frame"):
        StreamedFrames(stream, list(values), speech=FrameStream.open(folder))


def test_a_buffer_too_small_for_an_utterance_is_refused(fast_path: Path) -> None:
    stream, values = filled(fast_path, [30])
    with pytest.raises(ConfigError, match="two of the longest utterances, 144 bytes"):
        StreamedFrames(stream, list(values), buffer_bytes=100)


def test_an_unknown_key_is_named(fast_path: Path) -> None:
    stream, _ = filled(fast_path, [3])
    with pytest.raises(CacheError, match="'nobody'"):
        StreamedFrames(stream, ["nobody"])


def test_leaving_an_epoch_early_ends_its_thread(fast_path: Path) -> None:
    stream, values = filled(fast_path, [30, 30])
    before = threading.active_count()
    epoch = StreamedFrames(stream, list(values), batch_size=2, buffer_bytes=400).epoch(0)
    next(epoch)
    assert threading.active_count() > before
    epoch.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before


def test_damage_reaches_the_reader_of_batches(fast_path: Path) -> None:
    stream, values = filled(fast_path, [5, 5])
    chunk = next(stream.path.glob("part-*")) / "c" / "0" / "0"
    data = bytearray(chunk.read_bytes())
    data[3] ^= 1
    chunk.write_bytes(data)
    with pytest.raises(CacheError, match="CRC-32C"):
        list(StreamedFrames(stream, list(values)).epoch(0))


def test_parts_merged_during_an_epoch_are_found_again(fast_path: Path) -> None:
    stream, values = filled(fast_path, [20, 20])
    keys = list(values)
    epoch = StreamedFrames(stream, keys, batch_size=4, buffer_bytes=300).epoch(0)
    batches: list[tuple[Array, Frames]] = [next(epoch)]
    parts = sorted(stream.path.glob("part-*"))
    add(stream.path, values)
    for part in parts:
        shutil.rmtree(part)
    batches += list(epoch)
    assert sorted(p for positions, _ in batches for p in positions.tolist()) == list(range(40))
    for positions, frames in batches:
        for number, position in enumerate(positions.tolist()):
            np.testing.assert_array_equal(frames.utterance(number).numpy(), values[keys[position]])
