"""Which words are attended, in sound and in text, and whether they are the informative ones."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cache.keys import normalise_text
from explain.alignments import Aligned, frame_intervals
from explain.attention import Reading
from explain.ragged import Floats, correlations, floats, ints, ranks_within
from explain.subject import Subject, frame_attention

# A word that occurs less often says more about its utterances than about itself.
MINIMUM_OCCURRENCES = 3
# Of fewer words in an utterance a correlation is a matter of chance.
MINIMUM_WORDS = 3
_OUTSIDE = re.compile(r"^[^\w]+|[^\w]+$")


@dataclass(frozen=True)
class Attended:
    """An occurrence of a word.

    Attributes:
        utterance: its number.
        word: in lower case, without punctuation around it.
        mass: of attention.
        even: what an even attention would give it, from its frames or tokens.
    """

    utterance: int
    word: str
    mass: float
    even: float


@dataclass(frozen=True)
class Ranked:
    """A word over all its occurrences.

    Attributes:
        word: in lower case.
        count: occurrences.
        relative: attention received over what an even attention would have given.
        surprisal: bits; None for a word that the corpus's texts have not.
    """

    word: str
    count: int
    relative: float
    surprisal: float | None


@dataclass(frozen=True, eq=False)
class Informativeness:
    """Correlation within utterances of a word's attention with its surprisal.

    Attributes:
        pearson: `[m]`, of the utterances that have one.
        spearman: `[m]`.
    """

    pearson: Floats
    spearman: Floats


def plain(word: str) -> str:
    """A word as words are compared: lower case, no punctuation around it."""
    return _OUTSIDE.sub("", word.casefold())


def surprisals(texts: Iterable[str]) -> dict[str, float]:
    """−log2 of each word's share in the words of a corpus."""
    counts = Counter(
        word for text in texts for word in map(plain, normalise_text(text).split()) if word
    )
    total = sum(counts.values())
    return {word: float(-np.log2(count / total)) for word, count in counts.items()}


def heard_words(subject: Subject, aligned: Aligned) -> list[Attended]:
    """Attention of audio frames on the words of the TextGrids."""
    weights = floats(frame_attention(subject, "audio"))
    offsets = ints(subject.frames["audio"].offsets)
    found = []
    for number, alignment in enumerate(aligned.alignments):
        if alignment is None or not alignment.words:
            continue
        own = weights[offsets[number] : offsets[number + 1]]
        held = frame_intervals(
            alignment.words, len(own), subject.hop_seconds, subject.centre_seconds
        )
        inside = held >= 0
        size = len(alignment.words)
        mass = np.bincount(held[inside], own[inside], size)
        frames = np.bincount(held[inside], minlength=size)
        for interval, m, f in zip(alignment.words, mass, frames, strict=True):
            word = plain(interval.label)
            if word and f:
                found.append(Attended(number, word, float(m), float(f / len(own))))
    return found


def read_words(readings: Sequence[Reading]) -> list[Attended]:
    """Attention of text tokens on words, among the tokens that are words."""
    found = []
    for number, reading in enumerate(readings):
        tokens = sum(len(word.tokens) for word in reading.words)
        total = sum(word.mass for word in reading.words)
        for word in reading.words:
            name = plain(word.text)
            if name and total > 0:
                found.append(Attended(number, name, word.mass / total, len(word.tokens) / tokens))
    return found


def rank_words(
    occurrences: Sequence[Attended],
    surprisal: Mapping[str, float],
    minimum: int = MINIMUM_OCCURRENCES,
) -> list[Ranked]:
    """Words with enough occurrences, the most attended first."""
    grouped: dict[str, list[Attended]] = {}
    for one in occurrences:
        grouped.setdefault(one.word, []).append(one)
    ranked = [
        Ranked(
            word,
            len(own),
            sum(one.mass for one in own) / sum(one.even for one in own),
            surprisal.get(word),
        )
        for word, own in grouped.items()
        if len(own) >= minimum
    ]
    return sorted(ranked, key=lambda r: (-r.relative, r.word))


def informativeness(
    occurrences: Sequence[Attended], surprisal: Mapping[str, float]
) -> Informativeness:
    """Correlate words' relative attention with their surprisal, within utterances.

    Relative to a word's frames or tokens: informative words are long, and long words get more of
    any attention.
    """
    by_utterance: dict[int, list[tuple[float, float]]] = {}
    for one in occurrences:
        if one.word in surprisal:
            pair = (one.mass / one.even, surprisal[one.word])
            by_utterance.setdefault(one.utterance, []).append(pair)
    kept = [pairs for pairs in by_utterance.values() if len(pairs) >= MINIMUM_WORDS]
    if not kept:
        return Informativeness(np.zeros(0), np.zeros(0))
    attended, bits = np.array([pair for pairs in kept for pair in pairs]).T
    offsets = np.cumsum([0, *(len(pairs) for pairs in kept)])
    pearson = correlations(attended, bits, offsets)
    ranks = ranks_within(attended, offsets), ranks_within(bits, offsets)
    spearman = correlations(ranks[0], ranks[1], offsets)
    there = ~np.isnan(pearson)
    return Informativeness(pearson[there], spearman[there])
