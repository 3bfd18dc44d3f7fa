"""The folders of a cache: made once, checked ever after."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from cache.stream import FrameStream, PartWriter, ensure_stream, open_features
from corpora.base.errors import CacheError, FormatVersionError, MissingStepError
from tests.cache.streams import RECIPE, add, make_stream, utterances


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
