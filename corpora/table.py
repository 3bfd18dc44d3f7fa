"""Any corpus that comes as a table: a CSV or TSV with at least the columns `audio` and `label`.

Further columns are taken by their names in `corpora.rows.COLUMNS` (speaker, split, text, start,
end, …; upper or lower case), all others are ignored. Paths are relative to the table's folder.
A row that cannot be used is left out with its line and reason; the rest is kept.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from corpora.errors import ConfigError, CorpusError, ManifestError
from corpora.registry import Dropped, Options, ReadResult, register
from corpora.rows import COLUMNS, format_number, row_problem, table_rows, to_utterance
from corpora.tree import wrong_root
from corpora.utterance import SEXES, Utterance

NEEDED = ("audio", "label")
DELIMITERS = ",;\t|"
SPLIT_SPELLINGS = {
    "train": "train", "training": "train",
    "dev": "dev", "development": "dev", "val": "dev", "valid": "dev", "validation": "dev",
    "test": "test", "testing": "test",
}  # fmt: skip


@dataclass(frozen=True)
class _Table:
    header: list[str]  # lower case
    rows: list[tuple[int, list[str]]]
    notes: tuple[str, ...]


@register(
    "csv",
    title="Any table of recordings (CSV or TSV)",
    licence="that of your recordings",
    source="your own",
    needs="a CSV or TSV file, or a folder with exactly one, with the columns audio and label",
    options={
        "allow_outside": "true lets recordings lie outside the table's folder",
        "shared_speakers": "true declares that the table's own splits share speakers",
    },
)
def read_csv(root: Path, options: Options) -> ReadResult:
    """Read the table `root`, or the only one in the folder `root`."""
    result = read_table(_find_table(root), allow_outside=_switch(options, "allow_outside"))
    return replace(result, shared_speakers=_switch(options, "shared_speakers"))


def read_table(path: Path, *, allow_outside: bool = False, corpus: str = "") -> ReadResult:
    """Read one table.

    Args:
        path: the table, absolute; its folder is where its paths start.
        allow_outside: accept paths that lead out of that folder.
        corpus: the corpus name of rows that name none; by default the folder's name.

    Raises:
        CorpusError: it cannot be read as a table, lacks a column, or no row can be used.
    """
    table = _load(path)
    locate = _locator(path.parent, allow_outside)
    utterances: list[Utterance] = []
    written: list[str] = []  # the audio cell of each utterance, for ids
    dropped: list[Dropped] = []
    sexes: set[str] = set()
    for line, row in table.rows:
        cells = dict(zip(table.header, row, strict=False))
        name = f" (utterance '{cells['id']}')" if cells.get("id") else ""
        try:
            if len(row) != len(table.header):
                raise ManifestError(f"{len(row)} cells where the header has {len(table.header)}")
            # Without an id column ids are made from all rows' paths below; a row stands alone here.
            cells["id"] = cells["id"] if "id" in table.header else cells["audio"]
            cells["corpus"] = cells.get("corpus") or corpus or path.parent.name
            split = cells.get("split", "")
            cells["split"] = SPLIT_SPELLINGS.get(split.lower(), split)
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
    if "id" not in table.header:
        ids = _default_ids(written, utterances)
        utterances = [replace(u, id=name) for u, name in zip(utterances, ids, strict=True)]
    notes = list(table.notes)
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


def _switch(options: Options, name: str) -> bool:
    value = options.get(name, False)
    if not isinstance(value, bool):
        raise ConfigError(f"option {name} is '{value}', expected true or false.")
    return value


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


def _load(path: Path) -> _Table:
    text, notes = _decode(path)
    first = next((line for line in text.splitlines() if line.strip()), "")
    delimiter = max(DELIMITERS, key=lambda mark: _header_score(first, mark))
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
    header = [name.lower() for name in rows[0][1]]
    missing = [name for name in NEEDED if name not in header]
    twice = sorted({name for name in header if name in COLUMNS and header.count(name) > 1})
    if missing or twice:
        wrong = (
            f"no column {' and no column '.join(missing)}" if missing else f"two columns {twice[0]}"
        )
        raise CorpusError(
            f"{path} has {wrong}. Columns found: {', '.join(rows[0][1])}. "
            "Name them audio (path of the recording) and label (the emotion)."
        )
    if len(rows) == 1:
        raise CorpusError(f"{path} has a header, but it has no rows. Add one for each recording.")
    return _Table(header, rows[1:], notes)


def _decode(path: Path) -> tuple[str, tuple[str, ...]]:
    data = path.read_bytes()
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        encodings: tuple[str, ...] = ("utf-16",)
    else:
        encodings = ("utf-8-sig", "cp1252")
    for encoding in encodings:
        try:
            text = data.decode(encoding)
        except UnicodeDecodeError:
            continue
        read_as = (
            () if encoding == "utf-8-sig" else (f"{path.name} is not UTF-8: read as {encoding}.",)
        )
        return text, read_as
    raise CorpusError(f"{path} is not text in any of {', '.join(encodings)}. Save it as UTF-8.")


def _header_score(line: str, delimiter: str) -> tuple[int, int]:
    """Rank a delimiter by the needed columns it yields, then by how many it yields."""
    names = [name.strip(' "').lower() for name in line.split(delimiter)]
    return sum(name in names for name in NEEDED), len(names)


def _locator(folder: Path, allow_outside: bool) -> Callable[[str], Path]:
    r"""Return what makes a path of the table absolute and, unless allowed, keeps it inside.

    Tables written on Windows say a\b.wav: \ is read as /.
    """
    base = str(folder)
    fence = base.rstrip(os.sep) + os.sep

    def locate(cell: str) -> Path:
        path = os.path.normpath(os.path.join(base, cell.replace("\\", "/")))
        if not allow_outside and not path.startswith(fence):
            raise ManifestError(
                f"'{cell}' leads outside {base} (--set allow_outside=true permits it)"
            )
        return Path(path)

    return locate


def _default_ids(audio: Sequence[str], utterances: Sequence[Utterance]) -> list[str]:
    """Return ids from the audio paths: the shortest form that tells all rows apart.

    In this order: file name without suffix, the same with the segment, path without suffix, the
    same with the segment, whole path with the segment (which may still hold one row twice).
    """
    whole = [os.path.normpath(path) for path in audio]
    bare = [os.path.splitext(path)[0] for path in whole]
    names = [os.path.basename(path) for path in bare]
    segments = [
        ""
        if u.start is None and u.end is None
        else f"_{format_number(u.start) or 0}-{format_number(u.end) or 'end'}"
        for u in utterances
    ]
    for stems, marks in ((names, None), (names, segments), (bare, None), (bare, segments)):
        ids = stems if marks is None else [a + b for a, b in zip(stems, marks, strict=True)]
        if len(set(ids)) == len(ids):
            return list(ids)
    return [a + b for a, b in zip(whole, segments, strict=True)]
