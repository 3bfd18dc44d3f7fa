"""Frames with a clock of their own: imported, told in time, and speech brought onto their clock."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from cache.encoders.grid import SAMPLE_RATE, Grid, whisper_grid
from cache.folder_import import import_folder
from cache.found import Floats, onto
from cache.hdf5 import export_hdf5, import_hdf5
from cache.last_extraction import extract_command, read_failures
from cache.lookup import FrameCache
from cache.stream import FrameStream
from cache.upkeep.info import cache_info
from cache.upkeep.verify import verify
from cli import main
from corpora.base.errors import CacheError, ConfigError, MissingStepError
from corpora.base.work import Work
from corpora.manifest import Manifest
from tests.cache.filled import SOURCES, fill_work

FPS = 25
# `tests.cache.recordings.make_manifest`
SECONDS = [0.5 + 0.3 * number for number in range(6)]


@pytest.fixture
def filled(fast_path: Path) -> tuple[Work, Manifest]:
    return fill_work(fast_path)


def faces(folder: Path, manifest: Manifest, fps: float = FPS, dim: int = 5) -> dict[str, Floats]:
    """A file an utterance, as many frames as it lasts."""
    folder.mkdir()
    found = {}
    for number, (u, seconds) in enumerate(zip(manifest.utterances, SECONDS, strict=False)):
        frames = np.random.default_rng(number).normal(size=(round(seconds * fps), dim))
        np.save(folder / f"{u.id}.npy", frames)
        found[u.id] = frames
    return found


def test_video_is_a_third_modality_beside_what_was_extracted(
    filled: tuple[Work, Manifest], fast_path: Path
) -> None:
    work, manifest = filled
    values = faces(fast_path / "faces", manifest)
    report = import_folder(work, manifest, fast_path / "faces", "video", fps=FPS)
    assert (report.utterances, report.dim, report.missing) == (6, 5, ())
    cache = FrameCache(work)
    assert cache.modalities == ("audio", "text", "video")
    assert {**cache.extraction.sources, "video": None} == {**SOURCES, "video": None}
    found = cache.find(manifest, ["audio", "text", "video"], speech=False)
    times = found.times("video")
    assert times is not None
    for row, (u, own) in enumerate(zip(manifest.utterances, times, strict=True)):
        frames = found.load("video").utterance(row).numpy()
        np.testing.assert_array_equal(frames, values[u.id].astype(np.float16))
        np.testing.assert_allclose(own, middles(len(frames), FPS), atol=1e-6)
    assert found.times("text") is None
    by_name = {one.stream: one for one in cache_info(work, manifest).streams}
    video = by_name[report.stream]
    assert (video.encoder, video.complete) == ("imported: faces", True)
    assert video.hours == pytest.approx(sum(map(len, values.values())) / FPS / 3600)
    assert verify(work).ok
    again = import_folder(work, manifest, fast_path / "faces", "video", fps=FPS)
    assert (again.added, again.stream) == (0, report.stream)


def test_another_clock_is_another_stream(filled: tuple[Work, Manifest], fast_path: Path) -> None:
    work, manifest = filled
    values = faces(fast_path / "faces", manifest)
    first = import_folder(work, manifest, fast_path / "faces", "video", fps=FPS)
    (fast_path / "times").mkdir()
    at = {
        name: np.sort(np.random.default_rng(len(own)).uniform(0, len(own) / FPS, len(own)))
        for name, own in values.items()
    }
    for name, own in at.items():
        np.save(fast_path / f"times/{name}.npy", own)
    second = import_folder(work, manifest, fast_path / "faces", "video", times=fast_path / "times")
    assert first.stream != second.stream
    times = FrameCache(work).find(manifest, ["video"], speech=False).times("video")
    assert times is not None
    for u, own in zip(manifest.utterances, times, strict=True):
        np.testing.assert_allclose(own, at[u.id], atol=1e-6)


def test_the_clock_goes_through_hdf5(filled: tuple[Work, Manifest], fast_path: Path) -> None:
    work, manifest = filled
    faces(fast_path / "faces", manifest)
    import_folder(work, manifest, fast_path / "faces", "video", fps=FPS)
    export_hdf5(work, fast_path / "all.h5", manifest)
    other = Work(fast_path / "other")
    import_hdf5(other, fast_path / "all.h5")
    ours, theirs = (
        FrameCache(one).find(manifest, ["video"], speech=False) for one in (work, other)
    )
    assert ours.load("video").values.equal(theirs.load("video").values)
    np.testing.assert_array_equal(
        np.concatenate(ours.times("video") or []), np.concatenate(theirs.times("video") or [])
    )


def test_where_frames_and_times_disagree_verify_says_so(
    filled: tuple[Work, Manifest], fast_path: Path
) -> None:
    work, manifest = filled
    faces(fast_path / "faces", manifest)
    stream = import_folder(work, manifest, fast_path / "faces", "video", fps=FPS).stream
    times = FrameStream.open((work.features / stream).parent / "times")
    from cache.stream import PartWriter

    key = times.keys[0]
    (part,) = times.path.glob("part-*")
    for file in sorted(part.rglob("*"), reverse=True):
        file.rmdir() if file.is_dir() else file.unlink()
    part.rmdir()
    with PartWriter(times.path, 1, np.float32) as writer:
        writer.add(key, np.arange(3, dtype=np.float32)[:, None])
    report = verify(work)
    assert any("an utterance has 3 frames, but" in problem.reason for problem in report.problems)


@pytest.mark.parametrize(
    ("kind", "options", "words"),
    [
        ("smell", {}, "features to import are audio or text or video, got 'smell'"),
        ("video", {}, "video frames need a clock: how many a second"),
        ("text", {"fps": 25}, "text has no clock"),
        ("video", {"fps": 25, "times": Path()}, "two clocks"),
        ("video", {"fps": 0}, "--fps 0: expected frames a second, above 0"),
        ("video", {"fps": float("nan")}, "--fps nan: expected"),
        ("video", {"fps": 12.5}, "with 12.5 frames a second, 6 of 6 files do not fit .* u0: its"),
        (
            "video",
            {"fps": 30},
            r"2 of 6 files do not fit .* frames last 1\.40 s, its recording 1\.70",
        ),
    ],
)
def test_a_clock_that_cannot_be_is_refused_in_a_sentence(
    filled: tuple[Work, Manifest],
    fast_path: Path,
    kind: str,
    options: dict[str, Any],
    words: str,
) -> None:
    work, manifest = filled
    faces(fast_path / "faces", manifest)
    with pytest.raises(ConfigError, match=words):
        import_folder(work, manifest, fast_path / "faces", kind, **options)
    assert set(FrameCache(work).extraction.sources) == set(SOURCES)


def test_times_that_are_none_are_named_and_the_others_go_on(
    filled: tuple[Work, Manifest], fast_path: Path
) -> None:
    work, manifest = filled
    values = faces(fast_path / "faces", manifest)
    times = fast_path / "times"
    times.mkdir()
    bad = {
        "u0": (np.arange(3.0) / FPS, "has 3 times, and u0 12 frames"),
        "u1": (np.zeros(20), "expected times that ascend from 0 on"),
        "u2": (np.full(28, np.nan), "expected times that ascend from 0 on"),
        "u3": (np.zeros((35, 2)), "holds no list of numbers"),
    }
    for name, own in values.items():
        at = middles(len(own), FPS)
        np.save(times / f"{name}.npy", bad[name][0] if name in bad else at)
    (times / "u4.npy").unlink()
    report = import_folder(work, manifest, fast_path / "faces", "video", times=times)
    for name, (_, words) in bad.items():
        assert words in report.refused[name]
    assert "u4: no file of --times" in report.refused["u4"]
    assert report.utterances == 1
    assert set(read_failures(work.failures)) == {"u0", "u1", "u2", "u3", "u4"}
    np.save(times / "u5.npy", 1000 * np.arange(50.0) / FPS)
    with pytest.raises(
        ConfigError, match=r"u5: its last frame is at 1960\.00 s, its recording 2\."
    ):
        import_folder(work, manifest, fast_path / "faces", "video", times=times)


def test_utterances_without_video_are_left_out_of_what_reads_it_alone(
    filled: tuple[Work, Manifest], fast_path: Path
) -> None:
    work, manifest = filled
    faces(fast_path / "faces", manifest)
    (fast_path / "faces/u3.npy").unlink()
    report = import_folder(work, manifest, fast_path / "faces", "video", fps=FPS)
    assert report.missing == ("u3",)
    cache = FrameCache(work)
    assert len(cache.find(manifest, ["audio", "text"]).utterances) == 6
    found = cache.find(manifest, ["audio", "video"])
    assert [u.id for u in found.utterances] == ["u0", "u1", "u2", "u4", "u5"]
    assert "no file is named u3.npy" in found.failed["u3"]
    work.failures.unlink()
    with pytest.raises(MissingStepError, match="Import their video frames too"):
        cache.find(manifest, ["audio", "video"])


def test_files_of_different_width_are_refused(
    filled: tuple[Work, Manifest], fast_path: Path
) -> None:
    work, manifest = filled
    values = faces(fast_path / "faces", manifest)
    np.save(fast_path / "faces/u2.npy", values["u2"][:, :4])
    with pytest.raises(ConfigError, match=r"u0\.npy has 5 values a frame and .*u2\.npy 4"):
        import_folder(work, manifest, fast_path / "faces", "video", fps=FPS)


def test_a_part_of_a_recording_has_a_clock_of_its_own(
    filled: tuple[Work, Manifest], fast_path: Path
) -> None:
    work, manifest = filled
    last = manifest.utterances[5]
    part = replace(last, id="part", start=0.5, end=1.5)
    (fast_path / "faces").mkdir()
    np.save(fast_path / "faces/part.npy", np.ones((25, 3)))
    own = replace(manifest, utterances=(part,))
    assert import_folder(work, own, fast_path / "faces", "video", fps=FPS).utterances == 1
    with pytest.raises(ConfigError, match=r"frames last 2\.00 s, its recording 1\.00 s"):
        import_folder(work, own, fast_path / "faces", "video", fps=FPS / 2)


def test_the_command_imports_and_the_next_extraction_leaves_it(
    filled: tuple[Work, Manifest], fast_path: Path
) -> None:
    work, manifest = filled
    faces(fast_path / "faces", manifest)
    words = ["cache", "import", str(fast_path / "faces"), "--kind", "video", "--fps", "25"]
    done = CliRunner().invoke(main, [*words, "--work", str(work.root)])
    assert done.exit_code == 0, done.output
    assert "Imported" in done.output
    assert "6 utterances" in done.output
    # As a user is told to extract again, without what was imported.
    assert "imported" not in extract_command(work.root)
    assert "--audio-encoder" in extract_command(work.root)
    from cache.config import ExtractConfig
    from cache.extract.plan import make_plan

    config = ExtractConfig(audio_encoder="", text_encoder="tiny", device="cpu")
    plan = make_plan(FrameCache(work), manifest, config)
    assert set(plan.extraction.sources) == {"text", "video"}


def middles(frames: int, fps: float) -> Floats:
    """The times of frames that come so many a second."""
    return (np.arange(frames, dtype=np.float64) + 0.5) / fps


def by_loops(values: Floats, at: Floats, times: Floats) -> Floats:
    """Each frame by itself: the mean of what lies in its span, else the nearest."""
    result = []
    for k, middle in enumerate(times):
        back = times[k] - times[k - 1] if k else times[1] - times[0]
        ahead = times[k + 1] - times[k] if k + 1 < len(times) else times[-1] - times[-2]
        own = [
            v
            for v, t in zip(values, at, strict=True)
            if middle - back / 2 <= t < middle + ahead / 2
        ]
        nearest = values[np.abs(at - middle).argmin()]
        result.append(np.mean(own) if own else nearest)
    return np.array(result)


@pytest.mark.parametrize("seed", range(5))
def test_what_is_known_on_one_clock_is_brought_onto_another(seed: int) -> None:
    random = np.random.default_rng(seed)
    # Off by more than times that count as the same.
    at: Floats = np.cumsum(random.integers(1, 4, 60)).astype(np.float64) * 0.01
    times: Floats = np.cumsum(random.integers(1, 9, 25)).astype(np.float64) * 0.01 + 0.0033
    values = random.random(60)
    np.testing.assert_allclose(onto(values, at, times), by_loops(values, at, times))


@pytest.mark.parametrize("grid", [Grid(320, 560), whisper_grid()], ids=["windows", "centres"])
@pytest.mark.parametrize("by_rate", [True, False])
def test_a_copy_of_the_frames_has_their_very_speech(grid: Grid, by_rate: bool) -> None:
    values = np.random.default_rng(1).random(5_000)
    at = (grid.first_centre + grid.hop * np.arange(5_000)) / SAMPLE_RATE
    times = middles(5_000, 50) if by_rate else at
    stored = times.astype(np.float32).astype(np.float64)
    np.testing.assert_array_equal(onto(values, at, stored), values)


def test_slower_frames_have_the_mean_and_faster_ones_the_nearest() -> None:
    at = whisper_grid().hop / SAMPLE_RATE * np.arange(8, dtype=np.float64)
    said = np.array([0.0, 1, 1, 1, 0, 0, 1, 0])
    np.testing.assert_allclose(onto(said, at, middles(4, 25)), [0.5, 1, 0, 0.5])
    fast = onto(said, at, middles(16, 100))
    np.testing.assert_array_equal(fast, said[np.minimum((np.arange(16) + 1) // 2, 7)])
    np.testing.assert_allclose(onto(said, at, np.array([0.08])), [0.5])


def test_speech_of_video_is_told_on_its_own_clock(
    filled: tuple[Work, Manifest], fast_path: Path
) -> None:
    work, manifest = filled
    faces(fast_path / "faces", manifest)
    import_folder(work, manifest, fast_path / "faces", "video", fps=FPS)
    found = FrameCache(work).find(manifest, ["audio", "text", "video"])
    audio, video = found.load("audio"), found.load("video")
    assert audio.speech is not None
    assert video.speech is not None
    assert found.load("text").speech is None
    grid = Grid(320, 560)
    for row in range(len(manifest.utterances)):
        own = audio.speech[audio.offsets[row] : audio.offsets[row + 1]].numpy().astype(float)
        at = (grid.first_centre + grid.hop * np.arange(len(own))) / SAMPLE_RATE
        times = middles(int(video.lengths[row]), FPS)
        expected = by_loops(own, at, times)
        got = video.speech[video.offsets[row] : video.offsets[row + 1]].numpy()
        np.testing.assert_allclose(got, expected, atol=1e-6)


def test_a_damaged_clock_is_said(filled: tuple[Work, Manifest], fast_path: Path) -> None:
    work, manifest = filled
    faces(fast_path / "faces", manifest)
    (fast_path / "times").mkdir()
    for u in manifest.utterances:
        (fast_path / f"times/{u.id}.npy").write_bytes(b"")
    with pytest.raises(CacheError, match=r"none of 6 files can be used.*u0\.npy cannot be read"):
        import_folder(work, manifest, fast_path / "faces", "video", times=fast_path / "times")
