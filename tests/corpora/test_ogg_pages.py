"""Ogg files that end within a page."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cache.audio import load_audio
from corpora.base.errors import AudioError
from corpora.counted_bytes import ogg_pages
from corpora.recordings import read_header

SECONDS, RATE = 2, 16_000


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("ogg") / "whole.ogg"
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, SECONDS * RATE)
    soundfile.write(path, noise, RATE, format="OGG", subtype="VORBIS")
    return path


def test_a_whole_file_ends_with_a_page(whole: Path) -> None:
    assert not ogg_pages(whole).ends_within_a_page
    assert read_header(whole).problem == ""


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(share=st.floats(0.05, 0.999))
def test_a_file_cut_anywhere_within_a_page_does_not(
    whole: Path, tmp_path: Path, share: float
) -> None:
    data = whole.read_bytes()
    kept = data[: int(len(data) * share)]
    cut = tmp_path / "cut.ogg"
    cut.write_bytes(kept)
    boundary = data[len(kept) : len(kept) + 4] == b"OggS"
    assert ogg_pages(cut).ends_within_a_page != boundary


def test_a_cut_file_is_refused_by_name(whole: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.ogg"
    cut.write_bytes(whole.read_bytes()[:-500])
    with pytest.raises(AudioError, match=r"cut\.ogg.*cut short"):
        load_audio(cut)
    assert "cut short" in read_header(cut).problem
