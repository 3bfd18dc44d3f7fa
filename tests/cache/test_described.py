"""Descriptions beside texts: other inputs, by another recipe, in the same cache."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cache.config import ExtractConfig
from cache.encoders.names import resolve_encoder
from cache.encoders.text_encoder import load_text_encoder
from cache.extract.compare_with_transformers import check
from cache.extract.extract import extract
from cache.extract.plan import make_plan
from cache.hdf5 import export_hdf5
from cache.keys import text_read
from cache.last_extraction import extract_command
from cache.lookup import FrameCache
from cache.upkeep.info import cache_info
from cache.upkeep.prune import prune_plan
from corpora.base.errors import ConfigError, ManifestError
from corpora.base.work import Work
from corpora.manifest import Manifest, Utterance, read_manifest, write_manifest
from tests.cache.recordings import change, make_manifest

TINY = ExtractConfig(audio_encoder="", text_encoder="tiny", device="cpu", stored_dtype="float32")
SAID = ("high pitch, loud", "low pitch, quiet", "")


@pytest.fixture
def work(tmp_path: Path) -> Work:
    return Work(tmp_path / "work")


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    plain = make_manifest(tmp_path)
    rows = [replace(u, description=SAID[n % 3]) for n, u in enumerate(plain.utterances)]
    return change(replace(plain, utterances=tuple(rows)), 1, text="")


@pytest.mark.parametrize(
    ("text", "description", "describe", "read"),
    [
        ("It  is\nlate.", "high pitch, loud", "", "It is late."),
        ("It  is\nlate.", "high pitch, loud", "append", "It is late. (high pitch, loud)"),
        ("It  is\nlate.", "high pitch, loud", "only", "high pitch, loud"),
        ("It is late.", "", "append", "It is late."),
        ("It is late.", "", "only", ""),
        ("", "loud", "append", "(loud)"),
        ("", "", "append", ""),
    ],
)
def test_what_an_encoder_reads(text: str, description: str, describe: str, read: str) -> None:
    one = Utterance("u", Path("u.wav"), "", text=text, description=description)
    assert text_read(one, describe) == read


def test_a_description_stands_in_the_manifest(tmp_path: Path, manifest: Manifest) -> None:
    write_manifest(manifest, tmp_path / "manifest.csv")
    found = read_manifest(tmp_path / "manifest.csv").utterances
    assert [u.description for u in found] == [*SAID, *SAID]
    header = (tmp_path / "manifest.csv").read_text(encoding="utf-8").partition("\n")[0]
    assert "text,description,speaker" in header


def test_each_way_has_its_own_frames_and_all_stay(work: Work, manifest: Manifest) -> None:
    write_manifest(manifest, work.manifest)
    encoder = load_text_encoder(resolve_encoder("tiny", "text", work.root))
    folders = []
    for describe in ("", "append", "only"):
        config = replace(TINY, describe=describe)
        assert extract(work, manifest, config).report is not None
        cache = FrameCache(work)
        folders.append(cache.extraction.source("text").recipe.folder)
        assert cache.describe == describe
        assert (f"--describe {describe} " in extract_command(work.root)) == bool(describe)
        found = cache.find(manifest, ["text"])
        frames = found.load("text")
        for number, own in enumerate(found.utterances):
            expected = encoder([text_read(own, describe)], [3])[3].values
            np.testing.assert_allclose(frames.utterance(number), expected, atol=1e-5)
        checked = check(work, manifest, make_plan(cache, manifest, config), 6)
        assert max(one.of_tolerance for one in checked.streams) < 1
    assert len(set(folders)) == 3
    # Back to plain texts nothing is encoded again, and every stream is whole and in use.
    assert extract(work, manifest, TINY).report is None
    assert FrameCache(work).describe == ""
    assert all(one.complete for one in cache_info(work, manifest).streams)
    assert prune_plan(work, [work.manifest]).parts == 0
    path = work.root / "all.h5"
    export_hdf5(work, path, manifest)
    assert path.is_file()


def test_another_description_extracts_that_text_alone(work: Work, manifest: Manifest) -> None:
    config = replace(TINY, describe="only")
    extract(work, manifest, config)
    plan = make_plan(FrameCache(work), change(manifest, 0, description="slow"), config)
    assert [item.utterances[0].text for item in plan.text] == ["slow"]
    assert make_plan(FrameCache(work), change(manifest, 0, text="other words"), config).text == ()


def test_what_is_not_there_to_be_read_is_said(work: Work, manifest: Manifest) -> None:
    bare = replace(
        manifest, utterances=tuple(replace(u, description="") for u in manifest.utterances)
    )
    with pytest.raises(ManifestError, match=r"column `description`.*prepare describe --work"):
        extract(work, bare, replace(TINY, describe="only"))
    mute = replace(manifest, utterances=tuple(replace(u, text="") for u in manifest.utterances))
    with pytest.raises(ManifestError, match=r"no texts\. Take --describe only"):
        extract(work, mute, replace(TINY, describe="append"))
    extract(work, mute, replace(TINY, describe="only"))
    with pytest.raises(ConfigError, match="there is none"):
        replace(TINY, audio_encoder="tiny", text_encoder="", describe="only")
    with pytest.raises(ConfigError, match="expected append or only"):
        replace(TINY, describe="prepend")
