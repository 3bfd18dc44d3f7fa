"""The manifest: utterances plus the label order, as a CSV that a person can open.

`manifest.csv` holds one utterance a row (UTF-8, comma; columns `id`, `audio` and `label` are
needed, the others of `corpora.utterance.COLUMNS` are optional, further ones are ignored; paths are
relative to the CSV's folder). `manifest.json` beside it holds what belongs to no row:

    {"format": "emopool-manifest", "version": 1, "labels": [...], "corpus": "...",
     "protocol": "", "shared_speakers": false, "synthetic": false,
     "settings": {"seed": 0, ...}, "scales": {"valence": [1, 7], ...},
     "csv_sha256": "..."}

A hand-made CSV needs no JSON: its labels are then its label column, sorted.

Cells stand as they are, unlike in tables made to be looked at (`corpora.base.terminal.inert`):
people and other programs write manifests too, and an apostrophe in front may be a transcript's own.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from corpora.base.errors import ManifestError, MissingStepError
from corpora.base.files import LFS_SENTENCE, is_lfs_pointer
from corpora.manifest_fields import FIELDS, Problem, find_problems, read_fields, refuse, write_both
from corpora.utterance import (
    ALL,
    COLUMNS,
    SPLITS,
    Utterance,
    format_number,
    format_votes,
    plain_name,
    speaker_key,
    table_rows,
    to_utterance,
)

__all__ = [
    "SPLITS",
    "Manifest",
    "Utterance",
    "check_manifest",
    "keep_others",
    "read_manifest",
    "require_splits",
    "speaker_key",
    "write_manifest",
]

NEEDED = ("id", "audio", "label")
IN_MEMORY = "Manifest(shared_speakers=True)"  # how splits that share speakers are declared there
# Written even when empty, so that a person sees where to fill them in.
ALWAYS_WRITTEN = frozenset({*NEEDED, "text", "speaker", "split"})


@dataclass(frozen=True)
class Manifest:
    """The utterances of a corpus, or of several, and what holds for all of them.

    Attributes:
        utterances: in the order of the file.
        labels: the label order: a class index is a position in it.
        corpus: the name of the corpus.
        protocol: the published evaluation whose rows these are; "" is none.
        shared_speakers: the splits share speakers by declaration, which reports must say.
        synthetic: not human speech, which reports must say.
        settings: how splits, folds and subsampling were made (seed, test fold, metrics, …), as JSON
            values.
        scales: the lowest and highest value of `valence`, `arousal` and `dominance`, where known.
    """

    utterances: tuple[Utterance, ...]
    labels: tuple[str, ...]
    corpus: str
    protocol: str = ""
    shared_speakers: bool = False
    synthetic: bool = False
    settings: Mapping[str, Any] = field(default_factory=dict, hash=False)
    scales: Mapping[str, tuple[float, float]] = field(default_factory=dict, hash=False)

    def in_split(self, split: str) -> tuple[Utterance, ...]:
        """The utterances of one split or of all, unlabelled ones too, in file order."""
        return tuple(u for u in self.utterances if split in (ALL, u.split))


def read_manifest(path: str | Path) -> Manifest:
    """Read `manifest.csv` and the JSON beside it. Recordings are not touched.

    >>> manifest = read_manifest(folder / "manifest.csv")
    >>> manifest.labels, [utterance.id for utterance in manifest.in_split("train")]
    (('anger', 'neutral'), ['a'])

    Raises:
        MissingStepError: there is no such file.
        ManifestError: it cannot be used; up to ten problems are named with line and utterance.
        FormatVersionError: the JSON beside it is of another format or version.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingStepError(
            f"No manifest at {path}. Make one with `prepare CORPUS ROOT`, or name another."
        )
    try:
        data = path.read_bytes()
        if is_lfs_pointer(path):
            raise ManifestError(f"{path} {LFS_SENTENCE}")
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ManifestError(
            f"{path} is not UTF-8 (byte {error.start}). Save it as UTF-8, "
            "or read it as a corpus table with `prepare csv`."
        ) from error
    rows = table_rows(text, str(path))
    header = _read_header(path, rows)
    fields = read_fields(path.with_suffix(".json"), data)
    # Paths come back as `write_manifest` made them: seen from the CSV's real folder, so that a
    # link on the way to the work folder does not lead `..` astray.
    folder = os.path.realpath(path.parent)
    problems: list[Problem] = []
    utterances: list[Utterance] = []
    for line, row in rows:
        cells = dict(zip(header, row, strict=False))
        try:
            if len(row) != len(header):
                raise ManifestError(f"{len(row)} cells where the header has {len(header)}")
            utterances.append(to_utterance(cells, lambda cell: _locate(folder, cell), line))
        except ManifestError as error:
            problems.append(Problem(line, cells.get("id", ""), str(error)))
    if not utterances and not problems:
        raise ManifestError(f"{path} has a header but no utterance.")
    labels = fields.pop("labels", None)
    if labels is None:
        labels = sorted({u.label for u in utterances} - {""})
    manifest = Manifest(tuple(utterances), tuple(labels), **fields)
    declare = f'"shared_speakers": true in {path.with_suffix(".json").name}'
    refuse(str(path), [*problems, *_problems(manifest, declare)])
    return manifest


def write_manifest(manifest: Manifest, path: str | Path) -> None:
    """Write `path` (CSV) and the JSON beside it, both or neither.

    What could not be read back is refused.

    Raises:
        ManifestError: the manifest breaks a rule of `read_manifest`.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    folder = os.path.realpath(path.parent)
    table = _table_text(manifest, folder)
    refuse(str(path), _problems(manifest, IN_MEMORY))
    try:
        data = table.encode("utf-8")
    except UnicodeEncodeError as error:
        around = table[max(error.start - 40, 0) : error.start + 40]
        raise ManifestError(f"{path}: not valid Unicode near {around!r}. Rename that.") from error
    fields = {name: getattr(manifest, name) for name in FIELDS}
    write_both(path, data, fields)


def keep_others(path: str | Path, utterances: Sequence[Utterance]) -> None:
    """Refuse to write over the manifest of another corpus: hours of work may hang on it.

    It is the same corpus where one recording, or one id of the same corpus, is in both.

    Args:
        path: the CSV to be written.
        utterances: to be written, whatever their splits.

    Raises:
        ManifestError: a manifest of other recordings stands there.
    """
    path = Path(path)
    if not path.is_file():
        return
    folder = os.path.realpath(path.parent)
    paths = {str(u.audio) for u in utterances}
    ids = {(u.corpus, u.id) for u in utterances}
    corpora: set[str] = set()
    try:
        rows = list(table_rows(path.read_bytes().decode("utf-8-sig"), str(path)))
    except (UnicodeDecodeError, ManifestError):
        raise ManifestError(
            f"{path} stands there already and cannot be read. Move it away, take another work "
            "folder with --work, or write over it with --replace."
        ) from None
    header = rows[0][1] if rows else []
    for _, row in rows[1:]:
        cells = dict(zip(header, row, strict=False))
        corpus = plain_name(cells.get("corpus", ""))
        corpora.add(corpus)
        if str(_locate(folder, cells.get("audio", ""))) in paths:
            return
        if (corpus, plain_name(cells.get("id", ""))) in ids:
            return
    if rows[1:]:
        of = ", ".join(sorted(corpora - {""})) or "other recordings"
        raise ManifestError(
            f"{path} is the manifest of another corpus ({of}; {len(rows) - 1:,} rows). Take "
            "another work folder with --work, or write over it with --replace."
        )


def check_manifest(manifest: Manifest, where: str, *, declare: str = IN_MEMORY) -> None:
    """Raise what `read_manifest` would raise for these utterances.

    Args:
        manifest: to be checked.
        where: names the source of the utterances.
        declare: how the user says that the splits share speakers.

    Raises:
        ManifestError: a duplicate id, an unknown label, a bad segment, a speaker or a recording in
            two splits.
    """
    refuse(where, _problems(manifest, declare))


def require_splits(manifest: Manifest, names: Sequence[str]) -> None:
    """Check that each named split, or all of them, has a labelled utterance.

    Raises:
        ManifestError: it has none; the message counts what every split holds.
    """
    counts = dict.fromkeys(SPLITS, 0)
    for utterance in manifest.utterances:
        if utterance.label and utterance.split:
            counts[utterance.split] += 1
    missing = [name for name in names if not any(u.label for u in manifest.in_split(name))]
    if missing:
        held = ", ".join(f"{name} {count}" for name, count in counts.items())
        raise ManifestError(
            f"The manifest has no labelled utterance, and so no speaker, in "
            f"{' and '.join(missing).replace(ALL, 'any split')} (labelled utterances: {held}). "
            "Fill its split column with train, dev and test, no speaker in two of them, "
            "or run `prepare` on a table without a split column, which makes the splits."
        )


def _read_header(path: Path, rows: Iterator[tuple[int, list[str]]]) -> list[str]:
    """The column names, once they have been checked."""
    _, header = next(rows, (0, []))
    if not header:
        raise ManifestError(f"{path} is empty: expected a header with {', '.join(NEEDED)}.")
    missing = [name for name in NEEDED if name not in header]
    if missing:
        hint = " Columns are separated by commas." if len(header) == 1 else ""
        raise ManifestError(
            f"{path} has no column {' and no column '.join(missing)}. "
            f"Columns found: {', '.join(header)}.{hint}"
        )
    twice = sorted({name for name in header if name in COLUMNS and header.count(name) > 1})
    if twice:
        raise ManifestError(f"{path} has the column {' and '.join(twice)} twice.")
    return header


def _locate(folder: str, cell: str) -> Path:
    return Path(os.path.normpath(os.path.join(folder, cell)))


def _table_text(manifest: Manifest, folder: str) -> str:
    """The CSV; columns that nobody fills are left out, but for the usual ones."""
    parents: dict[Path, str] = {}  # a corpus has few folders: relpath is asked once for each

    def relative(path: Path | None) -> str:
        if path is None:
            return ""
        if path.parent not in parents:
            parents[path.parent] = Path(os.path.relpath(path.parent, folder)).as_posix()
        parent = parents[path.parent]
        return path.name if parent == "." else f"{parent}/{path.name}"

    def cell(utterance: Utterance, column: str) -> str:
        value = getattr(utterance, column)
        if column in ("audio", "alignment"):
            return relative(value)
        if column == "votes":
            return format_votes(value)
        return value if isinstance(value, str) else format_number(value)

    used = [
        column
        for column in COLUMNS
        if column in ALWAYS_WRITTEN
        or any(getattr(u, column) not in ("", None) for u in manifest.utterances)
    ]
    out = io.StringIO(newline="")
    plain = csv.writer(out, lineterminator="\n")
    # A bare carriage return is not quoted by the plain writer, and would end the row on reading.
    quoted = csv.writer(out, lineterminator="\n", quoting=csv.QUOTE_ALL)
    plain.writerow(used)
    for utterance in manifest.utterances:
        row = [cell(utterance, column) for column in used]
        (quoted if any("\r" in value for value in row) else plain).writerow(row)
    return out.getvalue()


def _problems(manifest: Manifest, declare: str) -> list[Problem]:
    return find_problems(
        manifest.utterances,
        manifest.labels,
        shared_speakers=manifest.shared_speakers,
        declare=declare,
    )
