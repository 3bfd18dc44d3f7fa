"""`cache compact`: merges the small parts of a stream, so that it is quick to open and to read.

The merged part is written first and the old ones are deleted after, so a kill at any point leaves
every utterance in the stream, some of them twice with equal values.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cache.store.index import seen_of_parts
from cache.store.layout import clear_stale_sites, scratch_folder, withdraw
from cache.store.mirror import pull
from cache.store.parts import PART_BYTES, PREFIX, Part, read_through
from cache.store.writer import PartSite
from cache.upkeep.info import Stream, read_catalogue
from corpora.base.codec import Jsonable
from corpora.base.terminal import bytes_text, count_text, progress_bar
from corpora.base.work import Work, exclusive_lock

_TIME = re.compile(rf"{PREFIX}([0-9a-f]{{16}})-.*")


@dataclass(frozen=True)
class CompactedStream:
    """What became of one stream.

    Attributes:
        stream: `<recipe's folder>/<stream>`.
        parts_before: how many it had.
        parts_after: how many it has.
        rewritten: bytes of frames written.
        freed: bytes of copies that nobody read.
    """

    stream: str
    parts_before: int
    parts_after: int
    rewritten: int
    freed: int


@dataclass(frozen=True)
class CompactReport(Jsonable):
    """The streams that were changed, and how many were looked at."""

    json_entries = "looked_at streams"

    streams: tuple[CompactedStream, ...]
    looked_at: int

    def to_text(self) -> str:
        """The same to read."""
        if not self.streams:
            return f"Nothing to merge in {count_text(self.looked_at, 'stream')}."
        return "\n".join(
            f"{one.stream}: {count_text(one.parts_before, 'part')} -> {one.parts_after:,}, "
            f"{bytes_text(one.rewritten)} rewritten, {bytes_text(one.freed)} of copies dropped"
            for one in self.streams
        )


@dataclass(frozen=True)
class _Source:
    """A part to be merged.

    Attributes:
        part: which.
        seen: numbers of the utterances that readers see, ascending.
        nbytes: of their frames.
    """

    part: Part
    seen: list[int]
    nbytes: int


@dataclass(frozen=True)
class _Plan:
    """What to do with one stream.

    Attributes:
        stream: which.
        parts: how many it has.
        unread: those of which readers see nothing.
        groups: those to be merged with one another.
    """

    stream: Stream
    parts: int
    unread: list[Part]
    groups: list[list[_Source]]

    @property
    def sources(self) -> list[_Source]:
        """The parts of all groups."""
        return [source for group in self.groups for source in group]

    def outcome(self) -> CompactedStream:
        """What the stream is like once this is done."""
        copies = sum(part.nbytes for part in self.unread)
        copies += sum(source.part.nbytes - source.nbytes for source in self.sources)
        return CompactedStream(
            stream=self.stream.label,
            parts_before=self.parts,
            parts_after=self.parts - len(self.unread) - len(self.sources) + len(self.groups),
            rewritten=sum(source.nbytes for source in self.sources),
            freed=copies,
        )


def compact(work: Work, *, show_progress: bool = False) -> CompactReport:
    """Merge parts with less than half of 128 MB that anybody reads into parts of up to 128 MB.

    So parts are rewritten a few times at most, however often this is called, and a stream keeps
    one such part at most. Needs room for one part more. Readers go on; nobody may be adding.

    Args:
        work: the work folder.
        show_progress: a bar on standard error.

    Raises:
        MissingStepError: there is no cache.
        CacheError: a stream or a part is damaged (nothing is merged that is not right), or the
            cache is in use.
        OSError: the disk is full or failed; nothing is lost.
    """
    pull(work.root)
    read_catalogue(work.features)  # says so when there is none, before a lock file is made for it
    scratch = scratch_folder(work.features)
    with exclusive_lock(work.features):
        clear_stale_sites(scratch)
        plans = [_plan(stream) for stream in read_catalogue(work.features).all_streams()]
        megabytes = sum(source.nbytes for plan in plans for source in plan.sources) / 1e6
        with progress_bar("merging", megabytes, "MB", show=show_progress) as bar:
            for plan in plans:
                withdraw([Path(part.path) for part in plan.unread], scratch)
                for group in plan.groups:
                    _merge(plan.stream, group, scratch)
                    bar.update(sum(source.nbytes for source in group) / 1e6)
    changed = [plan.outcome() for plan in plans if plan.unread or plan.groups]
    return CompactReport(tuple(changed), len(plans))


def _plan(stream: Stream) -> _Plan:
    """The parts nobody reads, and the groups worth merging, in the order of their names."""
    parts = stream.parts()
    unread: list[Part] = []
    groups: list[list[_Source]] = [[]]
    size = 0
    for part, seen in seen_of_parts(parts):
        frames = sum(part.lengths[number] for number in seen)
        source = _Source(part, seen, frames * part.header.frame_bytes)
        if not seen:
            unread.append(part)
        elif source.nbytes < PART_BYTES // 2 and _time_ns(part):
            if size + source.nbytes > PART_BYTES:
                groups.append([])
                size = 0
            groups[-1].append(source)
            size += source.nbytes
    worth = [g for g in groups if len(g) > 1 or any(s.nbytes < s.part.nbytes for s in g)]
    return _Plan(stream, len(parts), unread, worth)


def _merge(stream: Stream, group: Sequence[_Source], scratch: Path) -> None:
    """Write what is read of a group as one part, then delete the group."""
    site = PartSite(scratch, stream.header)
    try:
        for source in group:
            keys = [source.part.keys[number] for number in source.seen]
            # Its checksum is compared: damage must not get one that fits it.
            parts = read_through(source.part, {*source.seen})
            for key, frames in zip(keys, parts, strict=True):
                site.add(key, frames)
        # Named just before the first of the group. What readers see of a group lies in no part
        # before it: so this one wins over other copies, as the one that it replaces did.
        site.publish(stream.path, _time_ns(group[0].part) - 1)
    finally:
        site.close()
    withdraw([Path(source.part.path) for source in group], scratch)


def _time_ns(part: Part) -> int:
    """When a part was made, from its name; 0 if somebody gave it another one."""
    found = _TIME.fullmatch(Path(part.path).name)
    return int(found[1], 16) if found else 0
