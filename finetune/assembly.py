"""Putting a model together from a head and the encoders its frames came from."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

from cache.encoders.audio_encoder import AudioEncoder, load_audio_encoder
from cache.encoders.device import ComputeDtype, usual_dtype
from cache.encoders.files import Kind, encoder_fields, vad_fields
from cache.encoders.grid import Padding, recorded_padding
from cache.encoders.names import resolve_encoder
from cache.encoders.text_encoder import TextEncoder, load_text_encoder
from cache.encoders.vad import load_detector
from cache.found import input_kind
from cache.last_extraction import SURPRISAL, Extraction
from cache.lookup import FrameCache
from cache.recipe import JSON, LayersRead, Recipe, difference, layer_numbers
from cache.store.layout import read_recipe
from cache.stream import FrameStream
from corpora.base.errors import ConfigError, FormatVersionError
from corpora.base.work import Work
from corpora.manifest import Manifest
from corpora.utterance import Utterance
from finetune.model import EmotionModel
from finetune.model_directory import Parts, front_end_files
from finetune.upper import probes
from heads.head import Head
from heads.records import TRIALS_FOLDER, HeadRecord, load_head, study_of


def used_streams(record: HeadRecord) -> tuple[str, ...]:
    """The kinds of streams that a head reads: its modalities', and speech."""
    return (*record.head.modalities, *(("speech",) if record.head.needs_speech else ()))


def check_labels(record: HeadRecord, manifest: Manifest) -> None:
    """Check that a head tells the manifest's labels apart. Their order may differ.

    Raises:
        ConfigError: one of them has a label that the other has not.
    """
    changes = not_shared(("the head", record.head.labels), ("the manifest", manifest.labels))
    if changes:
        raise ConfigError(
            f"the head was searched on other labels than the manifest's: {changes}. "
            "Run `search` again, or use the manifest of the search."
        )


def not_shared(one: tuple[str, Iterable[str]], other: tuple[str, Iterable[str]]) -> str:
    """What each of two, with their names, knows and the other does not; "" for nothing."""
    known, others = set(one[1]), set(other[1])
    alone = ((one[0], known - others), (other[0], others - known))
    return "; ".join(f"{name} alone has {', '.join(sorted(own))}" for name, own in alone if own)


def check_streams(cache: FrameCache, record: HeadRecord) -> None:
    """Check that the last extraction made the streams a head was searched on.

    Raises:
        ConfigError: it made others; each difference is named.
        CacheError: the layer was not extracted.
        MissingStepError: that kind was not extracted.
    """
    words = (SURPRISAL,) if record.head.needs_words else ()
    for kind in (*used_streams(record), *words):
        source = cache.extraction.source(kind)
        searched = record.origin.streams[kind]
        numbers = layer_numbers(record.origin.layers.get(kind, ()))
        for number in numbers[:-1]:
            source.stream(number)  # says where it was not extracted
        current = source.stream(numbers[-1] if numbers else None)
        if current == searched:
            continue
        try:
            before = read_recipe(cache.features / Path(searched).parts[0])
            changes = difference(before, source.recipe)
        except FormatVersionError:
            changes = []  # removed from the cache since: the names have to do
        raise ConfigError(
            f"the head was searched on other {kind} frames than the last extraction made: "
            f"{'; '.join(changes or [f'{searched} -> {current}'])}. Run `search` again, or "
            "`extract` with the encoders of the search."
        )


def refuse_unheard(cache: FrameCache, record: HeadRecord) -> None:
    """Refuse a head that reads what a model on recordings has not: descriptions, times of words.

    Raises:
        ConfigError: it does.
    """
    if cache.describe and "text" in record.head.modalities:
        raise ConfigError(
            f"the head reads how utterances sound in words (--describe {cache.describe}), which "
            "`prepare describe` writes into manifests and recordings by themselves have not. Score "
            "it with `evaluate`, or run `extract` without --describe and `search` again."
        )
    if record.head.needs_words:
        raise ConfigError(
            "the head reads the frames of informative words (pooling informative_average), and "
            "recordings by themselves do not say when words are said. Score it with `evaluate`, or "
            "`search` again without it (pooling of --space)."
        )


def refuse_imported(cache: FrameCache, record: HeadRecord) -> None:
    """Refuse a head that reads imported frames where encoders have to make them of recordings.

    Raises:
        ConfigError: it does.
    """
    brought = [n for n in record.head.modalities if cache.extraction.source(n).recipe.imported]
    if brought:
        raise ConfigError(
            f"the head reads {' and '.join(brought)} frames that were imported, and there is no "
            "encoder here that makes them of recordings: it is for cached frames alone "
            "(`evaluate`, `explain` on a split). Search a head on what `extract` made, such as "
            "`search --modalities audio`."
        )


def failed_at_extraction(
    cache: FrameCache, record: HeadRecord, utterances: Sequence[Utterance]
) -> dict[str, str]:
    """Reasons by id for utterances that extraction could not use.

    An id alone says little, for another manifest may have it too: what is listed in `failures.csv`
    counts where the cache has no frames of that recording or text.
    """
    known = cache.failed
    listed = [utterance for utterance in utterances if utterance.id in known]
    keys = cache.keys(listed) if listed else {}
    failed = {}
    for kind in used_streams(record) if listed else ():
        source = cache.extraction.source(kind)
        stream = FrameStream.open(cache.features / record.origin.streams[kind])
        for utterance in listed:
            key = keys[utterance.id].get(input_kind(kind), "")
            if source.held_key(stream, key) not in stream:
                failed[utterance.id] = known[utterance.id]
    return failed


def check_encoders(
    record: HeadRecord, extraction: Extraction, directories: Mapping[str, Path]
) -> None:
    """Check that encoders still are what made the frames that a head was searched on.

    Compared is what belongs to the encoder: weights, configuration, front end or tokenizer, and
    the library's version. Compute and stored dtypes may differ: they are the machine's.

    Args:
        record: the head.
        extraction: which `check_streams` found to be that of the search.
        directories: the encoder of each modality.

    Raises:
        ConfigError: something changed; each difference is named.
    """
    changes = []
    for kind in used_streams(record):
        recipe = extraction.source(kind).recipe
        now = Recipe(kind, {**recipe.fields, **_fields_now(recipe, directories)})
        changes += [f"{kind} {change}" for change in difference(recipe, now)]
    if changes:
        raise ConfigError(
            "the head was searched on frames of other encoders than those at hand: "
            f"{'; '.join(changes)}. Restore the encoders, or run `extract` and `search` again."
        )


def _fields_now(recipe: Recipe, directories: Mapping[str, Path]) -> Mapping[str, JSON]:
    if recipe.kind == "speech":
        return vad_fields()
    modality: Kind = "audio" if recipe.kind == "audio" else "text"
    return encoder_fields(directories[recipe.kind], modality, padding=recorded_padding(recipe))


Encoder = TypeVar("Encoder", AudioEncoder, TextEncoder)


def assemble(
    head: Head,
    directories: Mapping[str, Path],
    layers: Mapping[str, LayersRead],
    *,
    device: torch.device | str = "cpu",
    compute_dtype: ComputeDtype | None = None,
    padding: Padding | None = None,
    speech_dtype: str = "float16",
    provenance: Mapping[str, Any] | None = None,
) -> EmotionModel:
    """Put a head on its encoders.

    Layers above the highest one that the head reads are left out: they would be computed, stored
    and called trainable for nothing.

    Args:
        head: a copy of it is put on them.
        directories: the encoder of each modality that the head reads (see `resolve_encoder`).
        layers: the hidden state that the head reads of each, or those that it weighs.
        device: where it goes.
        compute_dtype: of the speech encoder; by default as in extraction.
        padding: of a speech encoder without a mask, as in extraction; None is the usual one.
        speech_dtype: what speech probabilities are stored as in the cache.
        provenance: what goes into the model's config.json, JSON values.

    Raises:
        ConfigError: an encoder cannot be loaded, or has not the layer or the width the head reads.
    """
    modalities = head.config.modalities
    audio = text = None
    if "audio" in modalities:
        audio = load_audio_encoder(
            directories["audio"],
            compute_dtype=compute_dtype or usual_dtype(device),
            padding=padding,
        )
        _check(head, "audio", audio, layers["audio"])
        audio = without_upper_layers(audio, layer_numbers(layers["audio"])[-1]).to(device)
    if "text" in modalities:
        text = load_text_encoder(directories["text"])
        _check(head, "text", text, layers["text"])
        text = without_upper_layers(text, layer_numbers(layers["text"])[-1]).to(device)
    parts = Parts(
        head=copy.deepcopy(head).to(device),
        audio_encoder=audio,
        text_encoder=text,
        detector=load_detector(device) if head.config.needs_speech else None,
        layers={name: layers[name] for name in modalities},
        front_ends={name: front_end_files(directories[name], name) for name in modalities},
        speech_dtype=speech_dtype,
        provenance=dict(provenance or {}),
    )
    return EmotionModel(parts).requires_grad_(False)


def without_upper_layers(encoder: Encoder, layer: int) -> Encoder:
    """An encoder without the layers that hidden state `layer` does not need.

    Some encoders end in a layer norm that only their last hidden state passes through. There one
    unused layer has to stay, so that the state asked for is not taken for the last: whether it is
    so is found by comparing the outputs.

    Args:
        encoder: on the CPU; it loses its layers too.
        layer: a hidden state number.

    Returns:
        The same model in a new wrapper.
    """
    stack = encoder.stack
    keep = max(layer, 1)
    if stack is None or keep >= encoder.layers:
        return encoder
    before = _heard(encoder, layer)
    removed = list(stack)[keep:]
    del stack[keep:]
    shorter = _wrapped(encoder, keep)
    if not torch.equal(_heard(shorter, layer), before):
        stack.append(removed[0])
        shorter = _wrapped(encoder, keep + 1)
    return shorter


def _wrapped(encoder: Encoder, layers: int) -> Encoder:
    """A wrapper that knows the model's new number of layers."""
    model: Any = encoder.model
    model.config.num_hidden_layers = layers
    if isinstance(encoder, AudioEncoder):
        return AudioEncoder(model, encoder.front_end, encoder.grid, encoder.compute_dtype)
    return TextEncoder(model, encoder.tokenizer, encoder.maximum_tokens)


def _heard(encoder: AudioEncoder | TextEncoder, layer: int) -> Tensor:
    """`[N, D]`, a hidden state for noise or words."""
    with torch.no_grad():
        return probes(encoder, [layer])[layer].values


def _check(
    head: Head, modality: str, encoder: AudioEncoder | TextEncoder, read: LayersRead
) -> None:
    numbers = layer_numbers(read)
    for layer in numbers:
        if not 0 <= layer <= encoder.layers:
            raise ConfigError(
                f"the head reads layer {layer} of its {modality} encoder; this one has layers 0 to "
                f"{encoder.layers}."
            )
    if len(numbers) != head.config.layers(modality):
        raise ConfigError(
            f"the head weighs {head.config.layers(modality)} {modality} layers, and "
            f"{len(numbers)} are named ({', '.join(map(str, numbers))})."
        )
    width = head.config.dims[modality] // len(numbers)
    if encoder.dim != width:
        raise ConfigError(
            f"the head reads {modality} frames of {width} values; this encoder gives "
            f"{encoder.dim}. Run `extract` and `search` with it first."
        )


# Under `WORK/finetune`: heads whose weights the search had not kept.
FOLDER = "heads"


def build_model(
    cache: FrameCache, source: Path, device: torch.device | str, precision: ComputeDtype
) -> tuple[EmotionModel, HeadRecord]:
    """Put a searched head on the encoders that its frames came from.

    Args:
        cache: whose last extraction made the frames of the head.
        source: the head's JSON file.
        device: where the model goes.
        precision: of the speech encoder.

    Raises:
        ConfigError: the encoders are not those of the search; each difference is named. Or the head
            reads descriptions.
    """
    head, record = load_head(source)
    refuse_unheard(cache, record)
    refuse_imported(cache, record)
    extraction = cache.extraction
    modalities = record.head.modalities
    sources = {name: extraction.source(name) for name in modalities}
    directories = {
        name: resolve_encoder(entry.encoder, cast(Kind, name), cache.root)
        for name, entry in sources.items()
    }
    check_encoders(record, extraction, directories)
    speech_dtype = "float32"
    if record.head.needs_speech:
        speech_dtype = str(extraction.source("speech").recipe.fields["stored_dtype"])
    provenance: dict[str, Any] = {
        "encoders": {name: entry.encoder for name, entry in sources.items()},
        "recipes": {name: dict(entry.recipe.fields) for name, entry in sources.items()},
        "streams": {name: record.origin.streams[name] for name in modalities},
        "trial": record.trial,
        "study": _study(cache.root, source),
        "study_seed": record.study_seed,
        "search_manifest_sha256": record.origin.manifest_sha256,
        f"search_dev_{'score' if record.head.attributes else 'macro_f1'}": record.dev_macro_f1,
        "versions": {n: version(n) for n in ("emopool", "torch", "transformers", "tokenizers")},
        "device": torch.device(device).type,
        "precision": precision,
    }
    layers = {name: record.origin.layers[name] for name in modalities}
    model = assemble(
        head,
        directories,
        layers,
        device=device,
        compute_dtype=precision,
        padding=recorded_padding(sources["audio"].recipe) if "audio" in sources else None,
        speech_dtype=speech_dtype,
        provenance=provenance,
    )
    return model, record


def _study(root: Path, source: Path) -> str:
    """The study that a head comes from; "" for a head of `compare`."""
    folder = source if source.is_dir() else source.parent
    if folder.name == TRIALS_FOLDER:
        folder = folder.parent
    elif folder.parts[-2:] == ("finetune", FOLDER):
        folder = Work(root).search  # it was trained again
    return study_of(folder)
