from __future__ import annotations

import json
from pathlib import Path

import pytest

from corpora.base.errors import CorpusError
from corpora.manifest import read_manifest
from corpora.prepare import prepare
from corpora.protocol import SplitConfig
from corpora.readers.registry import read_corpus
from tests.corpora.list_trees import EMOBOX_LABELS, emobox, emobox_entry, write_json_lines
from tests.corpora.tree_parts import write_wav


def test_rows_are_marked_with_the_fold_whose_test_set_they_are_in(tmp_path: Path) -> None:
    emobox(tmp_path)
    result = read_corpus("emobox", tmp_path)
    assert {(u.speaker, u.fold, u.split) for u in result.utterances} == {
        ("male_1", "1", ""), ("female_2", "2", ""), ("female_3", "3", ""),
    }  # fmt: skip
    named = {u.id: (u.corpus, u.label, u.sex) for u in result.utterances}
    assert named["small-f2N"] == ("small", "Neutral", "female")
    assert result.dropped[0].reason == "label_map.json has no 'X'"
    assert not result.shared_speakers


def test_prepare_tests_on_the_fold_that_is_asked_for(tmp_path: Path) -> None:
    emobox(tmp_path)
    report = prepare(
        "emobox",
        tmp_path,
        tmp_path / "work" / "manifest.csv",
        config=SplitConfig(test_fold="2"),
        show_progress=False,
    )
    manifest = read_manifest(report.manifest)
    assert {u.fold: u.split for u in manifest.utterances} == {"1": "train", "2": "test", "3": "dev"}
    assert manifest.settings["folds"] == ["1", "2", "3"]


def test_one_fold_has_its_own_sets(tmp_path: Path) -> None:
    emobox(tmp_path)
    data = tmp_path / "data" / "small"
    valid = data / "fold_1" / "small_valid_fold_1.jsonl"
    write_json_lines(valid, [emobox_entry("f3N", "N"), emobox_entry("f3W", "W")])
    splits = {u.speaker: u.split for u in read_corpus("emobox", data, {"fold": "1"}).utterances}
    assert splits == {"male_1": "test", "female_2": "train", "female_3": "dev"}
    with pytest.raises(CorpusError, match=r"no fold '9'. It has: 1, 2, 3"):
        read_corpus("emobox", data, {"fold": "9"})


def test_a_single_fold_without_a_valid_set_gets_one_of_its_training_rows(tmp_path: Path) -> None:
    fold = tmp_path / "small" / "fold_1"
    names = [f"p{number:02}{emotion}" for number in range(10) for emotion in EMOBOX_LABELS]
    entries = [emobox_entry(name, name[-1]) for name in names]
    write_json_lines(fold / "small_train_fold_1.jsonl", entries[:15])
    write_json_lines(fold / "small_test_fold_1.jsonl", entries[15:])
    (tmp_path / "small" / "label_map.json").write_text(json.dumps(EMOBOX_LABELS))
    splits = [u.split for u in read_corpus("emobox", tmp_path).utterances]
    assert (splits.count("train"), splits.count("dev"), splits.count("test")) == (12, 3, 5)


def test_folds_that_share_speakers_declare_it(tmp_path: Path) -> None:
    emobox(tmp_path)
    stm = tmp_path / "data" / "small" / "data.seg.wrd.stm"
    stm.write_text(stm.read_text().replace("female_3", "male_1"))
    result = read_corpus("emobox", tmp_path)
    assert result.shared_speakers
    assert "EmoBox's own folds share speakers: 1 of them stand in several." in result.notes


def test_recordings_may_lie_elsewhere(tmp_path: Path) -> None:
    emobox(tmp_path / "box")
    for name in ("f2W", "f2N", "f3W"):
        write_wav(tmp_path / "mine" / name[1] / f"{name}.wav")
    result = read_corpus("emobox", tmp_path / "box", {"audio": str(tmp_path / "mine")})
    assert {u.audio for u in result.utterances if u.audio.exists()} == {
        tmp_path / "mine" / "2" / "f2W.wav", tmp_path / "mine" / "2" / "f2N.wav",
        tmp_path / "mine" / "3" / "f3W.wav",
    }  # fmt: skip


def test_of_several_partitions_one_is_to_be_named(tmp_path: Path) -> None:
    emobox(tmp_path)
    (tmp_path / "data" / "other" / "fold_1").mkdir(parents=True)
    with pytest.raises(CorpusError, match=r"2 partitions: other, small.*--partition NAME"):
        read_corpus("emobox", tmp_path)
    assert read_corpus("emobox", tmp_path, {"partition": "small"}).utterances
    with pytest.raises(CorpusError, match=r"no partition 'smal'. Did you mean 'small'"):
        read_corpus("emobox", tmp_path, {"partition": "smal"})
    with pytest.raises(CorpusError, match=r"has no fold_1/other_train_fold_1.jsonl"):
        read_corpus("emobox", tmp_path, {"partition": "other"})


def test_a_line_without_a_key_costs_that_line(tmp_path: Path) -> None:
    emobox(tmp_path)
    path = tmp_path / "data" / "small" / "fold_1" / "small_test_fold_1.jsonl"
    path.write_text(path.read_text() + '{"wav": "a.wav"}\n')
    dropped = read_corpus("emobox", tmp_path).dropped
    assert dropped[-1].where == "fold_1/small_test_fold_1.jsonl:3"
