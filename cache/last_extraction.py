"""What the last extraction made, so that later commands read the same streams; what it could not.

`WORK/extraction.json`: for each modality the encoder as the user named it, its recipe, and the
layers asked for; for `energy` and `speech` the recipe alone. Energy and speech of a long recording
lie under its own key always: no window changes them.
"""

from __future__ import annotations

import csv
import io
import json
import shlex
from collections.abc import Container, Mapping
from dataclasses import dataclass
from pathlib import Path

from cache.encoders.grid import Grid, recorded_grid, recorded_padding
from cache.keys import ENCODED, MODALITIES, windowed_key
from cache.recipe import Recipe
from cache.store.remote import upload_records
from corpora.base.codec import Jsonable
from corpora.base.errors import CacheError, MissingStepError
from corpora.base.files import read_json, write_json, write_text
from corpora.base.terminal import as_written, inert
from corpora.base.work import Work, command_line


def write_failures(path: Path, reasons: Mapping[str, str]) -> None:
    """Write reasons by utterance id; without any, an old file is removed."""
    if not reasons:
        path.unlink(missing_ok=True)
        return
    buffer = io.StringIO()
    # A bare carriage return is not quoted by itself, and would end the row on reading.
    writer = csv.writer(buffer, lineterminator="\n", quoting=csv.QUOTE_ALL)
    writer.writerow(["id", "reason"])
    writer.writerows([inert(cell) for cell in row] for row in reasons.items())
    write_text(path, buffer.getvalue())


def read_failures(path: Path) -> dict[str, str]:
    """Reasons by utterance id; empty where there is no such file.

    Raises:
        CacheError: it is damaged.
    """
    if not path.is_file():
        return {}
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = csv.DictReader(file, strict=True)
            return {as_written(row["id"]): as_written(row["reason"]) for row in rows}
    except (KeyError, AttributeError, UnicodeDecodeError, csv.Error) as error:
        raise CacheError(
            f"{path} is damaged ({error!r}). Delete it and run `extract` again, which writes "
            "it anew."
        ) from error


FORMAT, VERSION = "emopool-extraction", 1
#: The stream of a recipe that has no layers.
VALUES = "values"
#: The kind of a language model's stream: bits of each word.
SURPRISAL = "surprisal"
#: Beside the layers of a text recipe: 0 special token, 1 start of a word, 2 inside a word.
TOKEN_KIND = "token_kind"
#: Beside the frames of an import with a clock of its own: when each of them is, in seconds.
TIMES = "times"


@dataclass(frozen=True)
class Source(Jsonable):
    """The streams of one recipe.

    Attributes:
        recipe: what made them.
        encoder: hub id, directory or `tiny`, as the user named it; "" where there is none.
        layers: hidden-state numbers whose frames were kept, ascending; empty where there are none.
        moments: those of which only each utterance's mean and deviation were kept.
        best: the layer that heads read unless they are told otherwise; None for the highest.
        windowed: whether recordings over the limit were encoded in windows; their frames then lie
            under a key of their own (`cache.keys.windowed_key`).
    """

    json_entries = "encoder layers moments best windowed folder=recipe.folder recipe=recipe.fields"

    recipe: Recipe
    encoder: str = ""
    layers: tuple[int, ...] = ()
    moments: tuple[int, ...] = ()
    windowed: bool = False
    best: int | None = None

    @property
    def usual_layer(self) -> int:
        """The layer that heads read unless they are told otherwise, of those with frames."""
        return self.best if self.best in self.layers else self.layers[-1]

    def stream(self, layer: int | None = None) -> str:
        """Path of a stream inside the features group; the usual layer's by default.

        Raises:
            CacheError: that layer was not extracted.
            MissingStepError: only moments were.
        """
        if not self.layers and self.moments:
            raise MissingStepError(
                f"of {self.encoder} only means and deviations were extracted (layers "
                f"{', '.join(map(str, self.moments))}), no frames. Run `extract` again without "
                "--moments-only."
            )
        if not self.layers:
            return f"{self.recipe.folder}/{VALUES}"
        chosen = self.usual_layer if layer is None else layer
        if chosen not in self.layers:
            raise CacheError(
                f"layer {chosen} of {self.encoder} was not extracted; there are "
                f"{', '.join(map(str, self.layers))}. Run `extract` with "
                f"--{self.recipe.kind}-layers {chosen}."
            )
        return f"{self.recipe.folder}/{layer_name(chosen)}"

    def held_key(self, stream: Container[str], key: str) -> str:
        """The key under which a stream of this source has an input: its own, or the windowed one.

        What was encoded whole comes first.
        """
        if not self.windowed or key in stream:
            return key
        windowed = windowed_key(key)
        return windowed if windowed in stream else key


def layer_name(layer: int) -> str:
    """The folder of a layer's frames."""
    return f"layer_{layer}"


def moments_name(layer: int) -> str:
    """The folder of a layer's moments: two rows an utterance, mean and deviation."""
    return f"moments_{layer}"


@dataclass(frozen=True)
class Extraction(Jsonable):
    """What later commands read, by kind: audio, text, video, energy, speech, surprisal."""

    sources: Mapping[str, Source]

    def source(self, kind: str) -> Source:
        """The streams of one kind.

        Raises:
            MissingStepError: that kind was not extracted.
        """
        if kind not in self.sources:
            step = f"Run `python cli.py extract` again, with {kind}."
            if kind in MODALITIES and kind not in ENCODED:
                step = f"Bring its frames with `python cli.py cache import FOLDER --kind {kind}`."
            raise MissingStepError(
                f"the last extraction has no {kind} stream, only {', '.join(self.sources)}. {step}"
            )
        return self.sources[kind]

    @property
    def grid(self) -> Grid | None:
        """Of the audio frames; None where they were imported."""
        return recorded_grid(self.source("audio").recipe)


def write_extraction(path: Path, extraction: Extraction) -> None:
    """Write `WORK/extraction.json`, unless it says all that already; send it where it is connected.

    Raises:
        FormatVersionError: there is one of another version, which is kept.
    """
    value = {"format": FORMAT, "version": VERSION, **extraction.to_json()}
    earlier = read_json(path, kind=FORMAT, version=VERSION) if path.is_file() else None
    if json.dumps(value) != json.dumps(earlier):
        write_json(path, value)
    upload_records(path.parent)


def extract_command(root: Path, manifest: Path | None = None) -> str:
    """`extract` as a user can paste it: with the encoders and layers of the last one, if any.

    Args:
        root: the work folder.
        manifest: see `command_line`.
    """
    words = ["extract"]
    try:
        sources = read_extraction(Work(root).extraction).sources
    except MissingStepError:
        sources = {}
    held = [s for s in sources.values() if s.encoder and not s.recipe.imported]
    for source in held:
        kind = source.recipe.kind
        if kind == SURPRISAL:
            words += ["--surprisal-model", shlex.quote(source.encoder)]
            continue
        words += [f"--{kind}-encoder", shlex.quote(source.encoder)]
        layers = source.layers or source.moments
        if source.best is None or not source.layers:
            words += [f"--{kind}-layers", ",".join(map(str, layers))]
        elif len(layers) > 1:  # one is what the data chooses by default
            words += [f"--{kind}-layers", f"auto:{len(layers)}"]
    words += [f"--describe {one.recipe.describe}" for one in held if one.recipe.describe]
    if any(source.moments and not source.layers for source in held):
        words.append("--moments-only")
    if any(source.windowed for source in held):
        words += ["--long", "window"]
    paddings = [recorded_padding(source.recipe) for source in held]
    if any(padding is not None and padding.name == "full" for padding in paddings):
        words += ["--padding", "full"]
    return command_line(" ".join(words), root, manifest)


def read_extraction(path: Path) -> Extraction:
    """Read `WORK/extraction.json`.

    Raises:
        MissingStepError: nothing was extracted into this work folder.
        FormatVersionError: the file is of another version.
    """
    if not path.is_file():
        raise MissingStepError(
            f"no extracted features in {path.parent} ({path.name} is missing). "
            f"Run `{command_line('extract', path.parent)}` first."
        )
    value = read_json(path, kind=FORMAT, version=VERSION)
    return Extraction(
        {
            kind: Source.from_json({**entry, "recipe": Recipe(kind, entry["recipe"])})
            for kind, entry in value["sources"].items()
        }
    )
