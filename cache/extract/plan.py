"""What an extraction has to do: which streams, and which inputs each of them lacks.

Missing keys are found from the cache itself, so an extraction resumes wherever it stopped. Nothing
here imports torch: with nothing to do, that import would be most of the time.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast

from cache.audio import decoder_fields, energy_fields, why_absent
from cache.config import Auto, ExtractConfig, Layers
from cache.encoders.device import choose_device, usual_dtype
from cache.encoders.files import Kind, encoder_fields, vad_fields
from cache.encoders.grid import (
    Grid,
    Padding,
    encoder_shape,
    read_grid,
    read_padding,
    recorded_padding,
)
from cache.encoders.names import encoder_name, resolve_encoder
from cache.extract.targets import Item, lacking, targets_of
from cache.keys import text_read
from cache.last_extraction import Extraction, Source
from cache.lookup import FrameCache
from cache.recipe import DESCRIBED, JSON, KEPT, Recipe, difference
from cache.store.layout import read_recipe
from corpora.base.errors import ConfigError, FormatVersionError, ManifestError
from corpora.base.work import command_line
from corpora.manifest import Manifest, Utterance

# What the fields of recipes are to a user, by the beginning of their dotted names.
_WORDS = (
    ("weights", "weights"),
    ("config", "encoder configuration"),
    ("front_end", "front end"),
    ("fbank", "front end (log-mel code version)"),
    ("tokenizer", "tokenizer"),
    (DESCRIBED, "descriptions read"),
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


@dataclass(frozen=True)
class Plan:
    """What is to be done.

    Attributes:
        config: what was asked.
        extraction: the streams asked for.
        directories: encoder directories by modality.
        device: `cpu`, or a GPU such as `cuda:0`.
        compute_dtype: of the speech encoder, `fp32` or `bf16`; text is always `fp32`.
        grid: of the audio streams.
        audio: recordings that some audio stream lacks.
        text: texts that some text stream lacks.
        inputs: how many different recordings and texts the manifest has.
        absent: reasons by utterance id, for recordings that are not there.
        streams: paths of the streams to be filled.
        changes: by kind, what changed since features of that kind were made by another recipe.
    """

    config: ExtractConfig
    extraction: Extraction
    directories: Mapping[str, Path]
    device: str
    compute_dtype: str
    grid: Grid | None
    audio: tuple[Item, ...]
    text: tuple[Item, ...]
    inputs: Mapping[str, int]
    absent: Mapping[str, str] = field(default_factory=dict)
    streams: tuple[str, ...] = ()
    changes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def windowed(self) -> bool:
        """Whether long recordings are encoded in windows."""
        return self.config.long == "window"

    @property
    def padding(self) -> Padding | None:
        """Of a speech encoder without a mask."""
        source = self.extraction.sources.get("audio")
        return None if source is None else recorded_padding(source.recipe)


def make_plan(cache: FrameCache, manifest: Manifest, config: ExtractConfig) -> Plan:
    """Find out what the cache lacks.

    Raises:
        ConfigError: an encoder, layer or device that cannot be used.
        ManifestError: there are no descriptions, or no texts, that are to be read.
        FormatVersionError: the cache, or what an earlier extraction left, is of another version.
    """
    _check_described(cache, manifest, config.describe)
    earlier = cache.sources  # first: nothing is done beside a record that cannot be read
    device = choose_device(config.device)
    compute = usual_dtype(device)
    directories, sources, grid = _sources(cache, config, compute)
    targets = {kind: targets_of(source) for kind, source in sources.items()}
    audio_targets = [t for kind in ("audio", "energy", "speech") for t in targets.get(kind, ())]
    text_targets = list(targets.get("text", ()))
    keys = cache.keys(manifest.utterances, describe=config.describe)
    absent = why_absent(
        u for u in manifest.utterances if "audio" in sources and "audio" not in keys[u.id]
    )
    inputs: dict[str, dict[str, list[Utterance]]] = {"audio": {}, "text": {}}
    for utterance in manifest.utterances:
        for kind, key in keys[utterance.id].items():
            if kind in sources:
                if kind == "text":  # an item's text is what its encoder reads
                    utterance = replace(utterance, text=text_read(utterance, config.describe))
                inputs[kind].setdefault(key, []).append(utterance)
    changes = {
        kind: tuple(recipe_changes(cache.features, source.recipe))
        for kind, source in sources.items()
    }
    return Plan(
        config=config,
        extraction=Extraction(_with_earlier_frames(earlier, sources)),
        directories=directories,
        device=device,
        compute_dtype=compute,
        grid=grid,
        audio=lacking(
            cache.features, inputs["audio"], audio_targets, windowed=config.long == "window"
        ),
        text=lacking(cache.features, inputs["text"], text_targets),
        inputs={kind: len(inputs[kind]) for kind in inputs if kind in sources},
        absent=absent,
        streams=tuple(target.path for target in (*audio_targets, *text_targets)),
        changes={kind: lines for kind, lines in changes.items() if lines},
    )


def _check_described(cache: FrameCache, manifest: Manifest, describe: str) -> None:
    if not describe:
        return
    if not any(u.description for u in manifest.utterances):
        raise ManifestError(
            f"--describe {describe} reads the manifest's column `description`, which is absent or "
            f"empty. Run `{command_line('prepare describe', cache.root)}` first."
        )
    if describe == "append" and not any(u.text for u in manifest.utterances):
        raise ManifestError(
            "--describe append puts descriptions behind texts, and the manifest has no texts. Take "
            "--describe only, or run `transcribe` first."
        )


def _sources(
    cache: FrameCache, config: ExtractConfig, compute: str
) -> tuple[dict[str, Path], dict[str, Source], Grid | None]:
    """Encoder directories, the streams asked for and the audio grid."""
    directories: dict[str, Path] = {}
    sources: dict[str, Source] = {}
    grid = None
    asked = (
        ("audio", config.audio_encoder, config.audio_layers, compute),
        ("text", config.text_encoder, config.text_layers, "fp32"),
    )
    for kind, name, layers, dtype in asked:
        if not name:
            continue
        directory = resolve_encoder(name, cast(Kind, kind), cache.root)
        directories[kind] = directory
        padding = read_padding(directory, config.padding) if kind == "audio" else None
        fields = encoder_fields(directory, cast(Kind, kind), cache.hashes, padding)
        if padding is not None and config.whole:
            fields[KEPT] = "recording and silence"
        if kind == "text" and config.describe:
            fields[DESCRIBED] = config.describe
        fields |= {"compute_dtype": dtype, "tf32": False, "stored_dtype": config.stored_dtype}
        if kind == "audio":
            fields["decoder"] = dict(decoder_fields())
            if config.compile:
                fields["compiled"] = True
        chosen = _layers(kind, layers, directory)
        sources[kind] = Source(
            Recipe(kind, fields),
            encoder_name(name, directory),
            layers=() if config.moments_only else chosen,
            moments=chosen if config.moments_only else (),
            best=config.best.get(kind),
            windowed=kind == "audio" and config.long == "window",
        )
    if "audio" in directories:
        grid = read_grid(directories["audio"])
        shared: dict[str, JSON] = {
            "decoder": dict(decoder_fields()),
            "grid": grid.to_json(),
            "stored_dtype": config.stored_dtype,
        }
        sources["energy"] = Source(Recipe("energy", {**energy_fields(), **shared}))
        sources["speech"] = Source(Recipe("speech", {**vad_fields(), **shared}))
    return directories, sources, grid


def _with_earlier_frames(
    earlier: Mapping[str, Source], sources: Mapping[str, Source]
) -> dict[str, Source]:
    """What later commands are to read.

    Asking for moments alone does not take away the frames that an earlier extraction by the same
    recipe made: later commands go on reading those. Nor does extraction take away what was
    imported, but for frames of the same kind.
    """
    return {
        kind: replace(source, layers=earlier[kind].layers, best=earlier[kind].best)
        if source.moments and kind in earlier and earlier[kind].recipe == source.recipe
        else source
        for kind, source in sources.items()
    } | {k: own for k, own in earlier.items() if own.recipe.imported and k not in sources}


def _layers(kind: str, layers: Layers, directory: Path) -> tuple[int, ...]:
    """The layers asked for, ascending; the last where none was named."""
    count, _ = encoder_shape(directory)
    assert not isinstance(layers, Auto), "chosen by heads.extraction"
    if layers == "all":
        return tuple(range(count + 1))
    chosen = sorted(set(layers)) or [count]
    for layer in chosen:
        if not 0 <= layer <= count:
            raise ConfigError(
                f"--{kind}-layers {layer}: this encoder has layers 0 (the input of the first) "
                f"to {count} (the last)."
            )
    return tuple(chosen)
