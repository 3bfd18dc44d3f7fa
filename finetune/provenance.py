"""Whether a manifest is the one a head or a model was made from: else its splits are no others'."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cache.lookup import FrameCache
from corpora.base.errors import ConfigError
from corpora.manifest import Manifest, read_manifest
from corpora.utterance import ALL, Utterance
from heads.records import manifest_digest

# What a head or model learnt from, or was chosen on.
SEEN = ("train", "dev")


def seen_note(
    cache: FrameCache,
    home: Path,
    subject: str,
    corpus: str,
    digest: str,
    manifest: Manifest,
    split: str,
    rows: Sequence[Utterance],
    *,
    searched: str = "",
) -> str:
    """What to say where something is scored on what it may have seen.

    Another corpus may be scored on. The same one with other rows, labels or splits may not: what
    is now called test may have been trained on.

    Args:
        cache: which knows recordings by content.
        home: the manifest of the work folder, which may be the one it was made from.
        subject: `head` or `model`.
        corpus: the name of the corpus it was made from.
        digest: of the manifest it was made from; "" where that is not known.
        manifest: whose utterances are to be scored.
        split: of them.
        rows: those utterances.
        searched: for a model, the digest of the manifest its head was searched on.

    Returns:
        A sentence for the result; "" where there is nothing to say, or the manifest it was made
        from is not known.

    Raises:
        ConfigError: the manifest is of the same corpus and has changed.
    """
    now = manifest_digest(manifest)
    made = "searched" if subject == "head" else "trained"
    if digest not in ("", now) and corpus == manifest.corpus:
        again = "`search`" if subject == "head" else "`search` and `finetune`"
        raise ConfigError(
            f"the manifest of {corpus or 'this corpus'} has changed since the {subject} was {made} "
            "(rows, labels or splits): what it was trained on may now be in another split. "
            f"Run {again} again, or name the manifest of that time with --manifest. If it is "
            "another corpus, give it a name of its own: `corpus` in the manifest's JSON file."
        )
    if digest not in ("", now) or searched not in ("", now):
        made = made if digest not in ("", now) else "first searched"
        known = _overlap(cache, home, {digest, searched} - {""}, rows)
        return f"This manifest is not the one the {subject} was {made} on: {known}."
    if digest and split == ALL:
        return f"Among these are the utterances that the {subject} was trained and chosen on."
    return ""


def _overlap(cache: FrameCache, home: Path, digests: set[str], rows: Sequence[Utterance]) -> str:
    """What the content of recordings says of rows, against those of the manifest of a work folder.

    Args:
        cache: see `seen_note`.
        home: that manifest; where it is another one, nothing is known.
        digests: of the manifests that something was made from.
        rows: to be scored.
    """
    guess = "some of these recordings may be among those it was trained or chosen on"
    own = read_manifest(home) if home.is_file() else None
    if own is None or digests != {manifest_digest(own)}:
        return f"{guess}; its own manifest is not in {home.parent}, so that cannot be told"
    seen = [u for u in own.utterances if u.label and u.split in SEEN]
    learnt = [key.get("audio") for key in cache.keys(seen).values()]
    scored = [key.get("audio") for key in cache.keys(rows).values()]
    known = {*learnt}
    shared = len([key for key in scored if key is not None and key in known])
    if shared:
        return (
            f"by their content {shared:,} of these {len(scored):,} recordings are among those it "
            "was trained or chosen on, which flatters it"
        )
    unknown = (*learnt, *scored).count(None)
    if unknown:
        return f"{guess}; {unknown:,} recordings are not there, so that cannot be told"
    return (
        f"by their content none of these {len(scored):,} recordings is among the {len(learnt):,} "
        "it was trained or chosen on"
    )
