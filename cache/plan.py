"""What an extraction has to do: which streams, and which inputs each of them lacks.

Missing keys are found from the cache itself, so an extraction resumes wherever it stopped. Nothing
here imports torch: with nothing to do, that import would be most of the time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from cache.audio import decoder_fields
from cache.device import choose_device
from cache.encoder_files import Hashes, Kind, encoder_fields
from cache.encoder_names import resolve_encoder
from cache.energy import energy_fields
from cache.extraction import TOKEN_KIND, VALUES, Extraction, Source, layer_name
from cache.grid import Grid, read_config, read_grid
from cache.inputs import utterance_keys
from cache.recipe import JSON, Recipe
from cache.sources import SourceIndex
from cache.stream import FrameStream
from cache.vad_weights import vad_fields
from corpora.errors import ConfigError
from corpora.manifest import Manifest, Utterance
from corpora.work import Work

AUDIO_ENCODER = "facebook/w2v-bert-2.0"
TEXT_ENCODER = "microsoft/deberta-v3-base"
STORED_DTYPES = ("float16", "float32")


@dataclass(frozen=True)
class ExtractConfig:
    """What the user asks of an extraction.

    Attributes:
        audio_encoder: hub id, directory or `tiny`; "" leaves audio out.
        text_encoder: the same for text.
        audio_layers: hidden-state numbers; empty means the last.
        text_layers: the same for text.
        stored_dtype: `float16`, or `float32` for comparisons to the last digits.
        device: `auto`, `cpu` or `cuda`.
        max_seconds: longer recordings are refused by name.
    """

    audio_encoder: str = AUDIO_ENCODER
    text_encoder: str = TEXT_ENCODER
    audio_layers: tuple[int, ...] = ()
    text_layers: tuple[int, ...] = ()
    stored_dtype: str = "float16"
    device: str = "auto"
    max_seconds: float = 60.0

    def __post_init__(self) -> None:
        if not self.audio_encoder and not self.text_encoder:
            raise ConfigError("neither an audio nor a text encoder: there is nothing to extract")
        if self.stored_dtype not in STORED_DTYPES:
            raise ConfigError(
                f"the stored dtype must be {' or '.join(STORED_DTYPES)}, got {self.stored_dtype}"
            )
        if not self.max_seconds > 0:
            raise ConfigError(f"max_seconds must be positive, got {self.max_seconds}")


def parse_layers(text: str | None) -> tuple[int, ...]:
    """Layer numbers from a list such as `12,18,24`; nothing means the last layer.

    Raises:
        ConfigError: something in the list is not a whole number.
    """
    try:
        return tuple(int(part) for part in text.split(",")) if text else ()
    except ValueError as error:
        raise ConfigError(
            f"layers must be whole numbers separated by commas, such as 12,18,24; got {text!r}"
        ) from error


@dataclass(frozen=True)
class Target:
    """One stream to fill.

    Attributes:
        recipe: the recipe's folder is made on first use.
        name: the stream's folder inside the recipe's.
        layer: hidden-state number, where it is one.
    """

    recipe: Recipe
    name: str
    layer: int | None = None

    @property
    def path(self) -> str:
        """Inside the features group."""
        return f"{self.recipe.folder}/{self.name}"


@dataclass(frozen=True)
class Item:
    """One input that some streams lack.

    Attributes:
        key: its content key.
        utterances: all that have it; one is read for all.
        targets: the streams that lack it.
    """

    key: str
    utterances: tuple[Utterance, ...]
    targets: tuple[Target, ...]

    @property
    def utterance(self) -> Utterance:
        """The first utterance that has this input."""
        return self.utterances[0]


@dataclass(frozen=True)
class Plan:
    """What is to be done.

    Attributes:
        extraction: the streams asked for.
        directories: encoder directories by modality.
        device: `cpu` or `cuda`.
        compute_dtype: of the speech encoder, `fp32` or `bf16`; text is always `fp32`.
        grid: of the audio streams.
        audio: recordings that some audio stream lacks.
        text: texts that some text stream lacks.
        inputs: how many different recordings and texts the manifest has.
        absent: reasons by utterance id, for recordings that are not there.
    """

    extraction: Extraction
    directories: Mapping[str, Path]
    device: str
    compute_dtype: str
    grid: Grid | None
    audio: tuple[Item, ...]
    text: tuple[Item, ...]
    inputs: Mapping[str, int]
    absent: Mapping[str, str] = field(default_factory=dict)


def make_plan(work: Work, manifest: Manifest, config: ExtractConfig) -> Plan:
    """Find out what the cache lacks.

    Raises:
        ConfigError: an encoder, layer or device that cannot be used.
        FormatVersionError: the cache was made by another version of its format.
    """
    device = choose_device(config.device)
    compute = "bf16" if device == "cuda" else "fp32"
    with SourceIndex(work.sources) as index:
        directories, sources, grid = _sources(work, config, compute, index.content_hashes)
    targets = {kind: _targets(source) for kind, source in sources.items()}
    audio_targets = [t for kind in ("audio", "energy", "speech") for t in targets.get(kind, ())]
    text_targets = list(targets.get("text", ()))
    keys = utterance_keys(work, manifest.utterances)
    absent = {
        u.id: f"{u.audio}: no such file. Check the manifest's audio column."
        for u in manifest.utterances
        if "audio" in sources and "audio" not in keys[u.id]
    }
    inputs: dict[str, dict[str, list[Utterance]]] = {"audio": {}, "text": {}}
    for utterance in manifest.utterances:
        for kind, key in keys[utterance.id].items():
            if kind in sources:
                inputs[kind].setdefault(key, []).append(utterance)
    return Plan(
        extraction=Extraction(sources),
        directories=directories,
        device=device,
        compute_dtype=compute,
        grid=grid,
        audio=_missing(work, inputs["audio"], audio_targets),
        text=_missing(work, inputs["text"], text_targets),
        inputs={kind: len(inputs[kind]) for kind in inputs if kind in sources},
        absent=absent,
    )


def _sources(
    work: Work, config: ExtractConfig, compute: str, hashes: Hashes
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
        directory = resolve_encoder(name, cast(Kind, kind), work.root)
        directories[kind] = directory
        fields = encoder_fields(directory, cast(Kind, kind), hashes)
        fields |= {"compute_dtype": dtype, "tf32": False, "stored_dtype": config.stored_dtype}
        if kind == "audio":
            fields["decoder"] = dict(decoder_fields())
        sources[kind] = Source(
            Recipe(kind, fields), _encoder_name(name, directory), _layers(kind, layers, directory)
        )
    if "audio" in directories:
        grid = read_grid(directories["audio"])
        shared: dict[str, JSON] = {
            "decoder": dict(decoder_fields()),
            "grid": {"hop": grid.hop, "window": grid.window, "rule": grid.rule},
            "stored_dtype": config.stored_dtype,
        }
        sources["energy"] = Source(Recipe("energy", {**energy_fields(), **shared}))
        sources["speech"] = Source(Recipe("speech", {**vad_fields(), **shared}))
    return directories, sources, grid


def _encoder_name(name: str, directory: Path) -> str:
    """A name that finds the encoder again from any current folder."""
    return str(directory) if Path(name).expanduser().is_dir() and name != "tiny" else name


def _layers(kind: str, layers: Sequence[int], directory: Path) -> tuple[int, ...]:
    """The layers asked for, ascending; the last where none was named."""
    count = read_config(directory, "config.json").get("num_hidden_layers")
    if not isinstance(count, int):
        raise ConfigError(
            f"{directory}/config.json names no num_hidden_layers; choose another {kind} encoder."
        )
    chosen = sorted(set(layers)) or [count]
    for layer in chosen:
        if not 0 <= layer <= count:
            raise ConfigError(
                f"--{kind}-layers {layer}: this encoder has layers 0 (the input of the first) "
                f"to {count} (the last)."
            )
    return tuple(chosen)


def _targets(source: Source) -> tuple[Target, ...]:
    """The streams of a source."""
    layers = tuple(Target(source.recipe, layer_name(layer), layer) for layer in source.layers)
    if source.recipe.kind == "text":
        return (*layers, Target(source.recipe, TOKEN_KIND))
    return layers or (Target(source.recipe, VALUES),)


def _missing(
    work: Work, inputs: Mapping[str, Sequence[Utterance]], targets: Sequence[Target]
) -> tuple[Item, ...]:
    """The inputs that at least one of the streams lacks."""
    open_streams = [
        FrameStream.open(work.features / target.path)
        if (work.features / target.path).is_dir()
        else None
        for target in targets
    ]
    items = []
    for key, utterances in inputs.items():
        lacking = tuple(
            target
            for target, stream in zip(targets, open_streams, strict=True)
            if stream is None or key not in stream
        )
        if lacking:
            items.append(Item(key, tuple(utterances), lacking))
    return tuple(items)
