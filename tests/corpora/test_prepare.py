from __future__ import annotations

import json
import unicodedata
from pathlib import Path

import pytest

from corpora.base.errors import CorpusError, ManifestError
from corpora.manifest import read_manifest
from corpora.prepare import prepare
from corpora.readers.registry import Options
from corpora.summary import PrepareReport
from tests.corpora.fixture_trees import emodb, sample, write_wav

HEADER = "audio,label,speaker"
SPEAKERS = ("ann", "bob", "cyd", "dan")


def table(root: Path, *extra: str, header: str = HEADER, tail: str = "") -> Path:
    """Four speakers with two labels each, and the rows given."""
    rows = [header]
    for who in SPEAKERS:
        for label in ("calm", "joy"):
            write_wav(root / f"{who}_{label}.wav", seconds=0.5)
            rows.append(f"{who}_{label}.wav,{label},{who}{tail}")
    (root / "t.csv").write_text("\n".join([*rows, *extra]) + "\n", encoding="utf-8")
    return root


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "corpus"
    folder.mkdir()
    return folder


def run(root: Path, options: Options | None = None, **arguments: object) -> PrepareReport:
    target = root.parent / "work" / "manifest.csv"
    return prepare("csv", root, target, options=options, **arguments)  # type: ignore[arg-type]


def test_the_manifest_holds_what_the_report_counts(root: Path) -> None:
    report = run(table(root))
    manifest = read_manifest(report.manifest)
    assert manifest.labels == report.labels == ("calm", "joy")
    for split, by_label in report.tally.counts.items():
        for label, count in by_label.items():
            assert count == sum(u.label == label for u in manifest.in_split(split))
    assert report.tally.all_speakers == sum(report.tally.speakers.values()) == 4
    assert sum(report.tally.hours.values()) == pytest.approx(8 * 0.5 / 3600)


def test_hours_count_segments_not_whole_recordings(root: Path) -> None:
    report = run(table(root, header=f"{HEADER},start,end", tail=",0.1,0.3"))
    assert sum(report.tally.hours.values()) == pytest.approx(8 * 0.2 / 3600)


def test_a_cut_past_the_end_is_listed_and_kept(root: Path) -> None:
    write_wav(root / "long.wav", seconds=0.5)
    table(root, "long.wav,joy,ann,0.2,9", header=f"{HEADER},start,end", tail=",,")
    report = run(root)
    (broken,) = report.unreadable
    assert "long.wav" in broken.where
    assert "passes the recording's end at 0.5 s" in broken.reason
    assert "long" in {u.id for u in read_manifest(report.manifest).utterances}


def test_missing_recordings_are_listed_and_left_out(root: Path) -> None:
    report = run(table(root, "gone.wav,joy,ann"))
    (missing,) = report.missing
    assert missing.where == "gone.wav (line 10, utterance 'gone')"
    assert len(read_manifest(report.manifest).utterances) == 8


def test_a_missing_alignment_costs_the_alignment_alone(root: Path) -> None:
    report = run(table(root, header=f"{HEADER},alignment", tail=",no.TextGrid"))
    assert len(report.missing) == 8
    assert {u.alignment for u in read_manifest(report.manifest).utterances} == {None}


@pytest.mark.parametrize(
    ("content", "reason"), [(b"", "the file is empty"), (b"no sound", "cannot be read as audio")]
)
def test_a_broken_recording_is_listed_and_kept_for_extraction(
    root: Path, content: bytes, reason: str
) -> None:
    table(root)
    (root / "ann_joy.wav").write_bytes(content)
    report = run(root)
    (broken,) = report.unreadable
    assert broken.where == "ann_joy.wav"
    assert reason in broken.reason
    assert len(read_manifest(report.manifest).utterances) == 8


def test_nothing_left_is_an_error_that_says_why(root: Path) -> None:
    (root / "t.csv").write_text("audio,label\na.wav,sad\n")
    with pytest.raises(CorpusError, match=r"nothing is left .*\n.*a\.wav .*no such recording"):
        run(root)


def test_own_splits_are_kept(root: Path) -> None:
    table(root)
    split = dict(zip(SPEAKERS, ("train", "dev", "test", ""), strict=True))
    lines = (root / "t.csv").read_text().splitlines()
    rows = [f"{line},{split[line.split(',')[2]]}" for line in lines[1:]]
    (root / "t.csv").write_text("\n".join([f"{HEADER},split", *rows]) + "\n")
    report = run(root)
    assert not report.splits_made
    assert {u.speaker: u.split for u in read_manifest(report.manifest).utterances} == split
    assert any("2 labelled utterances have no split" in note for note in report.notes)


def test_own_splits_without_dev_are_warned_about(root: Path) -> None:
    report = run(table(root, header=f"{HEADER},split", tail=",train"))
    assert "WARNING: dev has no labelled utterance." in report.notes


SHARED = ("ann_calm.wav,calm,ann,train", "ann_joy.wav,joy,ann,dev")


def test_a_speaker_in_two_own_splits_is_refused_with_the_tables_lines(root: Path) -> None:
    table(root)
    (root / "t.csv").write_text("\n".join([f"{HEADER},split", *SHARED]) + "\n")
    with pytest.raises(ManifestError, match=r"t\.csv, line 3.*train \(line 2\) and in dev"):
        run(root)


def test_a_speaker_in_two_own_splits_may_be_declared(root: Path) -> None:
    table(root)
    (root / "t.csv").write_text("\n".join([f"{HEADER},split", *SHARED]) + "\n")
    report = run(root, {"shared_speakers": True})
    assert read_manifest(report.manifest).shared_speakers
    assert any("share speakers" in note for note in report.notes)


def test_the_labels_asked_for_set_order_and_choice(root: Path) -> None:
    report = run(table(root), labels=("joy",))
    assert report.labels == read_manifest(report.manifest).labels == ("joy",)
    assert {item.reason for item in report.dropped} == {"label 'calm' is not among those asked for"}


def test_a_label_asked_for_that_does_not_exist_names_the_close_match(root: Path) -> None:
    with pytest.raises(ManifestError, match=r"no label 'jooy'. Did you mean 'joy'\?"):
        run(table(root), labels=("jooy", "calm"))


def test_labels_that_nobody_expresses_leave_the_order(tmp_path: Path) -> None:
    for who in ("03", "08", "09"):
        write_wav(tmp_path / "emodb" / f"{who}a01Ta.wav")
        write_wav(tmp_path / "emodb" / f"{who}a01Wa.wav")
    report = prepare("emodb", tmp_path / "emodb", tmp_path / "manifest.csv")
    assert report.labels == ("anger", "sadness")
    assert any("boredom, disgust" in note for note in report.notes)


def test_a_label_missing_in_a_split_is_noted(root: Path) -> None:
    write_wav(root / "rare.wav")
    report = run(table(root, "rare.wav,awe,ann"))
    assert sum("has no utterance of awe" in note for note in report.notes) == 2


def test_an_unlabelled_corpus_can_only_be_predicted(root: Path) -> None:
    write_wav(root / "a.wav")
    (root / "t.csv").write_text("audio,label\na.wav,\n")
    report = run(root)
    assert report.labels == ()
    assert any("only be predicted" in note for note in report.notes)


def test_the_table_read_is_never_overwritten(root: Path) -> None:
    before = (table(root) / "t.csv").read_bytes()
    with pytest.raises(CorpusError, match="would be overwritten"):
        prepare("csv", root, root / "t.csv")
    assert (root / "t.csv").read_bytes() == before


def test_preparing_twice_writes_the_same_bytes(root: Path) -> None:
    first = run(table(root)).manifest.read_bytes()
    assert run(root).manifest.read_bytes() == first


def test_the_sample_corpus_is_marked_synthetic(tmp_path: Path) -> None:
    sample(tmp_path / "sample")
    report = prepare("sample", tmp_path / "sample", tmp_path / "work" / "manifest.csv")
    assert report.synthetic
    assert read_manifest(report.manifest).synthetic
    assert "SYNTHETIC" in report.to_text()


def test_the_text_names_counts_drops_and_the_file_written(tmp_path: Path) -> None:
    emodb(tmp_path / "emodb")
    text = prepare("emodb", tmp_path / "emodb", tmp_path / "work" / "manifest.csv").to_text()
    assert "Left out (2):" in text
    assert "emotion letter X is not one of W L E A F T N: wav/03a01Xa.wav" in text
    assert f"Wrote {tmp_path / 'work' / 'manifest.csv'}: 22 utterances" in " ".join(text.split())
    columns = text.splitlines()[4].split()
    assert columns == ["utterances", "train", "dev", "test", "all"]


def test_the_report_is_json(root: Path) -> None:
    report = run(table(root, "gone.wav,joy,ann"))
    value = json.loads(json.dumps(report.to_json()))
    assert value["missing"][0]["where"] == "gone.wav (line 10, utterance 'gone')"
    assert value["counts"]["train"].keys() == {"calm", "joy", ""}


def test_unknown_speakers_in_own_splits_are_noted(root: Path) -> None:
    write_wav(root / "x.wav")
    tail = {"ann": "train", "bob": "train", "cyd": "dev", "dan": "test"}
    table(root)
    lines = (root / "t.csv").read_text().splitlines()
    rows = [f"{line},{tail[line.split(',')[2]]}" for line in lines[1:]]
    (root / "t.csv").write_text("\n".join([f"{HEADER},split", *rows, "x.wav,joy,,dev"]) + "\n")
    assert (
        "The speaker of 1 utterances is unknown: whether splits share speakers cannot be checked."
    ) in run(root).notes


def test_one_label_only_is_warned_about(root: Path) -> None:
    report = run(table(root), labels=("joy",))
    assert "WARNING: one label only (joy): nothing to tell apart." in report.notes


def test_a_shared_speaker_is_declared_by_an_option(root: Path) -> None:
    table(root)
    (root / "t.csv").write_text("\n".join([f"{HEADER},split", *SHARED]) + "\n")
    with pytest.raises(ManifestError, match="declare that: --set shared_speakers=true"):
        run(root)


def test_speakers_heard_at_once_are_put_into_one_split(root: Path) -> None:
    write_wav(root / "talk.wav", seconds=2.0)
    rows = ("talk.wav,joy,eve,0,1.2", "talk.wav,calm,fay,1,2")
    report = run(table(root, *rows, header=f"{HEADER},start,end", tail=",,"))
    talk = [u for u in read_manifest(report.manifest).utterances if u.audio.name == "talk.wav"]
    assert len({u.split for u in talk}) == 1


def test_a_recording_that_was_cut_short_is_listed_and_kept(root: Path) -> None:
    table(root)
    path = root / "ann_joy.wav"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    report = run(root)
    (broken,) = report.unreadable
    assert broken.where == "ann_joy.wav"
    assert "cut short: header says 0.500 s" in broken.reason
    assert len(read_manifest(report.manifest).utterances) == 8


def test_files_spelled_otherwise_are_found_and_said(root: Path) -> None:
    apart = unicodedata.normalize("NFD", "zoé")
    write_wav(root / "Sub" / f"{apart}.WAV")
    table(root, "sub/ZOÉ.wav,joy,ann", header=f"{HEADER},alignment", tail=",")
    lines = (root / "t.csv").read_text("utf-8").replace("joy,ann\n", "joy,ann,\n")
    (root / "t.csv").write_text(lines, encoding="utf-8")
    report = run(root)
    assert not report.missing
    assert any("1 files are spelled otherwise on disk" in note for note in report.notes)
    audio = {u.audio for u in read_manifest(report.manifest).utterances}
    assert root / "Sub" / f"{apart}.WAV" in audio


def test_a_path_that_two_files_may_be_is_missing_and_says_so(root: Path) -> None:
    for name in ("X.wav", "x.WAV"):
        write_wav(root / name)
    report = run(table(root, "x.wav,joy,ann"))
    assert [one.reason for one in report.missing] == [
        "no such recording, utterance left out; X.wav, x.WAV differ from it in spelling alone"
    ]


def test_the_manifest_of_another_corpus_is_kept(root: Path) -> None:
    report = run(table(root))
    before = report.manifest.read_bytes()
    other = root.parent / "other"
    other.mkdir()
    with pytest.raises(ManifestError, match=r"another corpus \(corpus; 8 rows\).*--replace"):
        prepare("csv", table(other), report.manifest)
    assert report.manifest.read_bytes() == before
    prepare("csv", other, report.manifest, replace_other=True)
    assert read_manifest(report.manifest).corpus == "other"


@pytest.mark.parametrize("change", ["name", "place", "labels"])
def test_the_manifest_of_the_same_corpus_is_written_again(root: Path, change: str) -> None:
    target = run(table(root)).manifest
    if change == "place":
        (root.parent / "moved").mkdir()
        root = root.rename(root.parent / "moved" / "corpus")
    options = {"corpus": "another name"} if change == "name" else {}
    prepare("csv", root, target, options=options, labels=("joy",) if change == "labels" else ())


@pytest.mark.parametrize("content", [b"\xff\xfe\xff", b'id,audio,label\n"a,a.wav,sad\n'])
def test_what_is_no_manifest_is_not_written_over(root: Path, content: bytes) -> None:
    table(root)
    target = root.parent / "work" / "manifest.csv"
    target.parent.mkdir()
    target.write_bytes(content)
    with pytest.raises(ManifestError, match="cannot be read"):
        run(root)
    assert target.read_bytes() == content


def test_names_that_differ_by_upper_case_alone_are_warned_about(root: Path) -> None:
    for stem in "xyz":
        write_wav(root / f"{stem}.wav")
    report = run(table(root, "x.wav,Joy,ann", "y.wav,joy,Ann", "z.wav,joy,Zoe"))
    assert "WARNING: the labels Joy, joy differ by upper case alone." in report.notes
    assert "WARNING: the speakers Ann, ann differ by upper case alone." in report.notes


@pytest.mark.parametrize("whole", [True, False])
def test_rows_that_come_with_folds_and_no_splits_are_divided_by_them(
    tmp_path: Path, whole: bool
) -> None:
    rows = ["audio,label,speaker,fold"]
    for number, person in enumerate("abcd"):
        write_wav(tmp_path / f"{person}.wav")
        rows.append(f"{person}.wav,sad,{person},{'' if number == 3 and not whole else number}")
    (tmp_path / "t.csv").write_text("\n".join(rows))
    report = prepare("csv", tmp_path, tmp_path / "work" / "manifest.csv")
    homes = {u.speaker: u.split for u in read_manifest(report.manifest).utterances}
    assert bool(report.folds) == whole
    if whole:
        assert homes == {"a": "test", "b": "dev", "c": "train", "d": "train"}
