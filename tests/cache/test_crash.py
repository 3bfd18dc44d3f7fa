"""Extraction by processes that are killed, interrupted, or work side by side."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from cache.config import ExtractConfig
from cache.extract.extract import extract
from cache.extract.targets import targets_of
from cache.last_extraction import read_failures
from cache.lookup import FrameCache
from cache.stream import FrameStream
from cache.upkeep.compact import compact
from corpora.base.work import Work
from corpora.manifest import Manifest, read_manifest, write_manifest
from tests.cache.extractors import Extractors, extractors, script, wait_until
from tests.cache.recordings import change, make_manifest

COUNT = 40
ULPS = 2.0**-9  # two of float16
CONFIG = ExtractConfig(audio_encoder="tiny", text_encoder="tiny", device="cpu", max_seconds=3.0)
# A few utterances a batch, so that there is something between two kills.
OPTIONS = ["--audio-encoder", "tiny", "--text-encoder", "tiny", "--batch-seconds", "1"]


@pytest.fixture(scope="module")
def launcher(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Extractors]:
    with extractors(tmp_path_factory.mktemp("extractors") / "log") as found:
        yield found


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Work, Manifest]:
    """A corpus, and its cache made by one run that nobody disturbed."""
    root = tmp_path_factory.mktemp("whole")
    work = Work(root / "work")
    work.root.mkdir()
    made = make_manifest(root, COUNT)
    short = [u for u in made.utterances if int(u.id[1:]) < 9]
    # Segments of nine recordings, many of one length and some not.
    manifest = Manifest(
        tuple(
            change(
                made, number, audio=short[number % 9].audio, end=0.3 + 0.01 * (number % 20)
            ).utterances[number]
            for number in range(COUNT)
        ),
        made.labels,
        corpus="tones",
    )
    write_manifest(manifest, work.manifest)
    manifest = read_manifest(work.manifest)
    extract(work, manifest, CONFIG)
    return work, manifest


@pytest.fixture
def fresh(tmp_path: Path, whole: tuple[Work, Manifest]) -> Work:
    """The same work folder without a cache."""
    work = Work(tmp_path / "work")
    work.root.mkdir()
    shutil.copytree(whole[0].encoders, work.encoders)
    write_manifest(whole[1], work.manifest)
    return work


def arguments(work: Work, *more: str) -> list[str]:
    return ["extract", *OPTIONS, "--work", str(work.root), *more]


def parts(work: Work) -> int:
    return len(list(work.features.glob("audio-*/layer_3/part-*")))


def assert_equal(work: Work, whole: Work, manifest: Manifest) -> None:
    """Every stream has the same keys and lengths, and values within 2 ulp + 1e-5.

    A mean may be near 0 where the frames are not: for moments it is ulps of the frames, near 1.
    """
    extraction = FrameCache(whole).extraction
    assert FrameCache(work).extraction.sources == extraction.sources
    found = FrameCache(work).keys(manifest.utterances)
    for kind, source in extraction.sources.items():
        keys = sorted({own["text" if kind == "text" else "audio"] for own in found.values()})
        for target in targets_of(source):
            one = FrameStream.open(work.features / target.path)
            other = FrameStream.open(whole.features / target.path)
            assert sorted(one.keys) == sorted(other.keys) == keys
            assert one.lengths(keys).tolist() == other.lengths(keys).tolist()
            for key in keys:
                a, b = (s.read(key).astype(np.float64) for s in (one, other))
                np.testing.assert_allclose(
                    a, b, rtol=ULPS, atol=ULPS if target.moments else 1e-5, err_msg=target.path
                )


def test_killed_at_any_moment_and_run_again_the_cache_is_the_same(
    launcher: Extractors, fresh: Work, whole: tuple[Work, Manifest]
) -> None:
    generator = random.Random(0)
    for _ in range(6):
        pid = launcher.start(arguments(fresh), PAUSE="0.02")
        more = parts(fresh) + generator.randrange(0, 4)
        wait_until(lambda least=more: parts(fresh) >= least, "parts")  # type: ignore[misc]
        assert launcher.kill(pid) == -signal.SIGKILL
    launcher.run(arguments(fresh))
    assert_equal(fresh, *whole)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_commits_what_is_done_and_says_how_to_go_on(
    launcher: Extractors, fresh: Work, whole: tuple[Work, Manifest], number: signal.Signals
) -> None:
    pid = launcher.start(arguments(fresh), PAUSE="0.1")
    wait_until(lambda: parts(fresh) > 0, "a part")
    assert launcher.kill(pid, number) == 130
    assert "Run the same command again: it goes on from there" in launcher.log.read_text()
    assert not list((fresh.root / ".tmp").glob("site-*"))
    launcher.run(arguments(fresh))
    assert_equal(fresh, *whole)


def test_two_processes_share_the_work_and_one_takes_over_from_a_killed_one(
    launcher: Extractors, fresh: Work, whole: tuple[Work, Manifest]
) -> None:
    first = launcher.start(arguments(fresh), PAUSE="0.2")
    wait_until(lambda: parts(fresh) > 0, "the first one's part")
    second = launcher.start(arguments(fresh), PAUSE="0.2")
    wait_until(lambda: parts(fresh) > 3, "parts of both")
    assert launcher.kill(first) == -signal.SIGKILL
    assert launcher.wait(second) == 0, launcher.log.read_text()
    assert_equal(fresh, *whole)


def test_processes_that_share_the_work_hardly_do_anything_twice(
    launcher: Extractors, fresh: Work, whole: tuple[Work, Manifest]
) -> None:
    pids = [launcher.start(arguments(fresh), PAUSE="0.1") for _ in range(3)]
    assert [launcher.wait(pid) for pid in pids] == [0, 0, 0], launcher.log.read_text()
    assert_equal(fresh, *whole)
    (layer,) = fresh.features.glob("audio-*/layer_3")
    stored = sum(int(folder.stat().st_size) for folder in layer.glob("part-*/c/0/0"))
    assert stored < 1.1 * FrameStream.open(layer).nbytes + 4 * COUNT


def test_ranks_know_each_others_failures_and_the_first_writes_the_record(
    launcher: Extractors, fresh: Work, whole: tuple[Work, Manifest]
) -> None:
    manifest = whole[1]
    for number in range(5):
        manifest = change(manifest, number, end=99.0)
    write_manifest(manifest, fresh.manifest)
    world = {"WORLD_SIZE": "2", "PAUSE": "0.05"}
    pids = [
        launcher.start(arguments(fresh), RANK=str(rank), LOCAL_RANK=str(rank), **world)
        for rank in range(2)
    ]
    assert [launcher.wait(pid) for pid in pids] == [0, 0], launcher.log.read_text()
    assert set(read_failures(fresh.failures)) == {f"u{number}" for number in range(5)}
    assert FrameCache(fresh).extraction.sources == FrameCache(whole[0]).extraction.sources


@pytest.mark.slow
def test_torchrun_finishes_the_work_of_ranks_that_are_killed(
    fresh: Work, whole: tuple[Work, Manifest], tmp_path: Path
) -> None:
    """Of four ranks one is killed, and another after torchrun has started all of them again."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "4"]
    command += ["--max-restarts", "2", "--monitor-interval", "0.2", "--master-port", "0"]
    command += [str(script(tmp_path / "extract.py")), *arguments(fresh)]
    environment = {**os.environ, "PAUSE": "0.5", "OMP_NUM_THREADS": "1"}
    killed: set[int] = set()
    with subprocess.Popen(command, env=environment, cwd=tmp_path) as running:

        def workers() -> set[int]:
            """Those of the present start."""
            listed = ["pgrep", "-P", str(running.pid)]
            out = subprocess.run(listed, capture_output=True, text=True, check=False).stdout
            return {int(line) for line in out.split()} - before

        for _ in range(2):
            before = killed
            wait_until(lambda: len(workers()) == 4, "four ranks")
            least = parts(fresh) + 1
            wait_until(lambda: parts(fresh) >= least, "parts")  # noqa: B023
            killed = workers()
            os.kill(max(killed), signal.SIGKILL)
        assert running.wait() == 0
    assert_equal(fresh, *whole)
    # Each key is in one part only, or one that two processes stored is dropped as a copy.
    compact(fresh, show_progress=False)
    assert_equal(fresh, *whole)
    (layer,) = fresh.features.glob("audio-*/layer_3")
    described = [json.loads(path.read_text()) for path in layer.glob("part-*/zarr.json")]
    stream = FrameStream.open(layer)
    rows = sum(int(one["shape"][0]) for one in described)
    assert rows == sum(stream.lengths(stream.keys).tolist())
