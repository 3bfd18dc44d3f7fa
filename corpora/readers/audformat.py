"""Databases in audEERING's audformat, as audb publishes them: `db.yaml` and a file for each table.

The header names tables, schemes and splits (audformat's specification, 1.0). A table is filewise
(a row a recording) or segmented (with start and end), and is stored as `db.<name>.csv`, `.parquet`
or `.pkl`. Pickles are never opened, since opening one can run anything. Tables with the label give
the utterances; what other tables say of a recording or segment is joined to them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from corpora.base.errors import CorpusError, ManifestError
from corpora.readers.arrow import arrow_rows
from corpora.readers.options import (
    ALLOW_OUTSIDE,
    CORPUS,
    LANGUAGE,
    SHARED_SPEAKERS,
    Option,
    Options,
    cells_of,
)
from corpora.readers.registry import ReadResult, register
from corpora.readers.rows import Row, cell, read_rows, seconds, with_dev
from corpora.readers.table import MEANINGS
from corpora.readers.tree import locator, wrong_root
from corpora.utterance import ATTRIBUTES, COLUMNS, is_missing, split_named, table_rows

HEADER = "db.yaml"
NOT_JOINED = ("id", "audio", "start", "end", "label", "alignment", "votes")
# ISO 639-3, as audformat has languages, to BCP 47.
LANGUAGES = {
    "deu": "de", "eng": "en", "fra": "fr", "ita": "it", "spa": "es", "por": "pt", "nld": "nl",
    "dan": "da", "swe": "sv", "nor": "no", "fin": "fi", "pol": "pl", "ces": "cs", "rus": "ru",
    "ukr": "uk", "tur": "tr", "ell": "el", "hun": "hu", "ron": "ro", "fas": "fa", "ara": "ar",
    "urd": "ur", "hin": "hi", "ben": "bn", "jpn": "ja", "kor": "ko", "zho": "zh", "cmn": "zh",
}  # fmt: skip

Key = tuple[str, str, str]  # file, start and end in seconds; "" where there are none
Header = Mapping[str, Any]


@register(
    "audformat",
    title="A database in audformat (audb), such as EMO-DB 2.0",
    licence="that of the database (its header, db.yaml, states it)",
    source="audb (audeering.github.io/datasets), or your own",
    needs=f"the folder with {HEADER}, its tables as CSV or Parquet, and the recordings",
    speakers="Give the database a column speaker",
    options={
        "label": Option("the column, or the scheme of a column, that is the label", "emotion"),
        "tables": Option("the tables whose rows are read, by commas; else all with the label"),
        "allow_outside": ALLOW_OUTSIDE,
        "corpus": CORPUS,
        "language": LANGUAGE,
        "shared_speakers": SHARED_SPEAKERS,
    },
)
def read_audformat(root: Path, options: Options) -> ReadResult:
    """Read the rows of the tables with the label, and join what the others say of them."""
    header = read_header(root)
    label = str(options["label"])
    utterances = _labelled(root, header, label, cells_of([str(options["tables"])], "tables"))
    scales: dict[str, tuple[float, float]] = {}
    for name, table in header["tables"].items():
        meanings = {column: one for column in table["columns"] if (one := _meaning(column))}
        rows = _read(root, name, header) if meanings else {}
        for key, cells in utterances.items():
            found = rows.get(key) or rows.get((key[0], "", "")) or {}
            for column, meaning in meanings.items():
                cells[meaning] = cells.get(meaning) or found.get(column, "")
        for column, meaning in meanings.items():
            scheme = _scheme(header, table, column)
            if meaning in ATTRIBUTES and {"minimum", "maximum"} <= scheme.keys():
                scales[meaning] = (float(scheme["minimum"]), float(scheme["maximum"]))
            if meaning == "speaker":
                _describe(utterances.values(), _labels(root, header, scheme))
    languages = header.get("languages") or []
    spoken = str(languages[0]) if len(languages) == 1 else ""
    result = read_rows(
        [
            Row(file, {**cells, "audio": file, "start": start, "end": end})
            for (file, start, end), cells in utterances.items()
        ],
        root,
        locator(root, root, allow_outside=options["allow_outside"] is True),
        corpus=str(options["corpus"]) or str(header.get("name") or root.name),
        language=str(options["language"]) or LANGUAGES.get(spoken, spoken),
    )
    made, notes = with_dev(result.utterances)
    return replace(
        result,
        utterances=made,
        notes=(*result.notes, *notes, f"Licence, as {HEADER} has it: {_licence(header)}."),
        tables=(root / HEADER,),
        shared_speakers=options["shared_speakers"] is True,
        scales=scales,
    )


def read_header(root: Path) -> Header:
    """The database's header, with every entry that is read here, be it empty.

    Raises:
        CorpusError: there is none, or it is none.
    """
    path = root / HEADER
    if not path.is_file():
        raise wrong_root(root, "a database in audformat", HEADER)
    import yaml

    try:
        header = yaml.safe_load(path.read_text(encoding="utf-8"))
        kinds = {kind: header.get(kind) or {} for kind in ("tables", "misc_tables")}
        for table in (*kinds["tables"].values(), *kinds["misc_tables"].values()):
            table["columns"] = {
                name: column or {} for name, column in (table.get("columns") or {}).items()
            }
        schemes = {name: one or {} for name, one in (header.get("schemes") or {}).items()}
        return {**header, **kinds, "schemes": schemes, "splits": header.get("splits") or {}}
    except (yaml.YAMLError, UnicodeDecodeError, AttributeError, TypeError) as error:
        raise CorpusError(
            f"{path} is not a header as audformat writes it ({str(error).splitlines()[0]})."
        ) from error


def _labelled(
    root: Path, header: Header, label: str, wanted: Sequence[str]
) -> dict[Key, dict[str, str]]:
    """The rows of the tables with the label: `label` and `split` of each.

    Raises:
        CorpusError: there is no such table, or two do not agree.
    """
    tables = header["tables"]
    unknown = [name for name in wanted if name not in tables]
    columns = {
        name: next(
            (c for c in table["columns"] if label in (c, table["columns"][c].get("scheme_id"))), ""
        )
        for name, table in tables.items()
        if name in (wanted or tables)
    }
    named = {name: column for name, column in columns.items() if column}
    if unknown or not named:
        lacking = f"table {unknown[0]}" if unknown else f"column or scheme {label}"
        listed = "; ".join(
            f"{name}: {', '.join(table['columns'])}" for name, table in tables.items()
        )
        raise CorpusError(
            f"{root / HEADER} has no {lacking}. Its tables and their columns: {listed or 'none'}. "
            "Say which are meant with --set label=COLUMN and --set tables=TABLE."
        )
    found: dict[Key, dict[str, str]] = {}
    for name, column in named.items():
        split_id = str(tables[name].get("split_id") or "")
        split = str((header["splits"].get(split_id) or {}).get("type") or split_id)
        for key, cells in _read(root, name, header).items():
            told = {"label": cells.get(column, ""), "split": split if split_named(split) else ""}
            own = found.setdefault(key, told)
            for what, value in told.items():
                if value and own[what] and value != own[what]:
                    raise CorpusError(
                        f"{root}: the tables {', '.join(named)} do not agree on {key[0]}: its "
                        f"{what} is {own[what]}, and {value} in {name}. Name those to read with "
                        "--set tables=TABLE, several by commas."
                    )
                own[what] = own[what] or value
    return found


def _scheme(header: Header, table: Mapping[str, Any], column: str) -> Mapping[str, Any]:
    scheme: Mapping[str, Any] = header["schemes"].get(table["columns"][column].get("scheme_id"), {})
    return scheme


def _meaning(column: str) -> str:
    """The manifest's column that a table's is joined as, "" for none."""
    name = column.lower()
    name = name if name in COLUMNS else MEANINGS.get(name, "")
    return "" if name in NOT_JOINED else name


def _labels(root: Path, header: Header, scheme: Mapping[str, Any]) -> dict[str, Any]:
    """A scheme's labels, and what is said of each: an object, a text, or nothing."""
    labels = scheme.get("labels") or {}
    if isinstance(labels, str):  # the name of a table without files
        level, *_ = header["misc_tables"][labels].get("levels") or {"": ""}
        return {row.get(level, ""): row for row in _cells_of(root, labels)}
    return {str(name): labels[name] if isinstance(labels, dict) else None for name in labels}


def _describe(utterances: Iterable[dict[str, str]], speakers: Mapping[str, Any]) -> None:
    """Add what the labels of speakers say of them."""
    for cells in utterances:
        about = speakers.get(cells.get("speaker", ""))
        for name, value in about.items() if isinstance(about, dict) else ():
            if _meaning(name) in ("sex", "language"):
                cells[_meaning(name)] = cells.get(_meaning(name)) or cell(value)


def _read(root: Path, name: str, header: Header) -> dict[Key, dict[str, str]]:
    """A table's rows by file and segment; texts that are labels of a scheme are spelled out."""
    table = header["tables"][name]
    texts = {
        column: _labels(root, header, _scheme(header, table, column))
        for column in table["columns"]
        if _meaning(column) == "text"
    }
    rows: dict[Key, dict[str, str]] = {}
    for row in _cells_of(root, name):
        for column, labels in texts.items():
            spelled = labels.get(row.get(column, ""))
            row[column] = spelled if isinstance(spelled, str) else row.get(column, "")
        times = (seconds(row.get(one, "")) for one in ("start", "end"))
        start, end = ("" if is_missing(one) else one for one in times)
        rows[row.get("file", ""), start, end] = row
    return rows


def _cells_of(root: Path, name: str) -> Iterator[dict[str, str]]:
    """Yield the rows of a table's file.

    Raises:
        CorpusError: there is none of a format that is read, or it cannot be read.
    """
    path = root / f"db.{name}.csv"
    parquet = path.with_suffix(".parquet")
    try:
        if parquet.is_file() and not path.is_file():
            for values in arrow_rows(parquet):
                yield {column: cell(value) for column, value in values.items()}
            return
        rows = [row for _, row in table_rows(path.read_text(encoding="utf-8"), str(path))]
        for row in rows[1:]:
            yield dict(zip(rows[0], row, strict=False))
    except FileNotFoundError as error:
        pickled = path.with_suffix(".pkl").is_file()
        raise CorpusError(
            f"{root} has neither {path.name} nor {parquet.name}"
            + (
                f", and {path.stem}.pkl is a pickle, which is not opened: opening one can run "
                "anything. Save the database as text: db.save(FOLDER, storage_format='csv')."
                if pickled
                else f", which {HEADER} names. Get the database anew."
            )
        ) from error
    except (ManifestError, UnicodeDecodeError) as error:
        raise CorpusError(f"{path} cannot be read as a table: {error}") from error


def _licence(header: Header) -> str:
    return str(header.get("license") or header.get("usage") or "not stated")
