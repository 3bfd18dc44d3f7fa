"""The check of a manifest: what its recordings and texts are like, and what leaks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cache.encoders.grid import SAMPLE_RATE, fbank_grid, recorded_grid
from cache.keys import shared_recordings, shared_sentences
from cache.lookup import FrameCache
from cache.upkeep.corpus_report import CorpusCheck, Durations, Heard, Histogram, histogram
from corpora.base.errors import AudioError, EmopoolError
from corpora.base.terminal import progress_bar
from corpora.base.work import Work
from corpora.manifest import Manifest
from corpora.recordings import cut_seconds, read_headers
from corpora.sound_file import SoundFile, open_sound
from corpora.utterance import SPLITS, Utterance, speaker_key

# Decoding runs outside the interpreter's lock; more threads wait for the disk.
THREADS = 4
# Full scale less a hair: files saved from clipped ones are often turned down by less than .01 dB.
FULL_SCALE = 0.999
# So many samples in a row at full scale are a cut-off wave; one or two are a loud one.
CLIPPED_RUN = 3
FRAME_SECONDS = 0.02
# RMS of a frame, dB below full scale: quieter than any room is recorded at 16 bits with speech.
SILENCE_DB = -60.0


@dataclass(frozen=True, slots=True)
class Sound:
    """What was heard in one utterance.

    Attributes:
        peak: largest absolute sample, full scale 1.
        clipped: samples that lie in runs of `CLIPPED_RUN` or more at full scale.
        silent: share of 20 ms frames whose RMS is below `SILENCE_DB`.
        problem: why it cannot be used; "" where it can.
    """

    peak: float = 0.0
    clipped: int = 0
    silent: float = 0.0
    problem: str = ""


def listen(utterances: Sequence[Utterance], *, show_progress: bool = False) -> dict[str, Sound]:
    """Decode every utterance at its own rate; returns what was heard, by id.

    Args:
        utterances: of a manifest.
        show_progress: show a bar on standard error while it takes longer than two seconds.
    """
    by_file: dict[Path, list[Utterance]] = {}
    for utterance in utterances:
        by_file.setdefault(utterance.audio, []).append(utterance)
    heard: dict[str, Sound] = {}
    with (
        ThreadPoolExecutor(THREADS) as pool,
        progress_bar("listening", len(by_file), "file", show=show_progress) as bar,
    ):
        for found in pool.map(_listen_to_file, by_file, by_file.values()):
            heard.update(found)
            bar.update(1)
    return heard


def sound_of(samples: NDArray[np.float32], rate: int) -> Sound:
    """Measure `[samples, channels]` at `rate` Hz.

    Silent is what an encoder hears, the mean of the channels; each channel may be clipped.
    """
    if not samples.size:
        return Sound(problem="it holds no sound")
    loud = np.abs(samples)
    length = max(1, round(FRAME_SECONDS * rate))
    frames = max(1, len(samples) // length)
    power = np.square(samples.mean(axis=1, dtype=np.float64)[: frames * length])
    rms = np.sqrt(power.reshape(frames, -1).mean(axis=1))
    silent = float((rms < 10 ** (SILENCE_DB / 20)).mean())
    clipped = sum(_in_runs(loud[:, channel] >= FULL_SCALE) for channel in range(loud.shape[1]))
    return Sound(float(loud.max()), clipped, silent)


def _in_runs(full: NDArray[np.bool_]) -> int:
    """How many of the set values stand in runs of `CLIPPED_RUN` or more."""
    if not full.any():
        return 0
    edges = np.flatnonzero(np.diff(np.concatenate([[False], full, [False]]).astype(np.int8)))
    lengths = edges[1::2] - edges[::2]
    return int(lengths[lengths >= CLIPPED_RUN].sum())


def _listen_to_file(path: Path, utterances: Sequence[Utterance]) -> dict[str, Sound]:
    try:
        with open_sound(path) as file:
            return {u.id: _listen_to_cut(file, u) for u in utterances}
    except AudioError as error:
        return {u.id: Sound(problem=str(error)) for u in utterances}


def _listen_to_cut(file: SoundFile, utterance: Utterance) -> Sound:
    try:
        return sound_of(file.cut(utterance.start, utterance.end), file.rate)
    except AudioError as error:
        return Sound(problem=str(error))


# Of the default speech encoder, W2V-BERT 2.0: one frame every 20 ms.
USUAL_GRID = fbank_grid(2)


def frame_lengths(
    cache: FrameCache,
    utterances: Sequence[Utterance],
    keys: Mapping[str, Mapping[str, str]],
    seconds: Mapping[str, float],
) -> tuple[tuple[Histogram, ...], dict[str, float], list[str]]:
    """Count frames.

    Args:
        cache: with the streams of the last extraction, where there was one.
        utterances: of a manifest.
        keys: content keys of each by id.
        seconds: lengths by id, of those that are known from headers; a cut with both ends is known
            by itself.

    Returns:
        How many frames utterances have, for the modalities where it is known; the lengths by id
        that are known now, of what was extracted to one frame; what is not known, and what to do.
    """
    notes = []
    energy = cache.sources.get("energy")
    grid = (recorded_grid(energy.recipe) if energy is not None else None) or USUAL_GRID
    extracted = _of_stream(cache, "energy", "audio", utterances, keys)
    text = _of_stream(cache, "text", "text", utterances, keys)
    known = {u.id: u.end - (u.start or 0.0) for u in utterances if u.end is not None} | dict(
        seconds
    )
    lengths = {name: grid.frames(round(value * SAMPLE_RATE)) for name, value in known.items()}
    from_audio = lengths | extracted
    source = (
        "extracted" if extracted else f"from lengths, {1000 * grid.hop / SAMPLE_RATE:g} ms apart"
    )
    if extracted and len(from_audio) > len(extracted):
        source = "extracted where they are, else from lengths"
    unknown = len(utterances) - len(from_audio)
    if unknown:
        notes.append(f"The length of {unknown:,} utterances is not known, so they are not counted.")
    if not text:
        notes.append("No text was extracted, so its frames cannot be counted. Run extract first.")
    elif len(text) < len(utterances):
        notes.append(f"The texts of {len(utterances) - len(text):,} utterances are not extracted.")
    back = {name: grid.samples(count) / SAMPLE_RATE for name, count in extracted.items() if count}
    counted = (
        histogram([*from_audio.values()], "Audio frames of an utterance", source),
        histogram([*text.values()], "Text frames (tokens) of an utterance", "extracted"),
    )
    return tuple(one for one in counted if one is not None), back | known, notes


def _of_stream(
    cache: FrameCache,
    kind: str,
    modality: str,
    utterances: Sequence[Utterance],
    keys: Mapping[str, Mapping[str, str]],
) -> dict[str, int]:
    """Frames by id of the utterances that a stream of the last extraction holds."""
    if kind not in cache.sources:
        return {}
    try:
        stream = cache.stream(kind)
    except EmopoolError:
        return {}  # only moments were kept, or the stream is damaged: `cache verify` says so
    own = {u.id: keys[u.id].get(modality, "") for u in utterances}
    held = {name: key for name, key in own.items() if key in stream}
    return dict(zip(held, stream.lengths(list(held.values())).tolist(), strict=True))


# An utterance of which so much is silence holds hardly any speech.
MOSTLY_SILENT = 0.95


def check_corpus(
    work: Work,
    manifest: Manifest,
    path: Path,
    *,
    audio: bool = True,
    show_progress: bool = False,
) -> CorpusCheck:
    """Look at every utterance of a manifest.

    Args:
        work: the work folder: its index of contents, and the streams that were extracted.
        manifest: what is looked at.
        path: where it was read, for the report.
        audio: whether recordings are opened: lengths, rates, clipping, silence, and content where
            the index does not know it. Without, only what is known already is told.
        show_progress: show bars on standard error.
    """
    rows = manifest.utterances
    work.root.mkdir(parents=True, exist_ok=True)
    headers = read_headers((u.audio for u in rows), show_progress=show_progress) if audio else {}
    seconds, cuts = cut_seconds(rows, headers)
    broken = {u.id for u in rows if audio and not headers[u.audio].rate}
    usable = [u for u in rows if u.id not in broken]
    sounds = listen(usable, show_progress=show_progress) if audio else {}
    cache = FrameCache(work)
    keys = cache.keys(rows, read=audio)
    histograms, told, notes = frame_lengths(cache, rows, keys, seconds)
    seconds = {**told, **seconds}
    problems = [
        *(f"{path}: {header.problem}" for path, header in headers.items() if header.problem),
        *(f"'{u.id}' ({u.audio.name}): {cuts[u.id]}" for u in rows if u.id in cuts),
        *(
            f"'{u.id}' ({u.audio.name}): {sounds[u.id].problem}"
            for u in rows
            if u.id in sounds and sounds[u.id].problem and u.id not in cuts
        ),
        *(
            f"'{one.id}' ({one.split}) and '{other.id}' ({other.split}) are the same recording: "
            f"{one.audio.name} and {other.audio.name}"
            for one, other in shared_recordings(rows, keys)
        ),
    ]
    unknown = sum("audio" not in keys[u.id] for u in rows)
    return CorpusCheck(
        manifest=path,
        corpus=manifest.corpus,
        utterances=len(rows),
        durations=_durations(rows, seconds),
        formats=Counter(
            f"{h.rate:,} Hz, {h.channels} channel{'s' if h.channels > 1 else ''}"
            for h in headers.values()
            if h.rate
        ),
        heard=_heard(rows, sounds) if audio else None,
        unheard=unknown,
        duplicates=_duplicates(rows, keys),
        sentences=shared_sentences(rows),
        known_speakers=len({speaker_key(u) for u in rows} - {None}),
        speakers_in_two_splits=_speakers_in_two_splits(rows),
        histograms=histograms,
        problems=tuple(problems),
        notes=(*notes, *_notes(manifest, path, unknown, audio=audio)),
    )


def _durations(rows: Sequence[Utterance], seconds: Mapping[str, float]) -> dict[str, Durations]:
    by_split: dict[str, list[float]] = {}
    counts: Counter[str] = Counter()
    for utterance in rows:
        counts[utterance.split] += 1
        if utterance.id in seconds:
            by_split.setdefault(utterance.split, []).append(seconds[utterance.id])
    found = {
        split: Durations.of(by_split.get(split, []), counts[split])
        for split in (*SPLITS, "")
        if counts[split]
    }
    everything = [value for values in by_split.values() for value in values]
    return {**found, "all": Durations.of(everything, len(rows))}


def _heard(rows: Sequence[Utterance], sounds: Mapping[str, Sound]) -> Heard:
    decoded = [(u, sounds[u.id]) for u in rows if u.id in sounds and not sounds[u.id].problem]
    clipped = sorted(
        ((u, sound) for u, sound in decoded if sound.clipped), key=lambda pair: -pair[1].clipped
    )
    silent = [u for u, sound in decoded if sound.silent >= MOSTLY_SILENT]
    return Heard(
        decoded=len(decoded),
        clipped=tuple((u.id, sound.clipped) for u, sound in clipped),
        silent=tuple(u.id for u in silent),
        silence=sum(sound.silent for _, sound in decoded) / max(len(decoded), 1),
    )


def _duplicates(
    rows: Sequence[Utterance], keys: Mapping[str, Mapping[str, str]]
) -> tuple[tuple[Utterance, ...], ...]:
    groups: dict[str, list[Utterance]] = {}
    for utterance in rows:
        # Of a recording that was not read, the same stretch of the same file is the same sound.
        stretch = f"{utterance.audio} {utterance.start or 0.0} {utterance.end}"
        groups.setdefault(keys[utterance.id].get("audio", stretch), []).append(utterance)
    return tuple(tuple(group) for group in groups.values() if len(group) > 1)


def _speakers_in_two_splits(rows: Sequence[Utterance]) -> int:
    homes: dict[tuple[str, str], set[str]] = {}
    for utterance in rows:
        who = speaker_key(utterance)
        if who is not None and utterance.split:
            homes.setdefault(who, set()).add(utterance.split)
    return sum(len(splits) > 1 for splits in homes.values())


def _notes(manifest: Manifest, path: Path, unknown: int, *, audio: bool) -> list[str]:
    notes = []
    if not path.with_suffix(".json").is_file():
        notes.append(
            f"There is no {path.with_suffix('.json').name} beside it: labels are in the order "
            f"{', '.join(manifest.labels)}, and corpus and protocol are not known."
        )
    if unknown and not audio:
        notes.append(
            f"The content of {unknown:,} utterances' recordings is not known yet, so duplicates "
            "and leakage are told for the others only. Leave --no-audio away, or run extract."
        )
    elif unknown:
        notes.append(f"{unknown:,} utterances' recordings are missing or cannot be read.")
    if manifest.shared_speakers:
        notes.append("The splits share speakers, by the manifest's declaration.")
    return notes
