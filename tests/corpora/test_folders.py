from __future__ import annotations

import unicodedata
from pathlib import Path

import numpy as np
import pytest
import soundfile

from corpora import containers
from corpora.base.errors import CorpusError
from corpora.prepare import prepare
from corpora.readers.registry import read_corpus
from corpora.readers.tree import SUFFIXES
from corpora.sound_file import open_sound
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


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_recordings_of_every_format_that_is_read_are_taken(tmp_path: Path, suffix: str) -> None:
    formats = {".wave": "WAV", ".oga": "OGG", ".opus": "OGG", ".aif": "AIFF", ".aifc": "AIFF"}
    formats |= {".snd": "AU", ".sph": "NIST"}
    path = tmp_path / "calm" / f"a{suffix.upper()}"
    path.parent.mkdir()
    kind = formats.get(suffix, suffix[1:].upper())
    soundfile.write(
        path, np.zeros(16_000), 16_000, format=kind, subtype="OPUS" if suffix == ".opus" else None
    )
    assert [u.audio for u in read_corpus("folders", tmp_path).utterances] == [path]
    with open_sound(path) as sound:
        assert sound.seconds == pytest.approx(1, abs=0.1)


def test_recordings_of_formats_that_are_not_read_are_named_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(containers, "available", lambda: False)
    write_wav(tmp_path / "calm" / "a.wav")
    for name in ("a.mp4", "b.M4A", "c.amr", ".d.m4a", "e.jpg"):  # the first was converted already
        (tmp_path / "calm" / name).write_bytes(b"sound")
    result = read_corpus("folders", tmp_path)
    assert [u.id for u in result.utterances] == ["a"]
    convert = "convert it to WAV or FLAC (ffmpeg -i IN OUT.wav)"
    assert [(one.where, one.reason) for one in result.dropped] == [
        (
            "calm/b.M4A",
            f".m4a is not read: install the package av ({containers.INSTALL}), or {convert}",
        ),
        ("calm/c.amr", f".amr is not read: {convert}"),
    ]
    (tmp_path / "calm" / "a.wav").unlink()
    with pytest.raises(CorpusError, match=r"3 recordings, such as calm/a\.mp4, .*ffmpeg"):
        read_corpus("folders", tmp_path)


def test_a_text_in_any_encoding_is_read(tmp_path: Path) -> None:
    write_wav(tmp_path / "calm" / "a.wav")
    write_lines(tmp_path / "calm" / "a.txt", ["Öl  und", "Essig"], "cp1252")
    assert read_corpus("folders", tmp_path).utterances[0].text == "Öl und Essig"


def found(root: Path) -> set[tuple[str, str, str]]:
    utterances = read_corpus("folders", root).utterances
    return {(u.split, u.label, u.speaker) for u in utterances}


@pytest.mark.parametrize("names", [("train", "devel", "test"), ("Train", "valid", "Test1")])
def test_folders_named_like_splits_are_no_classes(tmp_path: Path, names: tuple[str, ...]) -> None:
    for name in names:
        for label in ("angry", "calm"):
            write_wav(tmp_path / name / label / "ann" / f"{name}_{label}.wav")
    write_wav(tmp_path / "extra" / "x.wav")
    assert found(tmp_path) == {
        (split, label, "ann") for split in ("train", "dev", "test") for label in ("angry", "calm")
    }
    result = read_corpus("folders", tmp_path)
    assert [(one.where, one.reason) for one in result.dropped] == [
        ("extra/x.wav", "not in the folder of a split")
    ]
    assert "Names of splits" in " ".join(result.notes)


def test_splits_may_lie_in_the_folders_of_labels(tmp_path: Path) -> None:
    for label in ("angry", "calm"):
        for name in ("train", "eval", "test"):
            write_wav(tmp_path / label / name / f"{name}_{label}.wav")
    expected = {(s, label, "") for s in ("train", "dev", "test") for label in ("angry", "calm")}
    assert found(tmp_path) == expected


def test_one_folder_named_like_a_split_among_others_is_refused(tmp_path: Path) -> None:
    for label in ("angry", "calm", "test"):
        write_wav(tmp_path / label / "a.wav")
    with pytest.raises(CorpusError, match=r"holds test, named like a split, beside angry, calm"):
        read_corpus("folders", tmp_path)


def test_a_folder_named_none_is_no_class(tmp_path: Path) -> None:
    for label in ("angry", "None"):
        write_wav(tmp_path / label / "a.wav")
    result = read_corpus("folders", tmp_path)
    assert result.labels == ("angry",)
    assert {u.label for u in result.utterances} == {"angry", ""}
    assert any("the label 'None' of 1 utterances" in note for note in result.notes)


def test_names_from_paths_have_one_spelling_and_paths_stay(tmp_path: Path) -> None:
    apart = unicodedata.normalize("NFD", "José")
    write_wav(tmp_path / "calm" / "José" / "a.wav")
    path = write_wav(tmp_path / "calm" / apart / "b.wav")
    utterances = read_corpus("folders", tmp_path).utterances
    assert {u.speaker for u in utterances} == {"José"}
    assert path in {u.audio for u in utterances}


def test_how_to_name_speakers_speaks_of_folders(tmp_path: Path) -> None:
    for label in ("angry", "calm"):
        for number in range(3):
            write_wav(tmp_path / "c" / label / f"{number}.wav")
    report = prepare("folders", tmp_path / "c", tmp_path / "w" / "manifest.csv")
    told = " ".join(report.notes)
    assert "Put a folder for each speaker between label and recording" in told
    assert "column" not in told


def test_the_corpus_and_its_language_have_names(tmp_path: Path) -> None:
    folders(tmp_path)
    options = {"corpus": "mine", "language": "no"}
    (utterance, *_) = read_corpus("folders", tmp_path, options).utterances
    assert (utterance.corpus, utterance.language) == ("mine", "no")
