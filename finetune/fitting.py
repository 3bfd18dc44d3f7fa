"""Whether a searched head fits what is at hand: labels, streams, encoders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from cache.encoders.files import Kind, encoder_fields
from cache.encoders.padding import recorded_padding
from cache.encoders.vad_weights import vad_fields
from cache.extraction import Extraction
from cache.failures import read_failures
from cache.inputs import utterance_keys
from cache.layers import layer_numbers
from cache.recipe import JSON, Recipe, difference
from cache.store.layout import read_recipe
from cache.stream import FrameStream
from corpora.base.errors import ConfigError, FormatVersionError
from corpora.base.work import Work
from corpora.manifest import Manifest, Utterance
from heads.results import HeadRecord


def used_streams(record: HeadRecord) -> tuple[str, ...]:
    """The kinds of streams that a head reads: audio, text, speech."""
    return (*record.head.modalities, *(("speech",) if record.head.needs_speech else ()))


def check_labels(record: HeadRecord, manifest: Manifest) -> None:
    """Check that a head tells the manifest's labels apart. Their order may differ.

    Raises:
        ConfigError: one of them has a label that the other has not.
    """
    head, rows = set(record.head.labels), set(manifest.labels)
    if head != rows:
        changes = [f"the head alone has {', '.join(sorted(head - rows))}"] * bool(head - rows)
        changes += [f"the manifest alone has {', '.join(sorted(rows - head))}"] * bool(rows - head)
        raise ConfigError(
            f"the head was searched on other labels than the manifest's: {'; '.join(changes)}. "
            "Run `search` again, or use the manifest of the search."
        )


def check_streams(work: Work, record: HeadRecord, extraction: Extraction) -> None:
    """Check that the last extraction made the streams a head was searched on.

    Raises:
        ConfigError: it made others; each difference is named.
        CacheError: the layer was not extracted.
        MissingStepError: that kind was not extracted.
    """
    for kind in used_streams(record):
        source = extraction.source(kind)
        searched = record.origin.streams[kind]
        numbers = layer_numbers(record.origin.layers.get(kind, ()))
        for number in numbers[:-1]:
            source.stream(number)  # says where it was not extracted
        current = source.stream(numbers[-1] if numbers else None)
        if current == searched:
            continue
        try:
            before = read_recipe(work.features / Path(searched).parts[0])
            changes = difference(before, source.recipe)
        except FormatVersionError:
            changes = []  # removed from the cache since: the names have to do
        raise ConfigError(
            f"the head was searched on other {kind} frames than the last extraction made: "
            f"{'; '.join(changes or [f'{searched} -> {current}'])}. Run `search` again, or "
            "`extract` with the encoders of the search."
        )


def failed_at_extraction(
    work: Work, record: HeadRecord, extraction: Extraction, utterances: Sequence[Utterance]
) -> dict[str, str]:
    """Reasons by id for utterances that extraction could not use.

    An id alone says little, for another manifest may have it too: what is listed in `failures.csv`
    counts where the cache has no frames of that recording or text.
    """
    known = read_failures(work.failures)
    listed = [utterance for utterance in utterances if utterance.id in known]
    keys = utterance_keys(work, listed) if listed else {}
    failed = {}
    for kind in used_streams(record) if listed else ():
        source = extraction.source(kind)
        stream = FrameStream.open(work.features / record.origin.streams[kind])
        for utterance in listed:
            key = keys[utterance.id].get("text" if kind == "text" else "audio", "")
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
