"""Content keys: equal for equal content, different for anything else."""

import re
import unicodedata
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache.keys import audio_key, normalise_text, text_key, windowed_key
from cache.lookup import FrameCache
from cache.stream import FrameStream
from tests.cache.filled import SOURCES, fill_work

SHA = "0123456789abcdef" * 4


def test_keys_are_fixed_for_ever() -> None:
    # A change here orphans every cache there is.
    assert audio_key(SHA) == "8561e9d084687046cb26633a86657f3a"
    assert audio_key(SHA, 0.5, 1.25) == "3cf82ec427c942dd3b95ef3277cd9829"
    assert text_key("Kids are talking.") == "25ebfb504d0867a7dffce60d4097a85c"


def test_keys_are_32_hexadecimal_digits() -> None:
    for key in (audio_key(SHA), audio_key(SHA, 1.0, 2.0), text_key(""), text_key("a")):
        assert re.fullmatch("[0-9a-f]{32}", key)


def test_content_and_bounds_decide_the_audio_key() -> None:
    stretches = [
        (SHA, None, None),
        ("f" * 64, None, None),
        (SHA, 0.5, None),
        (SHA, None, 0.5),
        (SHA, 0.5, 1.0),
        (SHA, 0.5, 1.0000001),
    ]
    assert len({audio_key(*stretch) for stretch in stretches}) == len(stretches)


def test_no_start_is_the_start_of_the_file() -> None:
    assert audio_key(SHA, 0.0, 2.0) == audio_key(SHA, None, 2) == audio_key(SHA, -0.0, 2.0)


def test_an_audio_bound_must_be_finite() -> None:
    with pytest.raises(ValueError, match="JSON"):
        audio_key(SHA, 0.0, float("nan"))


def test_white_space_and_normal_form_do_not_matter_to_the_text_key() -> None:
    assert text_key("  caf\u00e9\u00a0\n noir ") == text_key("cafe\u0301 noir")
    assert text_key(" \t") == text_key("")
    assert text_key("Cafe") != text_key("cafe")


@given(st.text())
def test_normalising_twice_is_normalising_once(text: str) -> None:
    once = normalise_text(text)
    assert normalise_text(once) == once
    assert unicodedata.is_normalized("NFC", once)
    assert text_key(once) == text_key(text)


def test_the_documented_way_to_keys_and_frames_is_the_one_taken(fast_path: Path) -> None:
    work, manifest = fill_work(fast_path)
    text = (Path(__file__).parents[2] / "docs" / "formats.md").read_text(encoding="utf-8")
    names: dict[str, Any] = {}
    for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        exec(block, names)
    stream = FrameStream.open(work.features / SOURCES["audio"].stream())
    bounds = ((None, None, "", ""), (0.25, 1.5, "0.25", "1.50"), (None, 2.0, "", "2"))
    for utterance in manifest.utterances:
        for start, end, first, last in bounds:
            row = replace(utterance, start=start, end=end, text="Eine  Zei\u0308le")
            own = FrameCache(work).keys([row])[row.id]
            assert names["audio_key"](row.audio, first, last) == own["audio"]
            assert names["text_key"](row.text) == own["text"]
        key = names["audio_key"](utterance.audio)
        assert names["windowed_key"](key) == windowed_key(key)
        np.testing.assert_array_equal(names["frames"](stream.path, key), stream.read(key))
