"""Mapped frames read like frames in memory."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from cache.frames import Frames
from cache.mapped import MappedFrames
from cache.stream import FrameStream
from tests.cache.streams import add, make_stream, utterances


@pytest.fixture
def both(tmp_path: Path) -> tuple[Frames, MappedFrames]:
    path, values = make_stream(tmp_path), utterances(12)
    add(path, dict(list(values.items())[:5]))
    add(path, dict(list(values.items())[5:]))
    stream, keys = FrameStream.open(path), tuple(reversed(values))
    frames = stream.load(keys)
    speech = torch.rand(frames.total)
    return frames.with_speech(speech), MappedFrames(stream, keys, speech)


def test_shapes_are_those_of_frames_in_memory(both: tuple[Frames, MappedFrames]) -> None:
    frames, mapped = both
    assert (len(mapped), mapped.dim, mapped.total) == (len(frames), frames.dim, frames.total)
    assert (mapped.dtype, mapped.device) == (frames.dtype, frames.device)
    assert torch.equal(mapped.lengths, frames.lengths)
    assert torch.equal(mapped.offsets, frames.offsets)


def test_every_utterance_is_the_same(both: tuple[Frames, MappedFrames]) -> None:
    frames, mapped = both
    for index in range(len(frames)):
        assert torch.equal(mapped.utterance(index), frames.utterance(index))


def test_a_selection_is_the_same_with_repeats_in_any_order(
    both: tuple[Frames, MappedFrames],
) -> None:
    frames, mapped = both
    chosen = [7, 0, 7, 11]
    one, other = frames.select(chosen), mapped.select(chosen)
    assert torch.equal(one.values, other.values)
    assert torch.equal(one.offsets, other.offsets)
    assert one.speech is not None
    assert other.speech is not None
    assert torch.equal(one.speech, other.speech)


def test_threads_that_read_at_once_get_what_one_gets(
    both: tuple[Frames, MappedFrames], monkeypatch: pytest.MonkeyPatch
) -> None:
    frames, mapped = both
    # Every read of the other part lets go of the map of this one.
    monkeypatch.setattr(mapped.stream, "_most_maps", 1)
    order = [number for _ in range(40) for number in (0, 11, 5, 7)]
    with ThreadPoolExecutor(4) as pool:
        read = list(pool.map(mapped.utterance, order))
    for number, values in zip(order, read, strict=True):
        assert torch.equal(values, frames.utterance(number))
