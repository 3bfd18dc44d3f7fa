"""What may not stand on both sides of a split: the same recording; and what had better not.

Speakers on both sides are refused when the manifest is read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cache.keys import normalise_text
from corpora.errors import ManifestError
from corpora.utterance import Utterance

SHOWN_PAIRS = 5  # enough to see the pattern


def refuse_shared_recordings(
    utterances: Sequence[Utterance], keys: Mapping[str, Mapping[str, str]]
) -> None:
    """Refuse a recording (or the same stretch of one) that stands in two splits.

    It is told by content: a copy under another name is the same recording. Shared speakers can be
    declared, this cannot: a head would be scored on what it was trained on.

    Args:
        utterances: of a manifest; those without label or split are not used and do not count.
        keys: content keys of each by id (`cache.inputs.utterance_keys`).

    Raises:
        ManifestError: there is one; the utterances are named.
    """
    first: dict[str, Utterance] = {}
    pairs = []
    for utterance in utterances:
        key = keys[utterance.id].get("audio")
        if key is None or not (utterance.label and utterance.split):
            continue
        other = first.setdefault(key, utterance)
        if other.split != utterance.split:
            pairs.append(
                f"  {_named(other)} and {_named(utterance)}: {other.audio.name} "
                f"and {utterance.audio.name} are the same"
            )
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
    """A note on sentences of dev and test that train also has; "" where there are none.

    White space and upper case make no difference.
    """
    used = [u for u in utterances if u.label and u.split and u.text.strip()]
    sentences = [normalise_text(u.text).casefold() for u in used]
    known = {text for u, text in zip(used, sentences, strict=True) if u.split == "train"}
    held = [text for u, text in zip(used, sentences, strict=True) if u.split != "train"]
    shared = [text for text in held if text in known]
    if not shared:
        return ""
    return (
        f"{len(shared):,} of {len(held):,} dev and test utterances with a text say one of "
        f"{len(set(shared)):,} sentences that train says too. If sentences go with emotions there, "
        "a head can know the answer from the words alone."
    )


def _named(utterance: Utterance) -> str:
    line = f" (line {utterance.line})" if utterance.line else ""
    return f"'{utterance.id}' in {utterance.split}{line}"
