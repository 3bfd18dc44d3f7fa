from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from corpora.base.errors import CorpusError
from corpora.readers.registry import read_corpus
from tests.corpora.list_trees import cut, write_json_lines
from tests.corpora.tree_parts import write_wav


def one(**changes: Any) -> dict[str, Any]:
    return cut("a", "a.wav", "ann", "sad", **changes)


def test_a_cut_of_a_whole_recording_has_no_times(tmp_path: Path) -> None:
    path = write_json_lines(tmp_path / "cuts.jsonl", [one()])
    (u,) = read_corpus("lhotse", path).utterances
    assert (u.id, u.audio, u.start, u.end) == ("a", tmp_path / "a.wav", None, None)
    assert (u.label, u.speaker, u.sex, u.language) == ("sad", "ann", "female", "en")


def test_supervisions_count_from_their_cut_and_end_with_it(tmp_path: Path) -> None:
    recording = one()["recording"] | {"duration": 9.0}
    several = [
        {"id": "x", "start": -0.5, "duration": 1.0, "custom": {"emotion": "joy", "val": 3.5}},
        {"id": "y", "start": 1.5, "duration": 9.0},
    ]
    path = write_json_lines(
        tmp_path / "cuts.jsonl",
        [one(start=2.0, duration=3.0, supervisions=several, recording=recording)],
    )
    first, second = read_corpus("lhotse", path).utterances
    assert (first.id, first.start, first.end, first.valence) == ("x", 2.0, 2.5, 3.5)
    assert (second.id, second.start, second.end, second.label) == ("y", 3.5, 5.0, "")


def test_files_named_like_splits_are_read_together(tmp_path: Path) -> None:
    for split in ("train", "dev"):
        write_json_lines(tmp_path / f"x_cuts_{split}.jsonl.gz", [one(id=split)])
    assert {u.id: u.split for u in read_corpus("lhotse", tmp_path).utterances} == {
        "train": "train", "dev": "dev",
    }  # fmt: skip


def sound(**changes: Any) -> dict[str, Any]:
    return one(recording=one()["recording"] | changes)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ({"id": "m", "type": "MixedCut"}, "a MixedCut is made on the fly"),
        (one(recording=None), "it has no recording"),
        (sound(transforms=[{"name": "Speed"}]), "transformed on the fly"),
        (sound(sources=[{"type": "command", "channels": [0], "source": "ls"}]), "1 sources"),
        (sound(sources=[{"type": "file", "channels": [0, 1], "source": "a"}]), "several"),
        (one(duration=None), "not a cut as lhotse writes them"),
        (one(supervisions=["x"]), "not a cut as lhotse writes them"),
        ({"x": 1}, "it has no recording"),
    ],
)
def test_what_is_no_recording_is_left_out(
    tmp_path: Path, value: dict[str, Any], reason: str
) -> None:
    path = write_json_lines(tmp_path / "cuts.jsonl", [one(), value])
    (dropped,) = read_corpus("lhotse", path).dropped
    assert dropped.where.startswith("cuts.jsonl:2")
    assert reason in dropped.reason


def test_a_file_of_anything_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "cuts.jsonl").write_text("hello\n")
    with pytest.raises(CorpusError, match=r"no row that can be used .* not a JSON object"):
        read_corpus("lhotse", tmp_path)


def test_what_lhotse_itself_writes_is_read(tmp_path: Path) -> None:
    lhotse = pytest.importorskip("lhotse", reason="pip install lhotse==1.33.0, then run this file")
    cuts = []
    for name, label in (("a", "sad"), ("b", "joy")):
        path = write_wav(tmp_path / "wav" / f"{name}.wav", seconds=2.0)
        whole = lhotse.Recording.from_file(path).to_cut()
        whole.supervisions = [
            lhotse.SupervisionSegment(
                id=f"{name}-1",
                recording_id=name,
                start=0.5,
                duration=1.0,
                text="Yes.",
                speaker=f"spk-{name}",
                gender="f",
                custom={"emotion": label},
            )
        ]
        cuts.append(whole)
    made = lhotse.CutSet.from_cuts(cuts)
    made.to_file(tmp_path / "whole_cuts.jsonl.gz")
    made.trim_to_supervisions().to_file(tmp_path / "trimmed_cuts.jsonl")
    for file, label in (("whole_cuts.jsonl.gz", "sad"), ("trimmed_cuts.jsonl", "sad")):
        result = read_corpus("lhotse", tmp_path / file)
        first, second = result.utterances
        assert (first.label, second.label) == (label, "joy")
        assert (first.start, first.end, first.speaker) == (0.5, 1.5, "spk-a")
        assert first.audio == tmp_path / "wav" / "a.wav"
        assert not result.dropped
    lhotse.CutSet.from_cuts(cuts).perturb_speed(1.1).to_file(tmp_path / "fast.jsonl.gz")
    with pytest.raises(CorpusError, match="transformed on the fly"):
        read_corpus("lhotse", tmp_path / "fast.jsonl.gz")
