"""The check of a manifest: what its recordings and texts are like, and what leaks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from cache.corpus_check.frames import Lengths, frame_lengths
from cache.corpus_check.histogram import histogram
from cache.corpus_check.report import CorpusCheck, Durations, Heard
from cache.corpus_check.sound import Sound, listen
from cache.inputs import utterance_keys
from cache.leakage import shared_recordings, shared_sentences
from corpora.base.work import Work
from corpora.manifest import Manifest
from corpora.recordings import cut_seconds, read_headers
from corpora.utterance import SPLITS, Utterance, speaker_key

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
    keys = utterance_keys(work, rows, read=audio)
    lengths = frame_lengths(work, rows, keys, seconds)
    seconds = {**lengths.seconds, **seconds}
    problems = [
        *(
            f"{u.audio}: {headers[u.audio].problem}"
            for u in _first_each(rows)
            if audio and headers[u.audio].problem
        ),
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
        histograms=tuple(
            found
            for found in (
                histogram(lengths.audio, "Audio frames of an utterance", lengths.audio_source),
                histogram(lengths.text, "Text frames (tokens) of an utterance", "extracted"),
            )
            if found is not None
        ),
        problems=tuple(problems),
        notes=tuple(_notes(manifest, path, lengths, unknown, audio=audio)),
    )


def _first_each(rows: Sequence[Utterance]) -> list[Utterance]:
    """The first utterance of each recording."""
    first: dict[Path, Utterance] = {}
    for utterance in rows:
        first.setdefault(utterance.audio, utterance)
    return list(first.values())


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


def _notes(
    manifest: Manifest, path: Path, lengths: Lengths, unknown: int, *, audio: bool
) -> list[str]:
    notes = list(lengths.notes)
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
