"""Importing a folder of features: what fits the manifest is kept, the rest is named."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from cache.folder_import import import_folder
from cache.last_extraction import read_failures
from cache.lookup import FrameCache
from cache.upkeep.info import cache_info
from corpora.base.errors import CacheError, ConfigError, MissingStepError
from corpora.base.work import Work
from corpora.manifest import Manifest
from tests.cache.filled import SOURCES, fill_work
from tests.cache.recordings import change, make_manifest
from tests.cache.streams import Array


@pytest.fixture
def work(fast_path: Path) -> Work:
    return Work(fast_path / "work")


@pytest.fixture
def manifest(fast_path: Path) -> Manifest:
    (fast_path / "work").mkdir()
    return make_manifest(fast_path)


def write_folder(folder: Path, manifest: Manifest, kind: str = "audio") -> dict[str, Array]:
    """A file an utterance, half of them tensors; the same text gives the same values."""
    folder.mkdir(exist_ok=True)
    values = {}
    for number, utterance in enumerate(manifest.utterances):
        seed = number if kind == "audio" else sum(utterance.text.encode())
        frames = np.random.default_rng(seed).normal(size=(3 + seed % 5, 6)).astype(np.float32)
        values[utterance.id] = frames
        if number % 2:
            torch.save(torch.from_numpy(frames), folder / f"{utterance.id}.pt")
        else:
            np.save(folder / f"{utterance.id}.npy", frames)
    return values


@pytest.mark.parametrize("kind", ["audio", "text"])
def test_imported_features_are_what_later_commands_read(
    work: Work, manifest: Manifest, fast_path: Path, kind: str
) -> None:
    values = write_folder(fast_path / "wavlm", manifest, kind)
    report = import_folder(work, manifest, fast_path / "wavlm", kind, stored_dtype="float32")
    assert (report.utterances, report.dim) == (6, 6)
    assert (report.missing, report.extra, report.refused) == ((), (), {})
    assert report.added == (6 if kind == "audio" else 4)
    assert f"Imported {fast_path / 'wavlm'} as {report.stream}, 6-d: 6 utter" in report.to_text()
    collection = FrameCache(work).find(manifest, [kind], speech=False)
    for number, utterance in enumerate(manifest.utterances):
        found = collection.load(kind).utterance(number).numpy()
        np.testing.assert_array_equal(found, values[utterance.id])
    source = FrameCache(work).extraction.source(kind)
    assert source.encoder == "imported: wavlm"
    assert source.recipe.fields["imported"] == "wavlm"
    (info,) = cache_info(work, manifest).streams
    assert (info.encoder, info.complete, info.hours) == ("imported: wavlm", True, None)


def test_imported_audio_has_no_speech_and_says_so(
    work: Work, manifest: Manifest, fast_path: Path
) -> None:
    write_folder(fast_path / "f", manifest)
    import_folder(work, manifest, fast_path / "f", "audio")
    with pytest.raises(MissingStepError, match="no speech stream"):
        FrameCache(work).find(manifest, ["audio"], speech=True)


def test_the_other_modality_stays_as_it_was_extracted(fast_path: Path) -> None:
    work, manifest = fill_work(fast_path)
    write_folder(fast_path / "f", manifest)
    import_folder(work, manifest, fast_path / "f", "audio", name="wavlm", layer=9)
    sources = FrameCache(work).extraction.sources
    assert set(sources) == {"audio", "text"}
    assert sources["text"] == SOURCES["text"]
    assert sources["audio"].stream().endswith("/layer_9")
    assert len(FrameCache(work).find(manifest, ["audio", "text"], speech=False).utterances) == 6


def test_half_precision_is_the_default_and_is_checked(
    work: Work, manifest: Manifest, fast_path: Path
) -> None:
    values = write_folder(fast_path / "f", manifest)
    np.save(fast_path / "f/u2.npy", np.full((3, 6), 1e6, np.float32))
    report = import_folder(work, manifest, fast_path / "f", "audio")
    assert "outside what float16 holds" in report.refused["u2"]
    assert str(fast_path / "f/u2.npy") in report.refused["u2"]
    frames = FrameCache(work).find(manifest, ["audio"], speech=False).load("audio")
    np.testing.assert_array_equal(frames.utterance(0).numpy(), values["u0"].astype(np.float16))


def test_missing_and_extra_files_are_reported(
    work: Work, manifest: Manifest, fast_path: Path
) -> None:
    write_folder(fast_path / "f", manifest)
    (fast_path / "f/u0.npy").unlink()
    np.save(fast_path / "f/stranger.npy", np.zeros((1, 6)))
    (fast_path / "f/readme.txt").write_text("not a feature file")
    report = import_folder(work, manifest, fast_path / "f", "audio")
    assert report.missing == ("u0",)
    assert report.extra == (str(fast_path / "f/stranger.npy"),)
    assert list(read_failures(work.failures)) == ["u0"]
    collection = FrameCache(work).find(manifest, ["audio"], speech=False)
    assert [utterance.id for utterance in collection.utterances] == ["u1", "u2", "u3", "u4", "u5"]
    for words in ("1 utterances of the manifest have no file", "u0", "stranger.npy"):
        assert words in report.to_text()


def save(values: object) -> Callable[[Path], object]:
    return lambda path: np.save(path, np.asarray(values))


BAD: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "one vector": (".npy", save(np.zeros(6)), "shape [6]"),
    "no frames": (".npy", save(np.zeros((0, 6))), "shape [0, 6]"),
    "integers": (".npy", save(np.zeros((2, 6), int)), "int64 values"),
    "not a number": (".npy", save(np.full((2, 6), np.nan)), "12 of 12 values are not finite"),
    "infinity": (".pt", lambda p: torch.save(torch.full((2, 6), -torch.inf), p), "not finite"),
    "a dictionary": (".pt", lambda p: torch.save({"x": torch.zeros(2, 6)}, p), "a dict"),
    "objects": (
        ".npy",
        lambda p: np.save(p, np.array([{}], dtype=object), allow_pickle=True),
        "cannot be read",
    ),
    "code": (".pt", lambda p: torch.save(Path, p), "cannot be read"),
    "nothing": (".npy", Path.touch, "cannot be read"),
    "an empty tensor file": (".pt", Path.touch, "cannot be read"),
    "noise": (".pt", lambda p: p.write_bytes(b"hello, this is no tensor"), "cannot be read"),
    "a torn file": (".npy", lambda p: p.write_bytes(b"\x93NUMPY\x01\x00v"), "cannot be read"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_refused_by_name_and_the_others_go_on(
    work: Work, manifest: Manifest, fast_path: Path, name: str
) -> None:
    suffix, write, reason = BAD[name]
    write_folder(fast_path / "f", manifest)
    (fast_path / "f/u2.npy").unlink()
    path = fast_path / f"f/u2{suffix}"
    write(path)
    report = import_folder(work, manifest, fast_path / "f", "audio")
    assert list(report.refused) == ["u2"]
    assert reason in report.refused["u2"]
    assert str(path) in report.refused["u2"]
    assert (report.utterances, report.missing) == (5, ())
    assert list(read_failures(work.failures)) == ["u2"]


def test_bfloat16_and_gradients_are_read(work: Work, manifest: Manifest, fast_path: Path) -> None:
    write_folder(fast_path / "f", manifest)
    half = torch.linspace(-1, 1, 18).reshape(3, 6).bfloat16()
    torch.save(half, fast_path / "f/u1.pt")
    torch.save(torch.ones(2, 6, requires_grad=True), fast_path / "f/u3.pt")
    import_folder(work, manifest, fast_path / "f", "audio", stored_dtype="float32")
    frames = FrameCache(work).find(manifest, ["audio"], speech=False).load("audio")
    assert frames.utterance(1).equal(half.float())
    assert frames.utterance(3).equal(torch.ones(2, 6))


def test_ids_with_slashes_are_subfolders(work: Work, manifest: Manifest, fast_path: Path) -> None:
    named = change(manifest, 0, id="session.1/a.b")
    (fast_path / "f/session.1").mkdir(parents=True)
    np.save(fast_path / "f/session.1/a.b.npy", np.ones((2, 6)))
    report = import_folder(work, named, fast_path / "f", "audio")
    assert (report.utterances, len(report.missing)) == (1, 5)


def test_importing_the_same_folder_again_adds_nothing(
    work: Work, manifest: Manifest, fast_path: Path
) -> None:
    write_folder(fast_path / "f", manifest)
    first = import_folder(work, manifest, fast_path / "f", "audio")
    again = import_folder(work, manifest, fast_path / "f", "audio")
    assert (again.added, again.stream, again.utterances) == (0, first.stream, 6)


def test_changed_files_are_another_recipe(work: Work, manifest: Manifest, fast_path: Path) -> None:
    write_folder(fast_path / "f", manifest)
    first = import_folder(work, manifest, fast_path / "f", "audio")
    np.save(fast_path / "f/u2.npy", np.ones((4, 6)))
    second = import_folder(work, manifest, fast_path / "f", "audio")
    assert first.stream != second.stream
    frames = FrameCache(work).find(manifest, ["audio"], speech=False).load("audio")
    assert frames.utterance(2).tolist() == np.ones((4, 6)).tolist()


def test_features_that_depend_on_more_than_their_key_are_refused(
    work: Work, manifest: Manifest, fast_path: Path
) -> None:
    values = write_folder(fast_path / "f", manifest, "text")
    # u0 and u4 have the same text; rounding is no difference, other values are.
    np.save(fast_path / "f/u4.npy", values["u0"] * (1 + 1e-3))
    assert import_folder(work, manifest, fast_path / "f", "text").utterances == 6
    np.save(fast_path / "f/u4.npy", values["u0"] + 1)
    with pytest.raises(ConfigError, match=r"u4\.npy .*u0\.npy differ.*the same text"):
        import_folder(work, manifest, fast_path / "f", "text")


def test_one_file_serves_all_that_have_the_same_text(
    work: Work, manifest: Manifest, fast_path: Path
) -> None:
    write_folder(fast_path / "f", manifest, "text")
    (fast_path / "f/u4.npy").unlink()
    report = import_folder(work, manifest, fast_path / "f", "text")
    assert (report.utterances, report.missing) == (6, ())
    assert not work.failures.exists()


def test_features_of_missing_recordings_cannot_be_kept(
    work: Work, manifest: Manifest, fast_path: Path
) -> None:
    write_folder(fast_path / "f", manifest)
    manifest.utterances[3].audio.unlink()
    report = import_folder(work, manifest, fast_path / "f", "audio")
    assert "recording is missing" in report.refused["u3"]
    assert report.utterances == 5


def test_what_cannot_be_a_stream_is_refused(
    work: Work, manifest: Manifest, fast_path: Path
) -> None:
    folder = fast_path / "f"
    with pytest.raises(MissingStepError, match="not a folder"):
        import_folder(work, manifest, folder, "audio")
    values = write_folder(folder, manifest)
    with pytest.raises(ConfigError, match="audio or text or video, got 'smell'"):
        import_folder(work, manifest, folder, "smell")
    others = replace(
        manifest, utterances=tuple(replace(u, id=f"x{u.id}") for u in manifest.utterances)
    )
    with pytest.raises(ConfigError, match="first file is 'u0', but the first utterance is 'xu0'"):
        import_folder(work, others, folder, "audio")
    np.save(folder / "u1.npy", values["u1"])
    with pytest.raises(ConfigError, match=r"both named by the utterance u1"):
        import_folder(work, manifest, folder, "audio")
    (folder / "u1.npy").unlink()
    np.save(folder / "u2.npy", np.ones((2, 7)))
    with pytest.raises(ConfigError, match=r"u0\.npy has 6 values a frame and .*u2\.npy 7"):
        import_folder(work, manifest, folder, "audio")
    for path in folder.iterdir():
        path.write_bytes(b"")
    with pytest.raises(CacheError, match="none of 6 files can be used"):
        import_folder(work, manifest, folder, "audio")
    assert not work.extraction.exists()
