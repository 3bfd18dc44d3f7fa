"""A head is refused, with the difference, where it does not fit what is at hand."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from cache.lookup import FrameCache
from corpora.base.errors import CacheError, ConfigError
from corpora.base.work import Work
from corpora.manifest import Manifest
from finetune.assembly import check_encoders, check_labels, check_streams
from tests.finetune.conftest import Searched
from tests.finetune.corpus import extract_tiny
from tests.finetune.searched import copy_work


def directories(work: Work) -> dict[str, Path]:
    return {name: work.encoders / f"tiny-{name}" for name in ("audio", "text")}


def test_what_was_searched_here_fits(searched: Searched, manifest: Manifest) -> None:
    extraction = FrameCache(searched.work).extraction
    check_labels(searched.record, manifest)
    check_streams(FrameCache(searched.work), searched.record)
    check_encoders(searched.record, extraction, directories(searched.work))


def test_the_order_of_labels_may_differ(searched: Searched, manifest: Manifest) -> None:
    check_labels(searched.record, replace(manifest, labels=manifest.labels[::-1]))


def test_other_labels_are_named(searched: Searched, manifest: Manifest) -> None:
    other = replace(manifest, labels=("anger", "joy", "neutral"))
    with pytest.raises(ConfigError, match="head alone has sadness; the manifest alone has joy"):
        check_labels(searched.record, other)


def test_frames_of_another_recipe_are_named(
    searched: Searched, manifest: Manifest, tmp_path: Path
) -> None:
    work = copy_work(searched.work, tmp_path / "work")
    extract_tiny(work, manifest, "float16")
    with pytest.raises(ConfigError, match='stored_dtype: "float32" -> "float16"'):
        check_streams(FrameCache(work), searched.record)


def test_a_layer_that_was_not_extracted_is_named(searched: Searched) -> None:
    layers = {**searched.record.origin.layers, "audio": 7}
    record = replace(searched.record, origin=replace(searched.record.origin, layers=layers))
    with pytest.raises(CacheError, match="layer 7"):
        check_streams(FrameCache(searched.work), record)


def test_weights_that_changed_since_are_named(searched: Searched, tmp_path: Path) -> None:
    own = {
        name: Path(shutil.copytree(path, tmp_path / name))
        for name, path in directories(searched.work).items()
    }
    weights = own["text"] / "model.safetensors"
    tensors = load_file(weights)
    next(iter(tensors.values())).add_(1.0)
    save_file(tensors, weights, metadata={"format": "pt"})
    with pytest.raises(ConfigError, match="text weights:"):
        check_encoders(searched.record, FrameCache(searched.work).extraction, own)
