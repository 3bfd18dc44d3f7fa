"""Informative words: a class planted in them, in real frames; and word times against a person's.

Each word of each utterance of one label is moved along the pattern of a class: the most surprising
one along that of the utterance's class, all others each along one drawn by chance; or all along
that of the utterance's class.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
import torch

from cache.audio import load_audio
from cache.encoders.signal import Signal
from cache.encoders.vad import load_detector
from cache.keys import normalise_text
from cache.lookup import FrameCache
from cache.transcribe.whisper import Piece, load_whisper
from cache.transcribe.word_times import timed_words, token_starts, within_speech
from corpora.alignments import plain, read_alignments
from corpora.base.errors import ConfigError
from corpora.base.terminal import aligned
from corpora.manifest import Manifest
from heads.confusion import confusion_matrix, macro_f1
from heads.dataset import Dataset
from heads.head import Head, HeadConfig
from heads.load import load_dataset, suitable_threads
from heads.losses import LossConfig
from heads.predict import predict
from heads.search.space import PUBLISHED_REST
from heads.training import Cohort, Schedule, TrainingConfig
from heads.vector_store import VectorStore
from heads.words import NEVER

CLASSES = ("a", "b", "c", "d")
# In deviations of a frame's features; how often an utterance is used; of its words, one.
PATTERN, TIMES, ONE = 1.0, 4, 1e-6
EPOCHS = 45
POOLINGS: Mapping[str, Mapping[str, Any]] = {
    "average": {"kind": "average"},
    "informative_average, one word": {"kind": "informative_average", "share": ONE},
    "as many frames of random words": {"kind": "informative_average", "share": ONE, "random": True},
}


def word_lines(cache: FrameCache, manifest: Manifest, seeds: Sequence[int]) -> list[str]:
    """Macro-F1 on speakers that were held out (every third one), as a table.

    Args:
        cache: with audio frames and surprisal.
        manifest: the utterances, with TextGrids.
        seeds: of what is planted, and of the heads.

    Raises:
        ConfigError: nothing is known of words.
    """
    loaded = load_dataset(cache, manifest, ["audio"])
    if loaded.frames["audio"].words is None:
        raise ConfigError(loaded.residence)
    rows = [("pooling", "in the rarest word", "±", "in all words", "±")]
    found: dict[str, list[list[float]]] = {name: [[], []] for name in POOLINGS}
    for seed in seeds:
        for column, everywhere in enumerate((False, True)):
            for name, score in _scores(plant(loaded, seed, everywhere=everywhere), seed).items():
                found[name][column].append(score)
    for name, both in found.items():
        cells = [f"{f(own):.3f}" for own in both for f in (mean, stdev)]
        rows.append((name, *cells))  # type: ignore[arg-type]
    return aligned(rows, right=(1, 2, 3, 4))


def plant(loaded: Dataset, seed: int, *, everywhere: bool) -> Dataset:
    """Utterances of which words are known, several times, each time with a class of its own."""
    random = np.random.default_rng(seed)
    source = loaded.frames["audio"].select(range(len(loaded)))
    assert source.words is not None
    speakers = sorted({u.speaker for u in loaded.utterances})
    deviation = source.values.float().std(dim=0)
    patterns = torch.from_numpy(random.standard_normal((len(CLASSES), source.dim))).float()
    starts, offsets = source.words[:, 0].numpy(), source.offsets.tolist()
    chosen, values, utterances = [], [], []
    for number, u in enumerate([u for u in loaded.utterances for _ in range(TIMES)]):
        row = number // TIMES
        own = starts[offsets[row] : offsets[row + 1]]
        ranks = np.unique(own[own != NEVER])
        if not len(ranks):
            continue
        label = int(random.integers(len(CLASSES)))
        seen = source.utterance(row).float().clone()
        for rank in ranks:
            sound = label if everywhere or rank == 0 else int(random.integers(len(CLASSES)))
            seen[own == rank] += PATTERN * deviation * patterns[sound]
        chosen.append(row)
        values.append(seen)
        split = "test" if speakers.index(u.speaker) % 3 == 0 else "train"
        utterances.append(replace(u, id=f"u{number}", label=CLASSES[label], split=split, fold=""))
    frames = replace(source.select(chosen), values=torch.cat(values))
    return Dataset(tuple(utterances), CLASSES, {"audio": frames})


def _scores(dataset: Dataset, seed: int) -> dict[str, float]:
    store, rest = VectorStore(dataset), PUBLISHED_REST
    heads = [
        Head(
            HeadConfig(
                CLASSES, dataset.dims, {"audio": own}, rest["input_norm"], rest["mlp_width"]
            ),
            seed,
        )
        for own in POOLINGS.values()
    ]
    training = TrainingConfig(
        rest["learning_rate"], rest["weight_decay"], 1.0, LossConfig("cross_entropy"), seed
    )
    schedule, test = Schedule(EPOCHS, data_seed=seed), dataset.rows("test")
    with suitable_threads(dataset, schedule.batch_size):
        cohort = Cohort(heads, [training] * len(heads), store, dataset.rows("train"), schedule)
        while cohort.epoch < EPOCHS:
            cohort.run_epoch()
        said = predict(heads, store, test)
    gold = dataset.targets(test).numpy()
    confusions = [confusion_matrix(gold, own.argmax(-1).numpy(), len(CLASSES)) for own in said]
    return {name: float(macro_f1(own)) for name, own in zip(POOLINGS, confusions, strict=True)}


def time_lines(manifest: Manifest, whisper: Path, every: int = 1) -> list[str]:
    """Differences of Whisper's word times from those of the manifest's TextGrids, as a table.

    Args:
        manifest: the utterances; those with a text and a TextGrid are used.
        whisper: the model's directory.
        every: each so many-th of them.
    """
    found: dict[str, list[float]] = {}
    words = utterances = 0
    for own in _times(manifest, whisper, every):
        utterances += 1
        words += len(own["end"])
        for name, differences in own.items():
            found.setdefault(name, []).extend(differences)
    rows = [("of a word", "median of |error|, ms", "90 %", "mean error")]
    for name, differences in found.items():
        errors = 1000 * np.array(differences)
        cells = [np.median(abs(errors)), np.quantile(abs(errors), 0.9), errors.mean()]
        rows.append((name, *(f"{value:.0f}" for value in cells)))  # type: ignore[arg-type]
    table = aligned(rows, right=(1, 2, 3))
    return [*table, f"{words:,} words of {utterances:,} utterances that both have."]


def _times(manifest: Manifest, directory: Path, every: int) -> Iterator[Mapping[str, list[float]]]:
    """Of each utterance the errors in seconds."""
    model, detector = load_whisper(directory, attention=True), load_detector("cpu")
    rows = [u for u in manifest.utterances if u.text and u.alignment is not None][::every]
    for u, alignment in zip(rows, read_alignments(rows).alignments, strict=True):
        if alignment is None:
            continue
        wave, text = load_audio(u.audio, u.start, u.end), normalise_text(u.text)
        language = u.language.split("-")[0]
        ((spans, weights),) = model.attention([Piece(wave, language)], [text])
        with torch.inference_mode():
            (speech,) = detector(Signal.of([wave], "cpu"))
        ours = within_speech(timed_words(text, spans, token_starts(weights)), speech.numpy())
        theirs = [one for one in alignment.words if plain(one.label)]
        if len(ours) != len(theirs):
            continue
        pairs = list(zip(ours, theirs, strict=True))
        yield {
            "start": [a.start - b.start for a, b in pairs],
            "start, but of the first": [a.start - b.start for a, b in pairs[1:]],
            "end": [a.end - b.end for a, b in pairs],
        }
