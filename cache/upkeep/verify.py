"""`cache verify`: look at every byte of the cache, name what is damaged, and with `fix` drop it.

Only damaged parts are deleted, for `extract` computes them again. Whatever else is wrong (a file
that does not belong there, a recipe that does not fit its folder's name) is moved to
`WORK/set-aside`: nobody else can tell what it is worth.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

from cache.inputs import utterance_keys
from cache.keys import windowed_key
from cache.store.index import Scan, scan
from cache.store.parts import Part
from cache.store.scratch import clear_stale_sites, scratch_folder, withdraw
from cache.upkeep.agreement import disagreements
from cache.upkeep.catalogue import Catalogue, Stream, read_catalogue
from cache.upkeep.inspection import foreign_entries, inspect_part, listed_keys
from cache.upkeep.verify_report import Problem, VerifyReport
from corpora.base.errors import EmopoolError
from corpora.base.files import fsync_folder
from corpora.base.locks import exclusive_lock
from corpora.base.terminal import progress_bar
from corpora.base.work import Work
from corpora.manifest import read_manifest

SET_ASIDE = "set-aside"


def verify(
    work: Work,
    *,
    fix: bool = False,
    manifest: Path | None = None,
    show_progress: bool = False,
) -> VerifyReport:
    """Check presence, sizes, sums, lists, lengths, finiteness and names of all that is cached.

    Frames are read a block at a time; what is held of a part is its list of utterances.

    Args:
        work: the work folder.
        fix: drop damaged parts, set aside what does not belong; nobody may be adding meanwhile.
        manifest: whose ids name what is affected; by default `WORK/manifest.csv`. Without one, and
            for what it does not have, the content keys do.
        show_progress: a bar on standard error.

    Raises:
        MissingStepError: there is no cache.
        FormatVersionError: it is of another version of the format.
        CacheError: with `fix`, somebody else is using the cache.
    """
    started = time.monotonic()
    read_catalogue(work)  # says so when there is none, before a lock file is made for it
    with exclusive_lock(work.features) if fix else nullcontext():
        if fix:
            clear_stale_sites(scratch_folder(work.features))
        catalogue = read_catalogue(work)
        scans = [(stream, scan(stream.path, stream.header)) for stream in catalogue.streams]
        problems = [
            *_damaged_parts(scans, show_progress),
            *_disagreeing_parts(scans),
            *_strays(catalogue, scans),
        ]
        if problems:
            problems = _named(work, manifest or work.manifest, problems, scans)
        if fix:
            problems = _fix(work, problems)
    parts = [part for _, found in scans for part in found.parts]
    return VerifyReport(
        work=work.root,
        streams=len(scans),
        parts=len(parts) + sum(len(found.damaged) for _, found in scans),
        utterances=sum(len(part.keys) for part in parts),
        nbytes=sum(part.nbytes for part in parts),
        seconds=time.monotonic() - started,
        fix=fix,
        problems=tuple(problems),
    )


Scans = list[tuple[Stream, Scan]]


def _damaged_parts(scans: Scans, show_progress: bool) -> list[Problem]:
    problems = []
    megabytes = sum(part.nbytes for _, found in scans for part in found.parts) / 1e6
    with progress_bar("verifying", megabytes, "MB", show=show_progress) as bar:
        for stream, found in scans:
            for damaged in found.damaged:
                path = Path(damaged.path)
                problems.append(_problem(stream, path, damaged.reason, listed_keys(path)))
            for part in found.parts:
                problems += _inspected(stream, part)
                bar.update(part.nbytes / 1e6)
    return problems


def _inspected(stream: Stream, part: Part) -> list[Problem]:
    path = Path(part.path)
    try:
        findings = inspect_part(part)
    except FileNotFoundError:
        # Merged or pruned by somebody else meanwhile, which is nothing wrong; or half gone.
        if not path.exists():
            return []
        return [_problem(stream, path, "its chunk disappeared", tuple(part.keys))]
    return [_problem(stream, path, finding.reason, finding.keys) for finding in findings]


def _disagreeing_parts(scans: Scans) -> list[Problem]:
    streams = {str(stream.path): stream for stream, _ in scans}
    problems = []
    for found in disagreements([(stream, scanned.parts) for stream, scanned in scans]):
        sides = ((found.part, found.frames), (found.other_part, found.other_frames))
        for (part, frames), (other, others) in (sides, sides[::-1]):
            path, elsewhere = Path(part.path), Path(other.path)
            reason = (
                f"an utterance has {frames} frames, but {others} in "
                f"{elsewhere.relative_to(elsewhere.parents[2])}"
            )
            problems.append(_problem(streams[str(path.parent)], path, reason, (found.key,)))
    return problems


def _strays(catalogue: Catalogue, scans: Scans) -> list[Problem]:
    problems = [Problem(stray.path, stray.reason, is_part=False) for stray in catalogue.strays]
    for _, found in scans:
        for part in found.parts:
            problems += [
                Problem(path, "not a file of a part", is_part=False)
                for path in foreign_entries(Path(part.path))
            ]
    return problems


def _problem(stream: Stream, path: Path, reason: str, keys: tuple[str, ...] | None) -> Problem:
    imported = "imported" in stream.recipe.fields
    return Problem(path, reason, is_part=True, keys=keys, imported=imported)


def _named(work: Work, manifest: Path, problems: list[Problem], scans: Scans) -> list[Problem]:
    """The problems with the ids of their utterances, where a manifest can be read."""
    ids = _ids_by_key(work, manifest)
    held = {
        stream.path: (stream, {key for part in found.parts for key in part.keys})
        for stream, found in scans
        if any(problem.keys is None and problem.path.parent == stream.path for problem in problems)
    }
    by_key = {key: names for kind in ids.values() for key, names in kind.items()}
    by_key |= {windowed_key(key): names for key, names in ids.get("audio", {}).items()}
    named = []
    for problem in problems:
        keys = problem.keys
        if keys is None and problem.path.parent in held:
            # The list is lost: it was among those that the stream should have and has not.
            stream, there = held[problem.path.parent]
            keys = tuple(
                key
                for key in ids.get(stream.input_kind, {})
                if key not in there and windowed_key(key) not in there
            )
        names = tuple(name for key in keys or () for name in by_key.get(key, [key]))
        named.append(replace(problem, utterances=names))
    return named


def _ids_by_key(work: Work, path: Path) -> Mapping[str, Mapping[str, list[str]]]:
    """Ids of a manifest by kind of input and content key; nothing where it cannot be read."""
    try:
        by_id = utterance_keys(work, read_manifest(path).utterances)
    except EmopoolError:
        return {}
    ids: dict[str, dict[str, list[str]]] = {}
    for name, keys in by_id.items():
        for kind, key in keys.items():
            ids.setdefault(kind, {}).setdefault(key, []).append(name)
    return ids


def _fix(work: Work, problems: list[Problem]) -> list[Problem]:
    """Drop damaged parts and set the rest aside; the problems with what was done about them."""
    damaged = sorted({problem.path for problem in problems if problem.is_part})
    withdraw(damaged, scratch_folder(work.features))
    # Moved together under one name, so that what lay together still does.
    aside = work.root / SET_ASIDE / f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
    fixed = []
    for problem in problems:
        if problem.is_part:
            fixed.append(replace(problem, remedy="dropped"))
        elif os.path.lexists(problem.path):  # a folder around it may have gone before
            target = aside / problem.path.relative_to(work.features)
            target.parent.mkdir(parents=True, exist_ok=True)
            os.rename(problem.path, target)
            fsync_folder(target.parent)
            fsync_folder(problem.path.parent)
            fixed.append(replace(problem, remedy=f"moved to {target}"))
        else:
            fixed.append(replace(problem, remedy="gone with its folder"))
    return fixed
