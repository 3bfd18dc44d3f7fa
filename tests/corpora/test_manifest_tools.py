"""Merge and split: what becomes of labels, ids, speakers, splits and the old file."""

from __future__ import annotations

import errno
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corpora.base.errors import ConfigError, ManifestError
from corpora.base.files import write_bytes
from corpora.label_map import LabelMap, map_manifest, parse_label_map
from corpora.manifest import Manifest, read_manifest, write_manifest
from corpora.manifest_tools import merge, split
from corpora.protocol import SplitConfig
from corpora.utterance import Utterance, speaker_key
from tests.corpora.people import people

NONE = parse_label_map(())


def write(folder: Path, corpus: str, *speakers: str, **changes: object) -> Path:
    """A manifest of a corpus with one split a speaker."""
    homes = dict(zip(speakers, ("train", "dev", "test"), strict=False))
    rows = [
        replace(u, split=homes.get(u.speaker, ""), audio=folder / corpus / u.audio.name)
        for u in people(speakers, each=2, corpus=corpus)
    ]
    manifest = Manifest(tuple(rows), ("anger", "joy", "calm"), corpus)
    path = folder / corpus / "manifest.csv"
    write_manifest(replace(manifest, **changes), path)  # type: ignore[arg-type]
    return path


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    return write(tmp_path, "a", "ann", "bob", "cyd"), write(tmp_path, "b", "ann", "dan", "eve")


def test_speakers_of_two_corpora_are_different_people(
    pair: tuple[Path, Path], tmp_path: Path
) -> None:
    report = merge(pair, tmp_path / "out" / "manifest.csv", NONE)
    merged = read_manifest(report.manifest)
    assert len({speaker_key(u) for u in merged.utterances}) == 6
    assert merged.corpus == "a+b"
    assert report.corpora == {"a": 18, "b": 18}


def test_ids_that_occur_twice_get_their_corpus_in_front(
    pair: tuple[Path, Path], tmp_path: Path
) -> None:
    report = merge(pair, tmp_path / "manifest.csv", NONE)
    ids = {u.id for u in read_manifest(report.manifest).utterances}
    assert {"a/ann_joy_0", "b/ann_joy_0", "bob_joy_0", "dan_joy_0"} <= ids
    assert "12 ids occurred twice" in report.to_text()


def test_recordings_are_found_from_the_new_folder(pair: tuple[Path, Path], tmp_path: Path) -> None:
    out = tmp_path / "deep" / "er" / "manifest.csv"
    merge(pair, out, NONE)
    assert "../../a/" in out.read_text()
    assert {u.audio.parent for u in read_manifest(out).utterances} == {
        tmp_path / "a",
        tmp_path / "b",
    }


def test_a_map_renames_labels_of_one_corpus_and_leaves_others_out(
    pair: tuple[Path, Path], tmp_path: Path
) -> None:
    labels = parse_label_map(["b:joy=happiness", "calm="])
    report = merge(pair, tmp_path / "manifest.csv", labels)
    merged = read_manifest(report.manifest)
    assert merged.labels == report.labels == ("anger", "joy", "happiness")
    assert {u.corpus for u in merged.utterances if u.label == "happiness"} == {"b"}
    assert "12 utterances are left out" in report.to_text()


def test_votes_of_labels_that_become_one_are_added() -> None:
    row = replace(people(["ann"])[0], votes={"joy": 2.0, "calm": 1.0, "anger": 3.0})
    (mapped,) = parse_label_map(["joy=good", "calm=good"]).apply([row])
    assert mapped.votes == {"good": 3.0, "anger": 3.0}


def test_the_first_manifests_label_order_comes_first(tmp_path: Path) -> None:
    first = write(tmp_path, "a", "ann", labels=("joy", "anger", "calm"))
    second = write(tmp_path, "b", "dan")
    assert merge([second, first], tmp_path / "m.csv", NONE).labels == ("anger", "joy", "calm")
    assert merge([first, second], tmp_path / "n.csv", NONE).labels == ("joy", "anger", "calm")


def test_declarations_survive_a_merge_and_protocols_do_not(tmp_path: Path) -> None:
    first = write(tmp_path, "a", "ann", protocol="meld", shared_speakers=True)
    second = write(tmp_path, "b", "dan", synthetic=True)
    merged = read_manifest(merge([first, second], tmp_path / "m.csv", NONE).manifest)
    assert (merged.shared_speakers, merged.synthetic, merged.protocol) == (True, True, "")


def test_scales_that_differ_are_warned_about_and_not_kept(tmp_path: Path) -> None:
    first = write(tmp_path, "a", "ann", scales={"valence": (1, 7), "arousal": (1, 5)})
    second = write(tmp_path, "b", "dan", scales={"valence": (1, 5), "arousal": (1, 5)})
    report = merge([first, second], tmp_path / "m.csv", NONE)
    assert read_manifest(report.manifest).scales == {"arousal": (1, 5)}
    assert any("valence stand on different scales" in note for note in report.notes)


def test_one_utterance_in_two_manifests_of_a_corpus_is_refused(tmp_path: Path) -> None:
    first = write(tmp_path, "a", "ann")
    second = tmp_path / "copy.csv"
    write_manifest(read_manifest(first), second)
    with pytest.raises(ManifestError, match="both call their corpus the same"):
        merge([first, second], tmp_path / "m.csv", NONE)


def test_what_would_be_merged_is_not_overwritten(pair: tuple[Path, Path]) -> None:
    with pytest.raises(ConfigError, match="one of the manifests to be merged"):
        merge(pair, pair[0], NONE)


def test_the_manifest_of_another_corpus_is_not_overwritten(
    pair: tuple[Path, Path], tmp_path: Path
) -> None:
    other = write(tmp_path, "c", "ann", "bob", "cyd")
    with pytest.raises(ManifestError, match=r"the manifest of another corpus \(c; 18 rows\)"):
        merge(pair, other, NONE)
    with pytest.raises(ManifestError, match=r"--replace"):
        split(pair[0], other, config=SplitConfig())
    merge(pair, other, NONE, replace_other=True)
    merge(pair, other, NONE)  # its own


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("joy", "is not OLD=NEW"),
        ("=x", "is not OLD=NEW"),
        ("joi=x", "no label 'joi'. Did you mean 'joy'"),
        ("d:joy=x", "no corpus 'd'"),
    ],
)
def test_a_map_of_nothing_is_refused(
    setting: str, message: str, pair: tuple[Path, Path], tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message):
        merge(pair, tmp_path / "m.csv", parse_label_map([setting]))


@given(st.lists(st.sampled_from(["x", "y", "z"]), max_size=20))
def test_no_map_changes_nothing(labels: list[str]) -> None:
    made = people(["ann"])[0]
    rows = [replace(made, id=str(k), label=label) for k, label in enumerate(labels)]
    assert LabelMap({}).apply(rows) == rows


def test_a_mapped_manifest_keeps_the_order_of_its_new_labels(pair: tuple[Path, Path]) -> None:
    mapped = map_manifest(read_manifest(pair[0]), parse_label_map(["anger=calm", "joy=good"]))
    assert mapped.labels == ("calm", "good")


def homes(rows: tuple[Utterance, ...]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for utterance in rows:
        found.setdefault(utterance.speaker, set()).add(utterance.split)
    return found


@pytest.fixture
def many(tmp_path: Path) -> Path:
    return write(tmp_path, "a", *[f"s{k}" for k in range(9)], protocol="meld", shared_speakers=True)


@pytest.mark.parametrize("folds", ["", "loso", "4"])
def test_new_splits_tear_no_speaker_apart(folds: str, many: Path) -> None:
    report = split(many, many, config=SplitConfig(seed=2), folds=folds)
    made = read_manifest(report.manifest)
    assert all(len(splits) == 1 for splits in homes(made.utterances).values())
    assert {split for splits in homes(made.utterances).values() for split in splits} == {
        "train",
        "dev",
        "test",
    }
    assert (made.protocol, made.shared_speakers, made.settings["seed"]) == ("", False, 2)


def test_the_manifest_as_it_was_is_kept_each_time(many: Path) -> None:
    before = read_manifest(many)
    split(many, many, config=SplitConfig())
    split(many, many, config=SplitConfig(seed=1), folds="3")
    assert read_manifest(many.with_name("manifest.before-split-1.csv")) == before
    assert many.with_name("manifest.before-split-2.json").is_file()


def test_a_manifest_that_is_kept_already_is_not_kept_twice(many: Path) -> None:
    """As when a run was killed between keeping it and writing the new one."""
    before = {name: many.with_suffix(name).read_bytes() for name in (".csv", ".json")}
    split(many, many, config=SplitConfig())
    for name, data in before.items():
        many.with_suffix(name).write_bytes(data)
    split(many, many, config=SplitConfig())
    assert len(list(many.parent.glob("*before-split-*"))) == 2
    split(many, many, config=SplitConfig())  # which changes nothing
    assert len(list(many.parent.glob("*before-split-*"))) == 2


@pytest.mark.parametrize("with_json", [True, False])
def test_a_manifest_is_not_kept_twice_where_its_json_alone_was_replaced(
    many: Path, monkeypatch: pytest.MonkeyPatch, with_json: bool
) -> None:
    if not with_json:
        many.with_suffix(".json").unlink()
    before = {path.suffix: path.read_bytes() for path in many.parent.glob("manifest.*")}

    def fail(path: Path, data: bytes) -> None:
        if path == many:
            raise OSError(errno.ENOSPC, "full")
        write_bytes(path, data)

    monkeypatch.setattr("corpora.manifest_fields.write_bytes", fail)
    with pytest.raises(OSError, match="full"):
        split(many, many, config=SplitConfig())
    monkeypatch.undo()
    split(many, many, config=SplitConfig())
    kept = list(many.parent.glob("*before-split-*"))
    assert {path.suffix: path.read_bytes() for path in kept} == before


def test_another_file_leaves_the_manifest_alone(many: Path, tmp_path: Path) -> None:
    before = many.read_bytes()
    report = split(many, tmp_path / "new.csv", config=SplitConfig(), folds="loso")
    assert many.read_bytes() == before
    assert not list(many.parent.glob("*before-split*"))
    assert len({u.fold for u in read_manifest(report.manifest).utterances}) == 9


def test_new_splits_can_be_balanced(many: Path) -> None:
    report = split(many, many, config=SplitConfig(max_imbalance=1.0, balanced_dev=True))
    made = read_manifest(report.manifest)
    for name in ("train", "dev"):
        counts = dict.fromkeys(made.labels, 0)
        for utterance in made.in_split(name):
            counts[utterance.label] += 1
        assert len(set(counts.values())) == 1


@pytest.mark.parametrize("folds", ["two", "2", "0", "999"])
def test_folds_that_are_none_are_refused(folds: str, many: Path) -> None:
    with pytest.raises(ConfigError, match="expected loso, session, or a number from 3 to 200"):
        split(many, many, config=SplitConfig(), folds=folds)
