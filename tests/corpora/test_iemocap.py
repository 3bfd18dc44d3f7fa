from __future__ import annotations

from pathlib import Path

import pytest

from corpora.readers.registry import Options, ReadResult, read_corpus
from tests.corpora.field_trees import iemocap, iemocap_turn
from tests.corpora.tree_parts import write_lines

EVALUATION = Path("Session1") / "dialog" / "EmoEvaluation" / "Ses01F_impro01.txt"


def read(root: Path, *lines: str, options: Options | None = None) -> ReadResult:
    """Read a dialog of these lines."""
    write_lines(root / EVALUATION, lines)
    return read_corpus("iemocap", root, options)


@pytest.mark.parametrize(
    ("turn", "speaker", "sex"),
    [
        ("Ses01F_impro01_M000", "Ses01M", "male"),
        ("Ses01M_script01_1_F012", "Ses01F", "female"),
        ("Ses05M_impro03_M001", "Ses05M", "male"),
        ("Ses03F_script02_2_FXX3", "Ses03F", "female"),
    ],
)
def test_the_speaker_is_named_by_the_last_field_not_by_who_wore_the_markers(
    tmp_path: Path, turn: str, speaker: str, sex: str
) -> None:
    (utterance,) = read(tmp_path, *iemocap_turn(turn, "neu")).utterances
    assert (utterance.speaker, utterance.sex) == (speaker, sex)
    assert utterance.session == turn[4]


def test_the_recording_lies_in_the_folder_of_its_dialog(tmp_path: Path) -> None:
    (utterance,) = read(tmp_path, *iemocap_turn("Ses01M_script01_1_F012", "neu")).utterances
    wav = "Session1/sentences/wav/Ses01M_script01_1/Ses01M_script01_1_F012.wav"
    assert utterance.audio == tmp_path / wav


def test_valence_comes_first_in_the_line(tmp_path: Path) -> None:
    (u,) = read(tmp_path, *iemocap_turn("Ses01F_impro01_F000", "neu")).utterances
    assert (u.valence, u.arousal, u.dominance) == (2.5, 3.0, 3.5)


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ("4", {"ang": 2, "hap": 4, "sad": 2, "neu": 2}),
        ("6", {"ang": 2, "hap": 2, "exc": 2, "sad": 2, "fru": 0, "neu": 2}),
        ("all", {"ang": 2, "hap": 2, "exc": 2, "sad": 2, "neu": 2, "fea": 0, "oth": 0}),
    ],
)
def test_the_set_of_labels_is_an_option(
    tmp_path: Path, labels: str, expected: dict[str, int]
) -> None:
    iemocap(tmp_path)
    result = read_corpus("iemocap", tmp_path, {"labels": labels})
    first = [u.label for u in result.utterances if u.session == "1"]
    assert {label: first.count(label) for label in expected} == expected
    assert set(expected) <= set(result.labels)


def test_votes_count_every_emotion_that_other_people_name(tmp_path: Path) -> None:
    lines = iemocap_turn("Ses01F_impro01_F000", "xxx", "Anger; Frustration;", "Excited;")
    lines[0] = lines[0].replace("xxx", "exc")
    (merged,) = read(tmp_path, *lines).utterances
    assert merged.votes == {"ang": 1.0, "fru": 1.0, "hap": 1.0}
    (apart,) = read(tmp_path, *lines, options={"labels": "6"}).utterances
    assert apart.votes == {"ang": 1.0, "fru": 1.0, "exc": 1.0}


def test_transcripts_are_attached_by_turn(tmp_path: Path) -> None:
    iemocap(tmp_path)
    utterances = read_corpus("iemocap", tmp_path).utterances
    assert {u.id: u.text for u in utterances}["Ses02F_impro01_M003"] == "Some words 3."


def test_bad_lines_are_named_by_file_and_line_and_the_rest_is_kept(tmp_path: Path) -> None:
    good = iemocap_turn("Ses01F_impro01_F000", "neu")
    bad = (
        "[1.0 - 2.0] Ses01F_impro01_F001 neu [2, 2, 2]",
        "[1.0 - 2.0]\tSes01F_impro01_F001\tneu\t[2, 2]",
        "[1.0 - 2.0]\t../../F001\tneu\t[2, 2, 2]",
    )
    result = read(tmp_path, *good, *bad)
    assert [u.id for u in result.utterances] == ["Ses01F_impro01_F000"]
    places = [f"{EVALUATION.as_posix()}:{n}" for n in range(len(good) + 1, len(good) + 4)]
    assert [item.where for item in result.dropped] == places


def test_reasons_tell_what_is_no_class_from_what_nobody_agrees_on(tmp_path: Path) -> None:
    codes = ("xxx", "fru", "zzz")
    lines = [f"[1.0 - 2.0]\tSes01F_impro01_F00{n}\t{c}\t[2, 2, 2]" for n, c in enumerate(codes)]
    reasons = [item.reason for item in read(tmp_path, *lines).dropped]
    assert "do not agree" in reasons[0]
    assert "labels=all keeps it" in reasons[1]
    assert "'zzz' is not one of" in reasons[2]


def test_the_folder_above_is_accepted_as_well(tmp_path: Path) -> None:
    expected = iemocap(tmp_path / "IEMOCAP_full_release")
    assert len(read_corpus("iemocap", tmp_path).utterances) == expected.utterances
