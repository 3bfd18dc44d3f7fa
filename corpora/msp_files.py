"""What lies in the folders of MSP-Podcast, known from one listing of each.

A release has 270,000 recordings: asking for each text and alignment whether it exists would cost
more than reading the labels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from corpora.delimited import encoding_of
from corpora.registry import Dropped
from corpora.transcripts import read_transcript
from corpora.tree import inside, locator, names_in


@dataclass(frozen=True)
class Files:
    """The folders and the names in them.

    Attributes:
        audio: the folder of the recordings.
        transcripts: the folder of the texts.
        alignments: the folder of the TextGrids.
        recordings: the names in `audio`.
        written: the names in `transcripts`.
        aligned: the names in `alignments`.
        locate: makes a path of a name with folders in it.
    """

    audio: Path
    transcripts: Path
    alignments: Path
    recordings: frozenset[str]
    written: frozenset[str]
    aligned: frozenset[str]
    locate: Callable[[str], Path]

    def recording(self, file: str) -> Path:
        """Return the path of a recording.

        Raises:
            ManifestError: it leads outside of the corpus.
        """
        plain = "/" not in file and "\\" not in file and file not in (".", "..")
        return Path(f"{self.audio}/{file}") if plain else self.locate(file)

    def text(self, stem: str) -> str:
        """Return what is said, "" where it is not written down."""
        known = f"{stem}.txt" in self.written
        return read_transcript(f"{self.transcripts}/{stem}.txt") if known else ""

    def alignment(self, stem: str) -> Path | None:
        """Return the TextGrid, if there is one."""
        name = f"{stem}.TextGrid"
        return Path(f"{self.alignments}/{name}") if name in self.aligned else None


def files_of(root: Path, *, allow_outside: bool) -> Files:
    """List the folders of a corpus; those that are absent count as empty."""
    audio, texts, grids = (root / name for name in ("Audios", "Transcripts", "ForceAligned"))
    return Files(
        audio=audio,
        transcripts=texts,
        alignments=grids,
        recordings=names_in(audio),
        written=names_in(texts),
        aligned=names_in(grids),
        locate=locator(audio, root, allow_outside=allow_outside),
    )


def read_partitions(path: Path, root: Path, dropped: list[Dropped]) -> dict[str, str]:
    """Return the set of each file name, of lines `Test3; MSP-PODCAST_test3_0001.wav`.

    Args:
        path: `Partitions.txt`; where it is absent nothing is returned.
        root: the corpus, for the names of places.
        dropped: gets the lines that cannot be read.
    """
    sets: dict[str, str] = {}
    if not path.is_file():
        return sets
    with path.open(encoding=encoding_of(path)) as lines:
        for number, line in enumerate(lines, 1):
            part, mark, file = (cell.strip() for cell in line.partition(";"))
            if mark and part and file:
                sets[file] = part
            elif line.strip():
                dropped.append(Dropped(f"{inside(path, root)}:{number}", "not SET; FILE"))
    return sets


def podcast_of(stem: str) -> str:
    """Return 1023 of MSP-PODCAST_1023_0235: the podcast, which its segments share."""
    parts = stem.split("_")
    return parts[1] if len(parts) > 2 else ""
