"""`extract --check`: agrees on a right cache, and finds what is wrong in another."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from cache.config import ExtractConfig
from cache.extract.compare_with_transformers import check
from cache.extract.extract import extract
from cache.extract.plan import make_plan
from cache.lookup import FrameCache
from cache.store.writer import PartWriter
from cli import main
from corpora.base.errors import CacheError
from corpora.base.work import Work
from corpora.manifest import Manifest, write_manifest
from tests.cache.recordings import make_manifest

TINY = ExtractConfig(audio_encoder="tiny", text_encoder="tiny", device="cpu", audio_layers="all")


@pytest.fixture
def work(tmp_path: Path) -> Work:
    found = Work(tmp_path / "work")
    found.root.mkdir()
    return found


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    return make_manifest(tmp_path)


@pytest.mark.parametrize("stored", ["float16", "float32"])
def test_every_layer_agrees_with_the_plain_pipeline(
    work: Work, manifest: Manifest, stored: str
) -> None:
    config = replace(TINY, stored_dtype=stored, max_seconds=1.9, long="window")
    extract(work, manifest, config)
    found = check(work, manifest, make_plan(FrameCache(work), manifest, config), 6)
    assert len(found.streams) == 10  # frames and moments of four layers of audio and one of text
    assert max(one.of_tolerance for one in found.streams) < 1
    assert {one.utterances for one in found.streams} == {5, 6}
    assert found.windowed == 1
    found.raise_if_beyond()


def test_frames_of_another_utterance_are_found(
    work: Work, manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    add = PartWriter.add

    def wrong(self: PartWriter, key: str, values: np.ndarray) -> None:
        add(self, key, np.roll(values, 1, axis=0))

    monkeypatch.setattr(PartWriter, "add", wrong)
    extract(work, manifest, TINY)
    found = check(work, manifest, make_plan(FrameCache(work), manifest, TINY), 6)
    with pytest.raises(CacheError, match="differs from transformers' pipeline"):
        found.raise_if_beyond()


def test_the_command_checks_and_says_what_it_found(work: Work, manifest: Manifest) -> None:
    write_manifest(manifest, work.manifest)
    options = ["extract", "--audio-encoder", "tiny", "--text-encoder", "tiny", "--device", "cpu"]
    result = CliRunner().invoke(main, [*options, "--work", str(work.root), "--check", "2"])
    assert result.exit_code == 0, result.output
    assert "Compared with transformers' pipeline" in result.output
