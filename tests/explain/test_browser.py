"""The page in headless Chromium: search, filter, play, seek, compare, fold, print; silent console.

Skipped where Chromium or its driver is not installed. With the path of axe-core's `axe.min.js` in
`EMOPOOL_AXE`, accessibility is tested too.
"""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from corpora.alignments import Alignment
from corpora.base.page import Card, Line, Scale
from corpora.base.report import Report, Table
from corpora.textgrid import Interval
from corpora.utterance import Utterance
from explain.item import Item
from explain.report.rows import rows
from explain.report.write import Contents, page_html
from tests.explain.chromium import CHROMIUM, DRIVER, Browser, chromium
from tests.explain.conftest import SCRIPT

pytestmark = pytest.mark.skipif(
    not (CHROMIUM and DRIVER), reason="chromium and chromedriver are not installed"
)
COUNT, SECONDS, FRAMES = 2600, 1.2, 60
LABELS = ("anger", "sadness", "neutral")
IMAGE = "<img src=x onerror=\"document.title='stolen'\">"


def make_items(folder: Path) -> list[Item]:
    """Many: the first is to be embedded, the second a file, the third a part of a file.

    The fourth is half as long, and its attention less even.
    """
    time = np.arange(3 * 16_000) / 16_000
    soundfile.write(folder / "long #1.wav", 0.3 * np.sin(2 * np.pi * 220 * time), 16_000)
    soundfile.write(folder / "short.wav", 0.3 * np.sin(2 * np.pi * 220 * time[:19_200]), 16_000)
    words = tuple(
        Interval(0.3 * k, 0.3 * (k + 1), word) for k, word in enumerate((IMAGE, "b", "c"))
    )
    items = []
    for number in range(COUNT):
        part, short = number == 2, number == 3
        frames, length = (FRAMES // 2, SECONDS / 2) if short else (FRAMES, SECONDS)
        attention = np.linspace(0, 5, frames) ** (3 if short else 1)
        utterance = Utterance(
            f"u{number:04}" if number else SCRIPT,
            folder / ("long #1.wav" if part else "short.wav"),
            LABELS[number % 3],
            text=IMAGE if number == 1 else f"number {number}",
            speaker=f"{SCRIPT}{number % 4}",
            start=1.5 if part else 0.0 if short else None,
            end=1.5 + SECONDS if part else length if short else None,
        )
        sure = 0.4 + 0.6 * (number % 50) / 50
        chances = np.full(3, (1 - sure) / 2)
        chances[0 if number % 10 == 5 else number % 3] = sure
        items.append(
            Item(
                utterance=utterance,
                labels=LABELS,
                probabilities=chances,
                times=0.01 + 0.02 * np.arange(frames, dtype=np.float64),
                attention=attention / attention.sum(),
                method="attention",
                energy=np.linspace(-40, -10, frames),
                speech=np.ones(frames),
                alignment=Alignment(words[: 2 if short else 3], ()),
                evidence=SCRIPT,
                stretches=[(0.2, 0.5)],
            )
        )
    return items


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    items = make_items(folder)
    scale = Scale(0.5, 0.4, 0.6, {"guessing": 0.3})
    table = Table("the-table", ("a", "b"), [[SCRIPT, 0.5]] * 20, "A table")
    contents = Contents(
        title=SCRIPT,
        intro=(SCRIPT, "More."),
        cards=[
            Card("Is it good?", "0.500", "macro-F1", [Line(SCRIPT, "the-table")], scale),
            Card("May it be believed?", "Yes", tone="yes"),
        ],
        sections=[Report(SCRIPT, (SCRIPT, table)), Report("Nothing", ("Nothing to say.",))],
        items=items,
        embedded=[0],
        summary={},
    )
    made = rows(items, folder, embedded=[0], pictures={})
    page = folder / "report.html"
    page.write_text(page_html(contents, {}, made), encoding="utf-8")
    return page


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as own:
        yield own


@pytest.fixture
def page(browser: Browser, written: Path) -> Iterator[Browser]:
    browser.open(written)
    browser.wait("document.querySelector('.clip')")
    yield browser
    assert browser.console() == []


def choose(page: Browser, number: int) -> None:
    page.run("document.querySelectorAll('#list .row')[arguments[0]].click()", number)
    page.wait("document.querySelector('.clip .wave > div')")


def clock(page: Browser) -> float:
    return float(page.run("return document.querySelector('.clip [role=slider]').ariaValueNow"))


def count(page: Browser) -> str:
    said: str = page.run("return document.getElementById('count').textContent")
    return said


def test_the_page_answers_first_and_runs_no_text(page: Browser) -> None:
    assert page.run("return document.title") == SCRIPT
    cards, player, section = page.run(
        "return ['.cards', '#player', 'details.section'].map("
        "(at) => document.querySelector(at).getBoundingClientRect().top)"
    )
    assert cards < player < section
    assert page.run("return document.querySelectorAll('main img, script[src]').length") == 0
    assert SCRIPT in page.run("return document.querySelector('.clip h3').textContent")
    ids = page.run("return [...document.querySelectorAll('[id]')].map((one) => one.id)")
    assert len(ids) == len(set(ids))
    assert page.run("return document.documentElement.scrollWidth <= innerWidth")
    choose(page, 1)
    assert IMAGE in page.run("return document.querySelector('.clip .about').textContent")


def test_only_rows_in_sight_are_on_the_page(page: Browser) -> None:
    assert page.run("return document.querySelectorAll('#list .row').length") < 50
    page.run("document.getElementById('list').scrollTop = 1e9")
    page.wait(f"document.getElementById('row-{COUNT - 1}')")
    assert page.run("return document.querySelectorAll('#list .row').length") < 50


def test_search_and_filters_narrow_the_list(page: Browser) -> None:
    set_to = (
        "const e = document.getElementById(arguments[0]); e.value = arguments[1];"
        "e.dispatchEvent(new Event('input', {bubbles: true}))"
    )
    assert count(page) == "2,600 of 2,600 utterances"
    page.click("#search")
    page.press(*"number 25")
    found = sum("25" in str(number) for number in range(1, COUNT))
    page.wait(f"document.getElementById('count').textContent.startsWith('{found} of')")
    page.click("#reset")
    assert count(page).startswith("2,600 of")
    page.run(set_to, "which", "wrong")
    wrong = int(count(page).split()[0])
    page.run(set_to, "which", "right")
    assert int(count(page).split()[0].replace(",", "")) == COUNT - wrong
    page.run(set_to, "which", "")
    page.run(set_to, "label", "sadness")
    page.run(set_to, "predicted", "anger")
    page.run(set_to, "speaker", f"{SCRIPT}1")
    page.run(set_to, "confidence", "0.9 2")
    page.run(set_to, "sort", "low")
    heard = page.run("return [...document.querySelectorAll('#list .row')].map((e) => e.innerText)")
    assert heard
    assert all("sadness → anger ✗" in text for text in heard)
    # What is open is in the list.
    assert page.run("return document.querySelector('.clip h3').textContent").split(":")[
        0
    ] in " ".join(heard)
    assert "highest at" in page.run("return document.querySelector('.legend').textContent")
    sure = [float(text.split("\n")[-1].split()[0]) for text in heard]
    assert sure == sorted(sure)
    assert sure[0] >= 0.9


@pytest.mark.parametrize("number", [0, 1, 2])
def test_recordings_play_and_seek(page: Browser, number: int) -> None:
    """In the page, as a file, and as a part of a file."""
    choose(page, number)
    assert clock(page) == 0
    page.click(".clip .play")
    page.wait("Number(document.querySelector('.clip [role=slider]').ariaValueNow) > 0.1")
    assert "Pause" in page.run("return document.querySelector('.clip .play').textContent")
    page.click(".clip .play")
    page.wait("document.querySelector('.clip .play').textContent.includes('Play')")
    page.click(".clip .wave", 0.5)
    assert clock(page) == pytest.approx(SECONDS / 2, abs=0.02)
    assert page.run("return document.querySelector('.clip .problem').textContent") == ""


def test_the_keyboard_is_enough(page: Browser) -> None:
    page.run("document.getElementById('list').focus()")
    page.press("Down", "Down")
    assert "u0002" in page.run("return document.querySelector('.clip h3').textContent")
    assert (
        page.run("return document.getElementById('list').getAttribute('aria-activedescendant')")
        == "row-2"
    )
    page.press("Right", "Right")
    assert clock(page) == pytest.approx(0.2, abs=0.02)
    page.press("Shift", "Right")
    assert clock(page) == pytest.approx(0.3, abs=0.02)  # where the next word begins
    page.press(" ")
    page.wait("Number(document.querySelector('.clip [role=slider]').ariaValueNow) > 0.4")
    page.press(" ")
    page.press("+")
    wide = "const s = document.querySelector('.wave > div').shadowRoot.querySelector('.scroll');"
    assert page.run(f"{wide} return s.scrollWidth > 1.3 * s.clientWidth")
    page.press("-")
    assert page.run(f"{wide} return s.scrollWidth <= s.clientWidth + 1")
    page.press("c")
    assert page.run("return document.querySelectorAll('.clip').length") == 2
    page.press("Down")
    names = page.run("return [...document.querySelectorAll('.clip h3')].map((e) => e.textContent)")
    assert ["u0002" in names[0], "u0004" in names[1]] == [True, True]
    assert page.run("return document.querySelector('#list .kept b').textContent") == "u0002"
    page.press("c")
    assert page.run("return document.querySelectorAll('.clip').length") == 1
    page.press("/")
    assert page.run("return document.activeElement.id") == "search"


# Of each clip: where it stands, how wide its wave is, where attention is even, the order of its
# probabilities, and how wide what it scrolls is.
CLIPS = """return [...document.querySelectorAll('.clip')].map((clip) => {
  const box = clip.getBoundingClientRect(), inner = clip.querySelector('.wave > div').shadowRoot;
  const wave = clip.querySelector('.wave').getBoundingClientRect();
  return {top: box.top, left: box.left, wave: wave.top, width: wave.width - 2,
    even: inner.querySelector('path[d^="M0,"]').getAttribute('d').split('H')[0],
    length: inner.querySelector('.scroll').scrollWidth,
    order: [...clip.querySelectorAll('.chances li span:first-child')].map((e) => e.textContent)};
})"""


def test_two_stand_side_by_side_on_one_scale_of_time_and_attention(page: Browser) -> None:
    wide, narrow = ({"width": w, "deviceScaleFactor": 1, "mobile": w < 400} for w in (1280, 390))
    page.devtools("Emulation.setDeviceMetricsOverride", height=900, **wide)
    choose(page, 0)
    [alone] = page.run(CLIPS)
    page.press("c")
    choose(page, 3)
    page.wait("document.querySelectorAll('.clip').length === 2")
    page.wait("document.querySelectorAll('.clip .wave > div').length === 2")
    long, short = page.run(CLIPS)
    assert (long["top"], long["wave"]) == (short["top"], short["wave"])
    assert short["left"] > long["left"] + long["width"]
    assert short["width"] == pytest.approx(long["width"] / 2, abs=0.5)
    # The even share lies as high in both, and lower than in the less attended one alone.
    assert short["even"] == long["even"] != alone["even"]
    assert long["order"] == short["order"]
    assert "Both on one scale" in page.run("return document.getElementById('shared').textContent")
    page.press("+", "+", "+", "+")
    long, short = page.run(CLIPS)
    assert short["length"] == pytest.approx(long["length"] / 2, rel=0.02)
    assert long["length"] > 2 * long["width"]
    page.devtools("Emulation.setDeviceMetricsOverride", height=800, **narrow)
    page.press("-", "-", "-", "-", "-")
    long, short = page.run(CLIPS)
    assert short["top"] > long["wave"] + 200
    assert short["width"] == pytest.approx(long["width"] / 2, abs=0.5)
    assert page.run("return document.documentElement.scrollWidth") == 390
    small = "[...document.querySelectorAll('.tools button')].filter((e) => e.offsetHeight < 44)"
    assert page.run(f"return {small}.length") == 0
    page.devtools("Emulation.clearDeviceMetricsOverride")
    page.press("c")
    page.wait("document.querySelectorAll('.clip').length === 1")
    assert page.run("return document.getElementById('shared').textContent") == ""


def test_what_is_folded_or_clicked_is_not_printed(page: Browser) -> None:
    page.devtools("Emulation.setEmulatedMedia", media="print")
    height = "return document.querySelector(arguments[0]).offsetHeight"
    assert page.run(height, ".clip") > 100
    assert [page.run(height, at) for at in (".browse", ".tools", "#unfold")] == [0, 0, 0]
    assert page.run(height, "details.section") < 60
    # The waveform is as wide as its time axis, whatever it was drawn for.
    page.press("c")
    page.devtools("Emulation.setEmulatedMedia", media="")
    page.wait("document.querySelectorAll('.clip .wave > div').length === 2")
    page.press("+", "+")
    page.run("dispatchEvent(new Event('beforeprint'))")
    page.devtools("Emulation.setEmulatedMedia", media="print")
    widths = page.run(
        "const inner = document.querySelector('.wave > div').shadowRoot;"
        "return ['.wrapper', 'canvas'].map((e) => inner.querySelector(e).offsetWidth)"
    )
    assert widths[0] == pytest.approx(widths[1], abs=1)
    page.devtools("Emulation.setEmulatedMedia", media="")
    paper = base64.b64decode(page.devtools("Page.printToPDF")["data"])
    assert len(re.findall(rb"/Type\s*/Page\b", paper)) <= 3


def test_a_link_opens_the_fold_of_its_table(page: Browser) -> None:
    assert not page.run("return document.querySelector('details.section').open")
    page.click(".card a")
    page.wait("document.querySelector('details.section').open")
    assert page.run("return document.querySelector('#table-the-table details').open")
    page.click("#unfold")
    page.click("#unfold")
    assert not page.run("return document.querySelector('details.section').open")
    page.click("details.section summary", 0.05)
    assert page.run("return document.querySelector('details.section').open")


def test_dark_and_narrow(page: Browser) -> None:
    dark = [{"name": "prefers-color-scheme", "value": "dark"}]
    size = {"width": 390, "height": 800, "deviceScaleFactor": 1, "mobile": True}
    page.devtools("Emulation.setEmulatedMedia", features=dark)
    page.devtools("Emulation.setDeviceMetricsOverride", **size)
    colour = page.run("return getComputedStyle(document.body).backgroundColor")
    assert max(int(part) for part in colour[4:-1].split(",")[:3]) < 60
    assert page.run("return document.documentElement.scrollWidth") == 390
    page.devtools("Emulation.setEmulatedMedia", features=[])
    page.devtools("Emulation.clearDeviceMetricsOverride")


@pytest.mark.skipif("EMOPOOL_AXE" not in os.environ, reason="EMOPOOL_AXE does not name axe.min.js")
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_fault(page: Browser, scheme: str) -> None:
    """With one utterance open and sections folded, and with two and all unfolded."""
    feature = {"name": "prefers-color-scheme", "value": scheme}
    page.devtools("Emulation.setEmulatedMedia", features=[feature])
    page.run(Path(os.environ["EMOPOOL_AXE"]).read_text(encoding="utf-8"))
    for more in (False, True):
        if more:
            page.press("c")
            page.click("#unfold")
        page.run("window.found = undefined; axe.run().then((all) => { found = all.violations })")
        page.wait("window.found !== undefined")
        assert page.run("return found.map((one) => `${one.impact} ${one.id}: ${one.help}`)") == []
    page.devtools("Emulation.setEmulatedMedia", features=[])
