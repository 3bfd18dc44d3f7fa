"""Content keys: what an input is, whatever its name, its label or its corpus.

A renamed recording is a hit, a corrected transcript extracts its text alone, two corpora share one
cache. Keys are part of the cache's format: changing how they are made orphans every cache.

What may not stand on both sides of a split: the same recording; and what had better not.

It is told by content: a copy under another name is the same recording.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cache.recipe import canonical_json
from corpora.utterance import Utterance

#: Modalities that encoders here make frames of; what else there is has to be imported.
ENCODED = ("audio", "text")
#: What heads read, in the order of reports, and in which pooled vectors are put together.
MODALITIES = (*ENCODED, "video")
#: What a text encoder reads beside the text, or instead of it: an utterance's description.
DESCRIBE = ("append", "only")
# 128 bits: no accidental collision among any number of utterances that fits on a disk.
KEY_DIGITS = 32

# Longer recordings are encoded whole only where the user says so.
WHOLE_SECONDS = 60.0
# Long recordings are encoded in windows of this length. Attention costs the square of a length, so
# windows are shorter than what is encoded whole, and much longer than what surrounds them:
WINDOW_SECONDS = 40.0
# of each window, so much at either side is encoded only for what lies inside. 250 frames: W2V-BERT
# tells distances apart up to 64 frames back and 8 ahead, its convolutions reach 31 frames a layer.
CONTEXT_SECONDS = 5.0


def audio_key(content_sha256: str, start: float | None = None, end: float | None = None) -> str:
    """Key of a stretch of a recording.

    Args:
        content_sha256: hexadecimal SHA-256 of the file's bytes.
        start: seconds; None is the file's start, so the same as 0.
        end: seconds; None is the file's end.

    Returns:
        32 hexadecimal digits.

    Raises:
        ValueError: a bound is not finite.
    """
    # `+ 0.0` turns -0.0 into 0.0, which is the same instant.
    first = 0.0 if start is None else float(start) + 0.0
    last = None if end is None else float(end)
    return _key(["audio", content_sha256.lower(), first, last])


def windowed_key(key: str) -> str:
    """Key of the frames of a recording that was encoded in overlapping windows.

    Its numbers differ a little from those of the whole recording encoded at once, so they lie
    under a key of their own beside those; all shorter recordings are the same with and without
    `--long window`. The sizes of the windows are in the key.

    Args:
        key: of the recording, from `audio_key`.

    Returns:
        32 hexadecimal digits.
    """
    return _key(["windowed", key, WINDOW_SECONDS, CONTEXT_SECONDS])


def text_key(text: str) -> str:
    """Key of a text, the same for all texts that `normalise_text` makes the same.

    Returns:
        32 hexadecimal digits.
    """
    return _key(["text", normalise_text(text)])


def text_read(utterance: Utterance, describe: str = "") -> str:
    """The text that a text encoder reads, normalised.

    Args:
        utterance: whose.
        describe: "" for its text, `append` for text (description), `only` for the description. An
            utterance without a description has its text alone, or nothing.
    """
    text = "" if describe == "only" else utterance.text
    if not describe or not utterance.description:
        return normalise_text(text)
    said = utterance.description
    return normalise_text(f"{text} ({said})" if describe == "append" else said)


def possible_keys(utterance: Utterance, own: Mapping[str, str]) -> dict[str, str]:
    """All keys under which the cache may have an utterance, each with its kind of input.

    Args:
        utterance: whose text may have been read with its description, or without.
        own: its keys, from `FrameCache.keys`.
    """
    found = {key: kind for kind, key in own.items()}
    found |= {text_key(text_read(utterance, describe)): "text" for describe in ("", *DESCRIBE)}
    if "audio" in own:
        found[windowed_key(own["audio"])] = "audio"
    return found


def normalise_text(text: str) -> str:
    """NFC, runs of white space as one space, none at the ends. Encoders see this same text."""
    return " ".join(unicodedata.normalize("NFC", text).split())


def _key(parts: list[str | float | None]) -> str:
    return hashlib.sha256(canonical_json(parts).encode("ascii")).hexdigest()[:KEY_DIGITS]


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
    """Pairs of utterances with the same sound (file and stretch of it) in two splits.

    Args:
        utterances: of a manifest; those without label or split are not used and do not count.
        keys: content keys of each by id (`cache.lookup.FrameCache.keys`).
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
