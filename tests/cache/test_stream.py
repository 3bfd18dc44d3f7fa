"""Reading a stream: what was added comes back, and nothing else ever does."""

import json
import os
import resource
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import google_crc32c
import numpy as np
import pytest
import torch
import zarr

import cache.stream
from cache.stream import FrameStream, PartWriter, ensure_stream, open_features
from corpora.errors import CacheError, FormatVersionError, MissingStepError
from tests.cache.streams import RECIPE, Array, add, make_stream, utterances

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


@pytest.mark.parametrize("dtype", DTYPES)
def test_zarr_reads_the_same_without_a_warning(tmp_path: Path, dtype: str) -> None:
    stream = make_stream(tmp_path, dtype=dtype)
    values = utterances(6, dtype=dtype)
    part = add(stream, values)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        root = zarr.open_group(tmp_path / "features.zarr", mode="r")
        assert dict(root.attrs) == {"format": "emopool-features", "version": 1}
        members = dict(root.members(max_depth=None))
        found = zarr.open_array(part, mode="r")
    name = str(part.relative_to(tmp_path / "features.zarr"))
    assert set(members) == {RECIPE.folder, f"{RECIPE.folder}/layer_24", name}
    assert dict(members[RECIPE.folder].attrs) == {"kind": "audio", "fields": dict(RECIPE.fields)}
    assert dict(members[f"{RECIPE.folder}/layer_24"].attrs) == {"dim": 4, "dtype": dtype}
    assert found.chunks == found.shape
    np.testing.assert_array_equal(np.asarray(found[:]), np.concatenate(list(values.values())))
    assert dict(found.attrs) == {
        "keys": list(values),
        "lengths": [len(frames) for frames in values.values()],
    }
    fill = np.asarray(found.fill_value)
    assert fill == 255 if dtype == "uint8" else np.isnan(fill)


def test_zarr_refuses_a_flipped_bit(tmp_path: Path) -> None:
    part = add(make_stream(tmp_path), utterances(3))
    flip(part)
    with pytest.raises(ValueError, match="checksum"):
        zarr.open_array(part, mode="r")[:]


def test_the_chunk_is_the_raw_matrix_and_its_checksum(tmp_path: Path) -> None:
    values = utterances(5)
    part = add(make_stream(tmp_path), values)
    raw = np.concatenate(list(values.values())).astype("<f2").tobytes()
    total = google_crc32c.value(raw).to_bytes(4, "little")
    assert (part / "c" / "0" / "0").read_bytes() == raw + total


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


def flip(part: Path) -> None:
    chunk = part / "c" / "0" / "0"
    content = bytearray(chunk.read_bytes())
    content[3] ^= 1
    chunk.write_bytes(content)


def shorten(part: Path) -> None:
    os.truncate(part / "c" / "0" / "0", 10)


def edit(part: Path, **changes: object) -> None:
    found = json.loads((part / "zarr.json").read_text())
    (part / "zarr.json").write_text(json.dumps(found | changes))


DAMAGES: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "no chunk": (lambda part: (part / "c/0/0").unlink(), "c/0/0 is missing", "5"),
    "no chunk folder": (lambda part: shutil.rmtree(part / "c"), "c/0/0 is missing", "5"),
    "short chunk": (shorten, "c/0/0 has 10 bytes instead of", "5"),
    "no metadata": (
        lambda part: (part / "zarr.json").unlink(),
        "zarr.json is missing",
        "0 or more",
    ),
    "torn metadata": (
        lambda part: os.truncate(part / "zarr.json", 100),
        "zarr.json is not readable",
        "0 or more",
    ),
    "other dtype": (lambda part: edit(part, data_type="float32"), "does not describe", "5"),
    "other shape": (lambda part: edit(part, shape=[1, 4]), "does not describe", "5"),
    "other codecs": (lambda part: edit(part, codecs=[{"name": "bytes"}]), "does not descri", "5"),
    "no keys": (lambda part: edit(part, attributes={}), "not readable", "0 or more"),
    "lengths of nothing": (
        lambda part: edit(part, attributes={"keys": ["a"], "lengths": [0]}),
        "not describe",
        "1",
    ),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_part_is_named_when_opening(tmp_path: Path, name: str) -> None:
    damage, message, count = DAMAGES[name]
    stream = make_stream(tmp_path)
    add(stream, utterances(4, seed=1))
    part = add(stream, utterances(5, seed=2))
    damage(part)
    with pytest.raises(CacheError) as caught:
        FrameStream.open(stream)
    for expected in ("1 of 2 parts", f"with {count} utterances", part.name, message, "Remove this"):
        assert expected in str(caught.value)


def test_entries_zarr_may_write_into_metadata_are_no_damage(tmp_path: Path) -> None:
    stream = make_stream(tmp_path)
    part = add(stream, utterances(4))
    zarr.open_array(part, mode="r+").attrs["note"] = "added by hand"
    assert FrameStream.open(stream).keys == tuple(utterances(4))


def test_a_flipped_bit_is_found_by_every_way_of_reading(tmp_path: Path) -> None:
    stream = make_stream(tmp_path)
    part = add(stream, utterances(4))
    flip(part)
    last = list(utterances(4))[-1:]
    ways: list[Callable[[FrameStream], object]] = [
        lambda opened: opened.load(),
        lambda opened: opened.load(dtype=torch.float32),
        lambda opened: opened.load(last),
        lambda opened: opened.gather(last),
        lambda opened: opened.read(last[0]),
    ]
    for way in ways:
        with pytest.raises(CacheError, match=rf"{part.name}: .*CRC-32C.*4 utterances affected"):
            way(FrameStream.open(stream))


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


def test_few_descriptors_mean_few_maps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda what: (256, 4096))
    assert cache.stream._most_maps() == 32


def test_ensuring_a_stream_again_changes_nothing(tmp_path: Path) -> None:
    stream = make_stream(tmp_path)
    add(stream, utterances(3))
    before = sorted(tmp_path.rglob("*"))
    assert make_stream(tmp_path) == stream
    assert sorted(tmp_path.rglob("*")) == before


def test_streams_of_one_recipe_lie_side_by_side(tmp_path: Path) -> None:
    first, second = make_stream(tmp_path), make_stream(tmp_path, name="layer_12")
    assert first.parent == second.parent == tmp_path / "features.zarr" / RECIPE.folder


def test_a_stream_keeps_its_dim_and_dtype(tmp_path: Path) -> None:
    make_stream(tmp_path, dim=4)
    with pytest.raises(CacheError, match="4-d float16 frames, but 5-d float16"):
        make_stream(tmp_path, dim=5)
    with pytest.raises(CacheError, match="not 4-d float32"):
        PartWriter(make_stream(tmp_path, dim=4), 4, np.float32)


def test_a_recipe_folder_with_another_recipe_is_refused(tmp_path: Path) -> None:
    stream = make_stream(tmp_path)
    path = stream.parent / "zarr.json"
    path.write_text(path.read_text().replace("5.23", "5.22"))
    with pytest.raises(CacheError, match=r'versions.transformers: "5.22" -> "5.23"'):
        make_stream(tmp_path)


@pytest.mark.parametrize(("name", "dtype"), [("layer/24", "float16"), ("layer_24", "float64")])
def test_what_the_format_does_not_have_is_refused(tmp_path: Path, name: str, dtype: str) -> None:
    with pytest.raises(ValueError, match="layer"):
        make_stream(tmp_path, dtype=dtype, name=name)


def test_another_version_of_the_format_is_refused(tmp_path: Path) -> None:
    stream = make_stream(tmp_path)
    root = tmp_path / "features.zarr" / "zarr.json"
    root.write_text(root.read_text().replace('"version": 1', '"version": 2'))
    for ask in (lambda: FrameStream.open(stream), lambda: make_stream(tmp_path)):
        with pytest.raises(FormatVersionError, match="'emopool-features', 2"):
            ask()


@pytest.mark.parametrize("content", [None, "{", "[]", '{"zarr_format": 2}'])
def test_a_foreign_folder_is_refused(tmp_path: Path, content: str | None) -> None:
    folder = tmp_path / "features.zarr"
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    if content is not None:
        (folder / "zarr.json").write_text(content)
    with pytest.raises(FormatVersionError, match="not a folder of a feature cache"):
        open_features(folder)
    with pytest.raises(FormatVersionError):
        FrameStream.open(tmp_path)


def test_a_recipe_folder_is_no_stream(tmp_path: Path) -> None:
    stream = make_stream(tmp_path)
    with pytest.raises(FormatVersionError):
        FrameStream.open(stream.parent)


def test_a_stream_that_was_never_made_is_a_missing_step(tmp_path: Path) -> None:
    with pytest.raises(MissingStepError, match="not extracted yet"):
        FrameStream.open(make_stream(tmp_path).parent / "layer_3")


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


def test_two_that_create_the_same_stream_at_once_both_succeed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    features = open_features(tmp_path / "features.zarr")
    rename = os.rename

    def beaten(source: Path, target: Path) -> None:
        if not Path(target).exists():
            shutil.copytree(source, target)
        rename(source, target)

    monkeypatch.setattr(os, "rename", beaten)
    stream = ensure_stream(features, RECIPE, "layer_1", 4, "float16")
    assert FrameStream.open(stream).keys == ()
    assert list((tmp_path / ".tmp").iterdir()) == []
