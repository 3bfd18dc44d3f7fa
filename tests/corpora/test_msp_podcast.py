from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from corpora.prepare import prepare
from corpora.readers.registry import Options, ReadResult, read_corpus
from tests.corpora.field_trees import MSP_HEADER, msp_podcast
from tests.corpora.tree_parts import write_lines

FILE = "MSP-PODCAST_9001_0001.wav"


def row(file: str = FILE, code: str = "N", part: str = "Train", speaker: str = "7") -> str:
    return f"{file},{code},3.2,4.0,5.5,{speaker},Female,{part}"


def read(root: Path, *rows: str, options: Options | None = None) -> ReadResult:
    """Read a consensus table of these rows."""
    write_lines(root / "Labels" / "labels_consensus.csv", [MSP_HEADER, *rows])
    return read_corpus("msp_podcast", root, options)


def by_split(result: ReadResult) -> dict[str, Counter[str]]:
    return {
        split: Counter(u.label for u in result.utterances if u.split == split)
        for split in ("train", "dev", "test", "")
    }


def test_a_row_becomes_an_utterance_with_all_that_is_known(tmp_path: Path) -> None:
    msp_podcast(tmp_path)
    u = read_corpus("msp_podcast", tmp_path).utterances[0]
    assert (u.id, u.label, u.split, u.speaker) == ("MSP-PODCAST_9000_0000", "angry", "train", "0")
    assert (u.arousal, u.valence, u.dominance) == (3.2, 4.777778, 5.0)
    assert (u.text, u.language, u.session, u.sex) == ("Well, Train.", "en", "9000", "male")
    assert u.alignment == tmp_path / "ForceAligned" / "MSP-PODCAST_9000_0000.TextGrid"
    assert u.votes == {"angry": 1.0}
    assert u.line == 2


def test_an_unknown_speaker_is_nobody(tmp_path: Path) -> None:
    assert read(tmp_path, row(speaker="Unknown")).utterances[0].speaker == ""


def test_other_and_no_agreement_are_left_out_by_default(tmp_path: Path) -> None:
    msp_podcast(tmp_path)
    result = read_corpus("msp_podcast", tmp_path)
    assert len(result.labels) == 8
    assert {u.label for u in result.utterances} == {*result.labels, ""}


def test_kept_extra_classes_stand_in_train_alone_behind_the_eight(tmp_path: Path) -> None:
    msp_podcast(tmp_path)
    result = read_corpus("msp_podcast", tmp_path, {"keep": "no_agreement,other"})
    assert result.labels[8:] == ("other", "no_agreement")
    found = by_split(result)
    assert {"other", "no_agreement"} <= found["train"].keys()
    assert not {"other", "no_agreement"} & (found["dev"] | found["test"]).keys()
    assert any("never" in item.reason for item in result.dropped)
    assert any("behind the eight" in note for note in result.notes)


@pytest.mark.parametrize(
    ("tests", "sessions"),
    [("Test1", {"9002"}), ("Test2", {"9003"}), ("Test1,Test2", {"9002", "9003"})],
)
def test_the_test_sets_are_an_option(tmp_path: Path, tests: str, sessions: set[str]) -> None:
    msp_podcast(tmp_path)
    result = read_corpus("msp_podcast", tmp_path, {"test": tests})
    assert {u.session for u in result.utterances if u.split == "test"} == sessions


def test_the_blind_test_set_is_kept_without_labels(tmp_path: Path) -> None:
    msp_podcast(tmp_path)
    blind = [u for u in read_corpus("msp_podcast", tmp_path).utterances if not u.label]
    assert [u.audio.name for u in blind] == [
        "MSP-PODCAST_test3_0000.wav",
        "MSP-PODCAST_test3_0001.wav",
    ]
    assert {u.split for u in blind} == {""}
    chosen = read_corpus("msp_podcast", tmp_path, {"test": "Test3"}).utterances
    assert [u.split for u in chosen if not u.label] == ["test", "test"]


def test_the_blind_test_set_is_found_by_its_recordings_too(tmp_path: Path) -> None:
    msp_podcast(tmp_path)
    (tmp_path / "Partitions.txt").unlink()
    assert sum(not u.label for u in read_corpus("msp_podcast", tmp_path).utterances) == 2


def test_the_blind_test_set_survives_prepare(tmp_path: Path) -> None:
    msp_podcast(tmp_path / "corpus")
    report = prepare("msp_podcast", tmp_path / "corpus", tmp_path / "manifest.csv")
    assert report.tally.counts[""][""] == 2


def test_partitions_stand_in_for_a_missing_column(tmp_path: Path) -> None:
    table = tmp_path / "Labels" / "labels_concensus.csv"
    write_lines(table, ["FileName,EmoClass", f"{FILE},H"])
    write_lines(tmp_path / "Partitions.txt", [f"Validation; {FILE}"])
    (utterance,) = read_corpus("msp_podcast", tmp_path).utterances
    assert (utterance.split, utterance.label, utterance.valence) == ("dev", "happy", None)


@pytest.mark.parametrize(
    "lines",
    [
        [
            "FileName,EmoDetail",
            f'{FILE},"WORKER00000001; Neutral; Neutral,Concerned; A:4; V:3; D:4;"',
            f"{FILE},WORKER00000002; Sad; Sad,Disappointed; A:4; V:3; D:4;",
            f"{FILE},WORKER00000003; Other-Bored; ; A:4; V:3; D:4;",
        ],
        [
            "FileName,Workers,EmoClass_Major,EmoClass_Second,EmoAct,EmoVal,EmoDom",
            f'{FILE},W1,Neutral,"Neutral,Concerned",4,3,4',
            f"{FILE},W2,Sad,,4,3,4",
            f"{FILE},W3,Other,,4,3,4",
        ],
    ],
)
def test_both_layouts_of_the_ratings_give_the_votes(tmp_path: Path, lines: list[str]) -> None:
    write_lines(tmp_path / "Labels" / "labels_detailed.csv", lines)
    (utterance,) = read(tmp_path, row()).utterances
    assert utterance.votes == {"neutral": 1.0, "sad": 1.0, "other": 1.0}


def test_ratings_in_words_of_their_own_are_counted_as_other_and_said(tmp_path: Path) -> None:
    lines = ["FileName,EmoClass_Major", f"{FILE},Dissapointed", f"{FILE},neutral"]
    write_lines(tmp_path / "Labels" / "labels_detailed.csv", lines)
    result = read(tmp_path, row())
    assert result.utterances[0].votes == {"neutral": 1.0, "other": 1.0}
    assert any("1 ratings in words" in note for note in result.notes)


def test_bad_rows_are_named_by_file_and_line_and_the_rest_is_kept(tmp_path: Path) -> None:
    ratings = ["FileName,EmoDetail", f"{FILE},no semicolon"]
    write_lines(tmp_path / "Labels" / "labels_detailed.csv", ratings)
    write_lines(tmp_path / "Partitions.txt", ["Test3 and nothing else"])
    bad = (
        row(code="Q"),
        row("b.wav", part="Test9"),
        row("c.wav").replace("4.0", "much"),
        row(""),
        "d.wav,N",
        row(),
        row(),
    )
    result = read(tmp_path, *bad, row("e.wav"))
    assert [u.id for u in result.utterances] == ["e"]
    assert [item.where for item in result.dropped] == [
        "Labels/labels_detailed.csv:2",
        "Partitions.txt:1",
        *(f"Labels/labels_consensus.csv:{line}" for line in (2, 3, 4, 5, 6, 7, 8)),
    ]


@pytest.mark.parametrize("file", ["../../x.wav", "/etc/x.wav", "..\\..\\x.wav"])
def test_a_file_name_does_not_lead_outside(tmp_path: Path, file: str) -> None:
    root = tmp_path / "corpus"
    result = read(root, row(file), row())
    assert [u.id for u in result.utterances] == [Path(FILE).stem]
    assert "leads outside" in result.dropped[0].reason
    allowed = read(root, row(file), options={"allow_outside": True})
    assert not allowed.utterances[0].audio.is_relative_to(root)


def test_a_partition_line_does_not_lead_outside(tmp_path: Path) -> None:
    write_lines(tmp_path / "corpus" / "Partitions.txt", ["Test3; ../../x.wav"])
    result = read(tmp_path / "corpus", row())
    assert len(result.utterances) == 1
    assert "leads outside" in result.dropped[0].reason


def test_texts_are_not_looked_for_one_by_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    monkeypatch.setattr("corpora.readers.msp_podcast.read_transcript", asked.append)
    read(tmp_path, row(), row("b.wav"))
    assert asked == []
