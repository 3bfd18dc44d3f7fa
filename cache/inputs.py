"""The content keys of a manifest's recordings and texts. Imports no torch."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from cache.keys import audio_key, text_key, windowed_key
from cache.sources import SourceIndex
from corpora.base.work import Work
from corpora.manifest import Utterance


def utterance_keys(
    work: Work, utterances: Sequence[Utterance], *, read: bool = True
) -> dict[str, dict[str, str]]:
    """The cache keys of each utterance by id: `audio` (absent if the file is) and `text`.

    Args:
        work: the work folder, whose index remembers the content of recordings.
        utterances: of a manifest.
        read: whether recordings that are new to the index are read; else they have no audio key.
    """
    with SourceIndex(work.sources) as index:
        # As text: paths compare ten times as slowly.
        paths = sorted({utterance.audio for utterance in utterances}, key=os.fspath)
        hashes = index.content_hashes(paths) if read else index.known_hashes(paths)
    keys = {}
    for utterance in utterances:
        keys[utterance.id] = {"text": text_key(utterance.text)}
        if utterance.audio in hashes:
            content = hashes[utterance.audio]
            keys[utterance.id]["audio"] = audio_key(content, utterance.start, utterance.end)
    return keys


def possible_keys(own: Mapping[str, str]) -> dict[str, str]:
    """All keys under which the cache may have an utterance, each with its kind of input.

    Args:
        own: of one utterance, from `utterance_keys`.
    """
    found = {key: kind for kind, key in own.items()}
    if "audio" in own:
        found[windowed_key(own["audio"])] = "audio"
    return found
