"""Ids for corpora that come without: from the paths of the recordings."""

from __future__ import annotations

import os
from collections.abc import Sequence

from corpora.names import plain_name
from corpora.rows import format_number
from corpora.utterance import Utterance


def ids_of_paths(audio: Sequence[str], utterances: Sequence[Utterance]) -> list[str]:
    """Return ids from the audio paths: the shortest form that tells all rows apart.

    In this order: file name without suffix, the same with the segment, path without suffix, the
    same with the segment, whole path with the segment (which may still hold one row twice).
    """
    whole = [plain_name(os.path.normpath(path)) for path in audio]
    bare = [os.path.splitext(path)[0] for path in whole]
    names = [os.path.basename(path) for path in bare]
    segments = [
        ""
        if u.start is None and u.end is None
        else f"_{format_number(u.start) or 0}-{format_number(u.end) or 'end'}"
        for u in utterances
    ]
    for stems, marks in ((names, None), (names, segments), (bare, None), (bare, segments)):
        ids = stems if marks is None else [a + b for a, b in zip(stems, marks, strict=True)]
        if len(set(ids)) == len(ids):
            return list(ids)
    return [a + b for a, b in zip(whole, segments, strict=True)]
