"""Word error rate: edits to turn what was recognised into what was said, a word of what was said.

Both texts are normalised alike: Unicode NFKC, lower case, what stands in round, square or angle
brackets dropped (`[laughter]`), apostrophes dropped, everything but letters, marks and digits made
a space. Numbers are not spelled out, contractions not expanded, spellings not unified, so the rate
is higher than with Whisper's own English normaliser. Languages that are written without spaces are
counted by characters.

Over several utterances edits and words are summed before dividing: long utterances count for more,
and an utterance without words counts with its insertions.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

#: Written without spaces: their characters are counted.
UNSPACED = frozenset({"ja", "km", "lo", "my", "th", "yue", "zh"})
_BRACKETED = re.compile(r"\([^()]*\)|\[[^\[\]]*\]|<[^<>]*>")
_APOSTROPHES = re.compile("['\u2018\u2019\u02bc]")


@dataclass(frozen=True)
class WordErrors:
    """Counts of edits.

    Attributes:
        words: of the references.
        substitutions: words recognised as others.
        deletions: words not recognised.
        insertions: words that were not said.
        utterances: counted.
    """

    words: int = 0
    substitutions: int = 0
    deletions: int = 0
    insertions: int = 0
    utterances: int = 0

    def __add__(self, other: WordErrors) -> WordErrors:
        return WordErrors(
            self.words + other.words,
            self.substitutions + other.substitutions,
            self.deletions + other.deletions,
            self.insertions + other.insertions,
            self.utterances + other.utterances,
        )

    @property
    def edits(self) -> int:
        """Of all kinds."""
        return self.substitutions + self.deletions + self.insertions

    @property
    def rate(self) -> float | None:
        """Edits a word; None without words. Above 1 if more was recognised than said."""
        return self.edits / self.words if self.words else None

    def to_json(self) -> dict[str, Any]:
        """Counts and rate."""
        return {**asdict(self), "word_error_rate": self.rate}


def normalised_words(text: str, language: str = "") -> list[str]:
    """The words of a text, or its characters if its language is written without spaces."""
    plain = _APOSTROPHES.sub("", unicodedata.normalize("NFKC", text).lower())
    plain = _BRACKETED.sub(" ", plain)
    kept = "".join(c if unicodedata.category(c)[0] in "LMN" else " " for c in plain)
    return list("".join(kept.split())) if language in UNSPACED else kept.split()


def word_errors(reference: Sequence[str], recognised: Sequence[str]) -> WordErrors:
    """Count the edits of one utterance.

    Their number is the Levenshtein distance; of the alignments with as few edits, the one with the
    fewest substitutions, which has the most words right.

    Args:
        reference: normalised words.
        recognised: the same.
    """
    words = len(reference)
    # What is right at either end is right in a best alignment: most of a good transcript.
    while reference and recognised and reference[0] == recognised[0]:
        reference, recognised = reference[1:], recognised[1:]
    while reference and recognised and reference[-1] == recognised[-1]:
        reference, recognised = reference[:-1], recognised[:-1]
    # One number for both: edits first, then substitutions (fewer than `edit` by far).
    edit, substitution = 1 << 32, (1 << 32) + 1
    row = [number * edit for number in range(len(recognised) + 1)]
    for number, word in enumerate(reference, start=1):
        diagonal, row[0] = row[0], number * edit
        for column, other in enumerate(recognised, start=1):
            best = diagonal if word == other else diagonal + substitution
            diagonal = row[column]
            row[column] = min(best, diagonal + edit, row[column - 1] + edit)
    edits, substitutions = divmod(row[-1], edit)
    # Deletions less insertions is how much longer the reference is.
    deletions = (edits - substitutions + len(reference) - len(recognised)) // 2
    insertions = edits - substitutions - deletions
    return WordErrors(words, substitutions, deletions, insertions, 1)
