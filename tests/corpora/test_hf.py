from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from corpora.base.errors import CorpusError
from corpora.manifest import read_manifest
from corpora.prepare import prepare
from corpora.readers.registry import read_corpus
from tests.corpora.list_trees import write_json_lines
from tests.corpora.tree_parts import write_lines, write_wav

LABELS = ["sad", "joy"]
PEOPLE = {"train": ("ann", "ben"), "validation": ("cem",), "test": ("dan",)}


def test_metadata_of_each_split_is_read_beside_its_recordings(tmp_path: Path) -> None:
    write_json_lines(
        tmp_path / "train" / "metadata.jsonl", [{"file_name": "a.wav", "label": "joy"}]
    )
    write_lines(tmp_path / "test" / "metadata.csv", ["file_name,label", "x/b.wav,sad"])
    first, second = sorted(read_corpus("hf", tmp_path).utterances, key=lambda u: u.id)
    assert (first.audio, first.label, first.split) == (tmp_path / "train/a.wav", "joy", "train")
    assert (second.audio, second.split) == (tmp_path / "test" / "x" / "b.wav", "test")


def test_columns_of_other_names_are_said_and_taken(tmp_path: Path) -> None:
    row = {"file_name": "a.wav", "emotion": "joy"}
    write_json_lines(tmp_path / "metadata.jsonl", [row])
    with pytest.raises(CorpusError, match=r"no column label.*--column label=emotion"):
        read_corpus("hf", tmp_path)
    (only,) = read_corpus("hf", tmp_path, {"column": "label=emotion"}).utterances
    assert only.label == "joy"


def test_a_dataset_of_the_hub_is_found_where_it_was_downloaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    cache, commit = tmp_path / "hub" / "datasets--ann--moods", "0" * 40
    write_lines(cache / "snapshots" / commit / "metadata.csv", ["file_name,label", "a.wav,joy"])
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text(commit)
    (only,) = read_corpus("hf", "ann/moods").utterances
    assert (only.audio.parent, only.corpus) == (cache / "snapshots" / commit, "moods")
    for name in ("ann/others", "no such name at all"):
        with pytest.raises(CorpusError, match=r"does not exist.*nothing is downloaded here"):
            read_corpus("hf", name)


def parquet(path: Path, rows: list[dict[str, Any]]) -> Path:
    pyarrow = pytest.importorskip("pyarrow", reason="the extra parquet is not installed")
    writer = pytest.importorskip("pyarrow.parquet")
    path.parent.mkdir(parents=True, exist_ok=True)
    writer.write_table(pyarrow.Table.from_pylist(rows), path)
    return path


def sound(data: bytes | None, path: str | None) -> dict[str, Any]:
    return {"audio": {"bytes": data, "path": path}, "label": "joy"}


def test_embedded_recordings_are_written_once_and_nowhere_else(tmp_path: Path) -> None:
    rows = [
        sound(b"RIFF1", "../../away.wav"),
        sound(b"RIFF2", "away.wav"),
        sound(b"fLaC", None),
        sound(b"?", ".."),
        sound(None, "b.wav"),
    ]
    parquet(tmp_path / "set" / "data" / "train-00000-of-00001.parquet", rows)
    store = tmp_path / "store"
    for _ in range(2):
        result = read_corpus("hf", tmp_path / "set", {"recordings": str(store)})
        assert [str(u.audio.relative_to(tmp_path)) for u in result.utterances] == [
            "store/away.wav", "store/away-2.wav", "store/000003.flac", "store/000004.audio",
            "set/b.wav",
        ]  # fmt: skip
    assert (store / "away.wav").read_bytes() == b"RIFF1"
    assert (store / "away-2.wav").read_bytes() == b"RIFF2"
    assert {path.name for path in tmp_path.iterdir()} == {"set", "store"}


def test_embedded_recordings_need_a_folder(tmp_path: Path) -> None:
    parquet(tmp_path / "a.parquet", [sound(b"RIFF", "a.wav")])
    with pytest.raises(CorpusError, match="--set recordings=FOLDER"):
        read_corpus("hf", tmp_path)


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow", reason="the extra parquet is not installed")
    (tmp_path / "a.parquet").write_bytes(b"PAR1 nothing else")
    with pytest.raises(CorpusError, match=r"a\.parquet cannot be read"):
        read_corpus("hf", tmp_path)


def dataset(folder: Path) -> Any:
    """A dataset of every split, made by the package itself."""
    datasets = pytest.importorskip("datasets", reason="pip install datasets==5.2.0, then run this")
    kinds = {"sound": datasets.Audio(decode=False), "label": datasets.ClassLabel(names=LABELS)}
    splits = {}
    for split, people in PEOPLE.items():
        names = [(person, code) for person in people for code in (0, 1)]
        paths = [write_wav(folder / f"{person}-{code}.wav") for person, code in names]
        columns = {
            "sound": [{"bytes": None, "path": str(path)} for path in paths],
            "label": [code for _, code in names],
            "speaker": [person for person, _ in names],
        }
        splits[split] = datasets.Dataset.from_dict(columns)
        for name, kind in kinds.items():
            splits[split] = splits[split].cast_column(name, kind)
    return datasets.DatasetDict(splits)


# dill, by which datasets makes its fingerprints, warns of classes of pyarrow's.
UNHEARD = pytest.mark.filterwarnings("ignore:Cannot (locate|pickle)")


@UNHEARD
@pytest.mark.parametrize("form", ["saved", "parquet"])
def test_what_datasets_itself_writes_is_read(tmp_path: Path, form: str) -> None:
    made, root = dataset(tmp_path / "wav"), tmp_path / "set"
    if form == "saved":
        made.save_to_disk(root)
    else:
        for split, rows in made.items():
            (root / "data").mkdir(parents=True, exist_ok=True)
            rows.to_parquet(root / "data" / f"{split}-00000-of-00001.parquet")
    report = prepare("hf", root, tmp_path / "work" / "manifest.csv", show_progress=False)
    manifest = read_manifest(report.manifest)
    assert {(u.speaker, u.split) for u in manifest.utterances} == {
        ("ann", "train"), ("ben", "train"), ("cem", "dev"), ("dan", "test"),
    }  # fmt: skip
    for utterance in manifest.utterances:
        original = tmp_path / "wav" / utterance.audio.name
        assert utterance.audio.read_bytes() == original.read_bytes()
        assert utterance.label == LABELS[int(original.stem[-1])]


@UNHEARD
def test_one_saved_split_is_read_too(tmp_path: Path) -> None:
    dataset(tmp_path / "wav")["train"].save_to_disk(tmp_path / "set")
    result = read_corpus("hf", tmp_path / "set", {"recordings": str(tmp_path / "store")})
    assert [u.label for u in result.utterances] == ["sad", "joy"] * 2
    assert {u.split for u in result.utterances} == {""}  # one split named train is none
