"""The report's parts: escaping, tables, rows, pictures."""

from __future__ import annotations

import base64
import csv
import io
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from corpora.alignments import Alignment
from corpora.base.page import Card, Line, Scale, safe_json
from corpora.base.report import Cell, Figure, Report, Table, csv_text, render
from corpora.textgrid import Interval
from corpora.utterance import Utterance
from explain.item import Item, Sound
from explain.picture import (
    BANDS,
    HIGHEST,
    LOWEST,
    file_name,
    mel,
    mel_spectrogram,
    utterance_figure,
)
from explain.report.rows import rows, sound_uri
from explain.report.write import Contents, page_html
from explain.subject import Reading, Word

EVIL = "</script><script>alert('x')</script><img src=x onerror=alert(1)>"


def item(text: str = EVIL, frames: int = 30) -> Item:
    attention = np.linspace(1, 3, frames)
    return Item(
        utterance=Utterance(EVIL, Path("a b/ü#1.wav"), "anger", text=text, speaker=EVIL),
        labels=("anger", "neutral"),
        probabilities=np.array([0.25, 0.75]),
        times=0.0175 + 0.02 * np.arange(frames, dtype=np.float64),
        attention=attention / attention.sum(),
        method="attention",
        columns=np.stack([attention, attention[::-1]], axis=1) / attention.sum(),
        energy=np.linspace(-60, -20, frames),
        speech=np.linspace(0, 1, frames),
        alignment=Alignment(
            (Interval(0.1, 0.3, "$x_1$ <b>"),), (Interval(0.1, 0.2, "ʃ"), Interval(0.2, 0.3, "$"))
        ),
        reading=Reading((Word("<b>$cash$", 0.6, (0.2, 0.4)), Word("go", 0.1, (0.1,))), 0.3),
        evidence=EVIL,
    )


def page_of(*sections: Report, pictures: dict[str, bytes] | None = None) -> str:
    return page_html(Contents("t", (), (), sections, (), (), {}), pictures or {}, [])


def test_every_text_of_a_page_is_escaped(tmp_path: Path) -> None:
    figure = Figure(EVIL, lambda canvas: None, EVIL)
    evil = Report(EVIL, (EVIL, Table("t", (EVIL,), [[EVIL]], EVIL), figure))
    items = [replace(item(), labels=(EVIL, "neutral"))]
    made = rows(items, tmp_path, embedded=(), pictures={})
    cards = [Card(EVIL, EVIL, EVIL, [Line(EVIL, EVIL)], Scale(0.5, marks={EVIL: 0.1}), "yes")]
    contents = Contents(EVIL, [EVIL, EVIL], cards, [evil], items, (), {}, EVIL)
    page = page_html(contents, {EVIL: b"<svg/>"}, made)
    assert "<script>alert" not in page
    assert "<img src=x" not in page
    # The page's own five scripts: one of data, four of code.
    assert page.count("<script") == 5
    assert page.count("</script>") == 5


def test_the_page_names_nothing_outside_itself(tmp_path: Path) -> None:
    page = page_of().replace("http://www.w3.org/1999/xhtml", "")  # a name, which is not fetched
    page = page.replace("http://www.w3.org/2000/svg", "")
    assert "http:" not in page
    assert "https:" not in page
    assert not re.search(r"<[^>]* (src|href)=(?!.?#)", page)
    assert "@import" not in page


def test_rows_survive_the_page(tmp_path: Path) -> None:
    text = safe_json(rows([item()], tmp_path, embedded=(), pictures={EVIL: "figures/u.svg"}))
    assert "<" not in text
    (row,) = json.loads(text)
    assert row["text"] == EVIL
    assert row["predicted"] == "neutral"
    assert row["p"] == [0.25, 0.75]
    curve = np.frombuffer(base64.b64decode(row["curve"]), dtype=np.uint8)
    assert len(curve) == 30
    assert curve.max() == 255
    # The highest is 3 where the mean is 2.
    assert row["top"] == pytest.approx(1.5)
    assert row["words"] == [["<b>$cash$", 0.9], ["go", 0.3]]
    assert row["picture"] == "figures/u.svg"


def test_recordings_that_are_not_embedded_are_linked(tmp_path: Path) -> None:
    one = item()
    there = replace(one.utterance, audio=tmp_path / "a b" / "ü#1.wav", start=2.5, end=4.0)
    (row,) = rows([replace(one, utterance=there)], tmp_path / "work", embedded=(), pictures={})
    assert row["audio"] == "../a%20b/%C3%BC%231.wav"
    assert row["at"] == 2.5


def test_an_unreadable_recording_is_a_sentence_in_its_row(tmp_path: Path) -> None:
    (row,) = rows([item()], tmp_path, embedded=[0], pictures={})
    assert row["audio"] == ""
    assert "no such file" in row["problem"]


def test_sound_in_the_page_starts_at_the_very_sample() -> None:
    """Else the curve would not move with what is heard."""
    random = np.random.default_rng(0)
    samples = np.zeros(16_000, dtype=np.float32)
    samples[5000:5200] = 0.5 * random.standard_normal(200)
    uri = sound_uri(samples)
    heard, rate = soundfile.read(io.BytesIO(base64.b64decode(uri.partition(",")[2])))
    assert rate == 16_000
    assert len(heard) == len(samples)
    product = np.fft.rfft(heard) * np.conj(np.fft.rfft(samples))
    lag = int(np.fft.irfft(product, len(samples)).argmax())
    assert min(lag, len(samples) - lag) <= 16  # a millisecond


def test_tables_show_dashes_and_cut_long_ones_but_csv_has_all() -> None:
    rising: list[list[Cell]] = [["b", k / 3] for k in range(100)]
    table = Table("t", ("name", "value"), [["a", None], *rising])
    markup = page_of(Report("S", (table,)))
    assert "–" in markup
    assert "41 more rows in the CSV" in markup
    rows = list(csv.reader(io.StringIO(csv_text(table.columns, table.rows))))
    assert len(rows) == 102
    assert rows[1] == ["a", ""]
    assert float(rows[3][1]) == 1 / 3


def test_figures_that_were_not_drawn_are_left_out() -> None:
    section = Report("S", (Figure("f", lambda canvas: None, "title"),))
    assert "<figure" not in page_of(section)
    assert "data:image/svg+xml" in page_of(section, pictures={"f": b"<svg/>"})


@pytest.mark.parametrize("frames", [1, 2, 30])
@pytest.mark.parametrize("sounding", [True, False])
def test_pictures_are_drawn_whatever_is_missing(frames: int, sounding: bool) -> None:
    random = np.random.default_rng(0)
    waveform = random.standard_normal(320 * frames + 240).astype(np.float32)
    full = item(frames=frames)
    sound = Sound(waveform, "", {"occlusion": random.standard_normal(frames)})
    bare = replace(
        full, attention=None, columns=None, energy=None, speech=None, alignment=None, reading=None
    )
    picture = (
        utterance_figure(full, sound) if sounding else utterance_figure(bare, Sound(None, "gone"))
    )
    drawn = render(picture)
    assert drawn[".png"].startswith(b"\x89PNG")
    assert b"<svg" in drawn[".svg"]


def test_tokens_of_unknown_words_are_shown_by_position() -> None:
    tokens = replace(item(), reading=None, tokens=np.array([0.5, 0.3, 0.2]))
    drawn = render(utterance_figure(tokens, Sound()))[".svg"].decode()
    assert "position of the token: which word it is of is not in the cache" in drawn
    assert "on special" not in drawn


def test_the_same_figure_gives_the_same_files() -> None:
    picture = utterance_figure(item(), Sound(None, ""))
    assert render(picture) == render(picture)


def test_files_of_utterances_have_safe_names() -> None:
    names = [file_name(name) for name in ("../a b/<c>", ".. a b c", "", "x" * 300, "03a01Fa")]
    assert names[-1] == "03a01Fa"
    assert len(set(names)) == 5
    assert all("/" not in name and len(name) < 100 for name in names)


def test_a_tone_is_bright_at_its_own_band() -> None:
    time = np.arange(16_000) / 16_000
    levels = mel_spectrogram(np.sin(2 * np.pi * 1000 * time).astype(np.float32))
    band = int(levels.mean(axis=1).argmax())
    step = (float(mel(HIGHEST)) - float(mel(LOWEST))) / (BANDS + 1)
    assert float(mel(LOWEST)) + (band + 1) * step == pytest.approx(float(mel(1000.0)), abs=step)


def test_a_recording_shorter_than_a_window_has_a_spectrogram() -> None:
    assert mel_spectrogram(np.ones(100, dtype=np.float32)).shape == (BANDS, 1)
