"""The space an extraction takes: known before, refused where it is not there."""

from __future__ import annotations

import errno
import os
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest

from cache.config import ExtractConfig
from cache.extract.extract import extract
from cache.store.layout import write_at
from cache.stream import FrameStream
from corpora.base.errors import CacheError
from corpora.base.work import Work
from corpora.manifest import Manifest
from tests.cache.recordings import make_manifest

TINY = ExtractConfig(audio_encoder="tiny", text_encoder="tiny", device="cpu", batch_seconds=2)


class Usage(NamedTuple):
    free: int


@pytest.fixture
def work(tmp_path: Path) -> Work:
    found = Work(tmp_path / "work")
    found.root.mkdir()
    return found


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    return make_manifest(tmp_path, 20)


@pytest.mark.parametrize("options", [{}, {"audio_layers": "all"}, {"moments_only": True}])
def test_the_estimate_is_what_is_written(
    work: Work, manifest: Manifest, options: dict[str, object]
) -> None:
    report = extract(work, manifest, replace(TINY, **options)).report  # type: ignore[arg-type]
    assert report is not None
    files = [path for path in work.features.glob("*/*/part-*/**/*") if path.is_file()]
    blocks = sum(-(-path.stat().st_size // 512) * 512 for path in files)
    overhead = 4_500 * len(report.estimated)  # of a part, which is large beside these few tones
    assert sum(report.estimated.values()) == pytest.approx(blocks, abs=overhead, rel=0.03)
    for path, expected in report.estimated.items():
        assert expected == pytest.approx(FrameStream.open(work.features / path).nbytes, abs=6_000)


def test_what_cannot_fit_is_refused_with_the_figures(
    work: Work, manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: Usage(free=100_000))
    with pytest.raises(CacheError, match=r"need .* kB .*100 kB free: .* too little"):
        extract(work, manifest, TINY)
    assert not list(work.features.glob("*/*/part-*"))


def test_it_is_told_before_anything_is_done(work: Work, manifest: Manifest) -> None:
    told: list[str] = []
    extract(work, manifest, replace(TINY, audio_layers="all"), tell=told.append)
    assert "--moments-only" in told[0]
    assert "bytes)" in told[0]
    assert "s of audio" in told[1]
    assert "free" in told[1]


def test_a_full_disk_stops_with_a_message_and_a_readable_cache(
    work: Work, manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = 150_000

    def write(descriptor: int, data: bytes | memoryview, offset: int) -> None:
        nonlocal left
        left -= memoryview(data).nbytes
        if left < 0 and memoryview(data).nbytes > 1_000:  # a disk has room for a little more
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write_at(descriptor, data, offset)

    monkeypatch.setattr("cache.store.writer.write_at", write)
    with pytest.raises(CacheError, match=r"is full.*kept.*same command again"):
        extract(work, manifest, TINY)
    monkeypatch.undo()
    (layer,) = work.features.glob("audio-*/layer_3")
    kept = len(FrameStream.open(layer).keys)
    assert 0 < kept < 20
    assert not list((work.root / ".tmp").glob("site-*"))
    report = extract(work, manifest, TINY).report
    assert report is not None
    assert report.added[f"{layer.parent.name}/layer_3"] == 20 - kept
