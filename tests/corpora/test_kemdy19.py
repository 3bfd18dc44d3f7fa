from __future__ import annotations

from pathlib import Path

import pytest

from corpora.base.errors import CorpusError
from corpora.readers.registry import Options, ReadResult, read_corpus
from tests.corpora.field_trees import KEMDY19_LOWER, KEMDY19_UPPER, kemdy19, kemdy19_row
from tests.corpora.tree_parts import write_lines

TABLE = Path("annotation") / "Session01_F_res.csv"


def read(root: Path, *rows: str, options: Options | None = None) -> ReadResult:
    """Read the women's table of these rows."""
    write_lines(root / TABLE, [KEMDY19_UPPER, KEMDY19_LOWER, *rows])
    return read_corpus("kemdy19", root, options)


def test_each_segment_comes_from_the_file_of_its_speaker(tmp_path: Path) -> None:
    for sex, valence in (("F", "2.5"), ("M", "4.5")):
        rows = [kemdy19_row(f"Sess01_impro01_{s}001", "happy") for s in "FM"]
        rows = [text.replace("2.5", valence) for text in rows]
        table = tmp_path / "annotation" / f"Session01_{sex}_res.csv"
        write_lines(table, [KEMDY19_UPPER, KEMDY19_LOWER, *rows])
    utterances = read_corpus("kemdy19", tmp_path).utterances
    assert {u.id[-4]: u.valence for u in utterances} == {"F": 2.5, "M": 4.5}


def test_ratings_labels_and_votes_stand_under_two_header_rows(tmp_path: Path) -> None:
    (u,) = read(tmp_path, kemdy19_row("Sess01_script02_F012", "disqust")).utterances
    assert (u.label, u.valence, u.arousal, u.dominance) == ("disgust", 2.5, 3.1, None)
    assert u.votes == {"angry": 1.0, "sad": 1.0}
    assert (u.speaker, u.sex, u.session, u.language) == ("Sess01F", "female", "1", "ko")
    assert u.audio == tmp_path / "wav/Session01/Sess01_script02/Sess01_script02_F012.wav"


def test_texts_are_cp949_or_utf8(tmp_path: Path) -> None:
    kemdy19(tmp_path)
    texts = {u.id: u.text for u in read_corpus("kemdy19", tmp_path).utterances}
    assert texts["Sess01_impro01_F001"] == texts["Sess01_impro01_M001"] == "괜찮아 1"


def test_a_table_in_cp949_is_read(tmp_path: Path) -> None:
    upper = KEMDY19_UPPER.replace("Numb", "번호")
    rows = [upper, KEMDY19_LOWER, kemdy19_row("Sess01_impro01_F001", "sad")]
    write_lines(tmp_path / TABLE, rows, "cp949")
    assert len(read_corpus("kemdy19", tmp_path).utterances) == 1


def test_a_tie_is_dropped_or_its_first_label_taken(tmp_path: Path) -> None:
    row = kemdy19_row("Sess01_impro01_F001", "sad;angry")
    (dropped,) = read(tmp_path, row).dropped
    assert dropped.where == f"{TABLE.as_posix()}:3"
    assert "ties" in dropped.reason
    (utterance,) = read(tmp_path, row, options={"ties": "first"}).utterances
    assert utterance.label == "angry"


def test_bad_rows_are_named_by_line_and_the_rest_is_kept(tmp_path: Path) -> None:
    good = kemdy19_row("Sess01_impro01_F001", "sad")
    rows = (
        kemdy19_row("Sess01_impro01_F002", "hungry"),
        kemdy19_row("../Sess01_impro01_F003", "sad"),
        good.replace("2.5", "high").replace("F001", "F004"),
        "1,2",
        good,
    )
    result = read(tmp_path, good, *rows)
    assert [u.id for u in result.utterances] == ["Sess01_impro01_F001"]
    assert [item.where for item in result.dropped] == [
        f"{TABLE.as_posix()}:{line}" for line in range(4, 9)
    ]


def test_a_missing_file_of_a_session_is_said(tmp_path: Path) -> None:
    notes = read(tmp_path, kemdy19_row("Sess01_impro01_F001", "sad")).notes
    assert any("has no session01_m_res.csv" in note for note in notes)


def test_a_header_without_the_outcome_is_refused(tmp_path: Path) -> None:
    write_lines(tmp_path / TABLE, ["Numb,Segment ID", ",", "1,Sess01_impro01_F001"])
    with pytest.raises(CorpusError, match="lacks the columns 'Segment ID' and 'Total Evaluation'"):
        read_corpus("kemdy19", tmp_path)
