"""The benchmark of explanations: its data are what `explain` reads, and every part is timed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench import explain
from bench.explain import LABELS, make_work
from explain.analyses import ANALYSES


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_work(tmp_path_factory.mktemp("bench") / "explain", 48).root


def test_every_analysis_but_cues_is_timed_and_finds_what_it_needs(
    work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    explain.main(str(work))
    took = json.loads(capsys.readouterr().out)
    assert {"reading", "head", "TextGrids", *ANALYSES} - set(took) == {"cues"}
    assert min(took.values()) > 0


def test_the_work_folder_has_every_class_alignment_and_cue(work: Path) -> None:
    from cache.upkeep.info import cache_info
    from corpora.base.work import Work
    from corpora.manifest import read_manifest

    manifest = read_manifest(work / "manifest.csv")
    assert {u.label for u in manifest.utterances} == set(LABELS)
    assert all(u.alignment is not None for u in manifest.utterances)
    info = cache_info(Work(work), manifest)
    assert all(one.complete for one in info.streams)
    assert {"audio", "text", "energy", "speech", "cues"} == {one.kind for one in info.streams}
