from __future__ import annotations

import json
import os
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from corpora.base.errors import FormatVersionError, ManifestError, MissingStepError
from corpora.manifest import (
    Manifest,
    Utterance,
    read_manifest,
    require_splits,
    write_manifest,
)
from corpora.utterance import plain_name

LABELS = ("neutral", "anger")  # not sorted: the order is the manifest's own


def write_table(folder: Path, *rows: str, header: str = "id,audio,label") -> Path:
    path = folder / "manifest.csv"
    path.write_text("\n".join((header, *rows)) + "\n", encoding="utf-8")
    return path


def refusal(path: Path) -> str:
    with pytest.raises(ManifestError) as error:
        read_manifest(path)
    assert str(path) in str(error.value)
    return str(error.value)


words = st.text(st.characters(codec="utf-8"), max_size=8).map(str.strip)
names = st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1).filter(
    lambda name: name == name.strip() and name not in (".", "..") and len(name.encode()) < 200
)
numbers = st.none() | st.floats(allow_nan=False, allow_infinity=False)


@st.composite
def utterances(draw: st.DrawFn, folder: Path) -> Utterance:
    start = draw(st.none() | st.floats(0, 1e4))
    length = draw(st.none() | st.floats(0.01, 1e3))
    corpus = draw(words)
    return Utterance(
        id=draw(names.filter(plain_name)),
        audio=folder / draw(names),
        label=draw(st.sampled_from(("", *LABELS))),
        start=start,
        end=None if length is None else (start or 0.0) + length,
        text=draw(words),
        speaker=draw(words),
        split=draw(st.sampled_from(("", "train"))),
        fold=draw(words),
        session=draw(words),
        sex=draw(st.sampled_from(("", "female", "male"))),
        language=draw(words),
        corpus=corpus,
        alignment=draw(st.none() | names.map(lambda name: folder / "aligned" / name)),
        valence=draw(numbers),
        arousal=draw(numbers),
        dominance=draw(numbers),
        votes=draw(
            st.none() | st.dictionaries(st.sampled_from(LABELS), st.floats(0.5, 9), min_size=1)
        ),
    )


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_what_is_written_is_read_back(tmp_path: Path, data: st.DataObject) -> None:
    folder = tmp_path / "sounds"
    drawn = data.draw(
        st.lists(utterances(folder), min_size=1, max_size=4, unique_by=lambda u: u.id)
    )
    manifest = Manifest(tuple(drawn), LABELS, "mine", protocol="p", synthetic=True)
    path = tmp_path / "work" / "manifest.csv"
    write_manifest(manifest, path)
    assert read_manifest(path) == manifest


def test_paths_on_disk_are_relative_to_the_table(tmp_path: Path) -> None:
    manifest = Manifest((Utterance("a", tmp_path / "wav" / "a.wav", "anger"),), LABELS, "mine")
    write_manifest(manifest, tmp_path / "work" / "manifest.csv")
    assert ",../wav/a.wav," in (tmp_path / "work" / "manifest.csv").read_text("utf-8")


def test_a_work_folder_behind_a_link_finds_its_recordings(tmp_path: Path) -> None:
    (tmp_path / "disk" / "deep" / "work").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "disk" / "deep" / "work")
    audio = tmp_path / "wav" / "a.wav"
    manifest = Manifest((Utterance("a", audio, "anger"),), LABELS, "mine")
    write_manifest(manifest, tmp_path / "link" / "manifest.csv")
    assert read_manifest(tmp_path / "link" / "manifest.csv").utterances[0].audio == audio


def test_a_moved_tree_still_reads(tmp_path: Path) -> None:
    audio = tmp_path / "old" / "wav" / "a.wav"
    manifest = Manifest((Utterance("a", audio, "anger"),), LABELS, "mine")
    write_manifest(manifest, tmp_path / "old" / "manifest.csv")
    (tmp_path / "old").rename(tmp_path / "new")
    read = read_manifest(tmp_path / "new" / "manifest.csv")
    assert read.utterances[0].audio == tmp_path / "new" / "wav" / "a.wav"


def test_a_hand_made_table_needs_three_columns_and_no_json(tmp_path: Path) -> None:
    path = write_table(tmp_path, "b, b.wav, sad", "", "a,a.wav,angry", "c,c.wav,")
    manifest = read_manifest(path)
    assert manifest.labels == ("angry", "sad")
    assert [(u.id, u.label, u.split, u.line) for u in manifest.utterances] == [
        ("b", "sad", "", 2),
        ("a", "angry", "", 4),
        ("c", "", "", 5),
    ]
    assert manifest.utterances[0].audio == tmp_path / "b.wav"


def test_a_byte_order_mark_and_unknown_columns_do_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "manifest.csv"
    path.write_bytes("\ufeffid,mood,audio,label\r\nä,7,a.wav,sad\r\n".encode())
    assert read_manifest(path).utterances[0].id == "ä"


def test_lines_are_counted_through_cells_with_line_breaks(tmp_path: Path) -> None:
    path = write_table(
        tmp_path, 'a,a.wav,sad,"two\nlines"', "b,b.wav,sad,x", header="id,audio,label,text"
    )
    assert [u.line for u in read_manifest(path).utterances] == [2, 4]


def test_an_absent_manifest_names_the_step_that_makes_it(tmp_path: Path) -> None:
    with pytest.raises(MissingStepError, match="prepare CORPUS ROOT"):
        read_manifest(tmp_path / "manifest.csv")


@pytest.mark.parametrize("column", ["id", "audio", "label"])
def test_a_missing_column_is_named_with_those_found(tmp_path: Path, column: str) -> None:
    header = ",".join(name for name in ("id", "audio", "label", "mood") if name != column)
    message = refusal(write_table(tmp_path, "1,2,3", header=header))
    assert f"no column {column}" in message
    assert f"Columns found: {header.replace(',', ', ')}" in message


def test_another_separator_is_recognised_in_the_message(tmp_path: Path) -> None:
    message = refusal(write_table(tmp_path, "a;a.wav;sad", header="id;audio;label"))
    assert "separated by commas" in message


@pytest.mark.parametrize("content", ["", "\n\n", "id,audio,label\n"])
def test_an_empty_file_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "manifest.csv"
    path.write_text(content)
    message = refusal(path)
    assert "is empty" in message or "no utterance" in message


def test_a_file_that_is_not_utf8_says_so(tmp_path: Path) -> None:
    path = tmp_path / "manifest.csv"
    path.write_bytes("id,audio,label\nä,a.wav,sad\n".encode("cp1252"))
    assert "not UTF-8 (byte 15)" in refusal(path)


def test_an_unknown_label_is_named_with_line_utterance_and_close_match(tmp_path: Path) -> None:
    path = write_table(tmp_path, "a,a.wav,anger", "b,b.wav,angr")
    manifest = Manifest((Utterance("a", tmp_path / "a.wav", "anger"),), LABELS, "mine")
    write_manifest(manifest, tmp_path / "x.csv")
    (tmp_path / "x.json").rename(tmp_path / "manifest.json")
    message = refusal(path)
    assert "line 3, utterance 'b': label 'angr' is not one of neutral, anger" in message
    assert "Did you mean 'anger'?" in message


def test_a_duplicate_id_names_both_lines(tmp_path: Path) -> None:
    message = refusal(write_table(tmp_path, "a,a.wav,sad", "b,b.wav,sad", "a,c.wav,sad"))
    assert "utterance 'a': the id is used twice: line 2 and line 4" in message


@pytest.mark.parametrize(
    ("start", "end", "reason"),
    [
        ("2", "1", "end 1 is not after start 2"),
        ("1", "1", "end 1 is not after start 1"),
        ("", "0", "end 0 is not after start 0"),
        ("-1", "1", "start -1 is negative"),
        ("one", "1", "start 'one' is not a number"),
        ("0", "inf", "end 'inf' is not a number"),
    ],
)
def test_a_bad_segment_is_refused(tmp_path: Path, start: str, end: str, reason: str) -> None:
    path = write_table(tmp_path, f"a,a.wav,sad,{start},{end}", header="id,audio,label,start,end")
    assert f"line 2, utterance 'a': {reason}" in refusal(path)


def test_an_unknown_split_is_refused(tmp_path: Path) -> None:
    path = write_table(tmp_path, "a,a.wav,sad,tset", header="id,audio,label,split")
    assert "split 'tset' is not one of train, dev, test" in refusal(path)


@pytest.mark.parametrize(
    "cell", ["anger", "anger:x", ":1", "anger:-1", "anger:1;anger:2", "anger:0"]
)
def test_malformed_votes_are_refused(tmp_path: Path, cell: str) -> None:
    path = write_table(tmp_path, f"a,a.wav,sad,{cell}", header="id,audio,label,votes")
    assert f"votes '{cell}'" in refusal(path)


@pytest.mark.parametrize("row", ["a,a.wav", "a,a.wav,sad,more"])
def test_a_row_of_another_width_is_refused(tmp_path: Path, row: str) -> None:
    assert f"line 2, utterance 'a': {row.count(',') + 1} cells" in refusal(
        write_table(tmp_path, row)
    )


def test_an_open_quotation_mark_is_found_where_it_opens(tmp_path: Path) -> None:
    path = write_table(tmp_path, "a,a.wav,sad", 'b,"b.wav,sad', "c,c.wav,sad")
    assert "line 3: cannot be read as a row" in refusal(path)


def test_up_to_ten_problems_come_in_one_message(tmp_path: Path) -> None:
    message = refusal(write_table(tmp_path, *(f"u{k},,sad" for k in range(13))))
    assert "has 13 problems" in message
    assert message.count("audio is empty") == 10
    assert "and 3 more" in message


def test_a_speaker_in_two_splits_is_refused_with_both_lines(tmp_path: Path) -> None:
    header = "id,audio,label,speaker,split"
    path = write_table(
        tmp_path, "a,a.wav,sad,03,train", "b,b.wav,sad,03,dev", "c,c.wav,sad,03,dev", header=header
    )
    message = refusal(path)
    assert "speaker '03' is in train (line 2) and in dev (line 3)" in message
    assert "line 4" not in message


def test_a_declared_shared_speaker_is_accepted(tmp_path: Path) -> None:
    pair = (
        Utterance("a", tmp_path / "a.wav", "anger", speaker="03", split="train"),
        Utterance("b", tmp_path / "b.wav", "anger", speaker="03", split="test"),
    )
    manifest = Manifest(pair, LABELS, "mine", shared_speakers=True)
    write_manifest(manifest, tmp_path / "manifest.csv")
    assert read_manifest(tmp_path / "manifest.csv") == manifest


@pytest.mark.parametrize("speaker", ["", "Unknown", "UNKNOWN", "unknown"])
def test_an_unknown_speaker_is_never_one_speaker(tmp_path: Path, speaker: str) -> None:
    rows = (f"a,a.wav,sad,{speaker},train", f"b,b.wav,sad,{speaker},dev")
    path = write_table(tmp_path, *rows, header="id,audio,label,speaker,split")
    assert len(read_manifest(path).utterances) == 2


def test_speakers_of_two_corpora_are_two_people(tmp_path: Path) -> None:
    rows = ("a,a.wav,sad,03,train,emodb", "b,b.wav,sad,03,dev,ravdess")
    path = write_table(tmp_path, *rows, header="id,audio,label,speaker,split,corpus")
    assert len(read_manifest(path).utterances) == 2


def test_writing_refuses_what_reading_would(tmp_path: Path) -> None:
    utterance = Utterance("a", tmp_path / "a.wav", "anger")
    twice = Manifest((utterance, replace(utterance, audio=tmp_path / "b.wav")), LABELS, "mine")
    with pytest.raises(ManifestError, match="used twice"):
        write_manifest(twice, tmp_path / "manifest.csv")
    assert not (tmp_path / "manifest.csv").exists()


def test_a_json_of_another_version_is_refused(tmp_path: Path) -> None:
    path = write_table(tmp_path, "a,a.wav,sad")
    path.with_suffix(".json").write_text(json.dumps({"format": "emopool-manifest", "version": 2}))
    with pytest.raises(FormatVersionError, match=r"manifest\.json"):
        read_manifest(path)


@pytest.mark.parametrize("labels", [None, "sad", ["sad", "sad"], ["sad", ""], [1]])
def test_a_json_with_a_bad_label_order_is_refused(tmp_path: Path, labels: object) -> None:
    path = write_table(tmp_path, "a,a.wav,sad")
    value = {"format": "emopool-manifest", "version": 1, "labels": labels}
    path.with_suffix(".json").write_text(json.dumps(value))
    with pytest.raises(ManifestError, match='"labels" is'):
        read_manifest(path)


def test_a_split_without_labelled_utterances_is_refused_with_counts(tmp_path: Path) -> None:
    some = tuple(
        Utterance(name, tmp_path / name, label, split=split)
        for name, label, split in (("a", "anger", "train"), ("b", "", "dev"), ("c", "anger", ""))
    )
    with pytest.raises(ManifestError, match=r"dev and test .*train 1, dev 0, test 0"):
        require_splits(Manifest(some, LABELS, "mine"), ("train", "dev", "test"))


def test_splits_that_hold_labelled_utterances_pass(tmp_path: Path) -> None:
    one = Utterance("a", tmp_path / "a", "anger", split="dev")
    require_splits(Manifest((one,), LABELS, "mine"), ("dev",))


def test_settings_and_scales_survive(tmp_path: Path) -> None:
    manifest = Manifest(
        (Utterance("a", tmp_path / "a.wav", "joy", split="train"),),
        ("joy",),
        "mine",
        settings={"test_fold": "2", "folds": ["1", "2", "3"], "max_imbalance": 8},
        scales={"valence": (1, 7), "arousal": (-1.5, 1.5)},
    )
    write_manifest(manifest, tmp_path / "manifest.csv")
    assert read_manifest(tmp_path / "manifest.csv") == manifest


@pytest.mark.parametrize(
    "changed",
    [{"settings": [1]}, {"scales": {"valence": [1]}}, {"scales": {"valence": ["1", "7"]}}],
)
def test_settings_and_scales_of_another_shape_are_refused(
    tmp_path: Path, changed: dict[str, object]
) -> None:
    manifest = Manifest((Utterance("a", tmp_path / "a.wav", "joy"),), ("joy",), "mine")
    write_manifest(manifest, tmp_path / "manifest.csv")
    fields = json.loads((tmp_path / "manifest.json").read_text())
    (tmp_path / "manifest.json").write_text(json.dumps({**fields, **changed}))
    with pytest.raises(ManifestError, match='"scales" an object of pairs'):
        read_manifest(tmp_path / "manifest.csv")


def test_a_shared_speaker_is_declared_in_the_json(tmp_path: Path) -> None:
    rows = ("a,a.wav,sad,03,train", "b,b.wav,sad,03,dev")
    message = refusal(write_table(tmp_path, *rows, header="id,audio,label,speaker,split"))
    assert 'declare that: "shared_speakers": true in manifest.json' in message


@pytest.mark.parametrize(
    ("first", "second"), [(",", ","), ("0,2", "1,3"), ("1,3", "0,2"), (",", "5,6"), ("0,9", "1,2")]
)
def test_a_recording_in_two_splits_is_refused_with_both_lines(
    tmp_path: Path, first: str, second: str
) -> None:
    rows = (f"a,a.wav,sad,train,{first}", f"b,a.wav,sad,test,{second}")
    message = refusal(write_table(tmp_path, *rows, header="id,audio,label,split,start,end"))
    assert "line 3, utterance 'b': the recording" in message
    assert "is in train (line 2) and in test (line 3)" in message


def test_a_declared_shared_speaker_excuses_no_shared_recording(tmp_path: Path) -> None:
    pair = (
        Utterance("a", tmp_path / "a.wav", "anger", speaker="03", split="train"),
        Utterance("b", tmp_path / "a.wav", "anger", speaker="03", split="test"),
    )
    with pytest.raises(ManifestError, match="what is cut from it overlaps"):
        write_manifest(Manifest(pair, LABELS, "mine", shared_speakers=True), tmp_path / "m.csv")


def test_stretches_of_one_recording_that_do_not_overlap_may_stand_in_two_splits(
    tmp_path: Path,
) -> None:
    rows = ("a,a.wav,sad,train,,2", "b,a.wav,sad,test,2,4", "c,a.wav,sad,train,4,")
    path = write_table(tmp_path, *rows, header="id,audio,label,split,start,end")
    assert len(read_manifest(path).utterances) == 3


def two(folder: Path) -> tuple[Manifest, Manifest]:
    """Manifests with other labels, of which the second is to replace the first."""
    rows = tuple(
        Utterance(id=f"u{number}", audio=folder / f"{number}.wav", label=label)
        for number, label in enumerate(LABELS)
    )
    other = tuple(replace(row, label=row.label.upper()) for row in rows)
    return Manifest(rows, LABELS, corpus="one"), Manifest(other, ("ANGER", "NEUTRAL"), corpus="two")


@pytest.mark.parametrize("earlier", ["manifest", "hand-made", "edited"])
def test_csv_and_json_are_replaced_both_or_neither(
    earlier: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, new = two(tmp_path)
    path = tmp_path / "manifest.csv"
    moved = os.replace

    def stop_after(files: int) -> None:
        left = [files]

        def counted(source: Path, target: Path) -> None:
            if not left[0]:
                raise KeyboardInterrupt
            left[0] -= 1
            moved(source, target)

        monkeypatch.setattr(os, "replace", counted)

    for files in range(4):
        monkeypatch.setattr(os, "replace", moved)
        write_manifest(one, path)
        if earlier == "hand-made":
            path.with_suffix(".json").unlink()
        elif earlier == "edited":
            path.write_text(path.read_text() + "extra,0.wav,anger,,,\n")
        before = read_manifest(path)
        stop_after(files)
        with suppress(KeyboardInterrupt):
            write_manifest(new, path)
        monkeypatch.setattr(os, "replace", moved)
        found = read_manifest(path)
        assert found.labels == (before.labels if files < 2 else new.labels)
        assert {u.label for u in found.utterances} == set(found.labels)
        write_manifest(new, path)
        assert read_manifest(path).corpus == "two"
        assert "replaced" not in json.loads(path.with_suffix(".json").read_text())


def test_a_csv_that_was_changed_by_hand_is_used_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    one, _ = two(tmp_path)
    path = tmp_path / "manifest.csv"
    write_manifest(one, path)
    assert read_manifest(path).corpus == "one"
    assert not caplog.records
    path.write_text(path.read_text().replace("u0", "first"))
    for _ in range(2):
        assert read_manifest(path).utterances[0].id == "first"
    (said,) = [record.getMessage() for record in caplog.records]  # once
    assert "manifest.csv is not as Emopool wrote it" in said
    write_manifest(one, path)
    read_manifest(path)
    assert len(caplog.records) == 1
