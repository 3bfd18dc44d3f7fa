"""Reading a stream: what was added comes back, and nothing else ever does."""

import os
import resource
import shutil
import subprocess
import sys
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

import cache.stream
from cache.store.parts import Part, map_part
from cache.stream import FrameStream
from corpora.base.errors import CacheError, MissingStepError
from tests.cache.streams import Array, add, make_stream, utterances

DTYPES = ["float16", "float32", "uint8"]


@pytest.mark.parametrize("dtype", DTYPES)
def test_what_was_added_is_read_back_exactly(tmp_path: Path, dtype: str) -> None:
    stream = make_stream(tmp_path, dtype=dtype)
    everything = utterances(7, dtype=dtype, seed=1) | utterances(5, dtype=dtype, seed=2)
    add(stream, utterances(7, dtype=dtype, seed=1))
    add(stream, utterances(5, dtype=dtype, seed=2))
    opened = FrameStream.open(stream)
    assert opened.keys == tuple(everything)
    assert (opened.dim, opened.dtype) == (4, np.dtype(dtype))
    assert opened.nbytes == sum(frames.nbytes for frames in everything.values())
    assert opened.lengths().tolist() == [len(frames) for frames in everything.values()]
    for key, frames in everything.items():
        np.testing.assert_array_equal(opened.read(key), frames)


def test_load_keeps_the_asked_order_and_repeats(tmp_path: Path) -> None:
    stream = make_stream(tmp_path)
    values = utterances(9, seed=1) | utterances(9, seed=2)
    add(stream, utterances(9, seed=1))
    add(stream, utterances(9, seed=2))
    keys = [*np.random.default_rng(0).permutation(list(values)).tolist(), next(iter(values))]
    frames = FrameStream.open(stream).load(keys)
    assert frames.lengths.tolist() == [len(values[key]) for key in keys]
    for number, key in enumerate(keys):
        np.testing.assert_array_equal(frames.utterance(number).numpy(), values[key])


@pytest.mark.parametrize("keys", [None, slice(2, 7), slice(0, 0)])
@pytest.mark.parametrize("dtype", [None, torch.float16, torch.float32, torch.bfloat16])
def test_load_converts_on_the_way(
    tmp_path: Path, dtype: torch.dtype | None, keys: slice | None
) -> None:
    stream = make_stream(tmp_path)
    values = utterances(9)
    add(stream, values)
    chosen = list(values) if keys is None else list(values)[keys]
    frames = FrameStream.open(stream).load(None if keys is None else chosen, dtype=dtype)
    rows = [torch.from_numpy(values[key]) for key in chosen] or [torch.empty(0, 4).half()]
    assert torch.equal(frames.values, torch.cat(rows).to(dtype or torch.float16))
    assert len(frames) == len(chosen)


def test_load_sends_to_a_device(tmp_path: Path) -> None:
    stream = make_stream(tmp_path)
    add(stream, utterances(3))
    frames = FrameStream.open(stream).load(device="meta", dtype=torch.float32)
    assert frames.values.device.type == "meta"
    assert frames.offsets.device.type == "cpu"


def test_gathering_into_memory_used_before_allocates_nothing(tmp_path: Path) -> None:
    stream = make_stream(tmp_path)
    values = utterances(9)
    add(stream, values)
    opened = FrameStream.open(stream)
    out = np.full((100, 4), 7, np.float16)
    for keys in (opened.keys[3:5], opened.keys[8:0:-3]):
        got, offsets = opened.gather(keys, out=out)
        assert np.shares_memory(got, out)
        np.testing.assert_array_equal(got, np.concatenate([values[key] for key in keys]))
        assert offsets[-1] == len(got)
    assert opened.load(opened.keys[:2], out=out).values.data_ptr() == out.ctypes.data
    with pytest.raises(ValueError, match="out must be"):
        opened.gather(out=out[:1])
    with pytest.raises(ValueError, match="out must be"):
        opened.gather(out=np.empty((100, 4), np.float32))


def test_reading_one_utterance_copies_nothing_and_cannot_change_it(tmp_path: Path) -> None:
    stream = make_stream(tmp_path)
    key = next(iter(utterances(3)))
    add(stream, utterances(3))
    opened = FrameStream.open(stream)
    assert np.shares_memory(opened.read(key), opened.read(key))
    with pytest.raises(ValueError, match="read-only"):
        opened.read(key)[:] = 0


def test_a_stream_without_parts_is_empty(tmp_path: Path) -> None:
    opened = FrameStream.open(make_stream(tmp_path))
    assert (opened.keys, opened.nbytes, "a" in opened) == ((), 0, False)
    frames = opened.load()
    assert (len(frames), frames.dim) == (0, 4)


def test_an_unknown_key_is_named(tmp_path: Path) -> None:
    stream = make_stream(tmp_path)
    add(stream, utterances(3))
    opened = FrameStream.open(stream)
    keys = [opened.keys[0], "nobody", "none"]
    for ask in (opened.load, opened.lengths, opened.gather):
        with pytest.raises(CacheError, match=r"'nobody' \(2 of the 3"):
            ask(keys)
    with pytest.raises(CacheError, match="'nobody'"):
        opened.read("nobody")
    assert "nobody" not in opened
    assert opened.keys[0] in opened


def test_of_a_key_in_two_parts_the_first_part_counts(tmp_path: Path) -> None:
    stream = make_stream(tmp_path)
    add(stream, {"a": np.full((2, 4), 1, np.float16), "b": np.full((1, 4), 2, np.float16)})
    add(stream, {"c": np.full((3, 4), 3, np.float16), "a": np.full((5, 4), 9, np.float16)})
    opened = FrameStream.open(stream)
    assert opened.keys == ("a", "b", "c")
    assert opened.load().values[:, 0].tolist() == [1, 1, 2, 3, 3, 3]


def test_parts_added_later_are_seen_by_opening_again(tmp_path: Path) -> None:
    stream = make_stream(tmp_path)
    add(stream, utterances(3, seed=1))
    before = FrameStream.open(stream)
    add(stream, utterances(3, seed=2))
    assert before.keys == tuple(utterances(3, seed=1))
    assert len(FrameStream.open(stream).keys) == 6


def test_a_sum_is_computed_once_for_random_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = make_stream(tmp_path)
    add(stream, utterances(4))
    sums: list[str] = []
    monkeypatch.setattr(cache.stream, "check_sum", lambda part, frames: sums.append(part.path))
    opened = FrameStream.open(stream)
    for key in opened.keys * 2:
        opened.read(key)
    assert len(sums) == 1


@pytest.mark.parametrize("block", [1, 40, 1 << 18])
@pytest.mark.parametrize(
    ("chosen", "maps"),
    [
        (slice(None), 0),
        (slice(None, None, -1), 0),
        (slice(5, None), 0),
        (slice(0, 20, 3), 1),
        ([7] * 30, 1),
    ],
    ids=["all", "backwards", "most", "a third", "one again and again"],
)
def test_what_is_loaded_nearly_whole_is_read_and_not_mapped(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    chosen: slice | list[int],
    maps: int,
    block: int,
) -> None:
    values = utterances(20)
    stream = make_stream(tmp_path)
    add(stream, values)
    keys = list(values)
    keys = keys[chosen] if isinstance(chosen, slice) else [keys[number] for number in chosen]
    mapped: list[str] = []

    def noted(part: Part) -> Array:
        mapped.append(part.path)
        return map_part(part)

    monkeypatch.setattr("cache.store.parts._BLOCK_BYTES", block)
    monkeypatch.setattr(cache.stream, "map_part", noted)
    opened = FrameStream.open(stream)
    for _ in range(2):
        found, offsets = opened.gather(keys)
        np.testing.assert_array_equal(found, np.concatenate([values[key] for key in keys]))
        assert np.diff(offsets).tolist() == [len(values[key]) for key in keys]
    assert len(mapped) == maps


def test_a_reader_finds_utterances_again_that_were_merged_elsewhere(tmp_path: Path) -> None:
    stream = make_stream(tmp_path)
    values = utterances(3, seed=1) | utterances(3, seed=2)
    parts = [add(stream, utterances(3, seed=seed)) for seed in (1, 2)]
    opened = FrameStream.open(stream)
    add(stream, values)
    for part in parts:
        part.rename(tmp_path / part.name)
    assert opened.keys == tuple(values)
    for key in values:
        np.testing.assert_array_equal(opened.read(key), values[key])
    assert len(opened.load()) == 6


def test_each_utterance_comes_once_from_its_first_part(tmp_path: Path) -> None:
    stream = make_stream(tmp_path)
    first, second = utterances(5), utterances(5, seed=1)
    add(stream, first)
    add(stream, {**second, next(iter(first)): np.zeros((2, 4), np.float16)})
    opened = FrameStream.open(stream)
    found = dict(opened.each())
    assert tuple(found) == opened.keys
    for key, values in {**second, **first}.items():
        np.testing.assert_array_equal(found[key], values)
    assert list(FrameStream.open(make_stream(tmp_path / "b")).each()) == []


def test_each_utterance_is_found_again_once_it_was_merged_elsewhere(tmp_path: Path) -> None:
    stream = make_stream(tmp_path)
    values = [utterances(4, seed=seed) for seed in range(3)]
    paths = [add(stream, one) for one in values]
    together = {key: frames for one in values for key, frames in one.items()}
    running = FrameStream.open(stream).each()
    found = dict(islice(running, 2))
    add(stream, together)
    for path in paths:
        shutil.rmtree(path)
    rest = dict(running)
    assert not found.keys() & rest.keys()
    assert {**found, **rest}.keys() == together.keys()


def test_what_was_pruned_during_a_pass_over_each_utterance_is_named(tmp_path: Path) -> None:
    stream = make_stream(tmp_path)
    add(stream, utterances(4))
    last = add(stream, utterances(4, seed=1))
    running = FrameStream.open(stream).each()
    next(running)
    shutil.rmtree(last)
    with pytest.raises(CacheError, match="4 of the 4 utterances asked for are missing"):
        list(running)
    running = FrameStream.open(stream).each()
    shutil.rmtree(stream)
    with pytest.raises(MissingStepError):
        list(running)


def test_a_flipped_bit_ends_a_pass_over_each_utterance(tmp_path: Path) -> None:
    stream = make_stream(tmp_path)
    chunk = add(stream, utterances(5)) / "c/0/0"
    data = bytearray(chunk.read_bytes())
    data[7] ^= 1
    chunk.write_bytes(data)
    with pytest.raises(CacheError, match="CRC-32C"):
        list(FrameStream.open(stream).each())


def test_views_outlive_their_part(tmp_path: Path) -> None:
    stream = make_stream(tmp_path)
    values = utterances(3)
    part = add(stream, values)
    key = next(iter(values))
    view = FrameStream.open(stream).read(key)
    shutil.rmtree(part)
    np.testing.assert_array_equal(view, values[key])


def test_a_pruned_utterance_is_named(tmp_path: Path) -> None:
    stream = make_stream(tmp_path)
    part = add(stream, utterances(3))
    opened = FrameStream.open(stream)
    shutil.rmtree(part)
    with pytest.raises(CacheError, match=opened.keys[1]):
        opened.read(opened.keys[1])
    shutil.rmtree(stream)
    add(make_stream(tmp_path), utterances(3))


def test_a_pruned_stream_is_named(tmp_path: Path) -> None:
    stream = make_stream(tmp_path)
    add(stream, utterances(3))
    opened = FrameStream.open(stream)
    shutil.rmtree(stream)
    with pytest.raises(MissingStepError, match="layer_24 does not exist"):
        opened.load()


def test_open_maps_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache.stream, "OPEN_MAPS", 3)
    stream = make_stream(tmp_path)
    values: dict[str, Array] = {}
    for seed in range(8):
        values |= utterances(2, seed=seed)
        add(stream, utterances(2, seed=seed))
    opened = FrameStream.open(stream)
    before = len(os.listdir("/dev/fd"))
    for key in [*values, *reversed(values)]:
        np.testing.assert_array_equal(opened.read(key), values[key])
    assert len(os.listdir("/dev/fd")) <= before + 3


def test_few_descriptors_mean_few_maps(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda what: (256, 4096))
    assert cache.stream._most_maps(make_stream(tmp_path)) == 32


def test_opening_and_asking_do_not_import_torch(tmp_path: Path) -> None:
    stream = make_stream(tmp_path)
    add(stream, utterances(3))
    code = (
        "import sys; from cache.stream import FrameStream; s = FrameStream.open(sys.argv[1])\n"
        "s.gather(); s.keys[0] in s; sys.exit('torch' in sys.modules)"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code, str(stream)], cwd=root, check=False)
    assert done.returncode == 0
