"""`transcribe --engine faster-whisper`, with a small Whisper of random weights."""

from __future__ import annotations

import importlib
import json
from dataclasses import replace
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import pytest

from cache.config import ENGINES, FASTER
from cache.transcribe.model_files import find_whisper, run_by
from cache.transcribe.whisper import load_whisper
from corpora.base.errors import ConfigError, MissingExtraError
from corpora.base.work import Work
from corpora.manifest import read_manifest, write_manifest
from tests.cache.recordings import make_manifest
from tests.cache.test_transcribing import noises, report, run, texts
from tests.cache.whispers import save_whisper

#: With it the model gives up to 224 tokens, as CTranslate2 does whatever the model says.
LENGTH = 222


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    there = tmp_path_factory.mktemp("models") / "small-whisper"
    return save_whisper(there, multilingual=False, length=LENGTH)


@pytest.fixture
def work(tmp_path: Path) -> Work:
    """Two utterances without a text."""
    found = Work(tmp_path / "work")
    manifest = make_manifest(tmp_path / "recordings", 2)
    bare = tuple(replace(one, text="") for one in manifest.utterances)
    write_manifest(replace(manifest, utterances=bare), found.manifest)
    return found


@pytest.fixture
def engine() -> Any:
    pytest.importorskip("faster_whisper", reason="needs the extra faster-whisper")
    return importlib.import_module("cache.transcribe.faster")


def test_without_the_extra_it_says_what_to_install(
    folder: Path, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr("cache.transcribe.model_files.version", absent)
    with pytest.raises(MissingExtraError, match=r"emopool\[faster-whisper\]"):
        run_by(find_whisper(str(folder)), FASTER)


def test_greedy_texts_are_those_of_transformers(folder: Path, tmp_path: Path, engine: Any) -> None:
    pieces = noises(3)
    directory = engine.converted(find_whisper(str(folder)), tmp_path)
    theirs = engine.load_faster_whisper(directory, FASTER, "cpu")(pieces)
    assert theirs == load_whisper(folder)(pieces)
    assert all(one.text for one in theirs)


def test_an_engine_has_transcripts_and_a_name_of_its_own(
    folder: Path, work: Work, engine: Any
) -> None:
    first = report(work, folder, "--engine", FASTER)
    assert (first["heard"], first["source"]) == (2, "small-whisper (faster-whisper)")
    assert {source for _, source in texts(work.manifest)} == {"small-whisper (faster-whisper)"}
    (made,) = (work.root / "encoders").iterdir()
    stamp = made.stat().st_mtime_ns
    assert report(work, folder, "--engine", FASTER, "--overwrite")["known"] == 2
    assert report(work, folder, "--engine", ENGINES[-1], "--limit", "1")["heard"] == 1
    assert [(one, one.stat().st_mtime_ns) for one in (work.root / "encoders").iterdir()] == [
        (made, stamp)
    ]


def test_a_converted_model_is_taken_as_it_is(
    folder: Path, work: Work, tmp_path: Path, engine: Any
) -> None:
    directory = engine.converted(find_whisper(str(folder)), tmp_path)
    assert report(work, directory, "--engine", FASTER)["heard"] == 2
    assert not (work.root / "encoders").exists()
    assert all(text for text, _ in texts(work.manifest))


@pytest.mark.parametrize("more", [0, 1])
def test_languages_are_known_by_the_number_of_tokens(more: int, tmp_path: Path) -> None:
    tokens = [*(f"<|t{n}|>" for n in range(51_863 + more)), "<|de|>"]
    (tmp_path / "vocabulary.txt").write_text("\n".join(tokens) + "\n")
    (tmp_path / "config.json").write_text(json.dumps({"lang_ids": [len(tokens) - 1]}))
    for name in ("model.bin", "tokenizer.json"):
        (tmp_path / name).write_text("{}")
    assert find_whisper(str(tmp_path), engine=FASTER).languages == (("de",) if more else ())


def test_a_converted_model_is_refused_where_the_original_is_needed(
    folder: Path, work: Work, tmp_path: Path
) -> None:
    directory = tmp_path / "converted"
    directory.mkdir()
    (directory / "model.bin").write_bytes(b"")
    with pytest.raises(ConfigError, match="--engine faster-whisper"):
        find_whisper(str(directory))
    result = run(work, directory, "--engine", FASTER, "--word-times")
    assert result.exit_code != 0
    assert read_manifest(work.manifest).utterances[0].text == ""
