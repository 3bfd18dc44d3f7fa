"""Prepare: a corpus folder becomes `manifest.csv`, and a report says what it holds."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import soundfile

from corpora.errors import CorpusError, ManifestError, did_you_mean
from corpora.manifest import Manifest, check_manifest, write_manifest
from corpora.progress import progress_bar
from corpora.registry import Dropped, Options, ReadResult, find_corpus, read_corpus
from corpora.splits import assign_splits
from corpora.summary import PrepareReport, tally
from corpora.tree import inside
from corpora.utterance import SPLITS, Utterance, speaker_key

HEADER_THREADS = 8  # reading a header is waiting for the disk
LATE = 0.05  # seconds by which a cut may pass the end: tables round their times


def prepare(
    name: str,
    root: str | Path,
    manifest_path: str | Path,
    *,
    labels: Sequence[str] = (),
    options: Options | None = None,
    seed: int = 0,
    show_progress: bool = True,
) -> PrepareReport:
    """Read a corpus, make splits if it has none, check it, and write its manifest.

    Args:
        name: the corpus, as registered.
        root: its folder (a table also by its file).
        manifest_path: the CSV to write; a JSON goes beside it.
        labels: the labels to keep, in the order wanted; none is all, in the corpus's order.
        options: the corpus's own options.
        seed: of the splits, where the corpus has none.
        show_progress: show a bar on standard error while it takes longer than two seconds.

    Returns:
        What was found. Files that are missing and rows that cannot be used are listed in it and
        left out; a recording whose header cannot be read is listed and stays in the manifest.

    Raises:
        CorpusError: an unknown corpus, a wrong root, or nothing that can be used.
        ConfigError: an option that the corpus does not know.
        ManifestError: a duplicate id, an unknown label in `labels`, fewer than three speakers, or
            a speaker in two of the corpus's own splits.
    """
    root, manifest_path = Path(root).expanduser().resolve(), Path(manifest_path)
    reader = find_corpus(name)
    result = read_corpus(name, root, options)
    if manifest_path.resolve() in result.tables:
        raise CorpusError(
            f"{manifest_path} is the table to be read, and would be overwritten. "
            "Choose another work folder."
        )
    utterances, unwanted = _choose_labels(result, tuple(labels), root)
    utterances, missing = _drop_missing(utterances, root)
    if not utterances:
        hint = f": {missing[0].reason}: {missing[0].where}" if missing else ""
        raise CorpusError(f"{root}: nothing is left that can be used{hint}.")
    seconds, unreadable = _look_at_recordings(utterances, root, show_progress)
    own_splits = any(u.split for u in utterances)
    # A class nobody expresses cannot be trained, and would divide by zero in its weight.
    occurring = {u.label for u in utterances}
    wanted = tuple(labels) or result.labels
    order = tuple(label for label in wanted if label in occurring)
    absent = [label for label in wanted if label not in occurring]
    notes = list(result.notes)
    if order and not own_splits:
        utterances, split_notes = assign_splits(utterances, seed=seed)
        notes += split_notes
    unknown = sum(speaker_key(u) is None for u in utterances if u.split)
    if own_splits and unknown:
        notes.append(
            f"The speaker of {unknown} utterances is unknown: whether splits share speakers cannot "
            "be checked."
        )
    manifest = Manifest(
        tuple(utterances),
        order,
        corpus="+".join(sorted({u.corpus or name for u in utterances})),
        shared_speakers=result.shared_speakers,
        synthetic=result.synthetic,
    )
    source = str(result.tables[0] if result.tables else root)
    check_manifest(manifest, source, declare="--set shared_speakers=true")
    write_manifest(manifest, manifest_path)
    return PrepareReport(
        corpus=name,
        title=reader.title,
        licence=reader.licence,
        root=root,
        manifest=manifest_path,
        labels=order,
        splits_made=bool(order) and not own_splits,
        seed=seed,
        synthetic=result.synthetic,
        **tally(manifest.utterances, order, seconds),
        missing=tuple(missing),
        unreadable=tuple(unreadable),
        dropped=(*result.dropped, *unwanted),
        notes=(*notes, *_notes(manifest, absent)),
    )


def _choose_labels(
    result: ReadResult, labels: tuple[str, ...], root: Path
) -> tuple[Sequence[Utterance], list[Dropped]]:
    """Keep the utterances of the labels asked for, and the unlabelled ones."""
    if not labels:
        return result.utterances, []
    known = ", ".join(result.labels)
    for label in labels:
        if label not in result.labels:
            hint = did_you_mean(label, result.labels)
            raise ManifestError(f"{root} has no label '{label}'.{hint} It has: {known}.")
    if len(set(labels)) < len(labels):
        raise ManifestError(f"The labels asked for name one twice: {', '.join(labels)}.")
    kept = [u for u in result.utterances if u.label in labels or not u.label]
    dropped = [
        Dropped(_place(u.audio, u, root), f"label '{u.label}' is not among those asked for")
        for u in result.utterances
        if u.label and u.label not in labels
    ]
    return kept, dropped


def _drop_missing(
    utterances: Sequence[Utterance], root: Path
) -> tuple[list[Utterance], list[Dropped]]:
    """Leave out utterances without a recording; a missing alignment alone is only cut off."""
    kept: list[Utterance] = []
    missing: list[Dropped] = []
    for utterance in utterances:
        if not os.path.isfile(utterance.audio):
            where = _place(utterance.audio, utterance, root)
            missing.append(Dropped(where, "no such recording, utterance left out"))
            continue
        if utterance.alignment is not None and not os.path.isfile(utterance.alignment):
            where = _place(utterance.alignment, utterance, root)
            missing.append(Dropped(where, "no such alignment, utterance kept without"))
            utterance = replace(utterance, alignment=None)
        kept.append(utterance)
    return kept, missing


def _place(path: Path, utterance: Utterance, root: Path) -> str:
    """Say which file of which row; without a table, the file's name says which utterance."""
    row = f" (line {utterance.line}, utterance '{utterance.id}')" if utterance.line else ""
    return inside(path, root) + row


def _look_at_recordings(
    utterances: Sequence[Utterance], root: Path, show_progress: bool
) -> tuple[dict[str, float], list[Dropped]]:
    """Return the seconds of each utterance by id, and the recordings that look broken."""
    paths = list(dict.fromkeys(u.audio for u in utterances))
    lengths: dict[Path, float | str] = {}
    with (
        ThreadPoolExecutor(HEADER_THREADS) as pool,
        progress_bar("recordings", len(paths), "file", show=show_progress) as bar,
    ):
        for path, length in zip(paths, pool.map(_length, paths), strict=True):
            lengths[path] = length
            bar.update(1)
    broken = [
        Dropped(inside(p, root), text) for p, text in lengths.items() if isinstance(text, str)
    ]
    seconds: dict[str, float] = {}
    for utterance in utterances:
        length = lengths[utterance.audio]
        if isinstance(length, str):
            continue
        start, end = utterance.start or 0.0, utterance.end or length
        if start >= length or end > length + LATE:
            where = f"{inside(utterance.audio, root)} (utterance '{utterance.id}')"
            reason = f"cut {start:g} to {end:g} s passes the recording's end at {length:g} s"
            broken.append(Dropped(where, reason))
        seconds[utterance.id] = max(min(end, length) - start, 0.0)
    return seconds, broken


def _length(path: Path) -> float | str:
    """Return the seconds of a recording from its header, or why it cannot be told."""
    try:
        header = soundfile.info(path)
    except (soundfile.SoundFileError, OSError) as error:
        empty = path.stat().st_size == 0 if path.exists() else False
        return "the file is empty" if empty else f"not readable as audio ({_cause(error)})"
    if header.frames <= 0:
        return "it holds no sound"
    return float(header.frames / header.samplerate)


def _cause(error: Exception) -> str:
    """Return the library's reason without the path, which the list shows already."""
    return str(getattr(error, "error_string", error)).rstrip(". ")


def _notes(manifest: Manifest, absent: Sequence[str]) -> list[str]:
    """Return what the user should know about labels and splits before training on them."""
    notes = []
    if absent:
        notes.append(f"No utterance has the label {', '.join(absent)}: not among the labels.")
    if not manifest.labels:
        notes.append("WARNING: no utterance has a label: this manifest can only be predicted.")
    if len(manifest.labels) == 1:
        notes.append(f"WARNING: one label only ({manifest.labels[0]}): nothing to tell apart.")
    folded: dict[str, list[str]] = {}
    for label in manifest.labels:
        folded.setdefault(label.casefold(), []).append(label)
    for names in folded.values():
        if len(names) > 1:
            notes.append(f"WARNING: the labels {', '.join(names)} differ by upper case alone.")
    for split in SPLITS if manifest.labels else ():
        held = {u.label for u in manifest.in_split(split)} - {""}
        lacking = [label for label in manifest.labels if label not in held]
        if not held:
            notes.append(f"WARNING: {split} has no labelled utterance.")
        elif lacking:
            notes.append(f"WARNING: {split} has no utterance of {', '.join(lacking)}.")
    unused = sum(not u.split for u in manifest.utterances if u.label)
    if unused and manifest.labels:
        notes.append(f"{unused} labelled utterances have no split and are not used.")
    if manifest.shared_speakers:
        notes.append("The splits share speakers, as declared: scores do not show new speakers.")
    return notes
