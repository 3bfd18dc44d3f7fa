"""cache prune: what is used stays, what would go is said, and nothing goes unsaid."""

import json
import os
import time
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from cache.recipe import Recipe
from cache.stream import FrameStream
from cache.upkeep.prune import PrunePlan, apply, plan_for_keys, prune_plan
from cli import main
from corpora.base.errors import CacheError, ConfigError, ManifestError, MissingStepError
from corpora.base.files import new_stamp, under_way
from corpora.base.work import Work, shared_lock
from corpora.manifest import Manifest, write_manifest
from tests.cache.filled import (
    GRID,
    SOURCES,
    audio_recipe,
    fill_stream,
    fill_work,
    input_keys,
    parts,
)
from tests.cache.recordings import change


@pytest.fixture
def filled(fast_path: Path) -> tuple[Work, Manifest]:
    return fill_work(fast_path)


def some(work: Work, manifest: Manifest, numbers: slice) -> Path:
    """A manifest of some of the utterances."""
    path = work.root / "some.csv"
    write_manifest(replace(manifest, utterances=manifest.utterances[numbers]), path)
    return path


def of(plan: PrunePlan, stream: str) -> tuple[int, int, int]:
    (found,) = [one for one in plan.streams if one.stream == stream]
    return len(found.parts), found.utterances, found.kept_parts


def test_what_a_manifest_uses_is_kept(filled: tuple[Work, Manifest]) -> None:
    work, _ = filled
    plan = prune_plan(work, [work.manifest])
    assert (plan.parts, plan.nbytes) == (0, 0)
    assert "Nothing to free" in plan.to_text()
    before = sorted(work.features.rglob("*"))
    apply(work, plan)
    assert sorted(work.features.rglob("*")) == before


def test_what_killed_commands_left_in_any_folder_goes_and_is_said(
    filled: tuple[Work, Manifest],
) -> None:
    work, _ = filled
    dead, alive = "0000000000000000-1-00000000-elsewhere", new_stamp()
    targets = [work.search / "trials" / "0003.json", work.root / "out.h5", work.model]
    for target in targets:
        target.parent.mkdir(parents=True, exist_ok=True)
        for stamp in (dead, alive):
            under_way(target, stamp).touch()
    command = ["cache", "prune", "--work", str(work.root)]
    CliRunner().invoke(main, [*command, "--json"])  # which only looks
    assert under_way(targets[0], dead).exists()
    said = CliRunner().invoke(main, command)
    assert f"Removed 3 unfinished files that killed commands left in {work.root}." in said.output
    assert not any(under_way(target, dead).exists() for target in targets)
    assert all(under_way(target, alive).exists() for target in targets)
    assert "Removed" not in CliRunner().invoke(main, command).output


def test_unused_parts_go_and_the_plan_says_so_before(filled: tuple[Work, Manifest]) -> None:
    work, manifest = filled
    kept = input_keys(work, manifest, "audio")[:3]
    path = some(work, manifest, slice(0, 3))
    audio = SOURCES["audio"].stream()
    sizes = [(part / "c/0/0").stat().st_size - 4 for part in parts(work.features / audio)]
    plan = prune_plan(work, [path])
    assert of(plan, audio) == (1, 3, 1)
    assert of(plan, SOURCES["text"].stream()) == (1, 1, 1)
    (stream,) = [one for one in plan.streams if one.stream == audio]
    assert stream.nbytes == sizes[1]
    assert f"1 part of {audio}: 3 utterances, {sizes[1]} bytes" in plan.to_text()
    assert len(parts(work.features / audio)) == 2
    assert apply(work, plan) == plan
    assert FrameStream.open(work.features / audio).keys == tuple(kept)
    assert list((work.root / ".tmp").iterdir()) == []
    assert prune_plan(work, [path]).parts == 0


def test_every_manifest_named_is_kept(filled: tuple[Work, Manifest]) -> None:
    work, manifest = filled
    path = some(work, manifest, slice(0, 1))
    assert prune_plan(work, [path]).parts > 0
    assert prune_plan(work, [path, work.manifest]).parts == 0


def test_a_part_that_is_used_in_part_is_kept_whole(filled: tuple[Work, Manifest]) -> None:
    work, manifest = filled
    plan = prune_plan(work, [some(work, manifest, slice(2, 4))])
    audio = SOURCES["audio"].stream()
    assert of(plan, audio) == (0, 0, 2)
    assert "parts are kept whole" in plan.to_text()
    (stream,) = [one for one in plan.streams if one.stream == audio]
    opened = FrameStream.open(work.features / audio)
    used = opened.lengths(input_keys(work, manifest, "audio")[2:4]).sum()
    assert stream.kept_unused == opened.nbytes - int(used) * 8


def test_a_stream_that_nobody_uses_goes_with_its_recipe(filled: tuple[Work, Manifest]) -> None:
    work, manifest = filled
    other = change(manifest, 0, text="nothing like it")
    path = some(work, replace(other, utterances=other.utterances[:1]), slice(None))
    apply(work, prune_plan(work, [path]))
    text = SOURCES["text"].recipe.folder
    assert not (work.features / text).exists()
    assert (work.features / SOURCES["audio"].recipe.folder).is_dir()


def test_what_goes_whole_goes_by_one_rename(
    filled: tuple[Work, Manifest], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed between two renames, no empty stream is left that no plan would name again."""
    work, manifest = filled
    other = change(manifest, 0, text="nothing like it")
    path = some(work, replace(other, utterances=other.utterances[:1]), slice(None))
    renamed: list[Path] = []
    rename = os.rename

    def noted(source: Path, target: Path) -> None:
        renamed.append(source)
        rename(source, target)

    monkeypatch.setattr("cache.store.layout.os.rename", noted)
    apply(work, prune_plan(work, [path]))
    text = work.features / SOURCES["text"].recipe.folder
    assert [folder for folder in renamed if text in (folder, *folder.parents)] == [text]


def test_streams_of_earlier_extractions_go_when_asked(filled: tuple[Work, Manifest]) -> None:
    work, manifest = filled
    old = fill_stream(work, manifest, audio_recipe(transformers="5.21.0"), "layer_3")
    unasked = fill_stream(work, manifest, SOURCES["audio"].recipe, "layer_1")
    assert prune_plan(work, [work.manifest]).parts == 0
    plan = prune_plan(work, [work.manifest], last_only=True)
    assert {one.stream for one in plan.streams if one.parts} == {
        f"{stream.parent.name}/{stream.name}" for stream in (old, unasked)
    }
    apply(work, plan)
    assert not old.parent.exists()
    assert not unasked.exists()
    assert len(list(unasked.parent.glob("layer_*"))) == 2
    work.extraction.unlink()
    with pytest.raises(MissingStepError):
        prune_plan(work, [work.manifest], last_only=True)


def test_cues_are_kept_while_their_utterances_and_their_grid_are_used(
    filled: tuple[Work, Manifest],
) -> None:
    work, manifest = filled
    used = fill_stream(work, manifest, Recipe("cues", {"set": "default", "grid": GRID}), "values")
    other = Recipe("cues", {"set": "default", "grid": {**GRID, "hop": 160}})
    unused = fill_stream(work, manifest, other, "values")
    assert prune_plan(work, [work.manifest]).parts == 0
    plan = prune_plan(work, [work.manifest], last_only=True)
    assert {one.stream for one in plan.streams if one.parts} == {f"{unused.parent.name}/values"}
    first = prune_plan(work, [some(work, manifest, slice(0, 3))])
    assert of(first, f"{used.parent.name}/values") == (1, 3, 1)


def test_a_folder_with_something_else_in_it_stays(filled: tuple[Work, Manifest]) -> None:
    work, _ = filled
    notes = work.features / SOURCES["energy"].stream() / "notes.txt"
    notes.write_text("mine")
    apply(work, plan_for_keys(work, frozenset()))
    assert notes.read_text() == "mine"
    assert not (work.features / SOURCES["audio"].recipe.folder).exists()


def test_copies_nobody_reads_are_no_reason_to_keep_a_part(filled: tuple[Work, Manifest]) -> None:
    work, manifest = filled
    audio = work.features / SOURCES["audio"].stream()
    first = parts(audio)[0]
    copy = audio / "part-ffffffffffffffff-00000000"
    copy.mkdir()
    (copy / "zarr.json").write_bytes((first / "zarr.json").read_bytes())
    (copy / "c/0").mkdir(parents=True)
    (copy / "c/0/0").write_bytes((first / "c/0/0").read_bytes())
    keys = frozenset(input_keys(work, manifest, "audio"))
    (stream,) = [o for o in plan_for_keys(work, keys).streams if o.stream.endswith("layer_3")]
    assert stream.parts == (copy.name,)


def test_what_came_after_the_plan_is_not_deleted(filled: tuple[Work, Manifest]) -> None:
    work, manifest = filled
    plan = plan_for_keys(work, frozenset())
    late = fill_stream(work, manifest, audio_recipe(transformers="5.24.0"), "layer_3")
    more = fill_stream(work, manifest, SOURCES["audio"].recipe, "layer_3", inputs=slice(2))
    done = apply(work, plan)
    assert len(parts(late)) == 2
    assert len(parts(more)) == 1
    assert done.parts == plan.parts


def test_missing_recordings_are_refused(filled: tuple[Work, Manifest]) -> None:
    work, manifest = filled
    manifest.utterances[1].audio.unlink()
    with pytest.raises(CacheError, match=r"1 of 6 recordings .*u1\.wav.*Nothing was deleted"):
        prune_plan(work, [work.manifest])


def test_unreadable_manifests_are_refused(filled: tuple[Work, Manifest]) -> None:
    work, _ = filled
    (work.root / "bad.csv").write_text("id,text\n1,2\n")
    with pytest.raises(ManifestError, match="audio"):
        prune_plan(work, [work.manifest, work.root / "bad.csv"])
    with pytest.raises(MissingStepError, match=r"none\.csv"):
        prune_plan(work, [work.root / "none.csv"])
    with pytest.raises(ConfigError, match="--keep"):
        prune_plan(work, [])


def test_a_damaged_part_is_refused(filled: tuple[Work, Manifest]) -> None:
    work, _ = filled
    (parts(work.features / SOURCES["audio"].stream())[0] / "zarr.json").unlink()
    with pytest.raises(CacheError, match="verify --fix"):
        prune_plan(work, [work.manifest])


@pytest.mark.parametrize("words", ["prune --yes", "verify --fix", "compact"])
def test_what_a_killed_process_took_out_goes_where_nothing_else_is_to_do(
    filled: tuple[Work, Manifest], words: str
) -> None:
    work, _ = filled
    invoke = ["cache", *words.split(), "--work", str(work.root)]
    assert CliRunner().invoke(main, invoke).exit_code == 0
    days_ago = time.time_ns() - 2 * 24 * 3600 * 10**9
    left = work.root / ".tmp" / f"site-{days_ago:016x}-1-00000000-host" / "0-part"
    left.mkdir(parents=True)
    assert CliRunner().invoke(main, invoke).exit_code == 0
    assert not left.parent.exists()


def test_nothing_is_deleted_while_somebody_adds(filled: tuple[Work, Manifest]) -> None:
    work, _ = filled
    plan = plan_for_keys(work, frozenset())
    with shared_lock(work.features), pytest.raises(CacheError, match="in use"):
        apply(work, plan)
    assert plan_for_keys(work, frozenset()) == plan


def test_json_is_printed_whether_or_not_there_is_something_to_free(
    filled: tuple[Work, Manifest],
) -> None:
    work, manifest = filled
    keep = ["--keep", str(some(work, manifest, slice(0, 3)))]

    def freed(*more: str) -> int:
        words = ["cache", "prune", "--json", *more, "--work", str(work.root)]
        result = CliRunner().invoke(main, words)
        return int(json.loads(result.stdout)["parts"])

    assert (freed(), freed("--yes")) == (0, 0)
    planned = freed(*keep)
    assert planned > 0
    assert [freed(*keep, "--yes"), freed(*keep, "--yes")] == [planned, 0]


def test_the_plan_as_json_counts_the_same(filled: tuple[Work, Manifest]) -> None:
    work, _ = filled
    plan = plan_for_keys(work, frozenset())
    found = plan.to_json()
    assert found["bytes"] == plan.nbytes == sum(one["bytes"] for one in found["streams"])
    assert found["parts"] == plan.parts == 12
    assert len(found["streams"]) == 6
