"""cache verify: every kind of damage is found and named, and what is dropped comes back."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import google_crc32c
import numpy as np
import pytest

from cache.hdf5 import export_hdf5
from cache.lookup import FrameCache
from cache.recipe import Recipe
from cache.store.copies import open_matrix
from cache.stream import FrameStream
from cache.upkeep.compact import compact
from cache.upkeep.prune import prune_plan
from cache.upkeep.verify import verify
from corpora.base.errors import CacheError, FormatVersionError, MissingStepError
from corpora.base.work import Work, shared_lock
from corpora.manifest import Manifest
from tests.cache.filled import GRID, SOURCES, audio_recipe, fill_stream, fill_work, parts


@pytest.fixture
def filled(fast_path: Path) -> tuple[Work, Manifest]:
    return fill_work(fast_path)


def audio(work: Work) -> Path:
    return work.features / SOURCES["audio"].stream()


def ids_of(work: Work, manifest: Manifest, part: Path) -> set[str]:
    """Ids of a part's utterances, from its metadata and the manifest."""
    held = set(json.loads((part / "zarr.json").read_text())["attributes"]["keys"])
    keys = FrameCache(work).keys(manifest.utterances)
    return {name for name, own in keys.items() if held & set(own.values())}


def rewrite(part: Path, change: Callable[[np.ndarray], None], dtype: str) -> None:
    """Change a part's values and give them a checksum that fits."""
    chunk = part / "c/0/0"
    values = np.frombuffer(chunk.read_bytes()[:-4], dtype).copy()
    change(values)
    raw = values.tobytes()
    chunk.write_bytes(raw + google_crc32c.value(raw).to_bytes(4, "little"))


def edit(part: Path, change: Callable[[list[str], list[int]], None]) -> None:
    path = part / "zarr.json"
    found = json.loads(path.read_text())
    change(found["attributes"]["keys"], found["attributes"]["lengths"])
    path.write_text(json.dumps(found))


def flip(part: Path) -> None:
    content = bytearray((part / "c/0/0").read_bytes())
    content[11] ^= 64
    (part / "c/0/0").write_bytes(content)


def swap_lengths(keys: list[str], lengths: list[int]) -> None:
    lengths[0], lengths[1] = lengths[0] + 1, lengths[1] - 1


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "flipped bit": (flip, "CRC-32C"),
    "flipped bit in the sum": (
        lambda part: (part / "c/0/0").write_bytes((part / "c/0/0").read_bytes()[:-1] + b"?"),
        "CRC-32C",
    ),
    "no chunk": (lambda part: (part / "c/0/0").unlink(), "c/0/0 is missing"),
    "short chunk": (lambda part: os.truncate(part / "c/0/0", 9), "has 9 bytes instead of"),
    "long chunk": (lambda part: os.truncate(part / "c/0/0", 9999), "has 9999 bytes instead of"),
    "a length too many": (
        lambda part: edit(part, lambda keys, lengths: lengths.append(1)),
        "does not describe",
    ),
    "a key in capitals": (
        lambda part: edit(part, lambda keys, lengths: keys.__setitem__(0, "X" * 32)),
        "1 keys that are no content keys",
    ),
    "a key twice": (
        lambda part: edit(part, lambda keys, lengths: keys.__setitem__(0, keys[1])),
        "1 keys that it has already",
    ),
    "other lengths": (lambda part: edit(part, swap_lengths), "but"),
}


def test_a_sound_cache_is_ok(filled: tuple[Work, Manifest]) -> None:
    report = verify(filled[0])
    assert report.ok
    assert report.problems == ()
    assert (report.streams, report.parts, report.utterances) == (6, 12, 32)
    assert "Everything is as it was written" in report.to_text()
    assert report.to_json()["ok"] is True


@pytest.mark.parametrize("name", DAMAGES)
def test_damage_is_named_and_fixed(filled: tuple[Work, Manifest], name: str) -> None:
    work, manifest = filled
    damage, reason = DAMAGES[name]
    part = parts(audio(work))[1]
    others = set(FrameStream.open(audio(work)).keys)
    others -= set(json.loads((part / "zarr.json").read_text())["attributes"]["keys"])
    concerned = ids_of(work, manifest, part)
    damage(part)
    report = verify(work)
    assert not report.ok
    named = [problem for problem in report.problems if problem.path == part]
    assert named
    assert any(reason in problem.reason for problem in named)
    assert {n for problem in named for n in problem.utterances} & concerned
    for text in (str(part), "cache verify --fix"):
        assert text in report.to_text()
    fixed = verify(work, fix=True)
    assert fixed.ok
    assert "python cli.py extract --" in fixed.to_text()
    assert not part.exists()
    assert list((work.root / ".tmp").iterdir()) == []
    if name != "other lengths":  # there nobody knows which of two streams is right
        assert set(FrameStream.open(audio(work)).keys) == others
    assert verify(work).problems == ()
    # As `extract` does: what is missing is written again.
    fill_stream(work, manifest, SOURCES["audio"].recipe, "layer_3")
    assert len(FrameStream.open(audio(work)).keys) == 6


def test_every_utterance_of_a_damaged_part_is_named(filled: tuple[Work, Manifest]) -> None:
    work, manifest = filled
    part = parts(audio(work))[0]
    flip(part)
    (problem,) = verify(work).problems
    assert set(problem.utterances) == ids_of(work, manifest, part)
    assert len(problem.utterances) == 3


def test_utterances_with_the_same_text_are_all_named(filled: tuple[Work, Manifest]) -> None:
    work, _ = filled
    part = parts(work.features / SOURCES["text"].stream())[0]
    flip(part)
    (problem,) = verify(work).problems
    assert set(problem.utterances) == {"u0", "u1", "u2", "u4", "u5"}
    assert len(problem.keys or ()) == 3


def test_a_lost_list_of_utterances_is_told_from_the_manifest(
    filled: tuple[Work, Manifest],
) -> None:
    work, manifest = filled
    part = parts(audio(work))[0]
    concerned = ids_of(work, manifest, part)
    (part / "zarr.json").unlink()
    report = verify(work)
    (problem,) = report.problems
    assert problem.keys is None
    assert set(problem.utterances) == concerned
    assert report.to_json()["problems"][0]["certain"] is False
    assert "Which utterances it held is not known" in report.to_text()


def test_without_a_manifest_keys_name_what_is_damaged(filled: tuple[Work, Manifest]) -> None:
    work, _ = filled
    part = parts(audio(work))[0]
    keys = json.loads((part / "zarr.json").read_text())["attributes"]["keys"]
    flip(part)
    work.manifest.unlink()
    (problem,) = verify(work).problems
    assert list(problem.utterances) == keys


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_name_their_utterance_alone(
    filled: tuple[Work, Manifest], value: float
) -> None:
    work, _ = filled
    part = parts(audio(work))[0]
    found = json.loads((part / "zarr.json").read_text())["attributes"]
    start = found["lengths"][0] * 4
    rewrite(part, lambda values: values.__setitem__(slice(start, start + 5), value), "<f2")
    (problem,) = verify(work).problems
    assert problem.keys == (found["keys"][1],)
    assert f"2 of {sum(found['lengths'])} frames" in problem.reason
    assert verify(work, fix=True).ok


def test_a_fill_value_among_token_kinds_is_found(filled: tuple[Work, Manifest]) -> None:
    work, _ = filled
    part = parts(work.features / SOURCES["text"].recipe.folder / "token_kind")[0]
    rewrite(part, lambda values: values.__setitem__(0, 255), "u1")
    (problem,) = verify(work).problems
    assert "255, the fill value" in problem.reason


def test_large_parts_are_read_in_blocks_to_the_end(
    fast_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cache.upkeep.verify._BLOCK_BYTES", 20)
    work, _ = fill_work(fast_path)
    assert verify(work).ok
    part = parts(audio(work))[0]
    rewrite(part, lambda values: values.__setitem__(-1, np.nan), "<f2")
    (problem,) = verify(work).problems
    lengths = json.loads((part / "zarr.json").read_text())["attributes"]["lengths"]
    assert f"1 of {sum(lengths)} frames" in problem.reason


def test_streams_on_the_same_frames_must_agree_on_lengths(filled: tuple[Work, Manifest]) -> None:
    work, _ = filled
    part = parts(work.features / SOURCES["energy"].stream())[0]
    edit(part, swap_lengths)
    problems = verify(work).problems
    assert {problem.path for problem in problems if "frames, but" in problem.reason} >= {part}
    assert part.parent.parent.parent == work.features
    assert verify(work, fix=True).ok
    assert verify(work).problems == ()


def test_frames_of_silence_beside_a_recording_are_no_fault(
    filled: tuple[Work, Manifest],
) -> None:
    work, manifest = filled
    longer = fill_stream(work, manifest, audio_recipe(kept="recording and silence"), "layer_0")
    for part in parts(longer):
        edit(part, swap_lengths)
    assert verify(work).ok


def test_what_does_not_belong_is_moved_and_not_deleted(filled: tuple[Work, Manifest]) -> None:
    work, _ = filled
    stream = audio(work)
    strays = [
        work.features / "notes.txt",
        work.features / "old" / "data.bin",
        stream.parent / "layer_9" / "data.bin",
        stream / "copy" / "zarr.json",
        parts(stream)[0] / "c" / "0" / "1",
    ]
    for path in strays:
        path.parent.mkdir(exist_ok=True)
        path.write_text("mine")
    report = verify(work)
    assert not report.ok
    assert {problem.path.name for problem in report.problems} == {
        *("notes.txt", "old", "layer_9", "copy", "1")
    }
    assert verify(work, fix=True).ok
    assert verify(work).problems == ()
    aside = {path.name for path in (work.root / "set-aside").rglob("*") if path.is_file()}
    assert aside == {"notes.txt", "data.bin", "zarr.json", "1"}
    assert len(FrameStream.open(stream).keys) == 6


@pytest.mark.parametrize("content", ["{", '{"zarr_format": 3}', "other fields"])
def test_a_recipe_that_does_not_fit_its_folder_is_set_aside_whole(
    filled: tuple[Work, Manifest], content: str
) -> None:
    work, manifest = filled
    recipe = SOURCES["audio"].recipe
    path = work.features / recipe.folder / "zarr.json"
    path.write_text(
        path.read_text().replace("5.22.0", "5.23.0") if content == "other fields" else content
    )
    (problem,) = verify(work).problems
    assert problem.path == path.parent
    assert not problem.is_part
    assert verify(work, fix=True).ok
    # Nothing is lost, and extracting works again.
    assert len(list((work.root / "set-aside").rglob("part-*"))) == 4
    fill_stream(work, manifest, recipe, "layer_3")
    assert len(FrameStream.open(audio(work)).keys) == 6


def test_a_stream_without_a_header_is_set_aside(filled: tuple[Work, Manifest]) -> None:
    work, _ = filled
    (audio(work) / "zarr.json").write_text("{}")
    (problem,) = verify(work).problems
    assert problem.path == audio(work)
    assert verify(work, fix=True).ok
    assert not audio(work).exists()


def test_an_unreadable_chunk_is_damage_and_no_crash(
    filled: tuple[Work, Manifest], monkeypatch: pytest.MonkeyPatch
) -> None:
    work, _ = filled
    part = parts(audio(work))[0]

    def broken(path: str) -> object:
        if path == str(part):
            raise OSError(5, "Input/output error")
        return open_matrix(path)

    monkeypatch.setattr("cache.upkeep.verify.open_matrix", broken)
    (problem,) = verify(work).problems
    assert "Input/output error" in problem.reason
    assert len(problem.utterances) == 3


def test_a_part_that_vanishes_meanwhile_is_no_damage(
    filled: tuple[Work, Manifest], monkeypatch: pytest.MonkeyPatch
) -> None:
    work, _ = filled
    part = parts(audio(work))[1]

    def pruned(path: str) -> object:
        if path == str(part) and part.exists():
            part.rename(work.root / "gone")
        return open_matrix(path)

    monkeypatch.setattr("cache.upkeep.verify.open_matrix", pruned)
    assert verify(work).problems == ()


def test_nothing_is_fixed_while_somebody_adds(filled: tuple[Work, Manifest]) -> None:
    work, _ = filled
    part = parts(audio(work))[0]
    flip(part)
    with shared_lock(work.features), pytest.raises(CacheError, match="in use"):
        verify(work, fix=True)
    assert part.exists()


def test_imported_features_are_not_promised_back(filled: tuple[Work, Manifest]) -> None:
    work, manifest = filled
    recipe = type(SOURCES["audio"].recipe)("audio", {"imported": "mine"})
    flip(parts(fill_stream(work, manifest, recipe, "layer_0"))[0])
    assert "import their folder or file again" in verify(work, fix=True).to_text()


def test_ids_of_recordings_that_are_gone_are_given_as_keys(
    filled: tuple[Work, Manifest],
) -> None:
    work, manifest = filled
    flip(parts(audio(work))[0])
    for utterance in manifest.utterances:
        utterance.audio.unlink()
    (problem,) = verify(work).problems
    assert problem.utterances == problem.keys


def test_no_cache_and_another_version_are_errors(fast_path: Path) -> None:
    with pytest.raises(MissingStepError, match="extract"):
        verify(Work(fast_path))
    work, _ = fill_work(fast_path)
    root = work.features / "zarr.json"
    root.write_text(root.read_text().replace('"version": 1', '"version": 7'))
    with pytest.raises(FormatVersionError, match="7"):
        verify(work, fix=True)


def test_dropped_cues_come_back_with_explain(filled: tuple[Work, Manifest]) -> None:
    work, manifest = filled
    recipe = Recipe("cues", {"set": "default", "grid": GRID})
    stream = fill_stream(work, manifest, recipe, "values", dtype="float32")
    flip(parts(stream)[0])
    assert "next `explain`" in verify(work, fix=True).to_text()
    assert verify(work).ok


@pytest.mark.parametrize("level", ["recipe", "stream"])
@pytest.mark.parametrize("damage", ["cut", "deleted", "another recipe"])
@pytest.mark.parametrize("command", ["export", "compact", "prune"])
def test_frames_behind_damaged_metadata_are_not_passed_over(
    command: str, damage: str, level: str, filled: tuple[Work, Manifest]
) -> None:
    work, _ = filled
    folder = next(work.features.glob("audio-*"))
    folder = folder if level == "recipe" else folder / "layer_2"
    metadata = folder / "zarr.json"
    if damage == "deleted":
        metadata.unlink()
    elif damage == "cut" or level == "stream":
        metadata.write_bytes(metadata.read_bytes()[:30])
    else:
        metadata.write_text(metadata.read_text().replace("5.22.0", "5.22.1"))
    run: dict[str, Callable[[], object]] = {
        "export": lambda: export_hdf5(work, work.root / "out.h5"),
        "compact": lambda: compact(work),
        "prune": lambda: prune_plan(work, [work.manifest]),
    }
    with pytest.raises(CacheError, match=r"1 folders with frames.*audio-.*cache verify --fix"):
        run[command]()
    assert not (work.root / "out.h5").exists()
    verify(work, fix=True)
    run[command]()
