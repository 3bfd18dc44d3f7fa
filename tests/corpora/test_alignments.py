"""TextGrids: formats, names of tiers, what is missing or broken."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from corpora.alignments import frame_intervals, read_alignment, read_alignments
from corpora.textgrid import Interval, write_textgrid
from corpora.utterance import Utterance

SHORT = """File type = "ooTextFile"
Object class = "TextGrid"

0
1.2
<exists>
2
"IntervalTier"
"{words}"
0
1.2
3
0
0.3
""
0.3
0.9
"say ""so"" now"
0.9
1.2
""
"IntervalTier"
"{phones}"
0
1.2
3
0
0.3
"sil"
0.3
0.5
"S"
0.5
1.2
"EY1"
"""


def utterance(path: Path | None, start: float | None = None, end: float | None = None) -> Utterance:
    return Utterance("u1", Path("u1.wav"), "anger", start=start, end=end, alignment=path)


def short(folder: Path, words: str = "words", phones: str = "phones") -> Path:
    path = folder / "short.TextGrid"
    path.write_text(SHORT.format(words=words, phones=phones), encoding="utf-8")
    return path


def test_the_short_format_is_read(tmp_path: Path) -> None:
    found = read_alignment(short(tmp_path))
    assert found.phones[-1] == Interval(0.5, 1.2, "EY1")
    assert [w.label for w in found.words if w.label] == ['say "so" now']


def test_the_long_format_is_read(tmp_path: Path) -> None:
    path = tmp_path / "long.TextGrid"
    tiers = {"phones": [Interval(0, 0.2, "ˈɑː"), Interval(0.2, 0.5, "t")]}
    write_textgrid(path, tiers, 0.5)
    found = read_alignment(path)
    assert found.phones == (Interval(0, 0.2, "ˈɑː"), Interval(0.2, 0.5, "t"))
    assert found.words == ()


@pytest.mark.parametrize(
    ("words", "phones"), [("Words", "Phones"), ("anna - words", "anna - phones"), ("ORT", "MAU")]
)
def test_tiers_are_found_by_name(tmp_path: Path, words: str, phones: str) -> None:
    found = read_alignment(short(tmp_path, words, phones))
    assert found.words
    assert found.phones


def test_tiers_of_other_names_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has the tiers pitch, glottis"):
        read_alignment(short(tmp_path, "pitch", "glottis"))


@pytest.mark.parametrize("content", ["", "not a TextGrid", 'File type = "ooTextFile"\n'])
def test_a_broken_file_is_told_not_raised(tmp_path: Path, content: str) -> None:
    path = tmp_path / "broken.TextGrid"
    path.write_text(content, encoding="utf-8")
    found = read_alignments([utterance(path), utterance(short(tmp_path))])
    assert found.alignments[0] is None
    assert found.count == 1
    assert "TextGrids that cannot be used: 1. First: u1" in found.problems[0]


def test_missing_textgrids_are_told(tmp_path: Path) -> None:
    gone = utterance(tmp_path / "gone.TextGrid")
    found = read_alignments([utterance(None), gone, utterance(short(tmp_path))])
    assert found.count == 1
    assert found.problems[0] == "Without a TextGrid: 1 of 3 utterances."
    assert "gone.TextGrid" in found.problems[1]
    assert "No utterance has" in read_alignments([utterance(None)]).problems[0]


def test_the_textgrid_of_a_whole_recording_is_cut_to_the_segment(tmp_path: Path) -> None:
    found = read_alignments([utterance(short(tmp_path), start=0.4, end=0.8)]).alignments[0]
    assert found is not None
    assert [p.label for p in found.phones] == ["S", "EY1"]
    assert found.phones[1].start == pytest.approx(0.1)


def test_the_textgrid_of_a_segment_stays(tmp_path: Path) -> None:
    found = read_alignments([utterance(short(tmp_path), start=10.0, end=11.2)]).alignments[0]
    assert found is not None
    assert found.phones[-1].start == 0.5


def test_frames_belong_to_the_interval_that_holds_their_centre() -> None:
    intervals = [Interval(0.05, 0.1, "a"), Interval(0.1, 0.12, "b"), Interval(0.2, 0.3, "c")]
    found = frame_intervals(intervals, 0.02 + 0.04 * np.arange(8, dtype=np.float64))
    # Centres .02 .06 .10 .14 .18 .22 .26 .30
    np.testing.assert_array_equal(found, [-1, 0, 1, -1, -1, 2, 2, -1])


def test_emodb_textgrids_are_read() -> None:
    folder = Path(__file__).resolve().parents[3] / "shared" / "data" / "emodb" / "derived"
    if not folder.is_dir():
        pytest.skip("the EMO-DB data is not on this machine")
    found = read_alignment(folder / "TextGrid" / "03a01Fa.TextGrid")
    assert [w.label for w in found.words if w.label][:3] == ["der", "lappen", "liegt"]
