from __future__ import annotations

from pathlib import Path

import pytest

from corpora.errors import CorpusError
from corpora.registry import read_corpus
from tests.corpora.fixture_trees import folders
from tests.corpora.tree_parts import write_lines, write_wav


def test_the_folder_is_the_label_and_the_one_below_it_the_speaker(tmp_path: Path) -> None:
    folders(tmp_path)
    utterance = read_corpus("folders", tmp_path, {"language": "en"}).utterances[0]
    assert (utterance.label, utterance.speaker, utterance.language) == ("angry", "anna", "en")
    assert utterance.corpus == tmp_path.name


def test_text_and_alignment_beside_a_recording_are_attached(tmp_path: Path) -> None:
    folders(tmp_path)
    utterances = {u.id: u for u in read_corpus("folders", tmp_path).utterances}
    utterance = utterances["anna_calm"]
    assert utterance.text == "Yes."
    assert utterance.alignment == utterance.audio.with_suffix(".TextGrid")


def test_folders_named_like_splits_at_the_top_are_splits(tmp_path: Path) -> None:
    for split in ("train", "Val", "test"):
        write_wav(tmp_path / split / "calm" / f"{split}.wav")
    found = {u.id: (u.split, u.label) for u in read_corpus("folders", tmp_path).utterances}
    expected = {"train": "train", "Val": "dev", "test": "test"}
    assert found == {name: (split, "calm") for name, split in expected.items()}


@pytest.mark.parametrize(("how", "speaker"), [("prefix", "s7"), ("unknown", ""), ("folder", "")])
def test_who_speaks_is_an_option(tmp_path: Path, how: str, speaker: str) -> None:
    write_wav(tmp_path / "calm" / "s7_01.wav")
    assert read_corpus("folders", tmp_path, {"speaker": how}).utterances[0].speaker == speaker


def test_one_name_in_two_folders_gives_two_ids(tmp_path: Path) -> None:
    for label in ("calm", "angry"):
        write_wav(tmp_path / label / "01.wav")
    ids = [u.id for u in read_corpus("folders", tmp_path).utterances]
    assert ids == ["angry/01", "calm/01"]


def test_recordings_in_no_folder_are_named(tmp_path: Path) -> None:
    write_wav(tmp_path / "stray.wav")
    with pytest.raises(CorpusError, match="a folder for each label"):
        read_corpus("folders", tmp_path)


def test_a_text_in_any_encoding_is_read(tmp_path: Path) -> None:
    write_wav(tmp_path / "calm" / "a.wav")
    write_lines(tmp_path / "calm" / "a.txt", ["Öl  und", "Essig"], "cp1252")
    assert read_corpus("folders", tmp_path).utterances[0].text == "Öl und Essig"
