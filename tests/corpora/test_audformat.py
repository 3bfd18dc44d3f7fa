from __future__ import annotations

from pathlib import Path

import pytest

from corpora.base.errors import CorpusError
from corpora.readers.registry import read_corpus
from tests.corpora.list_trees import audformat
from tests.corpora.tree_parts import write_lines, write_wav

SPLIT_TABLES = """
  emotion.train:
    type: filewise
    split_id: train
    columns: {emotion: {scheme_id: emotion}}
  emotion.test:
    type: filewise
    split_id: test
    columns: {emotion: {scheme_id: emotion}}
"""


def database(root: Path, tables: str = "", **files: str) -> Path:
    """The small database, with further tables: their entries of the header and their files."""
    audformat(root)
    (root / "db.yaml").write_text((root / "db.yaml").read_text() + tables.lstrip("\n"))
    for name, text in files.items():
        (root / f"db.{name.replace('_', '.')}.csv").write_text(text)
    return root


def test_tables_and_labels_of_schemes_are_joined(tmp_path: Path) -> None:
    first, *_ = read_corpus("audformat", database(tmp_path)).utterances
    assert (first.id, first.label, first.arousal) == ("anna_angry", "angry", 1.5)
    assert (first.speaker, first.sex, first.text) == ("anna", "female", "Ja.")
    assert (first.language, first.corpus, first.split) == ("de", "small", "")


def test_a_table_of_a_split_says_the_split_and_its_rows_are_one_with_the_others(
    tmp_path: Path,
) -> None:
    database(
        tmp_path,
        SPLIT_TABLES,
        emotion_train="file,emotion\nwav/anna_angry.wav,angry\n",
        emotion_test="file,emotion\nwav/ben_calm.wav,calm\n",
    )
    splits = {u.id: u.split for u in read_corpus("audformat", tmp_path).utterances if u.split}
    assert splits == {"anna_angry": "train", "ben_calm": "test"}


def test_dev_is_drawn_of_whole_speakers_where_there_is_train_and_test_alone(
    tmp_path: Path,
) -> None:
    people = [f"p{number}" for number in range(6)]
    rows = [f"wav/{person}_{label}.wav,{label}" for person in people for label in ("angry", "calm")]
    train, test = rows[:-2], rows[-2:]
    database(
        tmp_path,
        SPLIT_TABLES,
        emotion="file,emotion\n",
        emotion_train="file,emotion\n" + "\n".join(train),
        emotion_test="file,emotion\n" + "\n".join(test),
    )
    known = [f"{row.split(',')[0]},{row[4:6]},a01" for row in rows]
    write_lines(tmp_path / "db.files.csv", ["file,speaker,transcription", *known])
    result = read_corpus("audformat", tmp_path)
    homes = {(u.speaker, u.split) for u in result.utterances}
    assert len(homes) == len(people)
    assert [split for _, split in sorted(homes)].count("dev") == 1
    assert any("one in 5 of train was drawn" in note for note in result.notes)


def test_tables_that_do_not_agree_are_refused_and_can_be_named(tmp_path: Path) -> None:
    database(
        tmp_path,
        SPLIT_TABLES,
        emotion_train="file,emotion\nwav/anna_angry.wav,calm\n",
        emotion_test="file,emotion\n",
    )
    with pytest.raises(CorpusError, match=r"do not agree on wav/anna_angry\.wav.*tables=TABLE"):
        read_corpus("audformat", tmp_path)
    (only,) = read_corpus("audformat", tmp_path, {"tables": "emotion.train"}).utterances
    assert (only.label, only.speaker) == ("calm", "anna")


def test_segments_keep_their_times_and_take_what_is_known_of_their_file(tmp_path: Path) -> None:
    table = "\n  turns:\n    type: segmented\n    columns: {mood: {scheme_id: emotion}}\n"
    text = (
        "file,start,end,mood\nwav/anna_calm.wav,0 days,0 days 00:00:00.05,calm\n"
        "wav/anna_calm.wav,0 days 00:00:00.050000,,angry\n"
    )
    database(tmp_path, table, turns=text)
    result = read_corpus("audformat", tmp_path, {"label": "mood"})
    assert [(u.start, u.end, u.label, u.speaker) for u in result.utterances] == [
        (0.0, 0.05, "calm", "anna"), (0.05, None, "angry", "anna"),
    ]  # fmt: skip


def test_a_label_that_is_nowhere_names_tables_and_columns(tmp_path: Path) -> None:
    database(tmp_path)
    with pytest.raises(CorpusError, match=r"no column or scheme mood.*files: speaker"):
        read_corpus("audformat", tmp_path, {"label": "mood"})
    with pytest.raises(CorpusError, match="no table turns"):
        read_corpus("audformat", tmp_path, {"tables": "turns"})


def test_a_pickle_is_not_opened(tmp_path: Path) -> None:
    database(tmp_path)
    (tmp_path / "db.files.csv").rename(tmp_path / "db.files.pkl")
    with pytest.raises(CorpusError, match=r"a pickle, which is not opened.*storage_format='csv'"):
        read_corpus("audformat", tmp_path)


def test_a_table_without_a_file_is_named(tmp_path: Path) -> None:
    database(tmp_path)
    (tmp_path / "db.files.csv").unlink()
    with pytest.raises(CorpusError, match=r"neither db\.files\.csv nor db\.files\.parquet"):
        read_corpus("audformat", tmp_path)


@pytest.mark.parametrize("header", ["- a\n", "tables: [1]\n", "a: [\n", "!!python/object:os.x {}"])
def test_a_header_that_is_none_is_refused(tmp_path: Path, header: str) -> None:
    (tmp_path / "db.yaml").write_text(header)
    with pytest.raises(CorpusError, match="not a header as audformat writes it"):
        read_corpus("audformat", tmp_path)


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_what_audformat_itself_writes_is_read(tmp_path: Path, form: str) -> None:
    package = pytest.importorskip("audformat", reason="pip install audformat==1.4.3, then run this")
    pytest.importorskip("pyarrow", reason="the extra parquet is not installed")
    db = package.Database("whole", languages=["de"], usage=package.define.Usage.RESEARCH)
    db.schemes["emotion"] = package.Scheme(labels=["angry", "calm"])
    db.schemes["arousal"] = package.Scheme(float, minimum=-1, maximum=1)
    db.schemes["speaker"] = package.Scheme(labels={3: {"gender": "male"}, 8: {"gender": "female"}})
    db.splits["train"] = package.Split("train")
    files = [f"wav/{name}.wav" for name in "ab"]
    for file in files:
        write_wav(tmp_path / file, seconds=2.0)
    db["files"] = package.Table(package.filewise_index(files))
    db["files"]["speaker"] = package.Column(scheme_id="speaker")
    db["files"]["speaker"].set([3, 8])
    index = package.segmented_index(
        [*files, files[1]], ["0s", "0.5s", "1.25s"], ["1s", "1.25s", None]
    )
    db["turns"] = package.Table(index, split_id="train")
    db["turns"]["emotion"] = package.Column(scheme_id="emotion")
    db["turns"]["emotion"].set(["angry", "calm", None])
    db["turns"]["arousal"] = package.Column(scheme_id="arousal")
    db["turns"]["arousal"].set([0.25, -0.5, float("nan")])
    db.save(tmp_path, storage_format=form)
    result = read_corpus("audformat", tmp_path)
    told = [(u.start, u.end, u.label, u.speaker, u.sex, u.arousal) for u in result.utterances]
    assert told == [
        (0.0, 1.0, "angry", "3", "male", 0.25),
        (0.5, 1.25, "calm", "8", "female", -0.5),
        (1.25, None, "", "8", "female", None),
    ]
    assert {u.split for u in result.utterances} == {"train"}
    assert result.scales == {"arousal": (-1.0, 1.0)}
