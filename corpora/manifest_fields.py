"""A manifest on disk: the CSV, and `manifest.json` beside it with what belongs to none of its rows.

The two are one commit, which is the rename of the CSV. The JSON is written first; it holds the
CSV's SHA-256 (`csv_sha256`), and under `replaced` what the JSON said of the CSV that still stands,
which counts until the new CSV is in place. A CSV that fits neither was changed by hand: that is
allowed, and said.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Mapping
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any

from corpora.base.errors import FormatVersionError, ManifestError
from corpora.base.files import file_sha256, read_json, write_bytes, write_json
from corpora.names import plain_name

FORMAT, VERSION = "emopool-manifest", 1
FIELDS = (
    "labels",
    "corpus",
    "protocol",
    "shared_speakers",
    "synthetic",
    "settings",
    "scales",
)


CSV_SHA256, REPLACED = "csv_sha256", "replaced"


def write_both(path: Path, table: bytes, fields: Mapping[str, Any]) -> None:
    """Write the CSV at `path` and the JSON of a manifest's `FIELDS` beside it, both or neither."""
    beside = path.with_suffix(".json")
    plain = {name: dict(v) if isinstance(v, Mapping) else v for name, v in fields.items()}
    value = {"format": FORMAT, "version": VERSION, **plain, CSV_SHA256: _sha256(table)}
    if not path.is_file():
        write_json(beside, value)
        write_bytes(path, table)
        return
    standing = file_sha256(path)
    try:
        earlier = _of_csv(_read(beside), standing)
    except FormatVersionError:
        earlier = {}  # it could not be read before either
    replaced = {**earlier, CSV_SHA256: standing}
    write_json(beside, {**value, REPLACED: replaced})
    write_bytes(path, table)
    write_json(beside, value)


def keep_both(path: Path, name: Callable[[int], str]) -> Path:
    """Copy a manifest and its JSON aside; one that is there already is not copied again.

    Args:
        path: the CSV.
        name: of the copy, from its number; the first that is free is taken.
    """
    data, beside = path.read_bytes(), path.with_suffix(".json")
    _take_back(beside, _sha256(data))
    fields = beside.read_bytes() if beside.is_file() else None
    for number in count(1):
        kept = path.with_name(name(number))
        other = kept.with_suffix(".json")
        if not kept.exists():
            if fields is not None:
                write_bytes(other, fields)
            write_bytes(kept, data)
            return kept
        same = kept.read_bytes() == data
        if same and (other.read_bytes() if other.is_file() else None) == fields:
            return kept
    raise AssertionError("numbers do not end")


def read_fields(path: Path, table: bytes) -> dict[str, Any]:
    """Return the arguments of `Manifest` that the JSON holds, or defaults where it is absent.

    Args:
        path: of the JSON.
        table: the bytes of the CSV beside it.
    """
    value = _read(path)
    if not value:
        return {"corpus": ""}
    found = _of_csv(value, _sha256(table))
    if set(found) == {CSV_SHA256}:
        return {"corpus": ""}  # of a CSV that had no JSON
    if found.get(CSV_SHA256, _sha256(table)) != _sha256(table):
        _say_edited(path.with_suffix(".csv"), _sha256(table), "rows")
    value = found
    labels = value.get("labels")
    if (
        not isinstance(labels, list)
        or not all(isinstance(label, str) and plain_name(label) for label in labels)
        or len(set(map(plain_name, labels))) != len(labels)
    ):
        raise ManifestError(
            f'{path}: "labels" is {labels!r}, expected a list of different, non-empty names.'
        )
    settings, scales = value.get("settings", {}), value.get("scales", {})
    if not (isinstance(settings, dict) and _are_scales(scales)):
        raise ManifestError(
            f'{path}: "settings" must be an object, and "scales" an object of pairs such as '
            '"valence": [1, 7].'
        )
    return {
        "labels": [plain_name(label) for label in labels],
        "settings": settings,
        "scales": {name: tuple(ends) for name, ends in scales.items()},
        "corpus": plain_name(str(value.get("corpus", ""))),
        "protocol": str(value.get("protocol", "")),
        "shared_speakers": value.get("shared_speakers") is True,
        "synthetic": value.get("synthetic") is True,
    }


def _are_scales(value: object) -> bool:
    return isinstance(value, dict) and all(
        isinstance(ends, list)
        and len(ends) == 2
        and all(isinstance(end, int | float) and not isinstance(end, bool) for end in ends)
        for ends in value.values()
    )


def _read(path: Path) -> dict[str, Any]:
    def altered() -> None:
        _say_edited(path, file_sha256(path), "values")

    if not path.is_file():
        return {}
    return read_json(path, kind=FORMAT, version=VERSION, altered=altered)


def _of_csv(value: dict[str, Any], standing: str) -> dict[str, Any]:
    """What a JSON says of the CSV with this digest: a killed run may not have replaced it."""
    replaced = value.get(REPLACED)
    if (
        value.get(CSV_SHA256) != standing
        and isinstance(replaced, dict)
        and replaced.get(CSV_SHA256) == standing
    ):
        return replaced
    return {name: entry for name, entry in value.items() if name != REPLACED}


def _take_back(beside: Path, standing: str) -> None:
    """Undo what a killed `write_both` began: the JSON is again that of the CSV that stands."""
    value = _read(beside)
    earlier = _of_csv(value, standing)
    if earlier is not value.get(REPLACED):
        return
    if set(earlier) == {CSV_SHA256}:  # there was none
        beside.unlink()
    else:
        write_json(beside, earlier)


@cache  # once for each file and state of it: a command reads it several times
def _say_edited(path: Path, sha256: str, what: str) -> None:
    logging.getLogger(__name__).warning(
        f"Note: {path} is not as Emopool wrote it (SHA-256 {sha256[:12]}…). If you changed it, go "
        f"on: its {what} are used as they are. If not, restore it or run `prepare` again."
    )


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
