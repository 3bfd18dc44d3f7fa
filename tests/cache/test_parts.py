"""Parts: plain Zarr arrays, and no damage to one goes unnoticed."""

import json
import os
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path

import google_crc32c
import numpy as np
import pytest
import torch
import zarr

from cache.stream import FrameStream
from corpora.base.errors import CacheError
from tests.cache.streams import RECIPE, add, make_stream, utterances

DTYPES = ["float16", "float32", "uint8"]


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
    for expected in (
        "1 of 2 parts",
        f"with {count} utterances",
        part.name,
        message,
        "verify --fix",
    ):
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
    keys = list(utterances(4))
    last = keys[-1:]
    ways: list[Callable[[FrameStream], object]] = [
        lambda opened: opened.load(),
        lambda opened: opened.load(dtype=torch.float32),
        lambda opened: opened.load(last),
        lambda opened: opened.gather(last),
        lambda opened: opened.gather(keys[1:]),
        lambda opened: opened.read(last[0]),
    ]
    for way in ways:
        with pytest.raises(CacheError, match=rf"{part.name}: .*CRC-32C.*4 utterances affected"):
            way(FrameStream.open(stream))
