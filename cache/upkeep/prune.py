"""`cache prune`: drops the streams and parts that no kept manifest uses, after saying so.

A part is dropped as a whole or not at all: rewriting one to get rid of a few utterances costs as
much as extracting them. What unused frames stay behind in kept parts is said.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cache.found import input_kind
from cache.keys import possible_keys
from cache.last_extraction import Source
from cache.lookup import FrameCache
from cache.store.index import seen_of_parts
from cache.store.layout import METADATA, clear_stale_sites, scratch_folder, withdraw
from cache.store.mirror import refuse_if_claimed
from cache.upkeep.info import CUES, Stream, read_catalogue
from corpora.base.codec import Jsonable
from corpora.base.errors import CacheError, ConfigError
from corpora.base.terminal import bytes_text, count_text
from corpora.base.work import Work, exclusive_lock
from corpora.manifest import read_manifest

_NAMED = 5


@dataclass(frozen=True)
class StreamPrune(Jsonable):
    """What pruning does to one stream.

    Attributes:
        stream: `<recipe's folder>/<stream>`.
        parts: names of the parts to drop.
        utterances: that only lie in those.
        nbytes: of those parts.
        kept_parts: how many stay; none drops the stream.
        kept_unused: bytes of unused frames in parts that stay, because others in them are used.
    """

    json_entries = (
        "stream parts=count utterances bytes=nbytes kept_parts kept_unused_bytes=kept_unused"
    )

    stream: str
    parts: tuple[str, ...]
    utterances: int
    nbytes: int
    kept_parts: int
    kept_unused: int

    @property
    def count(self) -> int:
        """How many parts are dropped."""
        return len(self.parts)


@dataclass(frozen=True)
class PrunePlan(Jsonable):
    """What pruning would free; nothing is deleted before `apply`.

    Attributes:
        streams: every stream of the cache.
        used: content keys of the manifests to keep.
        last_only: only streams of the last extraction count as used.
    """

    json_entries = "bytes=nbytes parts streams"

    streams: tuple[StreamPrune, ...]
    used: frozenset[str] = field(repr=False)
    last_only: bool = False

    @property
    def nbytes(self) -> int:
        """Bytes of frames that would be freed."""
        return sum(stream.nbytes for stream in self.streams)

    @property
    def parts(self) -> int:
        """Parts that would be dropped."""
        return sum(len(stream.parts) for stream in self.streams)

    def to_text(self) -> str:
        """What would be freed and what stays, to read."""
        if not self.parts:
            lines = ["Nothing to free: every part holds something that is used."]
        else:
            lines = [
                f"To be freed: {bytes_text(self.nbytes)} in {count_text(self.parts, 'part')}.",
                *(_stream_line(one) for one in self.streams if one.parts),
            ]
        unused = sum(one.kept_unused for one in self.streams)
        if unused:
            lines.append(
                f"Kept: {bytes_text(unused)} of unused frames in parts that hold used ones too; "
                "parts are kept whole."
            )
        return "\n".join(lines)


def prune_plan(work: Work, manifests: Sequence[Path], *, last_only: bool = False) -> PrunePlan:
    """Find out what no manifest uses.

    Args:
        work: the work folder.
        manifests: CSV files of the manifests to keep features for; at least one.
        last_only: also drop the streams that the last extraction did not ask for: other encoders,
            layers and versions.

    Raises:
        ConfigError: no manifest is named.
        ManifestError: one cannot be read.
        CacheError: a stream or a part is damaged, or a manifest's recordings are missing: what
            they use cannot be told then, and would be dropped.
        MissingStepError: there is no cache, or no such manifest (with `last_only`: or no record of
            an extraction).
    """
    if not manifests:
        raise ConfigError("name at least one manifest to keep: cache prune --keep MANIFEST…")
    # Also where nothing is left to drop: a pruning that was killed may have left what it took out.
    clear_stale_sites(scratch_folder(work.features))
    cache, used = FrameCache(work), set[str]()
    kinds = {input_kind(stream.recipe.kind) for stream in read_catalogue(work.features).streams}
    for path in manifests:
        utterances = read_manifest(path).utterances
        keys = cache.keys(utterances)
        missing = [u for u in utterances if "audio" not in keys[u.id]]
        if missing and "audio" in kinds:
            shown = ", ".join(str(u.audio) for u in missing[:_NAMED])
            raise CacheError(
                f"{len(missing)} of {len(utterances)} recordings of {path} are not there "
                f"({shown}{', …' if len(missing) > _NAMED else ''}), so it cannot be told which "
                "features are theirs. Mount or restore them, or take their rows out of the "
                "manifest. Nothing was deleted."
            )
        used.update(key for u in utterances for key in possible_keys(u, keys[u.id]))
    return plan_for_keys(work, frozenset(used), last_only=last_only)


def plan_for_keys(
    work: Work,
    used: frozenset[str],
    *,
    last_only: bool = False,
    planned: PrunePlan | None = None,
) -> PrunePlan:
    """The same for content keys; with an earlier plan, only what that one was to drop as well."""
    sources = list(FrameCache(work).extraction.sources.values()) if last_only else None
    allowed = {one.stream: frozenset(one.parts) for one in planned.streams} if planned else {}
    streams = []
    for stream in read_catalogue(work.features).all_streams():
        keys = used if sources is None or _asked_for(stream, sources) else frozenset()
        may_drop = allowed.get(stream.label, frozenset()) if planned else None
        streams.append(_plan_stream(stream, keys, may_drop))
    return PrunePlan(tuple(streams), used, last_only)


def apply(work: Work, plan: PrunePlan) -> PrunePlan:
    """Delete what a plan says, as far as it is there and unused still.

    Readers go on; nobody may be adding.

    Returns:
        What was deleted.

    Raises:
        CacheError: the cache is in use, or a part is damaged.
    """
    refuse_if_claimed(work.root)
    with exclusive_lock(work.features):
        now = plan_for_keys(work, plan.used, last_only=plan.last_only, planned=plan)
        withdraw(_dropped(work.features, now), scratch_folder(work.features))
    return now


def _plan_stream(
    stream: Stream, used: frozenset[str], may_drop: frozenset[str] | None
) -> StreamPrune:
    parts = stream.parts()
    dropped: list[str] = []
    utterances = nbytes = kept_unused = 0
    for part, seen in seen_of_parts(parts):
        name = Path(part.path).name
        held = sum(part.lengths[n] for n in seen if part.keys[n] in used)
        if not held and (may_drop is None or name in may_drop):
            dropped.append(name)
            utterances += len(seen)
            nbytes += part.nbytes
        else:
            kept_unused += part.nbytes - held * part.header.frame_bytes
    kept = len(parts) - len(dropped)
    return StreamPrune(stream.label, tuple(dropped), utterances, nbytes, kept, kept_unused)


def _asked_for(stream: Stream, sources: Iterable[Source]) -> bool:
    """Whether the last extraction asked for a stream, or for what lies beside its layers.

    Cues are no extraction's: `explain` keeps them. Those on the grid of the last one are in use.
    """
    if stream.recipe.kind == CUES:
        grid = stream.recipe.fields.get("grid")
        return any(source.recipe.fields.get("grid") == grid for source in sources)
    return any(map(stream.is_of, sources))


def _dropped(features: Path, plan: PrunePlan) -> list[Path]:
    """The folders that go. What goes with all that is in it goes by one rename.

    Killed in between, nothing empty stays behind that no later plan would name.
    """
    recipes: dict[Path, list[StreamPrune]] = {}
    for one in plan.streams:
        recipes.setdefault((features / one.stream).parent, []).append(one)
    dropped = []
    for recipe, streams in recipes.items():
        gone, parts = [], []
        for one in streams:
            path = features / one.stream
            if one.parts and not one.kept_parts and _holds_only(path, one.parts):
                gone.append(path)
            else:
                parts += [path / part for part in one.parts]
        whole = gone and _holds_only(recipe, [path.name for path in gone])
        dropped += [recipe] if whole else [*gone, *parts]
    return dropped


def _holds_only(folder: Path, names: Sequence[str]) -> bool:
    return sorted(os.listdir(folder)) == sorted([METADATA, *names])


def _stream_line(one: StreamPrune) -> str:
    what = f"{count_text(len(one.parts), 'part')} of {one.stream}"
    if not one.kept_parts:
        what = f"all of {one.stream} ({count_text(len(one.parts), 'part')})"
    return f"  {what}: {count_text(one.utterances, 'utterance')}, {bytes_text(one.nbytes)}"
