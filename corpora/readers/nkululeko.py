"""Experiments of nkululeko (Burkhardt et al., LREC 2022): the databases and sets of an INI file.

Of the section [DATA] those entries are read that say which rows of which databases are used, with
which labels, in which set. An entry that would change rows otherwise (filters, limits, bins) is
refused, not passed over. No value is evaluated: lists and mappings are read as literals.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Mapping, Sequence
from configparser import ConfigParser, Error
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from corpora.base.errors import CorpusError
from corpora.readers.audformat import read_header
from corpora.readers.delimited import lines_of_cells
from corpora.readers.options import SHARED_SPEAKERS, Option, Options, joined
from corpora.readers.registry import Dropped, ReadResult, read_corpus, register
from corpora.readers.rows import with_dev
from corpora.readers.table import MEANINGS, read_table
from corpora.readers.tree import wrong_root
from corpora.splits import assign_splits
from corpora.utterance import COLUMNS, SPLITS, Utterance

SECTION = "DATA"
OF_ALL = ("databases", "target", "labels", "root_folders", "no_reuse")
OF_ONE = (
    *("", ".type", ".split_strategy", ".mapping", ".colnames", ".absolute_path", ".audio_path"),
    *(".train_tables", ".dev_tables", ".test_tables", ".target_tables", ".files_tables"),
    *(".test_size", ".rename_speakers"),
)
BY_SPEAKER, DATABASE, SPECIFIED = "speaker_split", "database", "specified"

Literal = TypeVar("Literal", list[Any], dict[str, Any])


@register(
    "nkululeko",
    title="The data of an experiment of nkululeko",
    licence="that of the databases",
    source="https://github.com/felixbur/nkululeko (or your own)",
    needs="an INI file, or a folder with exactly one, with a section [DATA]: databases, target, "
    "labels, and of each database its path, type (csv or audformat) and split_strategy",
    options={
        "base": Option("the folder that nkululeko is started in; else that of the INI file"),
        "shared_speakers": SHARED_SPEAKERS,
    },
)
def read_nkululeko(root: Path, options: Options) -> ReadResult:
    """Read the databases of one INI file, and put their rows into the sets that it says."""
    path = _find(root)
    base = Path(str(options["base"]) or path.parent).expanduser().resolve()
    entries = _section(path, SECTION)
    names = [str(name) for name in _literal(path, entries, "databases", list)]
    labels = [str(label) for label in _literal(path, entries, "labels", list)]
    if "root_folders" in entries:
        more = _section(base / entries["root_folders"], SECTION)
        used = tuple(f"{name}.".lower() for name in names)
        entries = {key: more[key] for key in more if f"{key}.".startswith(used)} | entries
    known = {*OF_ALL, *(f"{name}{entry}".lower() for name in names for entry in OF_ONE)}
    unknown = [name for name in entries if name not in known]
    if unknown or not names or "target" not in entries:
        raise CorpusError(
            f"{path}, [{SECTION}] "
            + (f"has what is not understood here: {', '.join(unknown)}." if unknown else "lacks ")
            + ("" if unknown else "databases." if not names else "target.")
            + f" Understood are {', '.join(OF_ALL)}, and of a database its path and "
            f"{', '.join(entry[1:] for entry in OF_ONE[1:])}. Leave the rest out, or prepare the "
            "databases by themselves."
        )
    places = (base / _section(path, "EXP").get("root", "."), base)
    results = {name: _database(path, entries, name, places) for name in names}
    ids = Counter(u.id for result in results.values() for u in result.utterances)
    dropped = [one for result in results.values() for one in result.dropped]
    kept: list[Utterance] = []
    for name, result in results.items():
        for utterance in result.utterances:
            if labels and utterance.label and utterance.label not in labels:
                reason = "its label is not among the labels of the INI file"
                dropped.append(Dropped(f"{name}: {utterance.id}", reason))
            else:
                own = f"{name}/{utterance.id}" if ids[utterance.id] > 1 else utterance.id
                kept.append(replace(utterance, id=own))
    made, drawn = with_dev(_placed(kept))
    occurring = {u.label for u in made} - {""}
    return ReadResult(
        utterances=made,
        labels=tuple(one for one in labels or sorted(occurring) if one in occurring),
        dropped=tuple(dropped),
        notes=tuple(dict.fromkeys((*(n for one in results.values() for n in one.notes), *drawn))),
        tables=(path, *(table for result in results.values() for table in result.tables)),
        shared_speakers=options["shared_speakers"] is True,
    )


def _find(root: Path) -> Path:
    if root.is_file():
        return root
    found = sorted(root.glob("*.ini"))
    if not found:
        raise wrong_root(root, "an experiment of nkululeko", "one .ini file")
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise CorpusError(f"{root} holds {len(found)} INI files: {names}. Name the one to read.")
    return found[0]


def _section(path: Path, name: str) -> dict[str, str]:
    """The entries of a section, names in lower case; none where there is no such section."""
    ini = ConfigParser(interpolation=None)
    try:
        ini.read_string(path.read_text(encoding="utf-8"), str(path))
    except (OSError, ValueError, Error) as error:
        reason = " ".join(str(error).split())
        raise CorpusError(f"{path} cannot be read as an INI file: {reason}.") from error
    return dict(ini[name]) if ini.has_section(name) else {}


def _literal(path: Path, entries: Mapping[str, str], name: str, kind: type[Literal]) -> Literal:
    """A list or mapping as it is written; an empty one where there is no such entry.

    Raises:
        CorpusError: it is none.
    """
    written = entries.get(name.lower(), "") or repr(kind())
    try:
        value = ast.literal_eval(written)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        value = None
    if not isinstance(value, kind):
        raise CorpusError(f"{path}: {name} = {written} is not a {kind.__name__} of Python's.")
    return value


def _database(
    ini: Path, entries: Mapping[str, str], name: str, places: Sequence[Path]
) -> ReadResult:
    """One database's rows, in the sets that its strategy says.

    Raises:
        CorpusError: it is not there, or of a type or with a strategy that is not read.
    """
    own = {entry: entries.get(f"{name}{entry}".lower(), "").strip() for entry in OF_ONE}
    kind, strategy = own[".type"] or "audformat", own[".split_strategy"] or BY_SPEAKER
    paths = [place / own[""] for place in places]
    path = next((one for one in paths if own[""] and one.exists()), None)
    if path is None:
        raise CorpusError(
            f"{ini}: the database {name} is not at {paths[-1]}. Say where nkululeko is started "
            "with --set base=FOLDER."
        )
    path, target = path.resolve(), entries["target"]
    lists = {one: _literal(ini, entries, name + one, list) for one in OF_ONE if "_tables" in one}
    by_tables = strategy in (DATABASE, SPECIFIED)
    if kind not in ("csv", "audformat") or (kind == "csv" and by_tables):
        raise CorpusError(
            f"{ini}: {name}.type is {kind} with split_strategy {strategy}; read are csv and, also "
            f"with {DATABASE} and {SPECIFIED}, audformat."
        )
    if kind == "csv":
        names = _literal(ini, entries, f"{name}.colnames", dict)
        folder = path.parent / own[".audio_path"]
        relative = own[".absolute_path"] == "False" or own[".audio_path"]
        result = _read_csv(path, target, names, folder if relative else places[-1])
    else:
        parts = {"": lists[".target_tables"]}
        if strategy == SPECIFIED:
            parts = {split: lists[f".{split}_tables"] for split in SPLITS}
        elif strategy == DATABASE:
            tables = [f"{target}.{split}" for split in SPLITS]
            held = read_header(path)["tables"]
            parts = {one.rpartition(".")[2]: [one] for one in tables if one in held}
        result = _read_audformat(path, target, parts)
    renamed = {
        old.strip(): str(new)
        for several, new in _literal(ini, entries, f"{name}.mapping", dict).items()
        for old in str(several).split(",")
    }
    rows = [replace(u, label=renamed.get(u.label, u.label)) for u in result.utterances]
    return replace(result, utterances=tuple(_in_sets(ini, name, strategy, rows)))


def _read_csv(path: Path, target: str, names: Mapping[str, str], folder: Path) -> ReadResult:
    """A table with the columns file and target; `names` renames others, in either direction."""
    header = [name.strip() for name in next(lines_of_cells(path), (0, None))[1] or []]
    columns = {"audio": "file", "label": target.lower()}
    renamed = {
        (new if new in header else old): (old if new in header else new)
        for old, new in names.items()
    }
    for name in header:
        told = str(renamed.get(name, name)).lower()
        column = told if told in COLUMNS else MEANINGS.get(told, "")
        if column and column not in columns and (name in renamed or column not in header):
            columns[column] = name.lower()
    return read_table(path, allow_outside=True, columns=columns, folder=folder)


def _read_audformat(path: Path, target: str, parts: Mapping[str, Sequence[str]]) -> ReadResult:
    """The rows of the tables of each set; those of no table are those of all with the target."""
    read = [
        (split, read_corpus("audformat", path, {"label": target, "tables": joined(tables)}))
        for split, tables in parts.items()
        if tables or not split
    ]
    if not read:
        raise CorpusError(f"{path} has no tables of the sets that the INI file asks for.")
    return replace(
        read[0][1],
        utterances=tuple(replace(u, split=split) for split, one in read for u in one.utterances),
        dropped=tuple(gone for _, one in read for gone in one.dropped),
    )


def _in_sets(ini: Path, name: str, strategy: str, rows: Sequence[Utterance]) -> Sequence[Utterance]:
    """A database's rows with the splits of its strategy; "" where they are to be made."""
    if strategy in (DATABASE, SPECIFIED):
        return rows
    if strategy in SPLITS:
        return [replace(u, split=strategy) for u in rows]
    if strategy == BY_SPEAKER:
        return [replace(u, split="") for u in rows]
    if not strategy.startswith("["):
        raise CorpusError(
            f"{ini}: {name}.split_strategy = {strategy} is not read. Known: {DATABASE}, "
            f"{SPECIFIED}, {BY_SPEAKER}, {', '.join(SPLITS)}, or a list of the test set's speakers."
        )
    tested = {str(one) for one in _literal(ini, {name.lower(): strategy}, name, list)}
    unknown = sorted(tested - {u.speaker for u in rows})
    if unknown:
        raise CorpusError(f"{ini}: the database {name} has no speaker {', '.join(unknown)}.")
    return [replace(u, split="test" if u.speaker in tested else "train") for u in rows]


def _placed(rows: Sequence[Utterance]) -> Sequence[Utterance]:
    """Give splits to the databases that have none, where others have; else `prepare` does."""
    bare = [u for u in rows if not u.split]
    if not bare or len(bare) == len(rows):
        return rows
    made = iter(assign_splits(bare)[0])
    return [u if u.split else next(made) for u in rows]
