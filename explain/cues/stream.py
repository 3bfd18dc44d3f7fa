"""Cues as a stream in the cache: computed once for each recording, beside energy and speech.

`WORK/features.zarr/cues-<fingerprint>/values/` holds `[frames, 2 · cues]` float32 on the audio
grid: the values, 0 where a cue is missing, and behind them 1 where it is there and 0 where it is
missing, because a stream holds finite numbers only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cache.audio import decode_ahead, decoder_fields, load_audio
from cache.encoders.grid import Grid
from cache.last_extraction import VALUES
from cache.lookup import FrameCache
from cache.recipe import Recipe
from cache.store.layout import ensure_stream, open_features
from cache.stream import FrameStream, PartWriter
from cache.upkeep.info import CUES
from corpora.base.errors import ConfigError
from corpora.base.terminal import progress_bar
from corpora.utterance import Utterance, where_of
from explain.cues.descriptors import DEFAULT, Cue, CueSet
from explain.cues.egemaps import egemaps_set
from explain.ragged import Floats, Ints

CUE_SETS = ("default", "egemaps")
# Recordings decoded and measured together, in threads.
BATCH = 16


@dataclass(frozen=True, eq=False)
class CueFrames:
    """Cues on the frames of utterances.

    Attributes:
        cues: by column.
        values: `[N, cues]`, NaN where a cue is missing.
        offsets: `[B+1]`, of the utterances' audio frames.
        problems: reasons by id, for utterances none of whose cues are known.
    """

    cues: tuple[Cue, ...]
    values: Floats
    offsets: Ints
    problems: Mapping[str, str]


def cue_set(name: str) -> CueSet:
    """A set by name.

    Raises:
        ConfigError: no such set.
        MissingExtraError: it needs a package that is not installed.
    """
    if name == DEFAULT.name:
        return DEFAULT
    if name == "egemaps":
        return egemaps_set()
    raise ConfigError(f"unknown cues {name!r}; expected {' or '.join(CUE_SETS)}.")


def cue_recipe(cues: CueSet, grid: Grid) -> Recipe:
    """What decides the numbers of the stream."""
    return Recipe(
        CUES,
        {
            **cues.fields,
            "cues": [cue.name for cue in cues.cues],
            "decoder": dict(decoder_fields()),
            "grid": grid.to_json(),
            "stored_dtype": "float32",
        },
    )


def load_cues(
    cache: FrameCache,
    utterances: Sequence[Utterance],
    grid: Grid,
    offsets: Ints | None = None,
    cues: CueSet = DEFAULT,
    *,
    progress: bool = False,
) -> CueFrames:
    """Cues of utterances, computed for those the cache has none of.

    Args:
        cache: where they are kept.
        utterances: with their recordings.
        grid: of the audio frames.
        offsets: `[B+1]`, of the audio frames that the cues have to lie on; by default as many as
            each recording has.
        cues: which.
        progress: whether to show a bar.
    """
    features = open_features(cache.features)
    width = 2 * len(cues.cues)
    path = ensure_stream(features, cue_recipe(cues, grid), VALUES, width, np.float32)
    keys = cache.keys(utterances)
    own = {u.id: keys[u.id].get("audio", "") for u in utterances}
    held = FrameStream.open(path)
    lacking = {own[u.id]: u for u in utterances if own[u.id] and own[u.id] not in held}
    failed: dict[str, str] = {}
    if lacking:
        with PartWriter(path, width, np.float32) as writer:
            failed = _compute(writer, lacking, grid, cues, progress)
        held = FrameStream.open(path)
    if offsets is None:
        lengths = [len(held.read(key)) if key in held else 1 for key in own.values()]
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    values = np.full((int(offsets[-1]), len(cues.cues)), np.nan)
    problems: dict[str, str] = {}
    for number, utterance in enumerate(utterances):
        key = own[utterance.id]
        if key not in held:
            problems[utterance.id] = failed.get(key, f"{utterance.audio}: cannot be read")
            continue
        rows = held.read(key)
        start, end = int(offsets[number]), int(offsets[number + 1])
        if len(rows) != end - start:
            problems[utterance.id] = (
                f"has {end - start} frames, and its recording {len(rows)} on the same grid"
            )
            continue
        there = rows[:, len(cues.cues) :] > 0
        values[start:end] = np.where(there, rows[:, : len(cues.cues)], np.nan)
    return CueFrames(cues.cues, values, offsets, problems)


def _compute(
    writer: PartWriter,
    lacking: Mapping[str, Utterance],
    grid: Grid,
    cues: CueSet,
    progress: bool,
) -> dict[str, str]:
    """Add the cues of recordings by key; returns reasons by key for those that failed."""
    failed: dict[str, str] = {}

    def measure(key: str) -> tuple[str, Floats]:
        utterance = lacking[key]
        waveform = load_audio(
            utterance.audio,
            utterance.start,
            utterance.end,
            where=where_of(utterance),
            minimum_samples=grid.minimum_samples,
        )
        return key, cues.compute(waveform, grid)

    every = list(lacking)
    batches = [every[at : at + BATCH] for at in range(0, len(every), BATCH)]
    with progress_bar("Cues", len(every), "recording", show=progress) as bar:
        for batch, measured in decode_ahead(batches, measure, failed.__setitem__):
            for key, values in measured:
                there = ~np.isnan(values)
                stored = np.concatenate([np.where(there, values, 0.0), there], axis=1)
                writer.add(key, stored.astype(np.float32))
            bar.update(len(batch))
    return failed
