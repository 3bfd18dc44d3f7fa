"""Tables as people and programs write them: each gives the right value, or one sentence."""

from __future__ import annotations

import tempfile
import unicodedata
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from corpora.base.errors import EmopoolError
from corpora.manifest import read_manifest
from corpora.prepare import prepare
from corpora.readers.registry import Options, read_corpus
from corpora.utterance import Utterance
from tests.corpora.tree_parts import write_wav

JOSE = "José"
APART = unicodedata.normalize("NFD", JOSE)
KOREAN = "audio,label,speaker\na.wav,기쁨,홍길동\nb.wav,슬픔,김철수\n"


@dataclass(frozen=True)
class Right:
    """What a table gives: a value by utterance, reasons of rows left out, words of notes."""

    values: tuple[object, ...]
    of: str = "label"
    reasons: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    options: Options = field(default_factory=dict)


def rows(*lines: str, header: str = "audio,label,speaker") -> bytes:
    return ("\n".join((header, *lines)) + "\n").encode()


A, B = "a.wav,sad,ann", "b.wav,joy,bob"
PLAIN = rows(A, B).decode()

READ = {
    "semicolons": (PLAIN.replace(",", ";").encode(), Right(("sad", "joy"))),
    "tabs": (PLAIN.replace(",", "\t").encode(), Right(("sad", "joy"))),
    "bars": (PLAIN.replace(",", "|").encode(), Right(("sad", "joy"))),
    "commas in a semicolon header's names": (
        b"audio;label;a,b,c,d\nx.wav;sad;1\n",
        Right(("sad",), notes=("Columns not used: a,b,c,d.",)),
    ),
    "excel's separator line": (
        ("sep=;\r\n" + PLAIN.replace(",", ";")).encode(),
        Right(("sad", "joy")),
    ),
    "excel's separator line in quotes, any character": (
        ('"sep=^"\n' + PLAIN.replace(",", "^")).encode(),
        Right(("sad", "joy")),
    ),
    "excel's separator line keeps line numbers": (
        b"sep=,\naudio,label\na.wav,sad\n,joy\n",
        Right(("sad",), reasons=("t.csv:4: audio is empty",)),
    ),
    "utf-8 with a mark": (PLAIN.encode("utf-8-sig"), Right(("sad", "joy"))),
    "utf-8 with a mark and a separator line": (
        ("sep=,\n" + PLAIN).encode("utf-8-sig"),
        Right(("sad", "joy")),
    ),
    "utf-16 with a mark": (PLAIN.encode("utf-16"), Right(("sad", "joy"), notes=("utf-16",))),
    "utf-16 little-endian without": (
        PLAIN.encode("utf-16-le"),
        Right(("sad", "joy"), notes=("read as utf-16-le",)),
    ),
    "utf-16 big-endian without": (
        PLAIN.encode("utf-16-be"),
        Right(("sad", "joy"), notes=("read as utf-16-be",)),
    ),
    "korean utf-16 without a mark": (KOREAN.encode("utf-16-le"), Right(("기쁨", "슬픔"))),
    "utf-32": (PLAIN.encode("utf-32"), Right(("sad", "joy"), notes=("utf-32",))),
    "windows text": (
        rows(A).decode().replace("ann", "Jürgen").encode("cp1252"),
        Right(("Jürgen",), "speaker", notes=("read as cp1252",)),
    ),
    "a western word that is valid korean": (
        rows(A).decode().replace("ann", "Ärger").encode("cp1252"),
        Right(("Ärger",), "speaker", notes=("read as cp1252",)),
    ),
    "korean windows text": (
        KOREAN.encode("cp949"),
        Right(("기쁨", "슬픔"), notes=("read as cp949",)),
    ),
    "an encoding that is told": (
        "audio,label\na.wav,高兴\n".encode("gb18030"),
        Right(("高兴",), options={"encoding": "gb18030"}),
    ),
    "line ends of old macs": (PLAIN.replace("\n", "\r").encode(), Right(("sad", "joy"))),
    "line ends of windows": (PLAIN.replace("\n", "\r\n").encode(), Right(("sad", "joy"))),
    "no last line end": (PLAIN.strip().encode(), Right(("sad", "joy"))),
    "blank lines and rows of separators": (rows("", A, ",,", "", B), Right(("sad", "joy"))),
    "quoted cells with line ends": (
        rows('a.wav,sad,"ann\n lee"', B),
        Right(("ann lee", "bob"), "speaker"),
    ),
    "quotation marks inside": (rows('a.wav,"""sad""",ann'), Right(('"sad"',))),
    "a header in capitals with spaces": (
        rows(A, header=" AUDIO , Label ,\u00a0Speaker\u200b"),
        Right(("ann",), "speaker"),
    ),
    "composed and decomposed names": (
        rows(f"a.wav,sad,{JOSE}", f"b.wav,sad,{APART}"),
        Right((JOSE, JOSE), "speaker"),
    ),
    "composed and decomposed labels": (
        rows("a.wav,fröhlich,x", f"b.wav,{unicodedata.normalize('NFD', 'fröhlich')},y"),
        Right(("fröhlich", "fröhlich")),
    ),
    "no-break space, no width, zero byte": (
        rows("a.wav,sad,ann\u00a0lee", "b.wav,sad,ann \u200blee", "c.wav,sad,ann lee\0"),
        Right(("ann lee",) * 3, "speaker"),
    ),
    "direction marks and joiners": (
        rows("a.wav,sad,\u200eann\u202c", "b.wav,sad,می\u200cخوا"),
        Right(("ann", "می\u200cخوا"), "speaker"),
    ),
    "a label that is nan": (
        rows("a.wav,nan,ann", B),
        Right(("", "joy"), notes=("WARNING: the label 'nan' of 1 utterances is read as missing",)),
    ),
    "labels None, N/A, null, - and ?": (
        rows(*(f"{k}.wav,{word},x" for k, word in enumerate(("None", "N/A", "null", "-", "?")))),
        Right(("",) * 5, notes=("'None'", "'N/A'", "'null'", "'-'", "'?'")),
    ),
    "a speaker that is nan in two splits": (
        rows(
            "a.wav,sad,nan,train", "b.wav,joy,nan,test", header="audio,label,speaker,split"
        ),
        Right(("", ""), "speaker", notes=("the speaker 'nan' of 2 utterances",)),
    ),
    "missing numbers and choices": (
        rows(
            "a.wav,sad,nan,None,-,N/A,?,nan",
            header="audio,label,arousal,end,split,sex,fold,language",
        ),
        Right(((None, None, "", "", "", ""),), "arousal end split sex fold language"),
    ),
    "a missing text, and one that is a word": (
        rows("a.wav,sad,nan", "b.wav,joy,None", "c.wav,joy,?", header="audio,label,text"),
        Right(("", "None", "?"), "text", notes=("The text 'nan' of 1 rows is read as empty.",)),
    ),
    "missing ids and recordings": (
        rows("nan,a.wav,sad", "x,NaN,sad", "y,b.wav,joy", header="id,audio,label"),
        Right(("joy",), reasons=("id is empty", "audio is empty")),
    ),
    "columns with other names": (
        rows(
            "a.wav,sad,ann,F,hello,train,1",
            header="audio,label,speaker_id,Gender,transcription,partition,foo",
        ),
        Right(
            ("",),
            "speaker",
            notes=(
                "Columns not used: speaker_id (speaker? --column speaker=speaker_id), Gender (sex? "
                "--column sex=Gender), transcription (text? --column text=transcription), "
                "partition (split? --column split=partition), foo.",
            ),
        ),
    ),
    "columns that are told": (
        rows("a.wav,sad,other", header="path,emotion,label"),
        Right(
            ("sad",),
            options={"column": "audio=path, label=Emotion"},
            notes=("Columns not used: label.",),
        ),
    ),
    "a told column with a comma in its name": (
        rows("a.wav;sad", header="a,b;label"),
        Right(("sad",), options={"column": '"audio=a,b"'}),
    ),
    "corpus and language that are told": (
        rows("a.wav,sad,mine,", "b.wav,joy,,de", header="audio,label,corpus,language"),
        Right(
            (("mine", "no"), ("theirs", "de")),
            "corpus language",
            options={"corpus": "theirs", "language": "no"},
        ),
    ),
    "names of splits": (
        rows(
            *(f"{k}.wav,sad,{name}" for k, name in enumerate(("Train", "devel", "eval", "Test1"))),
            header="audio,label,split",
        ),
        Right(("train", "dev", "test"), "split", reasons=("split 'eval' is not one of",)),
    ),
    "eval where there is no other test": (
        rows("a.wav,sad,train", "b.wav,sad,evaluation", header="audio,label,split"),
        Right(("train", "test"), "split", notes=("evaluation is test",)),
    ),
    "eval where there is no other dev": (
        rows("a.wav,sad,test_set", "b.wav,sad,Eval", header="audio,label,split"),
        Right(("test", "dev"), "split", notes=("test_set is test, Eval is dev",)),
    ),
    "two unused columns of one name": (rows("a.wav,sad,1,2", header="audio,label,x,x"),
                                       Right(("sad",), notes=("not used: x, x.",))),
    "a short and a long row": (
        rows(A, "b.wav,joy", "c.wav,joy,cyd,1"),
        Right(("sad",), reasons=("t.csv:3: 2 cells", "t.csv:4: 4 cells")),
    ),
    "a decimal comma": (
        b"audio;label;start\na.wav;sad;0,5\nb.wav;joy;0.5\n",
        Right(("joy",), reasons=("start '0,5' is not a number (written like 1.5)",)),
    ),
    "a formula": (rows("a.wav,=1+1,ann"), Right(("=1+1",))),
}  # fmt: skip

REFUSED = {
    "nothing": (b"", {}, "is empty. Expected a header"),
    "zero bytes": (b"\0" * 64, {}, "has no column audio"),
    "a recording": (b"RIFF\x24\0\0\0WAVEfmt \x10\0\0\0\x01\0", {}, "has no column audio"),
    "a zipped sheet": (b"PK\x03\x04\x14\0\x06\0\x08\0\x81\x8d\xff", {}, "is not text in any of"),
    "half a character": (PLAIN.encode("utf-16")[:-1], {}, "is not text in any of utf-16"),
    "a header alone": (b"audio,label\n", {}, "it has no rows"),
    "a header with other names": (
        b"path,emotion\na.wav,sad\n", {},
        "for example --column audio=path --column label=emotion",
    ),
    "two columns of one name": (b"audio,label,Label\na.wav,sad,joy\n", {}, "two columns label"),
    "an open quotation mark": (rows('"a.wav,sad,ann', B), {}, "line 2: cannot be read as a row"),
    "missing names alone": (rows("nan,sad,ann"), {}, "audio is empty"),
    "a told column that is not there": (
        rows(A), {"column": "text=transcrpt,audio=audo"},
        "has no column transcrpt. Columns found: audio, label, speaker",
    ),
    "a told column that there is not": (
        rows(A), {"column": "speeker=speaker"}, "Did you mean 'speaker'?"
    ),
    "a told column twice": (rows(A), {"column": "text=audio,text=label"}, "names text twice"),
    "one column told as two": (
        rows(A), {"column": "text=label,speaker=label"}, "each once. Columns:"
    ),
    "an encoding that there is not": (rows(A), {"encoding": "latin-99"}, "there is no encoding"),
    "an encoding of something else": (rows(A), {"encoding": "hex"}, "there is no encoding"),
    "another encoding": (rows(JOSE), {"encoding": "ascii"}, "is not text in ascii"),
}  # fmt: skip


@pytest.mark.parametrize(("data", "right"), READ.values(), ids=READ)
def test_an_odd_table_gives_what_is_in_it(tmp_path: Path, data: bytes, right: Right) -> None:
    (tmp_path / "t.csv").write_bytes(data)
    result = read_corpus("csv", tmp_path, right.options)

    def value(utterance: Utterance) -> object:
        found = tuple(getattr(utterance, name) for name in right.of.split())
        return found if len(found) > 1 else found[0]

    assert tuple(map(value, result.utterances)) == right.values
    left_out = [f"{one.where}: {one.reason}" for one in result.dropped]
    assert len(left_out) == len(right.reasons), left_out
    assert all(words in text for words, text in zip(right.reasons, left_out, strict=True))
    told = " ".join(result.notes)
    assert all(words in told for words in right.notes), told


@pytest.mark.parametrize(("data", "options", "words"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_table_is_refused_in_one_message(
    tmp_path: Path, data: bytes, options: Options, words: str
) -> None:
    (tmp_path / "t.csv").write_bytes(data)
    with pytest.raises(EmopoolError) as error:
        read_corpus("csv", tmp_path / "t.csv", options)
    assert words in str(error.value)


PATHS = ("a.wav", "b.wav", "c.wav", "d.wav", "A.WAV", "a\u200b.wav", "../a.wav", "e.wav", "nan", "")
CELLS = (
    *("sad", "joy", "nan", "", " ", "-", '"', "0,5"),
    *("train", "eval", JOSE, APART, "1e400", "\0", "\ufeff", "\ud55c", "1:2;3", "x" * 300),
)
COLUMN_NAMES = ("speaker", "Split", "start", "session", "votes", "id", "foo", "")
NO_CELLS = frozenset(',;\t|"\r\n\v\f\x1c\x1d\x1e\x85\u2028\u2029\ufeff\0')


@st.composite
def tables(draw: st.DrawFn) -> tuple[bytes, int | None]:
    """Bytes of any kind, or a table of odd cells, perhaps damaged; and its rows, where known."""
    if draw(st.integers(0, 4)) == 0:
        return draw(st.binary(max_size=200)) + draw(st.sampled_from((b"", rows(A, B)))), None
    header = draw(st.lists(st.sampled_from(COLUMN_NAMES), max_size=2, unique=True))
    cell = st.sampled_from(CELLS) | st.text(max_size=5)
    width = 1 + len(header)
    others = st.lists(cell, min_size=width, max_size=width) | st.lists(cell, max_size=width + 1)
    line = st.tuples(st.sampled_from(PATHS) | cell, others).map(lambda parts: [parts[0], *parts[1]])
    good = [[f"{stem}.wav", label, *[""] * len(header)] for stem, label in ("bx", "cy", "dx")]
    body = [*good, *draw(st.lists(line, max_size=6))]
    mark = draw(st.sampled_from(",;\t|"))
    text = "\n".join(mark.join(one) for one in [["audio", "label", *header], *body])
    encoding = draw(st.sampled_from((*["utf-8"] * 4, "utf-16", "utf-16-le", "cp1252", "cp949")))
    data = bytearray(text.encode(encoding, "replace"))
    damaged = draw(st.integers(0, 3)) == 0
    holes = draw(st.lists(st.integers(0, len(data) - 1), max_size=2)) if damaged else []
    for place in holes:
        data[place : place + 1] = draw(st.binary(max_size=1))
    plain = encoding == "utf-8" and not holes and not NO_CELLS & set("".join(map("".join, body)))
    count = sum(any(map(str.strip, one)) for one in body)
    return bytes(data), count if plain else None


@settings(max_examples=150)
@given(tables())
@example((rows(A, B), 2))
@example((b"\xef\xbb", None))
@example((rows("a.wav,sad,x", "A.WAV,joy,y", "b.wav,sad,z", "c.wav,sad,z", ",joy,z"), 5))
def test_whatever_stands_in_a_table_every_row_is_accounted_for(
    table: tuple[bytes, int | None],
) -> None:
    data, count = table
    with tempfile.TemporaryDirectory() as name:
        root = Path(name) / "corpus"
        for stem in "abcd":
            write_wav(root / f"{stem}.wav")
        (root / "t.csv").write_bytes(data)
        options = {"shared_speakers": True}
        try:
            read = read_corpus("csv", root, options)
            report = prepare("csv", root, Path(name) / "w" / "manifest.csv", options=options)
        except EmopoolError:
            return
        written = read_manifest(report.manifest).utterances
        gone = [one for one in report.missing if "left out" in one.reason]
        assert count in (None, len(read.utterances) + len(read.dropped))
        assert len(written) + len(gone) == len(read.utterances)
        assert report.dropped == read.dropped
        assert {(u.id, u.label, u.speaker) for u in written} <= {
            (u.id, u.label, u.speaker) for u in read.utterances
        }
        assert report.to_text()
