"""Refusing to train where a recording stands on both sides of a split.

Speakers on both sides are refused when the manifest is read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cache import leakage
from cache.leakage import shared_recordings
from corpora.base.errors import ManifestError
from corpora.utterance import Utterance

SHOWN_PAIRS = 5  # enough to see the pattern


def refuse_shared_recordings(
    utterances: Sequence[Utterance], keys: Mapping[str, Mapping[str, str]]
) -> None:
    """Refuse a recording (or the same stretch of one) that stands in two splits.

    Shared speakers can be declared, this cannot: a head would be scored on what it was trained on.

    Args:
        utterances: of a manifest.
        keys: content keys of each by id (`cache.inputs.utterance_keys`).

    Raises:
        ManifestError: there is one; the utterances are named.
    """
    pairs = [
        f"  {_named(one)} and {_named(other)}: {one.audio.name} and {other.audio.name} are the same"
        for one, other in shared_recordings(utterances, keys)
    ]
    if pairs:
        more = len(pairs) - SHOWN_PAIRS
        raise ManifestError(
            f"{len(pairs)} recordings stand in two splits, so heads would be scored on what they "
            "were trained on:\n"
            + "\n".join(pairs[:SHOWN_PAIRS])
            + (f"\n  … and {more} more" if more > 0 else "")
            + "\nGive each recording one split, or leave its copies out of the manifest."
        )


def shared_sentences(utterances: Sequence[Utterance]) -> str:
    """A note on sentences of dev and test that train also has; "" where there are none."""
    return leakage.shared_sentences(utterances).to_text()


def _named(utterance: Utterance) -> str:
    line = f" (line {utterance.line})" if utterance.line else ""
    return f"'{utterance.id}' in {utterance.split}{line}"
