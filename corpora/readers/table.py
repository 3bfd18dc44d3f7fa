"""Any corpus that comes as a table: a CSV or TSV with at least the columns `audio` and `label`.

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
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from corpora.base.errors import ConfigError, CorpusError, ManifestError, did_you_mean
from corpora.readers.delimited import encoding_of, separator_told
from corpora.readers.options import (
    ALLOW_OUTSIDE,
    CORPUS,
    LANGUAGE,
    SHARED_SPEAKERS,
    Option,
    Options,
    cells_of,
)
from corpora.readers.registry import Dropped, ReadResult, register
from corpora.readers.tree import ids_of_paths, locator, wrong_root
from corpora.utterance import (
    COLUMNS,
    MISSING_TEXTS,
    SEXES,
    Utterance,
    is_missing,
    plain_name,
    row_problem,
    splits_named,
    splits_note,
    table_rows,
    to_utterance,
)

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
# Columns in which `nan`, `None`, `-`, … is an empty cell. In numbers it is one anyway, and of
# labels and speakers the user is warned (`corpora.readers.registry`).
EMPTIED = ("id", "audio", "fold", "session", "language", "corpus")


@dataclass(frozen=True)
class _Table:
    header: list[str]  # a column of `COLUMNS`, or "" for one that is not used
    rows: list[tuple[int, list[str]]]
    notes: tuple[str, ...]


@register(
    "csv",
    title="Any table of recordings (CSV or TSV)",
    licence="that of your recordings",
    source="your own",
    needs="a CSV or TSV file, or a folder with exactly one, with the columns audio and label",
    options={
        "allow_outside": ALLOW_OUTSIDE,
        "shared_speakers": SHARED_SPEAKERS,
        "column": Option("audio=path takes the column path as audio; several by commas"),
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
) -> ReadResult:
    """Read one table.

    Args:
        path: the table, absolute; its folder is where its paths start.
        allow_outside: accept paths that lead out of that folder.
        corpus: the corpus name of rows that name none; by default the folder's name.
        language: that of rows that name none.
        columns: the table's own names of columns, by those in `corpora.utterance.COLUMNS`.
        encoding: of the text; "" is found out.

    Raises:
        CorpusError: it cannot be read as a table, lacks a column, or no row can be used.
        ConfigError: `columns` names one that there is not, or there is no such encoding.
    """
    table = _load(path, columns or {}, encoding)
    locate = locator(path.parent, path.parent, allow_outside=allow_outside)
    utterances: list[Utterance] = []
    written: list[str] = []  # the audio cell of each utterance, for ids
    dropped: list[Dropped] = []
    sexes: set[str] = set()
    own_ids = "id" in table.header
    place = table.header.index("split") if "split" in table.header else None
    splits = {} if place is None else splits_named(_cells(table, place))
    for line, row in table.rows:
        cells = dict.fromkeys(COLUMNS, "") | dict(zip(table.header, row, strict=False))
        cells |= {column: "" for column in EMPTIED if is_missing(cells[column])}
        if cells["text"].lower() in MISSING_TEXTS:
            cells["text"] = ""
        name = f" (utterance '{cells['id']}')" if cells["id"] else ""
        try:
            if len(row) != len(table.header):
                raise ManifestError(f"{len(row)} cells where the header has {len(table.header)}")
            # Without an id column ids are made from all rows' paths below; a row stands alone here.
            cells["id"] = cells["id"] if own_ids else cells["audio"]
            cells["corpus"] = cells["corpus"] or corpus or path.parent.name
            cells["language"] = cells["language"] or language
            cells["split"] = splits.get(cells["split"], cells["split"])
            utterance = to_utterance(cells, locate, line)
            if utterance.sex not in ("", *SEXES):
                sexes.add(utterance.sex)
                utterance = replace(utterance, sex="")
            problem = row_problem(utterance)
            if problem:
                raise ManifestError(problem)
        except ManifestError as error:
            dropped.append(Dropped(f"{path.name}:{line}{name}", str(error)))
            continue
        utterances.append(utterance)
        written.append(cells["audio"].replace("\\", "/"))
    if not utterances:
        first = f", the first: {dropped[0].where}: {dropped[0].reason}" if dropped else ""
        raise CorpusError(f"{path} has no row that can be used ({len(dropped)} left out{first}).")
    if not own_ids:
        ids = ids_of_paths(written, utterances)
        utterances = [replace(u, id=name) for u, name in zip(utterances, ids, strict=True)]
    notes = [*table.notes, *splits_note(splits), *_missing_texts(table)]
    if sexes:
        notes.append(
            f"sex {', '.join(sorted(sexes))} is read as not known; known are {' and '.join(SEXES)}."
        )
    return ReadResult(
        utterances=tuple(utterances),
        labels=tuple(sorted({u.label for u in utterances} - {""})),
        dropped=tuple(dropped),
        notes=tuple(notes),
        tables=(path,),
    )


def _cells(table: _Table, place: int) -> list[str]:
    """A column of the rows that are whole."""
    return [row[place] for _, row in table.rows if len(row) == len(table.header)]


def _missing_texts(table: _Table) -> list[str]:
    if "text" not in table.header:
        return []
    texts = Counter(_cells(table, table.header.index("text")))
    return [
        f"The text '{text}' of {count:,} rows is read as empty."
        for text, count in texts.items()
        if text.lower() in MISSING_TEXTS
    ]


def _find_table(root: Path) -> Path:
    if root.is_file():
        return root
    found = sorted(
        path
        for path in root.iterdir()
        if path.suffix.lower() in (".csv", ".tsv") and path.is_file() and path.name[0] != "."
    )
    if not found:
        raise wrong_root(root, "a corpus with a table", "one .csv or .tsv file")
    if len(found) > 1:
        names = ", ".join(p.name for p in found)
        raise CorpusError(f"{root} holds {len(found)} tables: {names}. Name the one to read.")
    return found[0]


def _load(path: Path, columns: Mapping[str, str], encoding: str) -> _Table:
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
    unused = [name for name, column in zip(found, header, strict=True) if name and not column]
    if unused:
        listed = ", ".join(name + meaning(name, header) for name in unused)
        notes = (*notes, f"Columns not used: {listed}.")
    return _Table(header, rows[1:], notes)


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
