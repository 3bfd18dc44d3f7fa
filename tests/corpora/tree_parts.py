"""What fixture trees are made of: short recordings, placeholders, tables."""

from __future__ import annotations

import wave
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Expected:
    """What a reader must find in a tree."""

    utterances: int
    labels: tuple[str, ...]
    speakers: frozenset[str]
    dropped: int = 0
    scales: Mapping[str, tuple[float, float]] = field(default_factory=dict)


def write_wav(path: Path, seconds: float = 0.1, rate: int = 16_000) -> Path:
    """Write a mono 16-bit ramp: valid, short, and different for every path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    count = round(seconds * rate)
    tone = sum(path.stem.encode()) % 97 + 1
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(b"".join((k * tone % 20_000).to_bytes(2, "little") for k in range(count)))
    return path


def write_textgrid(path: Path) -> Path:
    """Write a placeholder: readers attach alignments, they do not parse them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text('File type = "ooTextFile"\nObject class = "TextGrid"\n', encoding="utf-8")
    return path


def write_lines(path: Path, lines: Iterable[str], encoding: str = "utf-8") -> Path:
    """Write a text file of these lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes("".join(f"{line}\n" for line in lines).encode(encoding))
    return path
