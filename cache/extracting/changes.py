"""Why there is another recipe: what changed since features of the same kind were made."""

from __future__ import annotations

import os
from pathlib import Path

from cache.recipe import Recipe, difference
from cache.store.layout import read_recipe
from corpora.base.errors import FormatVersionError

# What the fields of recipes are to a user, by the beginning of their dotted names.
_WORDS = (
    ("weights", "weights"),
    ("config", "encoder configuration"),
    ("front_end", "front end"),
    ("fbank", "front end (log-mel code version)"),
    ("tokenizer", "tokenizer"),
    ("special_tokens", "special tokens"),
    ("maximum_tokens", "longest text in tokens"),
    ("transformers", "library version: transformers"),
    ("tokenizers", "library version: tokenizers"),
    ("decoder", "audio decoder"),
    ("grid", "frame grid"),
    ("padding", "silence behind recordings"),
    ("compute_dtype", "compute dtype"),
    ("tf32", "TF32"),
    ("stored_dtype", "stored dtype"),
    ("detector", "voice activity detector"),
    ("imported", "name of the import"),
)
# Of a whole other encoder nearly every field differs; the first few say enough.
_SHOWN = 3
_LONGEST = 40


def recipe_changes(features: Path, recipe: Recipe) -> list[str]:
    """What changed since the most similar recipe of the same kind in the cache.

    Of equally similar ones the one used last counts.

    Args:
        features: `WORK/features.zarr`.
        recipe: the one wanted.

    Returns:
        One line a changed thing, such as `library version: transformers 5.22.0 -> 5.23.0`; nothing
        if the recipe is in the cache, or no other of its kind is.
    """
    others = _others(features, recipe)
    if not others:
        return []
    lines = min((difference(other, recipe) for other in others), key=len)
    changes: dict[str, list[str]] = {}
    for line in lines:
        name, _, values = line.partition(": ")
        first, _, rest = name.partition(".")
        changes.setdefault(first, []).append(f"{rest} {_values(values)}".strip())
    words = dict(_WORDS)
    return [_line(words.get(first, first), found) for first, found in changes.items()]


def _others(features: Path, recipe: Recipe) -> list[Recipe]:
    """Recipes of the same kind, the one used last first; none if the wanted one is there."""
    if (features / recipe.folder).is_dir() or not features.is_dir():
        return []
    used = {}
    for folder in features.glob(f"{recipe.kind}-*"):
        try:
            used[read_recipe(folder)] = _last_used(folder)
        except FormatVersionError:
            continue  # not a recipe's folder: `cache verify` says so
    return sorted(used, key=lambda other: -used[other])


def _last_used(folder: Path) -> int:
    """When something was last added to or removed from a recipe's streams, in ns."""
    with os.scandir(folder) as entries:
        return max((entry.stat().st_mtime_ns for entry in entries), default=0)


def _line(words: str, found: list[str]) -> str:
    if words == "weights":
        return "weights: the encoder's files hold other numbers"
    shown = ", ".join(found[:_SHOWN])
    more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    joint = " " if words.startswith("library version") else ": "
    return f"{words}{joint}{shown}{more}"


def _values(values: str) -> str:
    """`old -> new` without JSON's quotes; `changed` where that is long, as hashes are."""
    old, arrow, new = values.partition(" -> ")
    shown = f"{old.strip(chr(34))}{arrow}{new.strip(chr(34))}"
    return shown if len(shown) <= _LONGEST else "changed"
