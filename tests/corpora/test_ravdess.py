from __future__ import annotations

import csv
from pathlib import Path

import pytest

from corpora.readers.registry import read_corpus
from tests.corpora.fixture_trees import write_wav

REAL = (Path(__file__).parents[2].parent / "shared" / "data" / "ravdess").resolve()
needs_data = pytest.mark.skipif(not REAL.is_dir(), reason=f"no recordings at {REAL.parent}")


def test_the_name_tells_emotion_statement_and_actor(tmp_path: Path) -> None:
    write_wav(tmp_path / "Actor_12" / "03-01-06-02-02-01-12.wav")
    (utterance,) = read_corpus("ravdess", tmp_path).utterances
    assert utterance.id == "03-01-06-02-02-01-12"
    assert (utterance.label, utterance.language) == ("fearful", "en")
    assert (utterance.speaker, utterance.sex) == ("12", "female")
    assert utterance.text == "Dogs are sitting by the door."


def test_odd_actors_are_male(tmp_path: Path) -> None:
    write_wav(tmp_path / "Actor_07" / "03-01-01-01-01-01-07.wav")
    assert read_corpus("ravdess", tmp_path).utterances[0].sex == "male"


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("03-02-01-01-01-01-01", "song, not speech"),
        ("01-01-01-01-01-01-01", "not audio-only (modality 01"),
        ("03-01-09-01-01-01-01", "emotion code 09"),
        ("03-01-01-01-01-01-02", "another actor than the folder"),
        ("take two", "not named like"),
    ],
)
def test_other_recordings_are_dropped_with_a_reason(tmp_path: Path, name: str, reason: str) -> None:
    write_wav(tmp_path / "Actor_01" / "03-01-01-01-01-01-01.wav")
    write_wav(tmp_path / "Actor_01" / f"{name}.wav")
    result = read_corpus("ravdess", tmp_path)
    (dropped,) = result.dropped
    assert dropped.where == f"Actor_01/{name}.wav"
    assert reason in dropped.reason


def test_actor_folders_at_the_top_hide_their_copies_below(tmp_path: Path) -> None:
    name = Path("Actor_01") / "03-01-01-01-01-01-01.wav"
    top = write_wav(tmp_path / name)
    write_wav(tmp_path / "audio_speech_actors_01-24" / name)
    assert [u.audio for u in read_corpus("ravdess", tmp_path).utterances] == [top]


def test_actor_folders_one_level_down_are_found(tmp_path: Path) -> None:
    write_wav(tmp_path / "Audio_Speech_Actors_01-24" / "Actor_01" / "03-01-01-01-01-01-01.wav")
    assert len(read_corpus("ravdess", tmp_path).utterances) == 1


@needs_data
def test_the_real_recordings_agree_with_their_metadata() -> None:
    with (REAL / "metadata.tsv").open(encoding="utf-8", newline="") as file:
        rows = {row["utt"]: row for row in csv.DictReader(file, delimiter="\t")}
    result = read_corpus("ravdess", REAL)
    assert len(result.utterances) == 240
    assert result.dropped == ()
    found = {
        u.id: (u.label, u.speaker, u.sex, u.text, u.audio.relative_to(REAL).as_posix())
        for u in result.utterances
    }
    assert found == {
        name: (row["emotion"], row["speaker"], row["gender"], row["text"], row["path"])
        for name, row in rows.items()
    }
