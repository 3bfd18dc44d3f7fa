"""`WORK/transcripts.sqlite`: every transcript that was made, by what was heard and by which model.

Each batch is one transaction, so a killed run loses at most the batch it was at, and any number of
processes may write at once. Keys are content: a second manifest of the same recordings, a renamed
file and a manifest made anew by `prepare` find their texts here. Each row has a seal, for SQLite
does not see a flipped bit in a text; rows of version 1 have none.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cache.sources import BUSY_S, QUERY, in_batches, seal_of
from corpora.base.errors import CacheError, FormatVersionError

_VERSION = 2
_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS transcripts (audio TEXT, model TEXT, asked TEXT, source TEXT, "
    "text TEXT, language TEXT, silent INTEGER, seal TEXT, "
    "PRIMARY KEY (audio, model, asked)) WITHOUT ROWID"
)

#: A recording's content key, and the language that the model was told ("" is none).
Heard = tuple[str, str]


@dataclass(frozen=True)
class Transcript:
    """What a model made of a recording.

    Attributes:
        text: "" if nothing is said.
        language: told or detected; "" where nothing was decoded.
        silent: the recording was taken for one without speech.
    """

    text: str
    language: str
    silent: bool = False


class Journal:
    """The transcripts of a work folder; a context manager.

    Args:
        path: of the SQLite file; its folder must exist.

    Raises:
        CacheError: it can be neither opened nor created.
        FormatVersionError: another version of Emopool wrote it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._database = sqlite3.connect(path, timeout=BUSY_S)
            # No write-ahead log: it does not work for work folders on network file systems.
            (version,) = self._database.execute("PRAGMA user_version").fetchone()
            if version == 0:
                with self._database:
                    self._database.execute(_SCHEMA)
                    self._database.execute(f"PRAGMA user_version = {_VERSION}")
            if version == 1:
                with self._database:
                    self._database.execute("ALTER TABLE transcripts ADD COLUMN seal TEXT")
                    self._database.execute(f"PRAGMA user_version = {_VERSION}")
        except sqlite3.Error as error:
            raise self._unusable(error) from error
        if version not in (0, 1, _VERSION):
            self._database.close()
            raise FormatVersionError(
                f"{path} has version {version}, but this version of Emopool reads {_VERSION}. "
                "Use the Emopool version that wrote it, or move the file away to begin anew."
            )

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self._database.close()

    def known(self, model: str, wanted: Iterable[Heard]) -> dict[Heard, Transcript]:
        """The transcripts by this model that are there.

        Args:
            model: its fingerprint.
            wanted: which.
        """
        asked = set(wanted)
        found = {}
        for row in self._rows("AND model = ?", [key for key, _ in asked], [model]):
            if (row[0], row[2]) in asked:
                found[row[0], row[2]] = Transcript(row[4], row[5], bool(row[6]))
        return found

    def texts(self, audio: Iterable[str]) -> dict[str, set[str]]:
        """All texts that any model gave to recordings, by content key."""
        found: dict[str, set[str]] = {}
        for row in self._rows("", audio, []):
            found.setdefault(row[0], set()).add(row[4])
        return found

    def add(self, model: str, source: str, transcripts: Mapping[Heard, Transcript]) -> None:
        """Keep transcripts, all of them or none.

        Args:
            model: its fingerprint.
            source: its name, for people who look into the file.
            transcripts: by recording and language told.
        """
        rows = [
            (key, model, asked, source, one.text, one.language, int(one.silent))
            for (key, asked), one in transcripts.items()
        ]
        try:
            with self._database:
                self._database.executemany(
                    "INSERT OR REPLACE INTO transcripts VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                    [(*row, seal_of(row)) for row in rows],
                )
        except sqlite3.Error as error:
            raise self._unusable(error) from error

    def _rows(
        self, condition: str, audio: Iterable[str], values: Sequence[str]
    ) -> Iterator[list[Any]]:
        """Whole rows without their seals, which are compared."""
        try:
            for batch in in_batches(dict.fromkeys(audio), QUERY):
                marks = ",".join("?" * len(batch))
                query = f"SELECT * FROM transcripts WHERE audio IN ({marks}) {condition}"
                with closing(self._database.execute(query, [*batch, *values])) as rows:
                    for *row, seal in rows:
                        if seal is not None and seal != seal_of(row):
                            raise sqlite3.DatabaseError(f"the transcript of {row[0]} was altered")
                        yield row
        except sqlite3.Error as error:
            raise self._unusable(error) from error

    def _unusable(self, error: sqlite3.Error) -> CacheError:
        return CacheError(
            f"{self._path} cannot be used ({error}). It holds the transcripts made so far: it must "
            "lie in a folder that can be written, and no other program may hold it open for long. "
            "If it is damaged, move it away; its recordings are then transcribed again."
        )
