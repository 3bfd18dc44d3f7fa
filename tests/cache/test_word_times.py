"""Word times from cross-attention: the path, the words, and what becomes of a manifest."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from itertools import pairwise, product
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from transformers.models.whisper.generation_whisper import (
    _dynamic_time_warping,
    _median_filter,
)

from cache.transcribe.whisper import Piece, load_whisper
from cache.transcribe.word_times import timed_words, token_starts, warping_path, within_speech
from cli import main
from corpora.alignments import read_alignment
from corpora.base.work import Work
from corpora.manifest import Manifest, read_manifest, write_manifest
from corpora.textgrid import Interval
from tests.cache.recordings import change, make_manifest, write_tone
from tests.cache.whispers import save_whisper


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_whisper(tmp_path_factory.mktemp("models") / "small-whisper")


def total(cost: np.ndarray, path: np.ndarray) -> float:
    return float(cost[path[:, 0], path[:, 1]].sum())


@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (4, 1), (3, 3), (3, 4)])
def test_no_path_costs_less(shape: tuple[int, int]) -> None:
    cost = np.random.default_rng(sum(shape)).standard_normal(shape)

    def ways(row: int, column: int) -> list[list[tuple[int, int]]]:
        if (row, column) == (shape[0] - 1, shape[1] - 1):
            return [[(row, column)]]
        steps = [(row + a, column + b) for a, b in product((0, 1), repeat=2) if a or b]
        inside = [(r, c) for r, c in steps if r < shape[0] and c < shape[1]]
        return [[(row, column), *way] for one in inside for way in ways(*one)]

    path = warping_path(cost)
    assert path[0].tolist() == [0, 0]
    assert path[-1].tolist() == [shape[0] - 1, shape[1] - 1]
    assert total(cost, path) == pytest.approx(min(total(cost, np.array(w)) for w in ways(0, 0)))


@pytest.mark.parametrize("shape", [(4, 9), (12, 60), (7, 7)])
def test_the_path_is_that_of_transformers(shape: tuple[int, int]) -> None:
    cost = np.random.default_rng(1).standard_normal(shape)
    rows, columns = _dynamic_time_warping(cost)
    np.testing.assert_array_equal(warping_path(cost), np.stack([rows, columns], axis=1))


def test_tokens_start_where_their_attention_goes() -> None:
    bounds = [0, 7, 20, 26, 40]
    weights = torch.rand(3, 4, 40, generator=torch.Generator().manual_seed(0)) * 0.2
    for token, (first, last) in enumerate(pairwise(bounds)):
        weights[:, token, first:last] += 1
    weights = weights / weights.sum(dim=2, keepdim=True)
    assert token_starts(weights).tolist() == bounds[:-1]
    # Each frame's weights are normalised over the tokens and smoothed, as transformers does it.
    spread, mean = weights.std(1, unbiased=False, keepdim=True), weights.mean(1, keepdim=True)
    smooth = _median_filter(((weights - mean) / spread)[None], 7)[0].mean(0)
    rows, columns = _dynamic_time_warping(-smooth.double().numpy())
    jumps = np.flatnonzero(np.diff(rows, prepend=-1))
    assert columns[jumps].tolist() == bounds[:-1]
    assert token_starts(torch.full((2, 1, 2), 0.5)).tolist() == [0]


def test_words_last_from_their_first_letter_to_what_follows_their_last() -> None:
    text = "»Ja«, sagt sie - so."
    pieces = [(0, 1), (1, 3), (3, 5), (6, 8), (8, 10), (11, 14), (15, 16), (17, 19), (19, 20)]
    starts = np.array([0, 4, 9, 12, 15, 20, 24, 30, 40, 44])
    assert timed_words(text, np.array(pieces), starts) == [
        Interval(0.08, 0.18, "»Ja«,"),
        Interval(0.24, 0.4, "sagt"),
        Interval(0.4, 0.48, "sie"),
        Interval(0.6, 0.8, "so."),
    ]
    # A word that no frame falls to has no time, nor has one that the decoder did not take.
    cut = timed_words(text, np.array(pieces[:6]), np.array([0, 4, 4, 4, 4, 20, 24]))
    assert [one.label for one in cut] == ["sagt", "sie"]


def test_silence_around_all_speech_belongs_to_no_word() -> None:
    words = [Interval(0, 0.4, "a"), Interval(0.4, 0.6, "b"), Interval(0.6, 2, "c")]
    speech = np.zeros(60, np.float32)
    assert within_speech(words, speech) == words
    speech[5:30] = 0.9  # .16 to .96 s
    assert within_speech(words, speech) == [
        Interval(0.16, 0.4, "a"),
        Interval(0.4, 0.6, "b"),
        Interval(0.6, 0.96, "c"),
    ]
    speech[:20] = 0  # from .64 s: two words are in no speech at all
    assert within_speech(words, speech) == [Interval(0.64, 0.96, "c")]


def test_it_looks_at_the_frames_of_the_recording_by_the_heads_that_are_named(
    folder: Path, tmp_path: Path
) -> None:
    wave = np.sin(np.arange(16_000) / 5).astype(np.float32)
    whisper = load_whisper(folder, attention=True)
    assert not whisper.follows_sound
    ((spans, weights),) = whisper.attention([Piece(wave, "de")], ["das is"])
    assert [("das is")[a:b].strip() for a, b in spans] == ["", *"das", "", *"is"]
    # One layer of two, with two heads; a second; and the end beside seven tokens.
    assert weights.shape == (2, 8, 50)
    torch.testing.assert_close(weights.sum(dim=2), torch.ones(2, 8))
    named = shutil.copytree(folder, tmp_path / "named")
    settings = json.loads((named / "generation_config.json").read_text())
    settings["alignment_heads"] = [[1, 1]]
    (named / "generation_config.json").write_text(json.dumps(settings))
    other = load_whisper(named, attention=True)
    assert other.follows_sound
    ((_, one),) = other.attention([Piece(wave, "de")], ["das is"])
    torch.testing.assert_close(one, weights[1:])
    # In company, of a language that is detected, and of more text than the decoder takes.
    both = whisper.attention([Piece(wave[:9000]), Piece(wave, "de")], ["so" * 20, "das is"])
    torch.testing.assert_close(both[1][1], weights, atol=1e-4, rtol=1e-4)
    assert both[0][1].shape == (2, 13, 29)


@pytest.fixture
def work(tmp_path: Path) -> Work:
    """Six utterances; the even ones have no text, one has a TextGrid, and one is too long."""
    manifest = make_manifest(tmp_path, 6)
    rows = [
        replace(u, text="" if n % 2 == 0 else "ab cd") for n, u in enumerate(manifest.utterances)
    ]
    manifest = replace(manifest, utterances=tuple(rows))
    long = write_tone(tmp_path / "long.wav", 31)
    manifest = change(manifest, 3, audio=long)
    own = tmp_path / "own.TextGrid"
    own.write_text("of a person")
    found = Work(tmp_path / "work")
    write_manifest(change(manifest, 5, alignment=own), found.manifest)
    return found


def run(work: Work, folder: Path, *options: str) -> str:
    arguments = ["transcribe", "--whisper", str(folder), "--work", str(work.root), *options]
    done = CliRunner().invoke(main, [*arguments, "--word-times", "--device", "cpu"])
    assert done.exit_code == 0, done.output
    return done.output


def test_a_manifest_gets_the_times_of_texts_that_have_none(work: Work, folder: Path) -> None:
    said = run(work, folder, "--speech-threshold", "0")
    assert "names no alignment heads (generation_config.json)" in said
    assert "longer than the 30 s that Whisper hears at once" in said
    manifest: Manifest = read_manifest(work.manifest)
    for number, u in enumerate(manifest.utterances):
        if number == 5:
            assert u.alignment is not None
            assert u.alignment.name == "own.TextGrid"
        elif number == 3:
            assert u.alignment is None
        elif u.text:
            assert u.alignment is not None
            assert u.alignment.parent == work.words
            words = read_alignment(u.alignment).words
            assert {one.label for one in words} <= set(u.text.split())
            assert words[-1].end <= 0.5 + 0.3 * number + 0.02
    assert manifest.utterances[1].alignment is not None
    # Again: nothing is computed, nothing changes.
    before = {path: path.stat().st_mtime_ns for path in work.words.iterdir()}
    again = json.loads(run(work, folder, "--speech-threshold", "0", "--json"))["word_times"]
    assert again["known"] == again["timed"] == len(before)
    assert again["kept_as"] is None
    assert list(again["missing"]) == ["u3"]
    assert {path: path.stat().st_mtime_ns for path in work.words.iterdir()} == before
    # Another text has other times.
    named = replace(manifest.utterances[1], text="cd ab")
    write_manifest(replace(manifest, utterances=(named,)), work.manifest)
    run(work, folder)
    (changed,) = read_manifest(work.manifest).utterances
    assert changed.alignment is not None
    assert changed.alignment != manifest.utterances[1].alignment
