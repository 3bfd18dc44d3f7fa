from __future__ import annotations

from pathlib import Path

import pytest

from corpora.base.errors import CorpusError
from corpora.readers.registry import read_corpus
from tests.corpora.list_trees import kaldi
from tests.corpora.tree_parts import write_lines, write_wav


def test_segments_text_speaker_and_sex_are_joined(tmp_path: Path) -> None:
    kaldi(tmp_path)
    write_lines(tmp_path / "utt2gender", ["ben-0 f"])
    first, second, third, *_ = read_corpus("kaldi", tmp_path).utterances
    assert (third.speaker, third.sex) == ("ben", "female")
    assert (first.id, first.start, first.end) == ("anna-0", 0.0, 0.1)
    assert (second.start, second.end) == (0.1, None)  # -1 is the recording's end
    assert (first.text, first.speaker, first.sex) == ("yes  anna", "anna", "female")
    assert first.audio == tmp_path / "wav" / "anna.wav"


def test_no_command_is_run_and_no_archive_opened(tmp_path: Path) -> None:
    lines = ["one touch ran; cat a.wav |", "two a.ark:17", "three a.wav"]
    write_lines(tmp_path / "wav.scp", lines)
    result = read_corpus("kaldi", tmp_path)
    assert [u.id for u in result.utterances] == ["three"]
    command, archive = result.dropped
    assert command.where == "wav.scp:1 (utterance 'one')"
    assert "no command is run here" in command.reason
    assert "archive" in archive.reason
    assert not (tmp_path / "ran").exists()


def test_commands_alone_are_refused(tmp_path: Path) -> None:
    write_lines(tmp_path / "wav.scp", ["one cat a.wav |"])
    with pytest.raises(CorpusError, match=r"no row that can be used .* no command is run here"):
        read_corpus("kaldi", tmp_path)


def test_folders_named_like_splits_are_read_together(tmp_path: Path) -> None:
    for name in ("train", "dev", "test", "local"):
        write_lines(tmp_path / name / "wav.scp", [f"{name}1 a.wav"])
    result = read_corpus("kaldi", tmp_path)
    assert [(u.id, u.split) for u in result.utterances] == [
        ("dev1", "dev"), ("test1", "test"), ("train1", "train"),
    ]  # fmt: skip
    assert [one.where for one in result.dropped] == ["local"]


def test_an_utterance_that_is_its_own_speaker_has_none(tmp_path: Path) -> None:
    write_lines(tmp_path / "wav.scp", ["one a.wav"])
    write_lines(tmp_path / "utt2spk", ["one one"])
    assert read_corpus("kaldi", tmp_path).utterances[0].speaker == ""


@pytest.mark.parametrize(
    ("segment", "reason"),
    [
        ("u a 0", "3 fields, expected"),
        ("u a 0 1 1", "5 fields, expected"),
        ("u b 0 1", "does not list its recording"),
        ("u a 2 1", "is not after start"),
        ("u a x 1", "is not a number"),
    ],
)
def test_a_segment_that_cannot_be_used_is_named(tmp_path: Path, segment: str, reason: str) -> None:
    write_lines(tmp_path / "wav.scp", ["a a.wav"])
    write_lines(tmp_path / "segments", ["good a 0 1", segment])
    (dropped,) = read_corpus("kaldi", tmp_path).dropped
    assert dropped.where == "segments:2 (utterance 'u')"
    assert reason in dropped.reason


def test_a_key_that_stands_twice_is_refused(tmp_path: Path) -> None:
    write_lines(tmp_path / "wav.scp", ["a a.wav", "a b.wav"])
    with pytest.raises(CorpusError, match="line 2: a stands there twice"):
        read_corpus("kaldi", tmp_path)


def test_relative_paths_start_at_the_base(tmp_path: Path) -> None:
    write_lines(tmp_path / "data" / "wav.scp", ["a wav/a.wav", "b /abs/b.wav"])
    for options, expected in (({}, tmp_path / "data"), ({"base": str(tmp_path)}, tmp_path)):
        first, second = read_corpus("kaldi", tmp_path / "data", options).utterances
        assert (first.audio, second.audio) == (expected / "wav" / "a.wav", Path("/abs/b.wav"))


def test_recordings_that_were_moved_are_found_by_name(tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    for name in ("s1/a.wav", "s2/a.wav", "b.wav"):
        write_wav(moved / name)
    lines = ["a /old/s2/a.wav", "b /old/s2/b.wav", "c /old/a.wav", "d /old/d.wav"]
    write_lines(tmp_path / "data" / "wav.scp", lines)
    result = read_corpus("kaldi", tmp_path / "data", {"audio": str(moved)})
    assert [u.audio for u in result.utterances] == [
        moved / "s2" / "a.wav", moved / "b.wav", moved / "d.wav",
    ]  # fmt: skip
    (twice,) = result.dropped
    assert "2 recordings of this name" in twice.reason
