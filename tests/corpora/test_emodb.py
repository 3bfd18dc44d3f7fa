from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path

import pytest

from corpora.base.errors import ManifestError
from corpora.readers.emodb import SENTENCES
from corpora.readers.registry import read_corpus
from tests.corpora.fixture_trees import write_textgrid, write_wav

REAL = Path(__file__).parents[2].parent / "shared" / "data" / "emodb"
needs_data = pytest.mark.skipif(not REAL.is_dir(), reason=f"no recordings at {REAL.parent}")


def test_the_name_tells_speaker_sentence_and_emotion(tmp_path: Path) -> None:
    write_wav(tmp_path / "deep" / "down" / "08b09Ec.wav")
    (utterance,) = read_corpus("emodb", tmp_path).utterances
    assert utterance.id == "08b09Ec"
    assert (utterance.speaker, utterance.sex) == ("08", "female")
    assert (utterance.label, utterance.language) == ("disgust", "de")
    assert utterance.text == "Ich will das eben wegbringen und dann mit Karl was trinken gehen."


def test_a_textgrid_of_the_same_name_anywhere_is_the_alignment(tmp_path: Path) -> None:
    write_wav(tmp_path / "wav" / "03a01Fa.wav")
    write_wav(tmp_path / "wav" / "03a02Fa.wav")
    grid = write_textgrid(tmp_path / "some" / "where" / "03a01Fa.TextGrid")
    first, second = read_corpus("emodb", tmp_path).utterances
    assert (first.alignment, second.alignment) == (grid, None)


def test_an_unknown_emotion_letter_is_dropped_and_named(tmp_path: Path) -> None:
    write_wav(tmp_path / "03a01Fa.wav")
    write_wav(tmp_path / "odd" / "03a01Qa.wav")
    result = read_corpus("emodb", tmp_path)
    assert len(result.utterances) == 1
    (dropped,) = result.dropped
    assert dropped.where == "odd/03a01Qa.wav"
    assert "letter Q is not one of W L E A F T N" in dropped.reason


def test_an_unknown_sentence_keeps_the_utterance_without_a_text(tmp_path: Path) -> None:
    write_wav(tmp_path / "03a99Fa.wav")
    result = read_corpus("emodb", tmp_path)
    assert result.utterances[0].text == ""
    assert any("a99" in note for note in result.notes)


def test_the_same_recording_in_two_folders_names_both(tmp_path: Path) -> None:
    paths = [write_wav(tmp_path / folder / "03a01Fa.wav") for folder in ("one", "two")]
    with pytest.raises(ManifestError, match="'03a01Fa' is used twice") as error:
        read_corpus("emodb", tmp_path)
    assert all(str(path) in str(error.value) for path in paths)


def test_hidden_files_are_no_recordings(tmp_path: Path) -> None:
    write_wav(tmp_path / "03a01Fa.wav")
    (tmp_path / "._03a01Fa.wav").touch()
    assert read_corpus("emodb", tmp_path).dropped == ()


@needs_data
def test_the_real_recordings_have_the_counts_of_their_readme() -> None:
    result = read_corpus("emodb", REAL)
    assert len(result.utterances) == 381
    assert result.dropped == ()
    assert sum(u.alignment is not None for u in result.utterances) == 378
    assert Counter(u.label for u in result.utterances) == {
        "anger": 109, "boredom": 15, "disgust": 29, "fear": 56,
        "happiness": 71, "sadness": 22, "neutral": 79,
    }  # fmt: skip


@needs_data
def test_the_real_recordings_agree_with_their_metadata_row_by_row() -> None:
    with (REAL / "derived" / "metadata.tsv").open(encoding="utf-8", newline="") as file:
        rows = {row["utt"]: row for row in csv.DictReader(file, delimiter="\t")}
    found = {u.id: u for u in read_corpus("emodb", REAL).utterances}
    assert found.keys() == rows.keys()
    for name, row in rows.items():
        utterance = found[name]
        assert utterance.label == row["emotion"]
        assert (utterance.speaker, utterance.sex) == (row["speaker"], row["gender"])
        assert utterance.text == row["text"] == SENTENCES[row["text_code"]]
