from __future__ import annotations

from pathlib import Path

import pytest

from corpora.prepare import prepare
from corpora.readers.registry import Options, ReadResult, read_corpus
from tests.corpora.field_trees import MELD_HEADER, meld
from tests.corpora.tree_parts import write_lines, write_wav


def row(text: str = "Hi", dialogue: str = "0", number: str = "0", emotion: str = "joy") -> str:
    return f"1,{text},Joey,{emotion},positive,{dialogue},{number},8,21,a,b"


def read(
    root: Path, *rows: str, options: Options | None = None, encoding: str = "utf-8"
) -> ReadResult:
    """Read a training table of these rows."""
    write_lines(root / "train_sent_emo.csv", [MELD_HEADER, *rows], encoding)
    return read_corpus("meld", root, options)


def test_ids_of_different_splits_do_not_collide(tmp_path: Path) -> None:
    meld(tmp_path)
    utterances = {u.id: u for u in read_corpus("meld", tmp_path).utterances}
    assert len(utterances) == 21
    for split in ("train", "dev", "test"):
        utterance = utterances[f"{split}_dia0_utt3"]
        assert utterance.split == split
        assert split in utterance.audio.parent.name


def test_the_labels_are_emotions_or_sentiments(tmp_path: Path) -> None:
    assert read(tmp_path, row()).utterances[0].label == "joy"
    result = read(tmp_path, row(), options={"labels": "sentiments"})
    assert result.utterances[0].label == "positive"
    assert result.labels == ("negative", "neutral", "positive")


@pytest.mark.parametrize("encoding", ["utf-8", "cp1252"])
def test_quotes_of_windows_are_mended(tmp_path: Path, encoding: str) -> None:
    text = "It\x92s" if encoding == "utf-8" else "It’s"
    (utterance,) = read(tmp_path, row(text), encoding=encoding).utterances
    assert utterance.text == "It’s"


def test_commas_and_quotes_in_an_utterance_are_text(tmp_path: Path) -> None:
    (utterance,) = read(tmp_path, row('"Well, he said ""no"" to me"')).utterances
    assert utterance.text == 'Well, he said "no" to me'


def test_bad_rows_are_named_by_line_and_the_rest_is_kept(tmp_path: Path) -> None:
    rows = (row(), row('"Open'), row(emotion="hungry", number="2"), row(), row(number="../3"))
    result = read(tmp_path, *rows, row(number="4"))
    assert [u.id for u in result.utterances] == ["train_dia0_utt0", "train_dia0_utt4"]
    assert [item.where for item in result.dropped] == [
        f"train_sent_emo.csv:{line}" for line in (3, 4, 5, 6)
    ]
    reasons = " | ".join(item.reason for item in result.dropped)
    assert all(part in reasons for part in ("do not pair", "'hungry'", "twice", "not a number"))


@pytest.mark.parametrize("readable", [False, True])
def test_sound_is_preferred_and_video_alone_is_warned_about_where_it_cannot_be_read(
    readable: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("corpora.containers.available", lambda: readable)
    for name in ("dia0_utt0.mp4", "dia0_utt0.wav", "dia0_utt1.mp4"):
        write_wav(tmp_path / "train_splits" / name)
    result = read(tmp_path, row(), row(number="1"))
    assert [u.audio.suffix for u in result.utterances] == [".wav", ".mp4"]
    assert any("1 utterances have a video alone" in note for note in result.notes) != readable


def test_recordings_of_the_test_split_may_carry_its_long_name(tmp_path: Path) -> None:
    wav = write_wav(tmp_path / "output_repeated_splits_test" / "final_videos_testdia0_utt0.wav")
    write_lines(tmp_path / "test_sent_emo.csv", [MELD_HEADER, row()])
    assert read_corpus("meld", tmp_path).utterances[0].audio == wav


def test_the_official_splits_share_speakers_by_declaration(tmp_path: Path) -> None:
    meld(tmp_path / "corpus")
    report = prepare("meld", tmp_path / "corpus", tmp_path / "manifest.csv")
    assert any("share speakers" in note for note in report.notes)


def test_an_absent_split_is_said(tmp_path: Path) -> None:
    notes = read(tmp_path, row()).notes
    assert any("no dev_sent_emo.csv" in note for note in notes)
