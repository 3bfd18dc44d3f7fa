"""The examples run as they are written, and what they say is true."""

from __future__ import annotations

import doctest
import re
import runpy
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from cache.encoders.names import resolve_encoder
from cache.stream import FrameStream
from corpora.manifest import Manifest, Utterance, write_manifest
from tests.cache.streams import add, make_stream
from tests.cache.streams import utterances as made_up
from tests.finetune.corpus import make_model
from tests.test_house import DOORS

EXAMPLES = Path(__file__).parents[1] / "examples"
# Doors with an example in their docstring.
SHOWS = {
    *("read_manifest", "Frames", "FrameStream", "build_pooling", "focal_loss"),
    "classification_report",
}


def test_frames_of_ones_own_become_a_head(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runpy.run_path(str(EXAMPLES / "own_features.py"))["main"](tmp_path)
    said = capsys.readouterr().out
    score, reference = (float(number) for number in re.findall(r": (\d\.\d+)$", said, re.M))
    assert min(score, reference) > 0.8  # the cue is in a tenth of the frames; chance is .33
    assert (tmp_path / "head.safetensors").is_file()


def test_zarr_alone_reads_what_a_stream_reads(tmp_path: Path) -> None:
    utterances = runpy.run_path(str(EXAMPLES / "read_the_cache.py"))["utterances"]
    folder, written = make_stream(tmp_path), made_up(20)
    add(folder, dict(list(written.items())[:12]))
    add(folder, dict(list(written.items())[8:]))  # four of them again, in a part of their own
    found = dict(utterances(folder))
    assert set(found) == set(FrameStream.open(folder).keys) == set(written)
    for key, frames in written.items():
        np.testing.assert_array_equal(found[key], frames)


def test_one_file_is_explained(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    resolve_encoder("tiny", "audio", tmp_path)
    make_model(tmp_path / "encoders", modalities=("audio",)).save_pretrained(tmp_path / "model")
    soundfile.write(tmp_path / "a.wav", np.random.default_rng(0).normal(0, 0.1, 16_000), 16_000)
    runpy.run_path(str(EXAMPLES / "explain_one_file.py"))["main"](
        tmp_path / "model", tmp_path / "a.wav"
    )
    said = capsys.readouterr().out
    seconds = [float(s) for s in re.findall(r"\d\.\d\d", said.split("seconds:")[1].split("\n")[0])]
    assert seconds == sorted(seconds)
    assert seconds[0] >= 0
    assert seconds[-1] < 1
    assert re.search(r"probability lost without these frames: [+-]0\.\d{3}", said)


@pytest.mark.parametrize("door", [name for name in DOORS if name != "finetune.model"])
def test_what_docstrings_of_doors_show_is_so(door: str, tmp_path: Path) -> None:
    layer = make_stream(tmp_path)
    add(layer, {"key of a": np.ones((3, 4), "float16"), "key of b": np.ones((2, 4), "float16")})
    rows = [
        Utterance("a", tmp_path / "a.wav", "anger", split="train"),
        Utterance("b", tmp_path / "b.wav", "neutral", split="test"),
    ]
    write_manifest(Manifest(tuple(rows), ("anger", "neutral"), "two"), tmp_path / "manifest.csv")
    finder = doctest.DocTestFinder(exclude_empty=True)
    names = DOORS[door]
    tried = 0
    for name in names:
        value = getattr(import_module(door), name)
        module = sys.modules[value.__module__]
        known = {"torch": torch, "folder": tmp_path, "layer": layer, **vars(module)}
        for test in finder.find(value, name, module=module, globs=known):
            result = doctest.DocTestRunner().run(test)
            assert not result.failed, test.name
            tried += result.attempted
    assert tried or not SHOWS & set(names)
