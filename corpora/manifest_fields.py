"""What belongs to a whole manifest and to none of its rows: `manifest.json` beside the CSV."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from corpora.errors import ManifestError
from corpora.files import read_json, write_json

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


def write_fields(path: Path, fields: Mapping[str, Any]) -> None:
    """Write the JSON of a manifest's `FIELDS`."""
    plain = {name: dict(v) if isinstance(v, Mapping) else v for name, v in fields.items()}
    write_json(path, {"format": FORMAT, "version": VERSION, **plain}, sealed=False)


def read_fields(path: Path) -> dict[str, Any]:
    """Return the arguments of `Manifest` that the JSON holds, or defaults where it is absent."""
    if not path.is_file():
        return {"corpus": ""}
    value = read_json(path, kind=FORMAT, version=VERSION)
    labels = value.get("labels")
    if (
        not isinstance(labels, list)
        or not all(isinstance(label, str) and label for label in labels)
        or len(set(labels)) != len(labels)
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
        "labels": labels,
        "settings": settings,
        "scales": {name: tuple(ends) for name, ends in scales.items()},
        "corpus": str(value.get("corpus", "")),
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
