"""Hugging Face datasets on disk: saved by `save_to_disk`, as Parquet files, or as an `audiofolder`.

Parquet and Arrow files are read as they are, by pyarrow; the package `datasets`, which would decode
sound and copy all of it into a cache, is not needed. Recordings that are embedded are written into
a folder once, byte for byte. An `audiofolder` has a `metadata.csv` or `.jsonl` with `file_name`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from corpora.base.errors import CorpusError, ManifestError
from corpora.base.files import writing
from corpora.readers.arrow import arrow_metadata, arrow_rows
from corpora.readers.options import (
    COLUMN,
    CORPUS,
    LANGUAGE,
    RECORDINGS,
    SHARED_SPEAKERS,
    Options,
)
from corpora.readers.registry import ReadResult, register
from corpora.readers.rows import json_lines, read_rows, with_dev
from corpora.readers.table import Object, parse_columns, table_of_objects
from corpora.readers.tree import files_below, inside, locator, wrong_root
from corpora.utterance import split_named, table_rows

METADATA = ("metadata.csv", "metadata.jsonl")
LOOKED_FOR = "dataset_info.json (save_to_disk), .parquet files, or metadata.csv or .jsonl"
AUDIO = "audio"
# How sound files begin, for recordings that are embedded without a name.
BEGINNINGS = {
    b"RIFF": ".wav",
    b"fLaC": ".flac",
    b"OggS": ".ogg",
    b"ID3": ".mp3",
    b"\xff\xfb": ".mp3",
}


def downloaded(name: str) -> Path | None:
    """The folder of a dataset of the hub that was downloaded before, by its name; None for none."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, repo_type="dataset", local_files_only=True))
    except (HFValidationError, LocalEntryNotFoundError):
        return None


@register(
    "hf",
    title="A Hugging Face dataset on disk (save_to_disk, Parquet, audiofolder)",
    licence="that of the dataset (its README states it)",
    source="https://huggingface.co/datasets (hf download NAME --repo-type dataset)",
    needs="a folder written by save_to_disk, with .parquet files, or with recordings and "
    "metadata.csv or .jsonl; or the name of a dataset of the hub that was downloaded before (hf "
    "download NAME --repo-type dataset): nothing is downloaded here",
    find=downloaded,
    options={
        "column": COLUMN,
        "recordings": RECORDINGS,
        "corpus": CORPUS,
        "language": LANGUAGE,
        "shared_speakers": SHARED_SPEAKERS,
    },
)
def read_hf(root: Path, options: Options) -> ReadResult:
    """Read all splits of the dataset in the folder `root`; train alone is none."""
    files = _files(root)
    if not files:
        raise wrong_root(root, "a Hugging Face dataset", LOOKED_FOR)
    if {split for _, split in files} == {"train"}:  # what a dataset without splits is called
        files = [(path, "") for path, _ in files]
    folder = str(options["recordings"])
    store = _Store(root, Path(folder).expanduser().resolve() if folder else None)
    objects = [row for path, split in files for row in _objects(path, split, root, store)]
    table = table_of_objects(root, objects, parse_columns(str(options["column"])))
    result = read_rows(
        table.rows,
        root,
        locator(root, root, allow_outside=True),
        corpus=str(options["corpus"]) or _name(root),
        language=str(options["language"]),
        notes=table.notes,
    )
    made, notes = with_dev(result.utterances)
    return replace(
        result,
        utterances=made,
        notes=(*result.notes, *notes),
        tables=tuple(path for path, _ in files),
        shared_speakers=options["shared_speakers"] is True,
    )


def _name(root: Path) -> str:
    """The name: that of the folder, but `datasets--<owner>--NAME/snapshots/<commit>` of the hub."""
    cached = root.parent.name == "snapshots"
    return root.parents[1].name.rpartition("--")[2] if cached else root.name


def _files(root: Path) -> list[tuple[Path, str]]:
    """The files that hold rows, and the split that each is of, "" for none."""
    if root.is_file():
        return [(root, "")] if root.suffix == ".parquet" else []
    saved = [root, *(path.parent for path in sorted(root.glob("*/state.json")))]
    files = [
        (
            folder / Path(str(entry["filename"])).name,
            folder.name if folder != root else str(state.get("_split") or ""),
        )
        for folder in saved
        if (state := _json(folder / "state.json"))
        for entry in state.get("_data_files", [])
    ]
    tables = files or [(path, _split(path, root)) for path in files_below(root, ".parquet")]
    return tables or [
        (path, _split(path, root)) for path in files_below(root, METADATA) if path.name in METADATA
    ]


def _json(path: Path) -> dict[str, Any]:
    """An object in a JSON file, {} where there is no such file."""
    if not path.is_file():
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CorpusError(f"{path} is not JSON ({error}). Get the dataset anew.") from error
    return value if isinstance(value, dict) else {}


def _split(path: Path, root: Path) -> str:
    """The split that a file's name says, as in `train-00000-of-00002`, or else its folders'."""
    names = [
        re.split(r"[^a-z]", path.name.lower())[0],
        *reversed(path.relative_to(root).parts[:-1]),
    ]
    return next((split for name in names if (split := split_named(name))), "")


def _objects(
    path: Path, split: str, root: Path, store: _Store
) -> Iterator[tuple[str, int, Object | None]]:
    """Yield the place, line and entries of a file's rows; `audio` is the path of the recording."""
    place, own = inside(path, root), {"split": split} if split else {}
    if path.name in METADATA:
        for line, entries in _metadata(path):
            value = entries and {**own, **entries}
            if value and "file_name" in value:
                value[AUDIO] = str(path.parent / str(value.pop("file_name")))
            yield f"{place}:{line}", 0, value
        return
    names = _class_names(path)
    for number, row in enumerate(arrow_rows(path), 1):
        sounds = [name for name, value in row.items() if _is_sound(value)]
        for name in sounds:
            row[name] = store.path(row[name], split, number)
        if len(sounds) == 1 and AUDIO not in row:
            row[AUDIO] = row.pop(sounds[0])
        for name, labels in names.items():
            code = row.get(name)
            row[name] = labels[code] if isinstance(code, int) and 0 <= code < len(labels) else None
        yield f"{place}:{number}", 0, {**own, **row}


def _metadata(path: Path) -> Iterator[tuple[int, dict[str, object] | None]]:
    """Yield (line, entries) of the rows of an `audiofolder`'s metadata."""
    if path.suffix == ".jsonl":
        yield from json_lines(path)
        return
    try:
        lines = list(table_rows(path.read_text(encoding="utf-8-sig"), str(path)))
    except (ManifestError, UnicodeDecodeError) as error:
        raise CorpusError(f"{path} cannot be read as a table: {error}") from error
    for line, cells in lines[1:]:
        yield line, dict(zip(lines[0][1], cells, strict=False))


def _is_sound(value: object) -> bool:
    return isinstance(value, dict) and set(value) == {"bytes", "path"}


def _class_names(path: Path) -> dict[str, list[str]]:
    """The names of classes, of the columns that hold their numbers."""
    written = json.loads(arrow_metadata(path).get(b"huggingface", b"{}"))
    features: Mapping[str, Any] = written.get("info", {}).get("features", {})
    return {
        name: [str(label) for label in feature["names"]]
        for name, feature in features.items()
        if isinstance(feature, dict) and feature.get("_type") == "ClassLabel"
    }


class _Store:
    """Where embedded recordings go: each is written once, under its own name."""

    def __init__(self, root: Path, folder: Path | None) -> None:
        """Nothing is written yet; without a folder nothing can be."""
        self._root, self._folder = root, folder
        self._taken: set[Path] = set()

    def path(self, sound: Mapping[str, Any], split: str, number: int) -> str | None:
        """The path of a recording, which is written if it is embedded.

        Args:
            sound: its `bytes` and its `path`, either of which may be None.
            split: that it is of.
            number: of its row, for those without a name of their own.
        """
        data, name = sound["bytes"], sound["path"] or ""
        if data is None:
            return str(self._root / name) if name else None
        if self._folder is None:
            raise CorpusError(
                f"{self._root} has its recordings embedded. Say where they are to be written, with "
                "--set recordings=FOLDER."
            )
        # The name is a stranger's: nothing in it may lead out of the folder.
        name = re.sub(r"[^\w.-]+", "_", PurePosixPath(name.replace("\\", "/")).name).lstrip(".")
        name = name or f"{number:06}"
        if not Path(name).suffix:
            name += next((s for start, s in BEGINNINGS.items() if data.startswith(start)), ".audio")
        target = self._folder / split / name
        if target in self._taken:
            target = target.with_stem(f"{target.stem}-{number}")
        self._taken.add(target)
        if not target.is_file() or target.read_bytes() != data:
            target.parent.mkdir(parents=True, exist_ok=True)
            with writing(target):  # one that a killed run left unfinished is written again
                target.write_bytes(data)
        return str(target)
