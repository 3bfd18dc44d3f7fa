"""TextGrids as aligners and people write them: each gives the right intervals, or one sentence."""

from __future__ import annotations

import json
import re
import tempfile
import wave
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corpora.alignments import Alignment, read_alignment, read_alignments
from corpora.textgrid import Interval
from corpora.utterance import Utterance

Row = tuple[str, str, str]
PHONES = (("0", "0.5", "A"), ("0.5", "1.25", "B"), ("1.25", "2", ""))


def grid(tiers: Mapping[str, tuple[Row, ...]], end: str = "2", start: str = "0") -> str:
    """The long format, times as they are given."""
    lines = ['File type = "ooTextFile"', 'Object class = "TextGrid"', "", f"xmin = {start}"]
    lines += [f"xmax = {end}", "tiers? <exists>", f"size = {len(tiers)}", "item []:"]
    for number, (name, rows) in enumerate(tiers.items(), start=1):
        lines += [
            f"    item [{number}]:",
            '        class = "IntervalTier"',
            f'        name = "{name}"',
        ]
        lines += [f"        xmin = {start}", f"        xmax = {end}"]
        lines += [f"        intervals: size = {len(rows)}"]
        for index, (first, last, text) in enumerate(rows, start=1):
            lines += [f"        intervals [{index}]:", f"            xmin = {first}"]
            lines += [f"            xmax = {last}", f'            text = "{text}"']
    return "\n".join(lines) + "\n"


def short(text: str) -> str:
    """The short format: what counts, and nothing else."""
    kept = [line.split(" = ")[-1].strip() for line in text.splitlines()]
    words = ("item", "intervals [", "")
    kept = ["<exists>" if line.startswith("tiers?") else line for line in kept]
    return "\n".join(line for line in kept if line and not line.startswith(words[:2]))


def one(*rows: Row, end: str = "2") -> str:
    return grid({"phones": rows}, end)


POINTS = (
    '    item [1]:\n        class = "TextTier"\n        name = "beats"\n        xmin = 0\n'
    '        xmax = 2\n        points: size = 1\n        points [1]:\n            number = 0.5\n'
    '            mark = "H*"\n'
)  # fmt: skip

READ = {
    "long": (one(*PHONES), [(0, 0.5, "A"), (0.5, 1.25, "B")]),
    "short": (short(one(*PHONES)), [(0, 0.5, "A"), (0.5, 1.25, "B")]),
    "short of old versions": (
        short(one(*PHONES)).replace("ooTextFile", "ooTextFile short"),
        [(0, 0.5, "A"), (0.5, 1.25, "B")],
    ),
    "utf-8 with a mark": (one(*PHONES).encode("utf-8-sig"), [(0, 0.5, "A"), (0.5, 1.25, "B")]),
    "utf-16": (one(("0", "1", "ˈɑː")).encode("utf-16"), [(0, 1, "ˈɑː")]),
    "utf-16 without a mark": (one(("0", "1", "ɑ")).encode("utf-16-be"), [(0, 1, "ɑ")]),
    "windows text": (one(("0", "1", "ü")).encode("cp1252"), [(0, 1, "ü")]),
    "line ends of windows": (one(*PHONES).replace("\n", "\r\n"), [(0, 0.5, "A"), (0.5, 1.25, "B")]),
    "no length": (
        one(("0", "0.5", "A"), ("0.5", "0.5", "sp"), ("0.5", "2", "B")),
        [(0, 0.5, "A"), (0.5, 2, "B")],
    ),
    "an overlap": (one(("0", "0.6", "A"), ("0.5", "2", "B")), [(0, 0.5, "A"), (0.5, 2, "B")]),
    "two of one start": (one(("0", "0.6", "A"), ("0", "2", "B")), [(0, 2, "B")]),
    "not in order": (one(("1", "2", "B"), ("0", "1", "A")), [(0, 1, "A"), (1, 2, "B")]),
    "gaps": (one(("0.1", "0.2", "A"), ("1", "1.5", "B")), [(0.1, 0.2, "A"), (1, 1.5, "B")]),
    "exponents": (one(("0", "1e-05", "A"), ("1E-5", "2.", "B")), [(0, 1e-5, "A"), (1e-5, 2, "B")]),
    "a negative start": (one(("-0.25", "0.5", "A")), [(-0.25, 0.5, "A")]),
    "no digit before the point": (one((".5", "+1", "A")), [(0.5, 1, "A")]),
    "quotation marks": (one(("0", "1", 'say ""so""')), [(0, 1, 'say "so"')]),
    "numbers and marks in a label": (one(("0", "1", "5 <x> ! =")), [(0, 1, "5 <x> ! =")]),
    "a label over two lines": (one(("0", "1", "a\nb")), [(0, 1, "a\nb")]),
    "comments": (one(("0", "1", "A")).replace("size = 1", "size = 1 ! 7 tiers"), [(0, 1, "A")]),
    "a tier of points before": (
        one(("0", "1", "A")).replace("size = 1\nitem []:\n", "size = 2\nitem []:\n" + POINTS),
        [(0, 1, "A")],
    ),
    "white space around": (one(("0", "1", " A ")), [(0, 1, "A")]),
    "SPPAS": (grid({"PhonAlign": PHONES[:1], "TokensAlign": PHONES[:1]}), [(0, 0.5, "A")]),
    "MAUS": (grid({"ORT-MAU": (), "KAN-MAU": (), "MAU": PHONES[:1]}), [(0, 0.5, "A")]),
    "one speaker": (grid({"ann - words": (), "ann - phones": PHONES[:1]}), [(0, 0.5, "A")]),
    "nothing said": (one(("0", "2", "")), []),
}  # fmt: skip

REFUSED = {
    "nothing": ("", "the file ends where File type is expected"),
    "text": ("not a TextGrid", "the file ends where File type is expected"),
    "another object": (
        'File type = "ooTextFile"\nObject class = "Pitch 1"\n', "it is ooTextFile Pitch 1"
    ),
    "a binary one": (b"ooBinaryFile\x08TextGrid\0\0", "is a binary TextGrid. In Praat, save it"),
    "MFA's JSON": (json.dumps({"tiers": {}}), "--output_format long_textgrid"),
    "no text": (b"\x81\x8d\x8f", "is not text in any of"),
    "cut short": (one(*PHONES)[:-30], "the file ends where"),
    "no tiers": (one().split("<exists>")[0] + "<absent>\n", "has the tiers none; expected one"),
    "other tiers": (grid({"f0": (), "voice": ()}), "has the tiers f0, voice; expected one named"),
    "a decimal comma": (one(("0", "0,5", "A")), "line 18 has \"A\" where xmax of an interval"),
    "a time that is none": (one(("0", "nan", "A")), "where xmax of an interval is expected"),
    "a time beyond all": (one(("0", "1e400", "A")), "xmax of an interval is beyond all numbers"),
    "a count beyond all": (
        one().replace("size = 1", "size = 1e400"), "the number of tiers is beyond all numbers"
    ),
    "a count too large": (one().replace("size = 1", "size = 1e18"), "the file ends where"),
    "backwards": (one(("1", "0.5", "A")), "in tier phones, 'A' ends at 0.5 s, before it starts"),
    "an open quotation mark": (one(("0", "1", 'say "so')), 'line 18 has " where the end is'),
    "single quotation marks": (one(("0", "1", 'say "so"')), 'line 18 has "" where the end is'),
    "more than is counted": (
        one(*PHONES).replace("size = 3", "size = 2"), "line 24 has 1.25 where the end is"
    ),
    "several speakers": (
        grid({"ann - phones": PHONES, "bob - phones": PHONES}),
        "tiers of several speakers (ann - phones, bob - phones), and the speaker is not known",
    ),
}  # fmt: skip


def write(folder: Path, content: str | bytes) -> Path:
    path = folder / "x.TextGrid"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize(("content", "phones"), READ.values(), ids=READ)
def test_an_odd_textgrid_gives_what_is_in_it(
    tmp_path: Path, content: str | bytes, phones: list[tuple[float, float, str]]
) -> None:
    found = read_alignment(write(tmp_path, content)).phones
    assert [(i.start, i.end, i.label) for i in found] == phones


@pytest.mark.parametrize(("content", "words"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_read_is_refused_in_one_message(
    tmp_path: Path, content: str | bytes, words: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(words)):
        read_alignment(write(tmp_path, content))


@dataclass(frozen=True)
class Cut:
    """A segment, its recording's length (0: not there), and what is said in it."""

    start: float | None
    end: float | None
    recording: float
    said: tuple[Interval, ...]


# Said between 3 and 4 s of 10; the rest is silent.
WHOLE = one(("0", "3", ""), ("3", "4", "A"), ("4", "10", ""), end="10")
# The same segment's own, 2.5 to 7.5 s.
OWN = one(("0", "0.5", ""), ("0.5", "1.5", "A"), ("1.5", "5", ""), end="5")
SAID = (Interval(0.5, 1.5, "A"),)


@pytest.mark.parametrize(
    ("content", "cut"),
    [
        (WHOLE, Cut(2.5, 7.5, 10, SAID)),
        (WHOLE, Cut(2.5, 7.5, 0, SAID)),
        (WHOLE, Cut(2.5, None, 10, SAID)),
        (WHOLE, Cut(None, 7.5, 10, (Interval(3, 4, "A"),))),
        (WHOLE, Cut(None, 3, 10, ())),
        (WHOLE, Cut(0.05, None, 10, (Interval(2.95, 3.95, "A"),))),
        (WHOLE, Cut(None, None, 10, (Interval(3, 4, "A"),))),
        (OWN, Cut(2.5, 7.5, 10, SAID)),
        (OWN, Cut(2.5, 7.5, 0, SAID)),
        (OWN, Cut(2.5, 7.55, 10, SAID)),
        (OWN, Cut(5, None, 10, SAID)),
    ],
)
def test_its_length_tells_whether_a_textgrid_is_of_the_segment_or_of_the_recording(
    tmp_path: Path, content: str, cut: Cut
) -> None:
    audio = tmp_path / "x.wav"
    if cut.recording:
        with wave.open(str(audio), "wb") as file:
            file.setparams((1, 2, 8000, 0, "NONE", ""))
            file.writeframes(bytes(16000 * int(cut.recording)))
    utterance = Utterance(
        "u", audio, "x", start=cut.start, end=cut.end, alignment=write(tmp_path, content)
    )
    (found,) = read_alignments([utterance]).alignments
    assert found is not None
    assert [i.label for i in found.phones] == [i.label for i in cut.said]
    for one, other in zip(found.phones, cut.said, strict=True):
        assert (one.start, one.end) == pytest.approx((other.start, other.end))


def test_a_textgrid_of_neither_is_told(tmp_path: Path) -> None:
    path = write(tmp_path, OWN)
    found = read_alignments([Utterance("u", Path("x"), "x", start=20, end=22, alignment=path)])
    assert found.alignments == (None,)
    assert "too long for the segment (20 to 22 s), too short for its recording" in found.problems[0]


@pytest.mark.parametrize(("speaker", "phone"), [("Ann", "A"), ("bob", "B"), (" BOB\u200b", "B")])
def test_of_several_speakers_the_utterances_own_is_taken(
    tmp_path: Path, speaker: str, phone: str
) -> None:
    tiers = {
        f"{who} - {kind}": (("0", "1", said),)
        for who, said in (("ann", "A"), ("bob", "B"))
        for kind in ("words", "phones")
    }
    path = write(tmp_path, grid(tiers))
    found = read_alignment(path, speaker)
    assert found == Alignment((Interval(0, 1, phone),), (Interval(0, 1, phone),))
    with pytest.raises(ValueError, match="none is of speaker 'cyd'"):
        read_alignment(path, "cyd")


def test_the_only_speaker_who_says_something_is_taken(tmp_path: Path) -> None:
    tiers = {"ann - phones": (("0", "2", ""),), "bob - phones": (("0", "1", "B"),)}
    assert read_alignment(write(tmp_path, grid(tiers))).phones == (Interval(0, 1, "B"),)


LONG = one(*PHONES).encode()


@given(
    st.lists(
        st.tuples(st.integers(0, len(LONG)), st.integers(0, 9), st.binary(max_size=4)), max_size=4
    )
)
def test_a_damaged_textgrid_is_read_or_refused_in_one_message(
    damages: list[tuple[int, int, bytes]],
) -> None:
    data = bytearray(LONG)
    for place, length, new in damages:
        data[place : place + length] = new
    with tempfile.TemporaryDirectory() as folder:
        path = write(Path(folder), bytes(data))
        (found,) = read_alignments([Utterance("u", Path("x"), "x", alignment=path)]).alignments
    for phone in found.phones if found else ():
        assert phone.end > phone.start
        assert phone.label


def test_overlaps_are_told(tmp_path: Path) -> None:
    path = write(tmp_path, one(("0", "0.6", "A"), ("0.5", "2", "B")))
    found = read_alignments([Utterance("u", Path("x"), "x", alignment=path)])
    assert found.count == 1
    assert found.problems == (
        "Words or phones overlap in 1 TextGrids: the earlier one ends where the later one starts.",
    )
