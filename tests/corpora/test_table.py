from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from corpora.base.errors import ConfigError, CorpusError, ManifestError
from corpora.readers.registry import Options, ReadResult, read_corpus


def read(
    folder: Path, text: str, name: str = "t.csv", options: Options | None = None
) -> ReadResult:
    (folder / name).write_text(text, encoding="utf-8")
    return read_corpus("csv", folder, options)


@pytest.mark.parametrize("mark", [",", ";", "\t", "|"])
def test_the_separator_is_found(tmp_path: Path, mark: str) -> None:
    text = "audio,label,text\na.wav,sad,x\n".replace(",", mark)
    (utterance,) = read(tmp_path, text).utterances
    assert (utterance.label, utterance.text) == ("sad", "x")


def test_columns_are_taken_by_name_in_any_case(tmp_path: Path) -> None:
    header = "Label,Mood,AUDIO,Speaker,Sex,Start,End,Valence,Votes,Fold,Session,Language"
    row = "sad,?,x/a.wav,ann,F,0.5,2,3.5,sad:2;joy:1,1,s1,en"
    (u,) = read(tmp_path, f"{header}\n{row}\n").utterances
    assert (u.id, u.audio, u.label, u.speaker) == ("a", tmp_path / "x" / "a.wav", "sad", "ann")
    assert (u.sex, u.start, u.end, u.valence) == ("female", 0.5, 2.0, 3.5)
    assert u.votes == {"sad": 2.0, "joy": 1.0}
    assert (u.fold, u.session, u.language, u.corpus) == ("1", "s1", "en", tmp_path.name)


def test_the_table_itself_may_be_the_root(tmp_path: Path) -> None:
    (tmp_path / "other.csv").touch()
    (tmp_path / "mine.txt").write_text("audio,label\na.wav,sad\n")
    result = read_corpus("csv", tmp_path / "mine.txt")
    assert result.utterances[0].audio == tmp_path / "a.wav"
    assert result.tables == (tmp_path / "mine.txt",)


def test_several_tables_in_the_root_are_listed(tmp_path: Path) -> None:
    for name in ("one.csv", "two.tsv", ".hidden.csv"):
        (tmp_path / name).touch()
    with pytest.raises(CorpusError, match=r"2 tables: one\.csv, two\.tsv"):
        read_corpus("csv", tmp_path)


@pytest.mark.parametrize("header", ["audio,emotion", "file,label", "x;y"])
def test_a_missing_column_is_named_with_those_found(tmp_path: Path, header: str) -> None:
    with pytest.raises(CorpusError, match=r"no column (audio|label)") as error:
        read(tmp_path, f"{header}\na.wav,sad\n")
    assert all(name in str(error.value) for name in header.replace(";", ",").split(","))


def test_an_empty_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="is empty"):
        read(tmp_path, "\n")


def test_windows_text_is_read_and_reported(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes("audio,label,text\na.wav,sad,“Öl”\n".encode("cp1252"))
    result = read_corpus("csv", tmp_path)
    assert result.utterances[0].text == "“Öl”"
    assert any("read as cp1252" in note for note in result.notes)


def test_a_byte_order_mark_is_no_part_of_a_name(tmp_path: Path) -> None:
    assert len(read(tmp_path, "\ufeffaudio,label\na.wav,sad\n").utterances) == 1


def test_lone_quotation_marks_in_a_tab_table_are_text(tmp_path: Path) -> None:
    text = 'audio\tlabel\ttext\na.wav\tsad\t"Oh\nb.wav\tsad\tno\n'
    result = read(tmp_path, text, name="t.tsv")
    assert [u.text for u in result.utterances] == ['"Oh', "no"]
    assert any("quotation marks" in note for note in result.notes)


def test_an_open_quotation_mark_in_a_comma_table_names_its_line(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="line 3"):
        read(tmp_path, 'audio,label\na.wav,sad\n"b.wav,sad\nc.wav,sad\n')


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("bad.wav,sad,2,1,", "end 1 is not after start 2"),
        ("bad.wav,sad,-1,1,", "start -1 is negative"),
        ("bad.wav,sad,0,soon,", "end 'soon' is not a number"),
        ("bad.wav,sad,,,blind", "split 'blind' is not one of"),
        (",sad,,,", "audio is empty"),
        ("bad.wav,sad", "2 cells where the header has 5"),
        ("../bad.wav,sad,,,", "leads outside"),
        ("a/../../bad.wav,sad,,,", "leads outside"),
        ("..\\bad.wav,sad,,,", "leads outside"),
        ("/etc/bad.wav,sad,,,", "leads outside"),
    ],
)
def test_a_bad_row_is_dropped_with_line_and_reason_and_the_rest_is_kept(
    tmp_path: Path, row: str, reason: str
) -> None:
    result = read(tmp_path, f"audio,label,start,end,split\na.wav,sad,,,\n{row}\nb.wav,sad,,,\n")
    assert [u.id for u in result.utterances] == ["a", "b"]
    (dropped,) = result.dropped
    assert dropped.where == "t.csv:3"
    assert reason in dropped.reason


def test_a_table_of_bad_rows_alone_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"no row that can be used .*t\.csv:2: end 1"):
        read(tmp_path, "audio,label,start,end\na.wav,sad,2,1\n")


def test_paths_may_lead_outside_when_allowed(tmp_path: Path) -> None:
    (tmp_path / "lists").mkdir()
    text = f"audio,label\n../wav/a.wav,sad\n{tmp_path}/b.wav,sad\n"
    result = read(tmp_path / "lists", text, options={"allow_outside": True})
    assert [u.audio for u in result.utterances] == [tmp_path / "wav" / "a.wav", tmp_path / "b.wav"]


def test_an_absolute_path_inside_the_folder_is_fine(tmp_path: Path) -> None:
    result = read(tmp_path, f"audio,label\n{tmp_path}/x/../a.wav,sad\n")
    assert result.utterances[0].audio == tmp_path / "a.wav"


@pytest.mark.parametrize(
    ("rows", "ids"),
    [
        (("x/a.wav", "y/b.wav"), ["a", "b"]),
        (("x/a.wav", "y/a.wav"), ["x/a", "y/a"]),
        (("x/a.wav", "x/a.flac"), ["x/a.wav", "x/a.flac"]),
        (("a.wav,0,1.5", "a.wav,1.5,3"), ["a_0-1.5", "a_1.5-3"]),
        (("a.wav,,1.5", "a.wav,1.5,"), ["a_0-1.5", "a_1.5-end"]),
    ],
)
def test_ids_come_from_the_paths_in_their_shortest_unique_form(
    tmp_path: Path, rows: tuple[str, ...], ids: list[str]
) -> None:
    lines = [f"sad,{row}" + ",," * ("," not in row) for row in rows]
    result = read(tmp_path, "label,audio,start,end\n" + "\n".join(lines) + "\n")
    assert [u.id for u in result.utterances] == ids


@pytest.mark.parametrize(
    "text", ["audio,label\na.wav,sad\na.wav,joy\n", "id,audio,label\nq,a,x\nq,b,x\n"]
)
def test_a_duplicate_names_both_lines(tmp_path: Path, text: str) -> None:
    with pytest.raises(ManifestError, match=r"used twice: .*\(line 2\) and .*\(line 3\)"):
        read(tmp_path, text)


def test_usual_names_of_splits_are_understood(tmp_path: Path) -> None:
    names = ("Train", "validation", "Development", "test", "")
    text = "audio,label,split\n" + "".join(f"{k}.wav,sad,{n}\n" for k, n in enumerate(names))
    found = [u.split for u in read(tmp_path, text).utterances]
    assert found == ["train", "dev", "dev", "test", ""]


def test_another_sex_is_kept_as_not_known_and_reported(tmp_path: Path) -> None:
    result = read(tmp_path, "audio,label,sex\na.wav,sad,diverse\nb.wav,sad,m\n")
    assert [u.sex for u in result.utterances] == ["", "male"]
    assert any("diverse" in note for note in result.notes)


def test_a_switch_that_is_neither_true_nor_false_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'maybe', expected true or false"):
        read(tmp_path, "audio,label\na.wav,sad\n", options={"allow_outside": "maybe"})


def test_a_header_without_rows_says_so(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="it has no rows"):
        read(tmp_path, "audio,label\n")


@pytest.mark.parametrize("row", ["q,a.wav,sad,-1", "q,a.wav,sad"])
def test_a_row_left_out_is_named_by_line_and_utterance(tmp_path: Path, row: str) -> None:
    result = read(tmp_path, f"id,audio,label,start\nx,b.wav,sad,\n{row}\n")
    assert [item.where for item in result.dropped] == ["t.csv:3 (utterance 'q')"]


def test_a_path_outside_names_the_setting_that_permits_it(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="--set allow_outside=true"):
        read(tmp_path, "audio,label\n../a.wav,sad\n")


def test_json_lines_are_a_table_too(tmp_path: Path) -> None:
    lines = (
        '{"audio": "a.wav", "label": "sad", "start": 0.5, "votes": {"sad": 2, "joy": 1}, "x": [1]}',
        '{"audio": "b.wav", "label": "joy", "speaker": 7, "text": "None"}',
        "{broken",
        '{"audio": "c.wav", "label": ["joy"]}',
        '["audio"]',
    )
    result = read(tmp_path, "\n".join(lines), name="t.jsonl")
    first, second = result.utterances
    assert (first.start, first.votes, first.speaker) == (0.5, {"sad": 2.0, "joy": 1.0}, "")
    assert (second.start, second.speaker, second.text) == (None, "7", "None")
    assert [(one.where, one.reason) for one in result.dropped] == [
        ("t.jsonl:3", "not a JSON object"),
        ("t.jsonl:4", "label is a list or an object, expected text or a number"),
        ("t.jsonl:5", "not a JSON object"),
    ]
    assert result.notes == ("Columns not used: x.",)


def test_packed_json_lines_take_columns_of_other_names(tmp_path: Path) -> None:
    data = b'{"path": "a.wav", "emotion": "sad"}\n'
    (tmp_path / "t.jsonl.gz").write_bytes(gzip.compress(data))
    (only,) = read_corpus("csv", tmp_path, {"column": "audio=path,label=emotion"}).utterances
    assert (only.id, only.label) == ("a", "sad")
    with pytest.raises(CorpusError, match="--column audio=path"):
        read_corpus("csv", tmp_path)


CUT = gzip.compress(b"{}" * 999, mtime=0)[:20]


@pytest.mark.parametrize("data", [b"no gzip", CUT], ids=["no gzip", "cut"])
def test_packed_lines_that_cannot_be_unpacked_are_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "t.jsonl.gz").write_bytes(data)
    with pytest.raises(CorpusError, match="cannot be unpacked"):
        read_corpus("csv", tmp_path)


def test_times_may_be_written_as_pandas_does(tmp_path: Path) -> None:
    text = "audio,label,start,end\na.wav,sad,0 days,1 days 00:00:01.250000\n"
    (only,) = read(tmp_path, text).utterances
    assert (only.start, only.end) == (0.0, 86_401.25)
