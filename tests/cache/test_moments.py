"""Moments: equal to those of the frames in the cache, kept, and computed where they are missing."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cache.config import ExtractConfig
from cache.encoders.names import resolve_encoder
from cache.extract.extract import extract
from cache.frames import Frames
from cache.lookup import FrameCache
from cache.moments import _moments_together, frame_moments
from cache.stream import FrameStream
from corpora.base.errors import CacheError, MissingStepError
from corpora.base.work import Work
from corpora.manifest import Manifest
from heads.load import load_dataset
from heads.vector_store import VectorStore
from tests.cache.recordings import change, make_manifest
from tests.rounding import summed

TINY = ExtractConfig(audio_encoder="tiny", text_encoder="tiny", device="cpu")
FRAMES = 100  # of the longest recording, at most


@pytest.fixture(scope="module")
def encoders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("encoders")
    for kind in ("audio", "text"):
        resolve_encoder("tiny", kind, root)
    return root / "encoders"


@pytest.fixture
def work(tmp_path: Path, encoders: Path) -> Work:
    root = tmp_path / "work"
    root.mkdir()
    (root / "encoders").symlink_to(encoders)
    return Work(root)


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    return make_manifest(tmp_path)


def moments(
    work: Work, manifest: Manifest, modality: str, layer: int | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Those of the usual layer, of all that did not fail."""
    cache = FrameCache(work)
    rows = [u for u in manifest.utterances if u.id not in cache.failed]
    usual = cache.extraction.source(modality)
    return cache.moments(rows, modality, usual.usual_layer if layer is None else layer)


def reference(work: Work, manifest: Manifest, modality: str) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation of the frames in the cache, in float64."""
    frames = FrameCache(work).find(manifest, [modality]).load(modality)
    rows = [frames.utterance(number).double().numpy() for number in range(len(frames))]
    return np.stack([r.mean(0) for r in rows]), np.stack([r.std(0) for r in rows])


def assert_moments(work: Work, manifest: Manifest, modality: str) -> None:
    found = moments(work, manifest, modality)
    for one, expected in zip(found, reference(work, manifest, modality), strict=True):
        assert one.dtype == torch.float32
        np.testing.assert_allclose(one.numpy(), expected, atol=2e-6, rtol=2e-6)


@pytest.mark.parametrize("modality", ["audio", "text"])
def test_moments_are_those_of_the_frames_as_stored(
    work: Work, manifest: Manifest, modality: str
) -> None:
    extract(work, manifest, TINY)
    assert_moments(work, manifest, modality)


def test_moments_that_a_cache_lacks_come_from_its_frames_and_are_kept(
    work: Work, manifest: Manifest
) -> None:
    extract(work, manifest, TINY)
    before = moments(work, manifest, "audio")
    (folder,) = work.features.glob("audio-*/moments_3")
    shutil.rmtree(folder)
    after = moments(work, manifest, "audio")
    for one, other in zip(before, after, strict=True):
        torch.testing.assert_close(one, other, atol=summed(one, FRAMES), rtol=0)
    assert len(FrameStream.open(folder).keys) == 6


def test_extract_fills_in_moments_without_the_encoder(
    work: Work, manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    extract(work, manifest, TINY)
    for folder in work.features.glob("*/moments_3"):
        shutil.rmtree(folder)
    for name in (
        "cache.extract.audio_pass.load_audio_encoder",
        "cache.extract.passes.load_text_encoder",
    ):
        monkeypatch.setattr(name, None)
    report = extract(work, manifest, TINY).report
    assert report is not None
    assert sorted(report.added.values()) == [4, 6]
    assert_moments(work, manifest, "audio")
    assert extract(work, manifest, TINY).report is None


def test_moments_only_keeps_no_frames_and_equals_what_frames_give(
    work: Work, manifest: Manifest
) -> None:
    extract(work, manifest, replace(TINY, audio_layers="all", moments_only=True))
    assert not list(work.features.glob("audio-*/layer_*"))
    assert FrameCache(work).extraction.source("audio").moments == (0, 1, 2, 3)
    only = moments(work, manifest, "audio", 1)
    extract(work, manifest, replace(TINY, audio_layers=(1,)))
    for one, expected in zip(only, reference(work, manifest, "audio"), strict=True):
        np.testing.assert_allclose(one.numpy(), expected, atol=2e-6, rtol=2e-6)


def test_asking_for_moments_leaves_earlier_frames_to_later_commands(
    work: Work, manifest: Manifest
) -> None:
    extract(work, manifest, TINY)
    extract(work, manifest, replace(TINY, audio_layers="all", moments_only=True))
    assert FrameCache(work).extraction.source("audio").layers == (3,)
    assert len(FrameCache(work).find(manifest, ["audio"]).utterances) == 6


def test_without_frames_heads_are_told_what_to_do(work: Work, manifest: Manifest) -> None:
    extract(work, manifest, replace(TINY, moments_only=True))
    with pytest.raises(MissingStepError, match="without --moments-only"):
        FrameCache(work).find(manifest, ["audio"])
    with pytest.raises(CacheError, match="--audio-layers 2"):
        moments(work, manifest, "audio", 2)


def test_utterances_that_failed_have_no_row(work: Work, manifest: Manifest, tmp_path: Path) -> None:
    broken = change(manifest, 2, audio=tmp_path / "nowhere.wav")
    extract(work, broken, TINY)
    mean, _ = moments(work, broken, "audio")
    assert len(mean) == 5
    with pytest.raises(MissingStepError, match="extract"):
        moments(work, change(broken, 0, start=0.1), "audio")


def test_heads_read_moments_instead_of_frames(work: Work, manifest: Manifest) -> None:
    extract(work, manifest, TINY)
    dataset = load_dataset(FrameCache(work), manifest)
    from_moments, from_frames = VectorStore(dataset), VectorStore(replace(dataset, moments={}))
    assert set(dataset.moments) == {"audio", "text"}
    for modality in dataset.frames:
        for name in ("mean", "deviation"):
            one, other = (
                store.vectors(modality, "none", name) for store in (from_moments, from_frames)
            )
            torch.testing.assert_close(one, other, atol=summed(one, FRAMES), rtol=0)


@given(lengths=st.lists(st.integers(1, 40), min_size=1, max_size=6), seed=st.integers(0, 99))
def test_moments_do_not_cancel(lengths: list[int], seed: int) -> None:
    generator = np.random.default_rng(seed)
    utterances = [generator.normal(8, 0.05, (n, 3)).astype(np.float16) for n in lengths]
    frames = Frames.from_list([torch.from_numpy(u) for u in utterances])
    for moments in (frame_moments, _moments_together):
        for row, values in zip(moments(frames).numpy(), utterances, strict=True):
            wide = values.astype(np.float64)
            np.testing.assert_allclose(row, [wide.mean(0), wide.std(0)], atol=2e-6, rtol=2e-6)
