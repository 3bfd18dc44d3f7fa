"""What lies in a cache: its streams, with their recipes, and whatever does not belong there."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from cache.encoders.grid import SAMPLE_RATE
from cache.recipe import Recipe
from cache.store.index import scan
from cache.store.layout import METADATA, StreamHeader, open_features, read_recipe, read_stream
from cache.store.parts import PREFIX, Part
from corpora.base.errors import CacheError, FormatVersionError, MissingStepError
from corpora.base.work import Work

#: The kind of streams that hold acoustic cues, which `explain` computes.
CUES = "cues"
_LAYER = re.compile(r"layer_(\d+)")
_MOMENTS = re.compile(r"moments_\d+")


@dataclass(frozen=True)
class Stream:
    """One stream folder.

    Attributes:
        path: its folder.
        recipe: what made it.
        header: dim and dtype.
    """

    path: Path
    recipe: Recipe
    header: StreamHeader

    @property
    def label(self) -> str:
        """`<recipe's folder>/<stream>`: its path inside the group."""
        return f"{self.path.parent.name}/{self.path.name}"

    @property
    def layer(self) -> int | None:
        """The hidden-state number, where it is one."""
        found = _LAYER.fullmatch(self.path.name)
        return int(found[1]) if found else None

    @property
    def frames_per_second(self) -> float | None:
        """Of the recipe's frame grid; None for text, moments, and audio whose grid is not known."""
        if _MOMENTS.fullmatch(self.path.name):
            return None
        grid = self.recipe.fields.get("grid")
        hop = grid.get("hop") if isinstance(grid, dict) else None
        return SAMPLE_RATE / hop if isinstance(hop, int) and hop > 0 else None

    @property
    def input_kind(self) -> str:
        """Which of an utterance's content keys it is kept under: `text` or `audio`."""
        return "text" if self.recipe.kind == "text" else "audio"

    def parts(self) -> list[Part]:
        """Its parts by name, for work that needs every one to be usable.

        Raises:
            CacheError: a part is damaged.
        """
        found = scan(self.path, self.header)
        if found.damaged:
            raise CacheError(
                f"{len(found.damaged)} parts of {self.label} are damaged. The first: "
                f"{found.damaged[0].path}: {found.damaged[0].reason}. Run `python cli.py cache "
                "verify --fix`, then `extract`, and try again."
            )
        return found.parts


@dataclass(frozen=True)
class Stray:
    """Something inside the group that is no part of a cache, or cannot be used as one."""

    path: Path
    reason: str


@dataclass(frozen=True)
class Catalogue:
    """The streams by label, and what else lies between them."""

    streams: tuple[Stream, ...]
    strays: tuple[Stray, ...]

    def all_streams(self) -> tuple[Stream, ...]:
        """The streams, for work that would be wrong without one of them.

        Raises:
            CacheError: a folder that holds parts cannot be read as a stream.
        """
        hidden = [stray for stray in self.strays if _holds_parts(stray.path)]
        if hidden:
            raise CacheError(
                f"{len(hidden)} folders with frames cannot be used. The first: {hidden[0].path}: "
                f"{hidden[0].reason} Run `python cli.py cache verify --fix`, which sets them "
                "aside, then `extract`, and try again."
            )
        return self.streams


def read_catalogue(work: Work) -> Catalogue:
    """List the streams of a work folder's cache. Parts are not looked at.

    Raises:
        MissingStepError: there is no cache.
        FormatVersionError: it is of another version of the format.
    """
    features = work.features
    if not features.exists():
        raise MissingStepError(
            f"No features in {work.root}: {features} does not exist. Run `python cli.py extract` "
            "first, or name another work folder with --work."
        )
    open_features(features)
    streams: list[Stream] = []
    strays: list[Stray] = []
    for folder in _folders(features, strays, "a recipe's folder"):
        try:
            recipe = read_recipe(folder)
        except FormatVersionError as error:
            strays.append(Stray(folder, str(error)))
            continue
        if recipe.folder != folder.name:
            strays.append(Stray(folder, f"its recipe's fingerprint is {recipe.fingerprint}"))
            continue
        for path in _folders(folder, strays, "a stream"):
            try:
                streams.append(Stream(path, recipe, read_stream(path)))
            except FormatVersionError as error:
                strays.append(Stray(path, str(error)))
    for stream in streams:
        for path in _folders(stream.path, strays, "a part"):
            if not path.name.startswith(PREFIX):
                strays.append(Stray(path, "not a part of a stream"))
    return Catalogue(tuple(streams), tuple(strays))


def _holds_parts(folder: Path) -> bool:
    """Whether a folder looks like a stream or a recipe's, whatever its own metadata says."""
    return any(any(folder.glob(f"{between}{PREFIX}*")) for between in ("", "*/"))


def _folders(folder: Path, strays: list[Stray], expected: str) -> list[Path]:
    """The folders directly inside, by name; other things than metadata are strays."""
    found = []
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            if entry.is_dir():
                found.append(Path(entry.path))
            elif entry.name != METADATA:
                strays.append(Stray(Path(entry.path), f"not {expected}"))
    return found
