from __future__ import annotations

from pathlib import Path

import pytest

from corpora.base.errors import CorpusError
from corpora.readers.registry import ReadResult, read_corpus
from tests.corpora.list_trees import audformat, nkululeko
from tests.corpora.test_audformat import SPLIT_TABLES, database
from tests.corpora.tree_parts import write_lines

TABLE = ["file,Who,gender,emotion", "a.wav,ann,f,joy", "b.wav,ben,m,sad", "c.wav,cem,m,fury"]


def read(folder: Path, *entries: str, table: list[str] = TABLE) -> ReadResult:
    """Read one database, `mine`, of a table; `entries` are its further ones."""
    write_lines(folder / "mine.csv", table)
    own = ["databases = ['mine']", "target = emotion", "mine = mine.csv", "mine.type = csv"]
    write_lines(folder / "exp.ini", ["[DATA]", *own, *entries])
    return read_corpus("nkululeko", folder)


def test_sets_labels_and_columns_are_those_of_the_file(tmp_path: Path) -> None:
    nkululeko(tmp_path)
    result = read_corpus("nkululeko", tmp_path / "exp.ini")
    homes = {u.speaker: u.split for u in result.utterances}
    assert [homes[person] for person in "xy"] == ["test", "test"]
    assert sorted(homes[person] for person in "abcde") == ["dev", *["train"] * 4]
    assert {u.sex for u in result.utterances} == {"male"}
    assert result.dropped[0].reason == "its label is not among the labels of the INI file"


def test_columns_are_renamed_in_either_direction_and_labels_mapped(tmp_path: Path) -> None:
    mapping = "mine.mapping = {'sad, fury': 'negative', 'joy': 'positive'}"
    for names in ("{'Who': 'speaker'}", "{'speaker': 'Who'}"):
        result = read(tmp_path, f"mine.colnames = {names}", mapping)
        assert [(u.speaker, u.sex, u.label) for u in result.utterances] == [
            ("ann", "female", "positive"), ("ben", "male", "negative"), ("cem", "male", "negative"),
        ]  # fmt: skip
        assert {u.split for u in result.utterances} == {""}  # speakers are parted by `prepare`


def test_a_list_names_the_speakers_of_the_test_set(tmp_path: Path) -> None:
    names = "mine.colnames = {'Who': 'speaker'}"
    result = read(tmp_path, names, "mine.split_strategy = ['ben']")
    assert {u.speaker: u.split for u in result.utterances}["ben"] == "test"
    with pytest.raises(CorpusError, match="no speaker bob"):
        read(tmp_path, names, "mine.split_strategy = ['bob']")


def test_paths_start_where_the_file_says(tmp_path: Path) -> None:
    deeper = tmp_path / "deeper"
    for entries, expected in (
        ((), deeper),
        (("mine.absolute_path = False",), deeper),
        (("mine.audio_path = wavs/",), deeper / "wavs"),
    ):
        result = read(deeper, *entries)
        assert result.utterances[0].audio == expected / "a.wav"
    write_lines(
        deeper / "exp.ini",
        (deeper / "exp.ini").read_text().replace("mine.csv", "deeper/mine.csv").split("\n"),
    )
    with pytest.raises(CorpusError, match="--set base=FOLDER"):
        read_corpus("nkululeko", deeper)
    assert read_corpus("nkululeko", deeper, {"base": str(tmp_path)}).utterances


def test_audformat_by_its_tables(tmp_path: Path) -> None:
    database(
        tmp_path / "db",
        SPLIT_TABLES,
        emotion_train="file,emotion\nwav/anna_angry.wav,angry\n",
        emotion_test="file,emotion\nwav/ben_calm.wav,calm\n",
    )
    entries = ["[DATA]", "databases = ['db']", "target = emotion", "db = ./db"]
    tables = ["db.train_tables = ['emotion.train']", "db.test_tables = ['emotion.test']"]
    for strategy in (["database"], ["specified", *tables]):
        lines = [*entries, f"db.split_strategy = {strategy[0]}", *strategy[1:]]
        write_lines(tmp_path / "exp.ini", lines)
        result = read_corpus("nkululeko", tmp_path)
        assert {u.id: u.split for u in result.utterances} == {
            "anna_angry": "train", "ben_calm": "test",
        }  # fmt: skip


def test_root_folders_say_more_of_the_databases_that_are_named(tmp_path: Path) -> None:
    lines = ["[DATA]", "mine.colnames = {'Who': 'speaker'}", "other = away", "other.limit = 3"]
    write_lines(tmp_path / "roots.txt", lines)
    result = read(tmp_path, "root_folders = roots.txt")
    assert [u.speaker for u in result.utterances] == ["ann", "ben", "cem"]
    write_lines(tmp_path / "roots.txt", [*lines, "mine.limit = 3"])
    with pytest.raises(CorpusError, match=r"not understood here: mine\.limit"):
        read(tmp_path, "root_folders = roots.txt")


def test_databases_that_share_ids_are_told_apart(tmp_path: Path) -> None:
    audformat(tmp_path / "one")
    lines = [
        *("[DATA]", "databases = ['one', 'two']", "target = emotion", "one = one", "two = one")
    ]
    write_lines(tmp_path / "exp.ini", lines)
    ids = [u.id for u in read_corpus("nkululeko", tmp_path).utterances]
    assert ids[0] == "one/anna_angry"
    assert len(set(ids)) == len(ids) == 12


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ("mine.limit_samples = 20", r"not understood here: mine\.limit_samples"),
        ("bins = [1, 2]", "not understood here: bins"),
        ("mine.split_strategy = random", "split_strategy = random is not read"),
        ("mine.split_strategy = [1", "is not a list"),
        ("mine.split_strategy = specified", "read are csv and"),
        ("mine.mapping = __import__('os').getcwd()", "is not a dict"),
    ],
)
def test_what_is_not_understood_is_refused(tmp_path: Path, entry: str, reason: str) -> None:
    with pytest.raises(CorpusError, match=reason):
        read(tmp_path, entry)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("databases = ['a']", "cannot be read as an INI file"),
        ("[DATA]\ntarget = emotion", "lacks databases"),
        ("[DATA]\ndatabases = ['a']\na = x", "lacks target"),
        ("[DATA]\ndatabases = ['a']\ntarget = emotion", "the database a is not at"),
    ],
)
def test_a_file_that_says_too_little_is_refused(tmp_path: Path, text: str, reason: str) -> None:
    (tmp_path / "exp.ini").write_text(text)
    with pytest.raises(CorpusError, match=reason):
        read_corpus("nkululeko", tmp_path)
