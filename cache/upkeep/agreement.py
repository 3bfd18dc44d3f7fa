"""Streams that lie on the same frames have to agree how many an utterance has.

All layers of a recipe do, and a text's token kinds; energy and speech lie on the grid of the audio
encoder. Where they disagree, loading them together fails or pairs the wrong frames.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from cache.recipe import KEPT, canonical_json
from cache.store.parts import Part
from cache.upkeep.catalogue import Stream

_ON_FRAMES = re.compile(r"layer_\d+|token_kind|values")
_ON_THE_GRID = ("audio", "energy", "speech")


@dataclass(frozen=True)
class Disagreement:
    """One utterance whose length differs between two streams.

    Attributes:
        key: of the utterance.
        part: where it has another length than before.
        frames: its length there.
        other_part: where it was met first.
        other_frames: its length there.
    """

    key: str
    part: Part
    frames: int
    other_part: Part
    other_frames: int


def disagreements(streams: Sequence[tuple[Stream, Sequence[Part]]]) -> list[Disagreement]:
    """Compare the lengths of each utterance in all streams that lie on the same frames.

    Args:
        streams: each with its usable parts, in the order of their names.

    Returns:
        Differences from the first stream that has the utterance, at most one a stream.
    """
    families: dict[str, dict[str, tuple[int, Part]]] = {}
    found = []
    for stream, parts in streams:
        if not _ON_FRAMES.fullmatch(stream.path.name):
            continue
        known = families.setdefault(_family(stream), {})
        seen: set[str] = set()
        for part in parts:
            for key, frames in zip(part.keys, part.lengths, strict=True):
                if key in seen:
                    continue  # a copy that nobody reads
                seen.add(key)
                other_frames, other = known.setdefault(key, (frames, part))
                if frames != other_frames:
                    found.append(Disagreement(key, part, frames, other, other_frames))
    return found


def _family(stream: Stream) -> str:
    """The same for all streams with the same frames."""
    fields = stream.recipe.fields
    # With the silence that a recording was filled up by it has more frames than lie on its grid.
    if "grid" in fields and KEPT not in fields and stream.recipe.kind in _ON_THE_GRID:
        # The decoder is in it: another resampler may give a sample more, and so a frame.
        return canonical_json([fields["grid"], fields.get("decoder")])
    return stream.recipe.folder
