"""The columns of a table: which of the manifest's they are, by name or as the user tells.

A column that is not used is not guessed at: the user reads what it may be, and how to say so.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from corpora.base.errors import ConfigError, CorpusError, did_you_mean
from corpora.names import plain_name
from corpora.options import cells_of
from corpora.rows import COLUMNS

NEEDED = ("audio", "label")
# What other tables call a column: lower case, letters and digits alone.
OTHER_NAMES = {
    "audio": "path file filename filepath audiopath audiofile wav wavpath wavfile recording clip",
    "label": "emotion emo emotionlabel emoclass class category target",
    "id": "uttid utteranceid segmentid",
    "start": "starttime begin begintime onset",
    "end": "endtime stop stoptime offset",
    "text": "transcript transcription sentence utterance words",
    "speaker": "speakerid spk spkid spkrid actor actorid subject subjectid clientid",
    "split": "partition set subset splitset",
    "fold": "foldid cvfold",
    "session": "sessionid dialogue dialogueid",
    "sex": "gender",
    "language": "lang locale",
    "corpus": "dataset database",
    "alignment": "textgrid",
    "valence": "emoval val",
    "arousal": "activation emoact act",
    "dominance": "emodom dom",
}
MEANINGS = {name: column for column, names in OTHER_NAMES.items() for name in names.split()}


def parse_columns(setting: str) -> dict[str, str]:
    """Read `audio=path,label=emotion`: the table's own names, by those of `COLUMNS`.

    Raises:
        ConfigError: not of that form, an unknown column, or one twice.
    """
    columns: dict[str, str] = {}
    for pair in cells_of([setting], "column") if setting else ():
        column, equals, name = (part.strip() for part in pair.partition("="))
        column, name = column.lower(), plain_name(name).lower()
        if not (equals and name) or column not in COLUMNS or name in columns.values():
            hint = "" if column in COLUMNS else did_you_mean(column, COLUMNS)
            raise ConfigError(
                f"--column {pair} is not COLUMN=NAME, with your table's name on the right, each "
                f"once.{hint} Columns: {', '.join(COLUMNS)}."
            )
        if column in columns:
            raise ConfigError(f"--column names {column} twice: {columns[column]} and {name}.")
        columns[column] = name
    return columns


def known_columns(path: Path, found: Sequence[str], columns: Mapping[str, str]) -> list[str]:
    """Return what each column of a header is: one of `COLUMNS`, or "".

    Raises:
        CorpusError: a needed one is not there, or one is there twice.
        ConfigError: `columns` names one that is not there.
    """
    lower = [name.lower() for name in found]
    for column, name in columns.items():
        if name not in lower:
            raise ConfigError(
                f"--column {column}={name}: {path} has no column {name}."
                f"{did_you_mean(name, found)} Columns found: {', '.join(found)}."
            )
    renamed = {name: column for column, name in columns.items()}
    header = [
        renamed.get(name) or (name if name in COLUMNS and name not in columns else "")
        for name in lower
    ]
    missing = [name for name in NEEDED if name not in header]
    twice = sorted({name for name in header if name and header.count(name) > 1})
    if missing or twice:
        wrong = (
            f"no column {' and no column '.join(missing)}" if missing else f"two columns {twice[0]}"
        )
        likely = [
            _option(MEANINGS[_bare(name)], name)
            for name in found
            if MEANINGS.get(_bare(name), "") in missing
        ]
        hint = f", for example {' '.join(likely)}" if likely else ""
        raise CorpusError(
            f"{path} has {wrong}. Columns found: {', '.join(found)}. "
            "Name them audio (path of the recording) and label (the emotion), or say which they "
            f"are with --column audio=NAME and --column label=NAME{hint}."
        )
    return header


def meaning(name: str, header: Sequence[str]) -> str:
    """Say what a column that is not used may be, where nothing else is that."""
    column = MEANINGS.get(_bare(name))
    return f" ({column}? {_option(column, name)})" if column and column not in header else ""


def _option(column: str, name: str) -> str:
    """Return the option as a user can paste it into a shell."""
    return f"--column {shlex.quote(f'{column}={name}')}"


def _bare(name: str) -> str:
    return re.sub(r"[\W_]", "", name.lower())
