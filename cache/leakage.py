"""What may not stand on both sides of a split: the same recording; and what had better not.

It is told by content: a copy under another name is the same recording.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cache.keys import normalise_text
from corpora.utterance import Utterance


@dataclass(frozen=True)
class SharedSentences:
    """How many dev and test utterances say a sentence that train says too.

    Attributes:
        utterances: those that do.
        held: dev and test utterances with a text, in all.
        sentences: different shared sentences.
    """

    utterances: int
    held: int
    sentences: int

    def to_text(self) -> str:
        """A note; "" where nothing is shared."""
        if not self.utterances:
            return ""
        return (
            f"{self.utterances:,} of {self.held:,} dev and test utterances with a text say one of "
            f"{self.sentences:,} sentences that train says too. If sentences go with emotions "
            "there, a head can know the answer from the words alone."
        )


def shared_recordings(
    utterances: Sequence[Utterance], keys: Mapping[str, Mapping[str, str]]
) -> list[tuple[Utterance, Utterance]]:
    """Return pairs of utterances with the same sound (file and stretch of it) in two splits.

    Args:
        utterances: of a manifest; those without label or split are not used and do not count.
        keys: content keys of each by id (`cache.inputs.utterance_keys`).
    """
    first: dict[str, Utterance] = {}
    pairs = []
    for utterance in utterances:
        key = keys[utterance.id].get("audio")
        if key is None or not (utterance.label and utterance.split):
            continue
        other = first.setdefault(key, utterance)
        if other.split != utterance.split:
            pairs.append((other, utterance))
    return pairs


def shared_sentences(utterances: Sequence[Utterance]) -> SharedSentences:
    """Count sentences of dev and test that train also has.

    White space and upper case make no difference.
    """
    used = [u for u in utterances if u.label and u.split and u.text.strip()]
    sentences = [normalise_text(u.text).casefold() for u in used]
    known = {text for u, text in zip(used, sentences, strict=True) if u.split == "train"}
    held = [text for u, text in zip(used, sentences, strict=True) if u.split != "train"]
    shared = [text for text in held if text in known]
    return SharedSentences(len(shared), len(held), len(set(shared)))
