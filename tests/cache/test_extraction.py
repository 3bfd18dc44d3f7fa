"""The record of an extraction, and the command that would repeat it."""

from __future__ import annotations

from pathlib import Path

import pytest

from cache.last_extraction import Extraction, Source, extract_command, write_extraction
from cache.recipe import JSON, Recipe
from corpora.base.work import Work


def test_without_a_record_the_command_is_the_plain_one(tmp_path: Path) -> None:
    root = tmp_path / "my work"
    assert extract_command(root) == f"python cli.py extract --work '{root}'"


def test_the_command_names_encoders_layers_and_windows_of_the_last_extraction(
    tmp_path: Path,
) -> None:
    sources = {
        "audio": Source(Recipe("audio", {}), "a b", (12, 18), windowed=True),
        "text": Source(Recipe("text", {}), "tiny", (3,)),
        "energy": Source(Recipe("energy", {})),
    }
    write_extraction(Work(tmp_path).extraction, Extraction(sources))
    assert extract_command(tmp_path) == (
        "python cli.py extract --audio-encoder 'a b' --audio-layers 12,18 --text-encoder tiny "
        f"--text-layers 3 --long window --work {tmp_path}"
    )


@pytest.mark.parametrize(("tail", "words"), [(16_000, ""), (0, "--padding full ")])
def test_the_command_keeps_the_padding(tail: int, words: str, tmp_path: Path) -> None:
    padding: JSON = {"tail": tail, "step": 8_000, "limit": 480_000}
    sources = {"audio": Source(Recipe("audio", {"padding": padding}), "it", (2,), best=2)}
    write_extraction(Work(tmp_path).extraction, Extraction(sources))
    assert extract_command(tmp_path) == (
        f"python cli.py extract --audio-encoder it {words}--work {tmp_path}"
    )


def test_the_command_keeps_moments_only(tmp_path: Path) -> None:
    sources = {"audio": Source(Recipe("audio", {}), "tiny", moments=(0, 1))}
    write_extraction(Work(tmp_path).extraction, Extraction(sources))
    assert "--audio-layers 0,1 --moments-only" in extract_command(tmp_path)
