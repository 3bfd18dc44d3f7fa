"""Any corpus that comes as a table with at least the columns `audio` and `label`.

A CSV or TSV, or JSON lines, whose entries are the columns.

Further columns are taken by their names in `corpora.utterance.COLUMNS` (speaker, split, text,
start, end, …; upper or lower case); all others are named, and what they may mean. Paths are
relative to the table's folder. A row that cannot be used is left out with its line and reason; the
rest is kept.

The columns of a table: which of the manifest's they are, by name or as the user tells.

A column that is not used is not guessed at: the user reads what it may be, and how to say so.
"""

from __future__ import annotations

import codecs
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from corpora.base.encodings import encoding_of
from corpora.base.errors import ConfigError, CorpusError, ManifestError, did_you_mean
from corpora.readers.delimited import separator_told
from corpora.readers.options import (
    ALLOW_OUTSIDE,
    COLUMN,
    CORPUS,
    LANGUAGE,
    SHARED_SPEAKERS,
    Option,
    Options,
    cells_of,
)
from corpora.readers.registry import ReadResult, register
from corpora.readers.rows import Row, cell, json_lines, read_rows
from corpora.readers.tree import locator, wrong_root
from corpora.utterance import COLUMNS, plain_name, table_rows

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
    """What each column of a header is: one of `COLUMNS`, or "".

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
    """The option as a user can paste it into a shell."""
    return f"--column {shlex.quote(f'{column}={name}')}"


def _bare(name: str) -> str:
    return re.sub(r"[\W_]", "", name.lower())


DELIMITERS = ",;\t|"
JSON_LINES = (".jsonl", ".ndjson", ".jsonl.gz")


Object = Mapping[str, object]


@dataclass(frozen=True)
class Table:
    """A table whose columns are known.

    Attributes:
        rows: its rows; cells of columns that are not used are left out.
        notes: what the user should read of its columns and encoding.
    """

    rows: list[Row]
    notes: tuple[str, ...]


@register(
    "csv",
    title="Any table of recordings (CSV, TSV or JSON lines)",
    licence="that of your recordings",
    source="your own",
    needs="a CSV, TSV or JSON lines file, or a folder with exactly one, with the columns audio and "
    "label",
    options={
        "allow_outside": ALLOW_OUTSIDE,
        "shared_speakers": SHARED_SPEAKERS,
        "column": COLUMN,
        "corpus": CORPUS,
        "language": LANGUAGE,
        "encoding": Option("of the table, where it is not UTF-8, such as gb18030 or shift_jis"),
    },
)
def read_csv(root: Path, options: Options) -> ReadResult:
    """Read the table `root`, or the only one in the folder `root`."""
    result = read_table(
        _find_table(root),
        allow_outside=options["allow_outside"] is True,
        corpus=str(options["corpus"]),
        language=str(options["language"]),
        columns=parse_columns(str(options["column"])),
        encoding=str(options["encoding"]),
    )
    return replace(result, shared_speakers=options["shared_speakers"] is True)


def read_table(
    path: Path,
    *,
    allow_outside: bool = False,
    corpus: str = "",
    language: str = "",
    columns: Mapping[str, str] | None = None,
    encoding: str = "",
    folder: Path | None = None,
) -> ReadResult:
    """Read one table.

    Args:
        path: the table, absolute.
        allow_outside: accept paths that lead out of that folder.
        corpus: the corpus name of rows that name none; by default the folder's name.
        language: that of rows that name none.
        columns: the table's own names of columns, by those in `corpora.utterance.COLUMNS`.
        encoding: of the text; "" is found out.
        folder: where its paths start; else its own folder.

    Raises:
        CorpusError: it cannot be read as a table, lacks a column, or no row can be used.
        ConfigError: `columns` names one that there is not, or there is no such encoding.
    """
    table, folder = _load(path, columns or {}, encoding), folder or path.parent
    result = read_rows(
        table.rows,
        path,
        locator(folder, folder, allow_outside=allow_outside),
        corpus=corpus or path.parent.name,
        language=language,
        notes=table.notes,
    )
    return replace(result, tables=(path,))


def _find_table(root: Path) -> Path:
    if root.is_file():
        return root
    found = sorted(
        path
        for path in root.iterdir()
        if path.name.lower().endswith((".csv", ".tsv", *JSON_LINES))
        and path.is_file()
        and path.name[0] != "."
    )
    if not found:
        raise wrong_root(root, "a corpus with a table", "one .csv, .tsv or .jsonl file")
    if len(found) > 1:
        names = ", ".join(p.name for p in found)
        raise CorpusError(f"{root} holds {len(found)} tables: {names}. Name the one to read.")
    return found[0]


def _load(path: Path, columns: Mapping[str, str], encoding: str) -> Table:
    if path.name.lower().endswith(JSON_LINES):
        numbered = ((f"{path.name}:{line}", line, value) for line, value in json_lines(path))
        return table_of_objects(path, numbered, columns)
    text, notes = _text_of(path, encoding)
    first = next((line for line in text.splitlines() if line.strip()), "")
    told = separator_told(first)
    if told:
        # An empty line stands in its place, so that lines keep their numbers.
        text = text.replace(first, "", 1)
        delimiter = told
    else:
        wanted = {*NEEDED, *columns.values()}
        delimiter = max(DELIMITERS, key=lambda mark: _header_score(first, mark, wanted))
    try:
        rows = list(table_rows(text, str(path), delimiter))
    except ManifestError as error:
        if delimiter != "\t":
            raise CorpusError(str(error)) from error
        # Tab-separated tables often carry quotation marks as plain text.
        rows = list(table_rows(text, str(path), delimiter, quoting=False))
        notes = (*notes, f"{path.name}: quotation marks are read as text, since they do not pair.")
    if not rows:
        raise CorpusError(f"{path} is empty. Expected a header with {' and '.join(NEEDED)}.")
    found = [plain_name(name) for name in rows[0][1]]
    header = known_columns(path, found, columns)
    if len(rows) == 1:
        raise CorpusError(f"{path} has a header, but it has no rows. Add one for each recording.")

    def row(line: int, cells: list[str]) -> Row:
        whole = len(cells) == len(header)
        problem = "" if whole else f"{len(cells)} cells where the header has {len(header)}"
        named = {name: one for name, one in zip(header, cells, strict=False) if name}
        return Row(f"{path.name}:{line}", named, line, problem)

    notes = (*notes, *_unused(found, header))
    return Table([row(line, cells) for line, cells in rows[1:]], notes)


def table_of_objects(
    path: Path, objects: Iterable[tuple[str, int, Object | None]], columns: Mapping[str, str]
) -> Table:
    """Make a table of objects whose entries are its cells.

    Args:
        path: what they were read from, for messages.
        objects: the place, the line and the entries of each; None is one that cannot be read.
        columns: as for `read_table`.

    Raises:
        CorpusError: there is none, or none has a needed entry.
        ConfigError: `columns` names one that there is not.
    """
    numbered = list(objects)
    names = list(dict.fromkeys(name for *_, value in numbered if value for name in value))
    if not names:
        raise CorpusError(f"{path} is empty. Expected objects with {' and '.join(NEEDED)}.")
    found = [plain_name(name) for name in names]
    header = known_columns(path, found, columns)

    def row(place: str, line: int, value: Object | None) -> Row:
        if value is None:
            return Row(place, {}, line, "not a JSON object")
        cells: dict[str, str] = {}
        for name, column in zip(names, header, strict=True):
            try:
                cells |= {column: cell(value.get(name))} if column else {}
            except ManifestError as error:
                return Row(place, {}, line, f"{name} is {error}")
        return Row(place, cells, line)

    return Table([row(*one) for one in numbered], _unused(found, header))


def _unused(found: Sequence[str], header: Sequence[str]) -> tuple[str, ...]:
    unused = [name for name, column in zip(found, header, strict=True) if name and not column]
    listed = ", ".join(name + meaning(name, header) for name in unused)
    return (f"Columns not used: {listed}.",) if unused else ()


def _text_of(path: Path, encoding: str) -> tuple[str, tuple[str, ...]]:
    """The table's text, and a note on an encoding that had to be found out."""
    if encoding:
        try:
            codecs.lookup(encoding)
            return path.read_bytes().decode(encoding), ()
        except LookupError as error:
            raise ConfigError(
                f"there is no encoding '{encoding}'. Usual ones: utf-8, cp1252, cp949, gb18030, "
                "shift_jis, cp1251."
            ) from error
        except UnicodeError as error:
            raise CorpusError(f"{path} is not text in {encoding} ({error}).") from error
    encoding = encoding_of(path)
    if encoding == "utf-8-sig":
        return path.read_bytes().decode(encoding), ()
    note = (
        f"{path.name} is not UTF-8: read as {encoding}. Where names look wrong, tell its own "
        "(--set encoding=…)."
    )
    return path.read_bytes().decode(encoding), (note,)


def _header_score(line: str, delimiter: str, wanted: set[str]) -> tuple[int, int]:
    """Rank a delimiter by the wanted columns it yields, then by how many it yields."""
    names = [plain_name(name.strip(' "')).lower() for name in line.split(delimiter)]
    return sum(name in wanted for name in names), len(names)
