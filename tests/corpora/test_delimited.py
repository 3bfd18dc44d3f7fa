from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from corpora.base.encodings import encoding_of, read_transcript
from corpora.base.errors import CorpusError
from corpora.readers.delimited import LONGEST_CELL, lines_of_cells, named_rows
from corpora.readers.registry import Dropped

CELL = st.text(st.characters(codec="utf-8", exclude_characters="\r\x00"), max_size=8)


def cells(path: Path, text: str) -> list[tuple[int, list[str] | None]]:
    path.write_text(text, encoding="utf-8", newline="")
    return list(lines_of_cells(path))


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(st.lists(CELL, min_size=2, max_size=3), max_size=5))
def test_what_a_csv_writer_wrote_is_read_back(tmp_path: Path, rows: list[list[str]]) -> None:
    out = io.StringIO(newline="")
    csv.writer(out, quoting=csv.QUOTE_ALL).writerows(rows)
    found = [row for _, row in cells(tmp_path / "t.csv", out.getvalue())]
    assert found == [row for row in rows if any(row)]


def test_a_cell_with_line_ends_counts_as_its_lines(tmp_path: Path) -> None:
    found = cells(tmp_path / "t.csv", 'a,"b\n\nc"\nd,e\n')
    assert found == [(1, ["a", "b\n\nc"]), (4, ["d", "e"])]


@pytest.mark.parametrize("rows", [1, 3, LONGEST_CELL + 5])
def test_an_open_quotation_mark_costs_its_own_row_alone(tmp_path: Path, rows: int) -> None:
    good = [f"{n},x" for n in range(rows)]
    found = cells(tmp_path / "t.csv", "\n".join(["h,i", '"open,x', *good]) + "\n")
    assert found[:2] == [(1, ["h", "i"]), (2, None)]
    assert found[2:] == [(n + 3, [str(n), "x"]) for n in range(rows)]


def test_many_broken_rows_are_each_named(tmp_path: Path) -> None:
    found = cells(tmp_path / "t.csv", 'a"b",c"\n"x"y,z\n' * 500)
    assert [line for line, row in found if row is None] == list(range(2, 1001, 2))


@pytest.mark.parametrize(
    ("first", "mark"),
    [("sep=;\n", ";"), ("\ufeffSEP=\t\r\n", "\t"), ('"sep=|"\n', "|"), ("sep=,\n", ","), ("", ",")],
)
def test_the_separator_that_a_table_tells_excel_is_its_own(
    tmp_path: Path, first: str, mark: str
) -> None:
    found = cells(tmp_path / "t.csv", f"{first}h{mark}i\n1{mark}'2,5'\n")
    line = 2 if first else 1
    assert found[0] == (line, ["h", "i"])
    assert found[1] == (line + 1, ["1", *(["'2", "5'"] if mark == "," else ["'2,5'"])])


def test_columns_are_picked_by_name_and_absent_ones_are_empty(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("B, a ,C\n1 ,2,3\n4,5\n", encoding="utf-8")
    dropped: list[Dropped] = []
    rows = list(named_rows(path, tmp_path, ("A",), dropped, optional=("d", "c")))
    assert rows == [(2, ["2", "", "3"])]
    assert dropped == [Dropped("t.csv:3", "2 cells where the header has 3")]


def test_a_missing_column_is_named_with_those_found(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("x,y\n1,2\n", encoding="utf-8")
    with pytest.raises(CorpusError, match=r"no column FileName.*Columns found: x, y"):
        list(named_rows(path, tmp_path, ("FileName", "x"), []))


def test_an_encoding_is_known_by_the_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(b"a" * (1 << 20) + "ö".encode("cp1252"))
    assert encoding_of(path) == "cp1252"
    with pytest.raises(CorpusError, match="not text in any of ascii"):
        encoding_of(path, ("ascii",))


def test_the_beginning_of_a_mark_is_no_utf_8(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(b"\xef\xbb")
    assert encoding_of(path) == "cp1252"
    with pytest.raises(CorpusError, match="not text in any of utf-8-sig"):
        encoding_of(path, ("utf-8-sig",))


def test_a_character_cut_by_a_chunk_is_no_error(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(b"a" * ((1 << 20) - 1) + "ö".encode())
    assert encoding_of(path) == "utf-8-sig"


@pytest.mark.parametrize(
    ("data", "text"),
    [
        ("\ufeffJa,\r\n nein ".encode(), "Ja, nein"),
        ("“Öl”".encode("cp1252"), "“Öl”"),
        (b"a\x81\xff", "a\ufffd\ufffd"),
        ("Ja, nein".encode("utf-16"), "Ja, nein"),
        ("Ja, nein".encode("utf-16-le"), "Ja, nein"),
        ("안녕 하세요".encode("cp949"), "안녕 하세요"),
        (b"word " * 40_000, "word " * 39_999 + "word"),
        (b"", ""),
    ],
)
def test_a_transcript_is_its_words(tmp_path: Path, data: bytes, text: str) -> None:
    path = tmp_path / "t.txt"
    path.write_bytes(data)
    assert read_transcript(path) == text


def test_an_absent_transcript_is_empty(tmp_path: Path) -> None:
    assert read_transcript(tmp_path / "t.txt") == ""
