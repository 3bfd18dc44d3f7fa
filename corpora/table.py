"""Any corpus that comes as a table: a CSV or TSV with at least the columns `audio` and `label`.

Further columns are taken by their names in `corpora.rows.COLUMNS` (speaker, split, text, start,
end, …; upper or lower case), all others are ignored. Paths are relative to the table's folder.
A row that cannot be used is left out with its line and reason; the rest is kept.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from corpora.delimited import encoding_of
from corpora.errors import CorpusError, ManifestError
from corpora.ids import ids_of_paths
from corpora.options import ALLOW_OUTSIDE, SHARED_SPEAKERS, Options
from corpora.registry import Dropped, ReadResult, register
from corpora.rows import COLUMNS, row_problem, table_rows, to_utterance
from corpora.tree import locator, wrong_root
from corpora.utterance import SEXES, SPLIT_SPELLINGS, Utterance

NEEDED = ("audio", "label")
DELIMITERS = ",;\t|"


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
    options={"allow_outside": ALLOW_OUTSIDE, "shared_speakers": SHARED_SPEAKERS},
)
def read_csv(root: Path, options: Options) -> ReadResult:
    """Read the table `root`, or the only one in the folder `root`."""
    result = read_table(_find_table(root), allow_outside=options["allow_outside"] is True)
    return replace(result, shared_speakers=options["shared_speakers"] is True)


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
    locate = locator(path.parent, path.parent, allow_outside=allow_outside)
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
        ids = ids_of_paths(written, utterances)
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
    encoding = encoding_of(path)
    text = path.read_bytes().decode(encoding)
    notes = () if encoding == "utf-8-sig" else (f"{path.name} is not UTF-8: read as {encoding}.",)
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


def _header_score(line: str, delimiter: str) -> tuple[int, int]:
    """Rank a delimiter by the needed columns it yields, then by how many it yields."""
    names = [name.strip(' "').lower() for name in line.split(delimiter)]
    return sum(name in names for name in NEEDED), len(names)
