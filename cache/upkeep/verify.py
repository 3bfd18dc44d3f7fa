"""`cache verify`: look at every byte of the cache, name what is damaged, and with `fix` drop it.

Only damaged parts are deleted, for `extract` computes them again. Whatever else is wrong (a file
that does not belong there, a recipe that does not fit its folder's name) is moved to
`WORK/set-aside`: nobody else can tell what it is worth.

Streams that lie on the same frames have to agree how many an utterance has.

All layers of a recipe do, and a text's token kinds; energy and speech lie on the grid of the audio
encoder. Where they disagree, loading them together fails or pairs the wrong frames.

Looking through a part byte by byte: its sum, its values, its lists, its files.

Read in blocks with plain reads, not mapped: a disk error is then an error with a name instead of
the end of the process, and memory stays small.
"""

from __future__ import annotations

import errno
import json
import os
import re
import time
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace
from itertools import accumulate
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import numpy.typing as npt

from cache.found import input_kind
from cache.keys import KEY_DIGITS, windowed_key
from cache.lookup import FrameCache
from cache.recipe import KEPT, canonical_json
from cache.store.copies import UPLOADED, is_uploaded, open_matrix
from cache.store.index import Scan, scan, seen_of_parts
from cache.store.layout import DTYPES, METADATA, clear_stale_sites, scratch_folder, withdraw
from cache.store.mirror import pull
from cache.store.parts import CHUNK, SUM_BYTES, Part
from cache.upkeep.info import Catalogue, Stream, read_catalogue
from cache.upkeep.verify_report import Problem, VerifyReport
from corpora.base.errors import EmopoolError
from corpora.base.files import fsync_folder
from corpora.base.terminal import progress_bar
from corpora.base.work import Work, exclusive_lock
from corpora.manifest import read_manifest

_ON_FRAMES = re.compile(r"layer_\d+|token_kind|times|values")
_ON_THE_GRID = ("audio", "energy", "speech")


def _family(stream: Stream) -> str:
    """The same for all streams with the same frames."""
    fields = stream.recipe.fields
    # With the silence that a recording was filled up by it has more frames than lie on its grid.
    if "grid" in fields and KEPT not in fields and stream.recipe.kind in _ON_THE_GRID:
        # The decoder is in it: another resampler may give a sample more, and so a frame.
        return canonical_json([fields["grid"], fields.get("decoder")])
    return stream.recipe.folder


# Fits in the processor's cache, so that summing and looking cost one trip to memory.
_BLOCK_BYTES = 1 << 20
_KEY = re.compile(f"[0-9a-f]{{{KEY_DIGITS}}}")
_EXPONENT = 0x7C00  # of float16: NaN and infinity have all exponent bits set


#: What is wrong with a part, and the keys it concerns; None if they cannot be told.
Finding = tuple[str, tuple[str, ...] | None]


def inspect_part(part: Part) -> list[Finding]:
    """Everything that is wrong with a part whose metadata and size are right.

    Raises:
        FileNotFoundError: the part is gone.
    """
    findings = _wrong_keys(part)
    bad_rows: list[npt.NDArray[np.int64]] = []
    total, first_row = 0, 0
    size = max(1, _BLOCK_BYTES // part.header.frame_bytes) * part.header.frame_bytes
    try:
        with open_matrix(part.path) as file:
            for start in range(0, part.nbytes, size):
                block = file.read(min(size, part.nbytes - start))
                if len(block) < min(size, part.nbytes - start):
                    raise OSError(errno.EIO, "it ended early")
                total = google_crc32c.extend(total, block)
                values = np.frombuffer(block, DTYPES[part.header.dtype])
                frames = values.reshape(-1, part.header.dim)
                bad_rows.append(first_row + np.flatnonzero(_unstorable(frames)))
                first_row += len(frames)
            stored = int.from_bytes(file.read(SUM_BYTES), "little")
    except FileNotFoundError:
        raise
    except OSError as error:
        reason = f"{CHUNK} cannot be read ({error.strerror or error})"
        return [*findings, (reason, tuple(part.keys))]
    if total != stored:
        reason = f"{CHUNK} has CRC-32C {total:08x} where {stored:08x} was stored"
        return [*findings, (reason, tuple(part.keys))]
    rows = np.concatenate(bad_rows)
    if len(rows):
        ends = np.fromiter(accumulate(part.lengths), np.int64, len(part.lengths))
        numbers = np.unique(np.searchsorted(ends, rows, side="right"))
        value = "255, the fill value" if part.header.dtype == "uint8" else "NaN or infinity"
        concerned = tuple(part.keys[number] for number in numbers.tolist())
        findings.append((f"{len(rows)} of {part.frames} frames hold {value}", concerned))
    return findings


def listed_keys(part: Path) -> tuple[str, ...] | None:
    """The keys in a part's metadata, whatever else is wrong with it; None if they are lost."""
    try:
        keys = json.loads((part / METADATA).read_bytes())["attributes"]["keys"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    known = isinstance(keys, list) and all(isinstance(key, str) for key in keys)
    return tuple(keys) if known else None


def foreign_entries(part: Path) -> list[Path]:
    """What lies in a part's folder and is neither its metadata, its mark nor its chunk."""
    own = {METADATA, UPLOADED, *(CHUNK[:end] for end in (1, 3, 5))}  # c, c/0, c/0/0
    found = []
    for folder, folders, files in os.walk(part):
        for name in sorted([*folders, *files]):
            path = Path(folder, name)
            if path.relative_to(part).as_posix() not in own:
                found.append(path)
        folders[:] = [name for name in folders if Path(folder, name) not in found]
    return found


def _wrong_keys(part: Part) -> list[Finding]:
    """Metadata have no checksum of their own: this is how a flipped bit in a key shows."""
    strange = sum(not _KEY.fullmatch(key) for key in part.keys)
    twice = len(part.keys) - len(set(part.keys))
    counts = ((strange, "that are no content keys"), (twice, "that it has already"))
    return [(f"{METADATA} lists {count} keys {what}", None) for count, what in counts if count]


def _unstorable(frames: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """`[T]`, which rows hold a value that a stream never stores."""
    if frames.dtype == np.uint8:
        bad = np.equal(frames, np.iinfo(np.uint8).max)
    elif frames.dtype.itemsize == 2:
        # Comparing as integers is many times faster than `isfinite` of halves.
        bad = np.bitwise_and(frames.view("<u2"), _EXPONENT) == _EXPONENT
    else:
        bad = ~np.isfinite(frames)
    rows: npt.NDArray[np.bool_] = np.any(bad, axis=1)
    return rows


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
    pull(work.root)
    read_catalogue(work.features)  # says so when there is none, before a lock file is made for it
    with exclusive_lock(work.features) if fix else nullcontext():
        if fix:
            clear_stale_sites(scratch_folder(work.features))
        scans, problems = _look(work.features, show_progress)
        copies = {p.path for p in problems if p.is_part and is_uploaded(p.path)}
        if fix and copies:  # they may be right where they come from
            withdraw(sorted(copies), scratch_folder(work.features), here_alone=True)
            pull(work.root)
            scans, problems = _look(work.features, show_progress)
        if problems:
            problems = _named(FrameCache(work), manifest or work.manifest, problems, scans)
        if fix:
            problems = _fix(work.features, problems)
    parts = [part for _, found in scans for part in found.parts]
    return VerifyReport(
        work=work.root,
        streams=len(scans),
        parts=len(parts) + sum(len(found.damaged) for _, found in scans),
        utterances=sum(len(part.keys) for part in parts),
        nbytes=sum(part.nbytes for part in parts),
        seconds=round(time.monotonic() - started, 3),
        fix=fix,
        problems=tuple(problems),
    )


Scans = list[tuple[Stream, Scan]]


def _look(features: Path, show_progress: bool) -> tuple[Scans, list[Problem]]:
    catalogue = read_catalogue(features)
    scans = [(stream, scan(stream.path, stream.header)) for stream in catalogue.streams]
    problems = [
        *_damaged_parts(scans, show_progress),
        *_disagreeing_parts(scans),
        *_strays(catalogue, scans),
    ]
    return scans, problems


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
    return [_problem(stream, path, reason, keys) for reason, keys in findings]


def _disagreeing_parts(scans: Scans) -> list[Problem]:
    """Both parts of an utterance whose length differs from that in the first stream that has it."""
    families: dict[str, dict[str, tuple[int, Part, Stream]]] = {}
    problems = []
    for stream, found in scans:
        if not _ON_FRAMES.fullmatch(stream.path.name):
            continue
        known = families.setdefault(_family(stream), {})
        for part, seen in seen_of_parts(found.parts):
            for number in seen:
                key, own = part.keys[number], (part.lengths[number], part, stream)
                first = known.setdefault(key, own)
                if own[0] != first[0]:
                    problems += [_disagreement(key, own, first), _disagreement(key, first, own)]
    return problems


def _disagreement(
    key: str, one: tuple[int, Part, Stream], other: tuple[int, Part, Stream]
) -> Problem:
    elsewhere = Path(other[1].path)
    where = elsewhere.relative_to(elsewhere.parents[2])
    reason = f"an utterance has {one[0]} frames, but {other[0]} in {where}"
    return _problem(one[2], Path(one[1].path), reason, (key,))


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
    imported = stream.recipe.imported
    return Problem(path, reason, is_part=True, keys=keys, imported=imported)


def _named(
    cache: FrameCache, manifest: Path, problems: list[Problem], scans: Scans
) -> list[Problem]:
    """The problems with the ids of their utterances, where a manifest can be read."""
    ids = _ids_by_key(cache, manifest)
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
                for key in ids.get(input_kind(stream.recipe.kind), {})
                if key not in there and windowed_key(key) not in there
            )
        names = tuple(name for key in keys or () for name in by_key.get(key, [key]))
        named.append(replace(problem, utterances=names))
    return named


def _ids_by_key(cache: FrameCache, path: Path) -> Mapping[str, Mapping[str, list[str]]]:
    """Ids of a manifest by kind of input and content key; nothing where it cannot be read."""
    try:
        by_id = cache.keys(read_manifest(path).utterances)
    except EmopoolError:
        return {}
    ids: dict[str, dict[str, list[str]]] = {}
    for name, keys in by_id.items():
        for kind, key in keys.items():
            ids.setdefault(kind, {}).setdefault(key, []).append(name)
    return ids


def _fix(features: Path, problems: list[Problem]) -> list[Problem]:
    """Drop damaged parts and set the rest aside; the problems with what was done about them."""
    damaged = sorted({problem.path for problem in problems if problem.is_part})
    withdraw(damaged, scratch_folder(features))
    # Moved together under one name, so that what lay together still does.
    aside = features.parent / SET_ASIDE / f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
    fixed = []
    for problem in problems:
        if problem.is_part:
            fixed.append(replace(problem, remedy="dropped"))
        elif os.path.lexists(problem.path):  # a folder around it may have gone before
            target = aside / problem.path.relative_to(features)
            target.parent.mkdir(parents=True, exist_ok=True)
            os.rename(problem.path, target)
            fsync_folder(target.parent)
            fsync_folder(problem.path.parent)
            fixed.append(replace(problem, remedy=f"moved to {target}"))
        else:
            fixed.append(replace(problem, remedy="gone with its folder"))
    return fixed
