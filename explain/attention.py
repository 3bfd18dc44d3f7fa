"""Attention on tokens merged into words, and the mass that goes to tokens that are no words."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cache.keys import normalise_text
from explain.ragged import Floats, Ints, floats, ints
from explain.subject import Subject, frame_attention

# Of the token kinds beside text frames (cache.encoders.text_encoder, which imports transformers).
SPECIAL, WORD_START = 0, 1


@dataclass(frozen=True)
class Word:
    """A word of a text and the attention its tokens get.

    Attributes:
        text: as written, punctuation included.
        mass: the sum over its tokens.
        tokens: the weight of each token.
    """

    text: str
    mass: float
    tokens: tuple[float, ...]


@dataclass(frozen=True)
class Reading:
    """How a head reads one text.

    Attributes:
        words: in order. A text truncated by the encoder ends earlier.
        special: mass on tokens that are no words, such as [CLS] and [SEP].
    """

    words: tuple[Word, ...]
    special: float


def read_texts(subject: Subject) -> list[Reading] | None:
    """Each utterance's words with their attention.

    None where the head does not read, or it is not known which tokens are words.
    """
    if "text" not in subject.frames or subject.token_kinds is None:
        return None
    weights = floats(frame_attention(subject, "text"))
    kinds = ints(subject.token_kinds)
    offsets = ints(subject.frames["text"].offsets)
    return [
        _reading(normalise_text(u.text).split(), weights[start:end], kinds[start:end])
        for u, start, end in zip(subject.utterances, offsets[:-1], offsets[1:], strict=True)
    ]


def _reading(words: list[str], weights: Floats, kinds: Ints) -> Reading:
    merged: list[list[float]] = []
    special = 0.0
    for weight, kind in zip(weights.tolist(), kinds.tolist(), strict=True):
        if kind == SPECIAL:
            special += weight
        elif kind == WORD_START or not merged:
            merged.append([weight])
        else:
            merged[-1].append(weight)
    # A tokenizer may drop a word of unknown signs; then words cannot be told by counting.
    names = words if len(merged) <= len(words) else [*words, *["?"] * len(merged)]
    return Reading(
        tuple(Word(name, sum(t), tuple(t)) for name, t in zip(names, merged, strict=False)),
        special,
    )


def special_mass(readings: list[Reading]) -> Floats:
    """`[n]`, the share of attention on tokens that are no words."""
    return np.array([reading.special for reading in readings])
