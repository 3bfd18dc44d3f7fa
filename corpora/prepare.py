"""Prepare: a corpus folder becomes `manifest.csv`, and a report says what it holds."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from corpora.arrangement import Arrangement, arrange
from corpora.base.errors import CorpusError, ManifestError, did_you_mean
from corpora.manifest import Manifest, check_manifest, keep_others, write_manifest
from corpora.protocol import SplitConfig
from corpora.readers.registry import (
    CorpusReader,
    Dropped,
    Options,
    ReadResult,
    find_corpus,
    read_corpus,
)
from corpora.readers.tree import Spellings, inside
from corpora.recordings import Header, cut_seconds, read_headers
from corpora.summary import PrepareReport, Tally
from corpora.utterance import SPLITS, Utterance, look_alike, speaker_key

SHOWN = 10  # of files that are not there, in a message


def prepare(
    name: str,
    root: str | Path,
    manifest_path: str | Path,
    *,
    labels: Sequence[str] = (),
    options: Options | None = None,
    config: SplitConfig | None = None,
    replace_other: bool = False,
    show_progress: bool = True,
) -> PrepareReport:
    """Read a corpus, make splits if it has none, check it, and write its manifest.

    Args:
        name: the corpus, as registered.
        root: its folder (a table also by its file).
        manifest_path: the CSV to write; a JSON goes beside it.
        labels: the labels to keep, in the order wanted; none is the protocol's, or all in the
            corpus's order.
        options: the corpus's own options; they win over the protocol's.
        config: protocol, folds and balance.
        replace_other: the manifest that stands there may be another corpus's.
        show_progress: show a bar on standard error while it takes longer than two seconds.

    Returns:
        What was found. Files that are missing and rows that cannot be used are listed in it and
        left out; a recording whose header cannot be read is listed and stays in the manifest.

    Raises:
        CorpusError: an unknown corpus, a wrong root, or nothing that can be used.
        ConfigError: an option that the corpus does not know, or a protocol that is not for it.
        ManifestError: a duplicate id, an unknown label in `labels`, fewer than three speakers, or
            a speaker in two of the corpus's own splits.
    """
    manifest_path = Path(manifest_path)
    config = config or SplitConfig()
    protocol = config.protocol
    reader = find_corpus(name)
    root = reader.root(root)
    scheme = None if protocol is None else protocol.scheme(name)
    implied = dict({} if scheme is None else scheme.options)
    if "recordings" in reader.options:
        implied["recordings"] = str(manifest_path.parent / "recordings")
    result = read_corpus(name, root, {**implied, **(options or {})})
    if manifest_path.resolve() in result.tables:
        raise CorpusError(
            f"{manifest_path} is the table to be read, and would be overwritten. "
            "Choose another work folder."
        )
    if not replace_other:
        keep_others(manifest_path, result.utterances)
    wanted = tuple(labels) or (() if scheme is None else scheme.labels)
    utterances, unwanted = _choose_labels(result, wanted, root)
    utterances, missing, respelled = _drop_missing(utterances, root)
    if not utterances:
        raise _nothing_left(root, reader, result, missing)
    headers = read_headers((u.audio for u in utterances), show_progress=show_progress)
    seconds, cuts = cut_seconds(utterances, headers)
    # A class nobody expresses cannot be trained, and would divide by zero in its weight.
    occurring = {u.label for u in utterances}
    order = tuple(label for label in wanted or result.labels if label in occurring)
    absent = [label for label in wanted or result.labels if label not in occurring]
    arrangement = arrange(utterances, name, config, reader.speakers)
    manifest = Manifest(
        arrangement.utterances,
        order,
        corpus="+".join(sorted({u.corpus or name for u in utterances})),
        protocol="" if protocol is None else protocol.name,
        shared_speakers=result.shared_speakers or bool(protocol and protocol.shared_speakers),
        synthetic=result.synthetic,
        settings=arrangement.settings,
        scales=result.scales,
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
        splits_made=arrangement.made,
        how=arrangement.how,
        seed=config.seed,
        synthetic=result.synthetic,
        tally=Tally.of(manifest.utterances, order, seconds),
        protocol=protocol,
        folds=arrangement.folds,
        removed=arrangement.removed,
        missing=tuple(missing),
        unreadable=tuple(_broken(utterances, headers, cuts, root)),
        dropped=(*result.dropped, *unwanted),
        notes=(
            *result.notes,
            *respelled,
            *arrangement.notes,
            *_unknown_speakers(arrangement),
            *_notes(manifest, absent),
        ),
    )


def _nothing_left(
    root: Path, reader: CorpusReader, result: ReadResult, missing: Sequence[Dropped]
) -> CorpusError:
    """What became of a corpus of which nothing can be used: what it lists and what is missing."""
    lines = [f"{root}: nothing is left that can be used."]
    dropped = missing or result.dropped
    if missing:
        lines[0] += f" No recording listed there was found ({len(missing):,} in all)."
    lines += [f"  {one.where}: {one.reason}" for one in dropped[:SHOWN]]
    if len(dropped) > SHOWN:
        lines.append(f"  and {len(dropped) - SHOWN:,} more")
    lines += [f"Note: {note}" for note in result.notes]
    lines.append(f"Needed: {reader.needs}. Source: {reader.source}")
    return CorpusError("\n".join(lines))


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
) -> tuple[list[Utterance], list[Dropped], tuple[str, ...]]:
    """Leave out utterances without a recording; a missing alignment alone is only cut off.

    A path that is spelled otherwise than the one file that it can mean becomes that file's.

    Returns:
        The utterances left; what is missing; a note on paths that are spelled otherwise.
    """
    kept: list[Utterance] = []
    missing: list[Dropped] = []
    spellings = Spellings()
    respelled: dict[Path, Path] = {}

    def found(path: Path, utterance: Utterance, lacking: str) -> Path | None:
        if os.path.isfile(path):
            return path
        alike = [one for one in spellings.of(path) if one.is_file()]
        if len(alike) == 1:
            respelled[path] = alike[0]
            return alike[0]
        several = ", ".join(one.name for one in alike)
        reason = f"{lacking}; {several} differ from it in spelling alone" if alike else lacking
        missing.append(Dropped(_place(path, utterance, root), reason))
        return None

    for utterance in utterances:
        audio = found(utterance.audio, utterance, "no such recording, utterance left out")
        if audio is None:
            continue
        alignment = utterance.alignment and found(
            utterance.alignment, utterance, "no such alignment, utterance kept without"
        )
        if (audio, alignment) != (utterance.audio, utterance.alignment):
            utterance = replace(utterance, audio=audio, alignment=alignment)
        kept.append(utterance)
    return kept, missing, _respelled_note(respelled, root)


def _respelled_note(respelled: Mapping[Path, Path], root: Path) -> tuple[str, ...]:
    if not respelled:
        return ()
    path, own = next(iter(respelled.items()))
    return (
        f"{len(respelled):,} files are spelled otherwise on disk (upper case or Unicode form) and "
        f"were found all the same: {inside(path, root)} is {inside(own, root)}.",
    )


def _place(path: Path, utterance: Utterance, root: Path) -> str:
    """Say which file of which row; without a table, the file's name says which utterance."""
    row = f" (line {utterance.line}, utterance '{utterance.id}')" if utterance.line else ""
    return inside(path, root) + row


def _broken(
    utterances: Sequence[Utterance],
    headers: Mapping[Path, Header],
    cuts: Mapping[str, str],
    root: Path,
) -> list[Dropped]:
    """List recordings and cuts that look broken: extraction may fail on them."""
    broken = [
        Dropped(inside(path, root), header.problem)
        for path, header in headers.items()
        if header.problem
    ]
    return broken + [
        Dropped(f"{inside(u.audio, root)} (utterance '{u.id}')", cuts[u.id])
        for u in utterances
        if u.id in cuts
    ]


def _unknown_speakers(arrangement: Arrangement) -> list[str]:
    unknown = sum(speaker_key(u) is None for u in arrangement.utterances if u.split)
    if arrangement.made or not unknown:
        return []
    return [
        f"The speaker of {unknown:,} utterances is unknown: whether splits share speakers cannot "
        "be checked."
    ]


def _notes(manifest: Manifest, absent: Sequence[str]) -> list[str]:
    """What the user should know about labels and splits before training on them."""
    notes = []
    if absent:
        notes.append(f"No utterance has the label {', '.join(absent)}: not among the labels.")
    if not manifest.labels:
        notes.append("WARNING: no utterance has a label: this manifest can only be predicted.")
    if len(manifest.labels) == 1:
        notes.append(f"WARNING: one label only ({manifest.labels[0]}): nothing to tell apart.")
    speakers = sorted({u.speaker for u in manifest.utterances})
    for what, names in (("labels", manifest.labels), ("speakers", speakers)):
        alike: dict[str, list[str]] = {}
        for name in names:
            alike.setdefault(look_alike(name), []).append(name)
        notes += [
            f"WARNING: the {what} {', '.join(several)} differ by upper case alone."
            for several in alike.values()
            if len(several) > 1
        ]
    for split in SPLITS if manifest.labels else ():
        held = {u.label for u in manifest.in_split(split)} - {""}
        lacking = [label for label in manifest.labels if label not in held]
        if not held:
            notes.append(f"WARNING: {split} has no labelled utterance.")
        elif lacking:
            notes.append(f"WARNING: {split} has no utterance of {', '.join(lacking)}.")
    thinned = {"max_imbalance", "balanced_dev"} & manifest.settings.keys()
    unused = sum(not u.split for u in manifest.utterances if u.label)
    if unused and manifest.labels and not thinned:
        notes.append(f"{unused} labelled utterances have no split and are not used.")
    if manifest.shared_speakers:
        notes.append("The splits share speakers, as declared: scores do not show new speakers.")
    return notes
