"""The page in headless Chromium: no console errors, plays, seeks, filters, keyboard, dark mode.

Needs Debian's chromium and chromium-driver, and selenium.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any

import pytest

from explain.config import ExplainConfig
from explain.explain import explain_split
from tests.explain.conftest import SCRIPT, Explained

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
selenium = pytest.importorskip("selenium", reason="selenium is not installed")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="chromium is not installed"),
]
ARGUMENTS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--mute-audio", "--window-size=1200,1000",
    "--autoplay-policy=no-user-gesture-required",
)  # fmt: skip
SECONDS = 10


@pytest.fixture(scope="module")
def browser(explained: Explained) -> Iterator[Any]:
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    # One recording in the page, the others as links.
    config = ExplainConfig(embedded=1, figures=False)
    explain_split(explained.work, explained.manifest, config)
    options = webdriver.ChromeOptions()
    for argument in ARGUMENTS:
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    options.binary_location = str(CHROMIUM)
    driver = webdriver.Chrome(options=options, service=Service(str(DRIVER)))
    yield driver
    driver.quit()


@pytest.fixture
def page(browser: Any, explained: Explained) -> Any:
    browser.get((explained.work.explain / "report.html").resolve().as_uri())
    return browser


def element(page: Any, selector: str) -> Any:
    from selenium.webdriver.common.by import By

    return page.find_element(By.CSS_SELECTOR, selector)


def wait(page: Any, script: str) -> None:
    from selenium.webdriver.support.ui import WebDriverWait

    WebDriverWait(page, SECONDS).until(lambda d: d.execute_script(f"return {script}"))


def open_row(page: Any, number: int) -> None:
    page.execute_script(
        "const b = document.querySelectorAll('#utterances tbody button')[arguments[0]];"
        "b.focus(); b.click(); b.scrollIntoView()",
        number,
    )


def shown(page: Any) -> int:
    count: int = page.execute_script(
        "return document.querySelectorAll('#utterances tbody tr').length"
    )
    return count


def test_the_page_opens_without_a_word_in_the_console(page: Any) -> None:
    open_row(page, 0)
    assert page.get_log("browser") == []
    assert "utterances" in element(page, "#count").text


def test_markup_in_a_transcript_is_shown_as_text(page: Any) -> None:
    assert SCRIPT in element(page, "#utterances").text
    assert page.title != "stolen"


@pytest.mark.parametrize("number", [0, 1])
def test_recordings_play_and_the_curve_seeks(page: Any, number: int) -> None:
    """Row 0 or 1 is embedded, the other a link to the file."""
    from selenium.webdriver import ActionChains

    open_row(page, number)
    wait(page, "document.querySelector('audio').duration > 0.2")
    page.execute_script("document.querySelector('audio').play()")
    wait(page, "document.querySelector('audio').currentTime > 0.05")
    page.execute_script("document.querySelector('audio').pause()")
    canvas = element(page, "canvas")
    ActionChains(page).move_to_element(canvas).click().perform()
    middle = float(canvas.get_attribute("aria-valuemax")) / 2
    wait(page, f"Math.abs(document.querySelector('audio').currentTime - {middle}) < 0.05")
    assert page.get_log("browser") == []


def test_the_curve_moves_with_playback(page: Any) -> None:
    open_row(page, 0)
    wait(page, "document.querySelector('audio').duration > 0.2")
    before = page.execute_script("return document.querySelector('canvas').toDataURL()")
    page.execute_script("document.querySelector('audio').play()")
    wait(page, "Number(document.querySelector('canvas').getAttribute('aria-valuenow')) > 0.1")
    assert page.execute_script("return document.querySelector('canvas').toDataURL()") != before


def test_the_keyboard_is_enough(page: Any) -> None:
    from selenium.webdriver.common.keys import Keys

    button = element(page, "#utterances tbody button")
    button.send_keys(Keys.ENTER)
    assert button.get_attribute("aria-expanded") == "true"
    wait(page, "document.querySelector('audio').duration > 0.2")
    canvas = element(page, "canvas")
    canvas.send_keys(Keys.ARROW_RIGHT)
    wait(page, "Math.abs(document.querySelector('audio').currentTime - 0.1) < 0.03")
    canvas.send_keys(Keys.HOME)
    wait(page, "document.querySelector('audio').currentTime === 0")
    canvas.send_keys(Keys.SPACE)
    wait(page, "document.querySelector('audio').currentTime > 0")


def test_search_filter_and_sort(page: Any) -> None:
    from selenium.webdriver.support.ui import Select

    everything = shown(page)
    Select(element(page, "#which")).select_by_value("wrong")
    errors = shown(page)
    Select(element(page, "#which")).select_by_value("right")
    assert shown(page) + errors == everything
    Select(element(page, "#which")).select_by_value("all")
    Select(element(page, "#sort")).select_by_value("low")
    cells = page.execute_script(
        "return [...document.querySelector('#utterances tbody').rows]"
        ".map(row => row.cells[3].textContent)"
    )
    assert [float(c) for c in cells] == sorted(float(c) for c in cells)
    element(page, "#search").send_keys("stolen")
    assert shown(page) == 1


def test_dark_mode_is_dark(page: Any) -> None:
    dark = [{"name": "prefers-color-scheme", "value": "dark"}]
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": dark})
    colour = page.execute_script("return getComputedStyle(document.body).backgroundColor")
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    assert max(int(part) for part in colour[4:-1].split(",")[:3]) < 60
