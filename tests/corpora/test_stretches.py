"""Stretches of recordings: evenly spaced, from TextGrids, tables and RTTM; what is refused."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corpora.base.errors import AudioError, ConfigError
from corpora.stretches import (
    Stretch,
    checked,
    evenly,
    read_stretches,
    rttm_line,
    textgrid_stretches,
)
from corpora.textgrid import Interval, write_textgrid


@given(st.floats(0.1, 100), st.floats(0.5, 20), st.floats(0.1, 20))
def test_windows_lie_inside_and_reach_both_ends(
    duration: float, every: float, window: float
) -> None:
    found = evenly(duration, every, window)
    assert found[0].start == 0
    assert found[-1].end == pytest.approx(duration)
    if duration <= window:
        assert found == [Stretch(0.0, duration)]
        return
    assert all(one.seconds == pytest.approx(window, abs=2e-6) for one in found)
    steps = [right.start - left.start for left, right in pairwise(found)]
    assert steps[:-1] == pytest.approx([every] * (len(steps) - 1), abs=2e-6)
    assert all(0 <= step <= every + 2e-6 for step in steps)
    spans = [one.span for one in found if one.span is not None]
    assert len(spans) == len(found)
    assert spans[0][0] == 0
    assert spans[-1][1] == pytest.approx(duration)
    for one, (first, last) in zip(found, spans, strict=True):
        assert one.start <= first <= last <= one.end
    for (_, left), (right, _) in pairwise(spans):
        # Windows that overlap leave no moment out; none is stood for twice.
        assert left <= right
        assert every > window or left == right


def test_stretches_are_ordered_and_ends_past_by_rounding_are_the_end() -> None:
    given_ = [Stretch(2.0, 3.04), Stretch(0.0, 1.0, "a")]
    assert checked(given_, 3.0, "a.wav") == [Stretch(0.0, 1.0, "a"), Stretch(2.0, 3.0)]


@pytest.mark.parametrize(
    ("stretch", "said"),
    [
        (Stretch(1.0, 1.0), r"the segment 1 to 1 s is empty"),
        (Stretch(2.0, 1.0), "is empty"),
        (Stretch(-0.1, 1.0), "does not lie inside the recording"),
        (Stretch(2.0, 3.1), r"the recording, which is 3\.000 s long"),
        (Stretch(1.0, 1.01), r"shorter than one frame of the encoder \(0\.025 s\)"),
    ],
)
def test_what_cannot_be_answered_is_said(stretch: Stretch, said: str) -> None:
    with pytest.raises(AudioError, match=said):
        checked([stretch], 3.0, "a.wav", 0.025)


def test_intervals_with_a_label_are_stretches(tmp_path: Path) -> None:
    path = tmp_path / "a.TextGrid"
    words = [Interval(0, 1, ""), Interval(1, 2.5, "ja"), Interval(2.5, 3, "nein")]
    write_textgrid(path, {"words": words, "empty": [Interval(0, 3, "")]}, 3.0)
    assert textgrid_stretches(path, "words") == [Stretch(1, 2.5, "ja"), Stretch(2.5, 3, "nein")]
    with pytest.raises(AudioError, match=r"no tier 'phones' of intervals\. Its tiers are words, e"):
        textgrid_stretches(path, "phones")
    with pytest.raises(AudioError, match="no interval of the tier 'empty' has a label"):
        textgrid_stretches(path, "empty")
    with pytest.raises(AudioError, match="no such TextGrid"):
        textgrid_stretches(tmp_path / "b.TextGrid", "words")


def test_a_table_names_recordings_from_its_folder_or_as_they_are_given(tmp_path: Path) -> None:
    path = tmp_path / "cuts.csv"
    path.write_text("Path,start,end,name,text\nx/a.wav,0,1,A,hello there\nb.wav,1,2,B,\n")
    found = read_stretches(path)
    assert found.of(tmp_path / "x" / "a.wav", "anything") == [Stretch(0, 1, "A", "hello there")]
    assert found.of(Path("b.wav"), "b.wav") == [Stretch(1, 2, "B")]
    with pytest.raises(AudioError, match=r"c\.wav: .*cuts\.csv has no segment of it"):
        found.of(Path("c.wav"), "c.wav")
    path.write_text("start,end\n0.5,1.5\n")
    assert read_stretches(path).of(Path("any.wav"), "any.wav") == [Stretch(0.5, 1.5)]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("from,to\n1,2\n", "no column start and no column end. Columns found: from, to"),
        ("start,end\n1,x\n", "line 2: 'x' is not a number of seconds"),
        ("start,end\n1,nan\n", "line 2: 'nan' is not a number"),
        ("start,end\n1\n", "line 2: cannot be read as 2 cells"),
        ("path,start,end\n,1,2\n", "line 2: path is empty"),
        ("start,end\n", "holds no segment"),
    ],
)
def test_a_table_that_says_too_little_is_refused(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "cuts.csv"
    path.write_text(text)
    with pytest.raises(ConfigError, match=said):
        read_stretches(path)


def test_rttm_reads_back_and_has_nists_fields(tmp_path: Path) -> None:
    audio = tmp_path / "two words.wav"
    lines = [
        rttm_line(audio, 0.5, 2.25, "anger", 0.875),
        rttm_line(audio, 2.25, 2.5, "very sad", 0.5, "short"),
    ]
    assert lines[0] == "SPEAKER two_words 1 0.500 1.750 <NA> <NA> anger 0.8750 <NA>"
    assert lines[1] == "SPEAKER two_words 1 2.250 0.250 <NA> short very_sad 0.5000 <NA>"
    path = tmp_path / "a.rttm"
    path.write_text("\n".join(["SPKR-INFO two_words 1 <NA> <NA> <NA> x y <NA> <NA>", *lines]))
    assert read_stretches(path).of(audio, "two words.wav") == [
        Stretch(0.5, 2.25, "anger"),
        Stretch(2.25, 2.5, "very_sad"),
    ]
    path.write_text("SPEAKER a 1 0.5")
    with pytest.raises(ConfigError, match="line 1: 4 fields; a SPEAKER line of RTTM has ten"):
        read_stretches(path)
    with pytest.raises(ConfigError, match=r"--segments .*none\.rttm: no such file"):
        read_stretches(tmp_path / "none.rttm")


def test_what_is_written_pyannote_reads(tmp_path: Path) -> None:
    util = pytest.importorskip("pyannote.database.util", reason="pyannote is not installed")
    path = tmp_path / "a.rttm"
    path.write_text(rttm_line(Path("a.wav"), 0.5, 2.25, "anger", 0.875) + "\n")
    [(_, _, label)] = util.load_rttm(path)["a"].itertracks(yield_label=True)
    assert label == "anger"
