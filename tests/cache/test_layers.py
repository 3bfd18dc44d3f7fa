"""Several layers of an encoder: which are meant, and their frames beside one another."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from cache.config import ExtractConfig
from cache.extract.extract import extract
from cache.frames import Frames
from cache.lookup import FrameCache
from cache.mapped import MappedFrames
from cache.recipe import LayersRead, layer_numbers, layers_from_json, layers_text
from corpora.base.errors import CacheError, MissingStepError
from corpora.base.work import Work
from corpora.manifest import Manifest
from tests.cache.recordings import make_manifest


@pytest.fixture(scope="module")
def extracted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Work, Manifest]:
    """Layers 1 and 3 of the speech encoder."""
    folder = tmp_path_factory.mktemp("layers")
    manifest = make_manifest(folder)
    work = Work(folder / "work")
    work.root.mkdir()
    config = ExtractConfig(audio_encoder="tiny", text_encoder="", audio_layers=(1, 3), device="cpu")
    extract(work, manifest, config)
    return work, manifest


@pytest.mark.parametrize(
    ("read", "numbers", "text"),
    [
        (24, (24,), "layer 24"),
        ((8, 24), (8, 24), "layers 8 and 24"),
        ((0, 1, 2), (0, 1, 2), "layers 0, 1 and 2"),
    ],
)
def test_layers_are_named_and_numbered(
    read: LayersRead, numbers: tuple[int, ...], text: str
) -> None:
    assert layer_numbers(read) == numbers
    assert layers_text(read) == text
    assert layers_from_json(list(read) if isinstance(read, tuple) else read) == read


@pytest.mark.parametrize("value", [[], [3], [3, 1], [1, 1]])
def test_a_list_that_is_not_several_ascending_layers_is_refused(value: list[int]) -> None:
    with pytest.raises(ValueError, match="expected one number, or several that ascend"):
        layers_from_json(value)


def test_of_several_layers_the_highest_is_loaded_and_the_others_are_mapped(
    extracted: tuple[Work, Manifest],
) -> None:
    work, manifest = extracted
    both = FrameCache(work).find(manifest, ["audio"], layers={"audio": (1, 3)})
    alone = {
        layer: FrameCache(work).find(manifest, ["audio"], layers={"audio": layer}).load("audio")
        for layer in (1, 3)
    }
    assert torch.equal(both.load("audio").values, alone[3].values)
    assert isinstance(both.others["audio"][1], MappedFrames)
    wide = both.all_layers()["audio"]
    assert torch.equal(wide.values, torch.cat([alone[1].values, alone[3].values], dim=1))
    assert wide.speech is not None
    assert FrameCache(work).find(manifest, ["audio"]).others == {}


def test_a_layer_that_was_not_extracted_is_named(extracted: tuple[Work, Manifest]) -> None:
    work, manifest = extracted
    with pytest.raises(CacheError, match="layer 2 of tiny was not extracted; there are 1, 3"):
        FrameCache(work).find(manifest, ["audio"], layers={"audio": (2, 3)})


def test_utterances_without_a_lower_layer_are_told(
    extracted: tuple[Work, Manifest], tmp_path: Path
) -> None:
    work = Work(tmp_path / "work")
    shutil.copytree(extracted[0].root, work.root)
    folder = FrameCache(work).stream("audio", 1).path
    for part in folder.glob("part-*"):
        shutil.rmtree(part)
    assert FrameCache(work).find(extracted[1], ["audio"]).utterances
    with pytest.raises(MissingStepError, match=r"6 of 6 .* not in the cache with audio layers"):
        FrameCache(work).find(extracted[1], ["audio"], layers={"audio": (1, 3)})


def test_frames_of_different_lengths_do_not_lie_beside_one_another() -> None:
    frames = Frames(torch.zeros(5, 2), torch.tensor([0, 2, 5]))
    with pytest.raises(ValueError, match="different lengths"):
        Frames.beside([frames, replace(frames, offsets=torch.tensor([0, 3, 5]))])
