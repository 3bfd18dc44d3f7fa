"""How names are told apart: one spelling of each, spellings of "missing", words for splits.

José may be typed with one character é or with e and an accent; a spreadsheet puts no-break spaces
and characters of no width into cells. Such names look the same and mean the same person or class.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping

# Control characters (line ends and tabs are white space) and format characters that a reader does
# not see. The joiners U+200C and U+200D stay: they tell words of Persian and Hindi apart.
_UNSEEN = dict.fromkeys(
    code
    for first, last in (
        (0x00, 0x08), (0x0E, 0x1B), (0x7F, 0x84), (0x86, 0x9F), (0xAD, 0xAD), (0x200B, 0x200B),
        (0x200E, 0x200F), (0x202A, 0x202E), (0x2060, 0x2069), (0xFEFF, 0xFEFF),
    )
    for code in range(first, last + 1)
)  # fmt: skip

# How programs and people write an empty cell, in lower case: pandas, R, Excel, SQL, by hand.
MISSING = frozenset(
    {"nan", "-nan", "<na>", "nat", "na", "n/a", "#n/a", "n.a.", "none", "null", "-", "--", "?"}
)
# Those that are no words: a sentence may consist of "None" or "?".
MISSING_TEXTS = frozenset({"nan", "<na>", "#n/a"})
# How corpora write "nobody knows who spoke" (MSP-Podcast: "Unknown"), in lower case.
_UNKNOWN = MISSING | {"", "unknown"}

_SPLIT_WORDS = {
    "train": "train", "training": "train",
    "dev": "dev", "devel": "dev", "development": "dev",
    "val": "dev", "valid": "dev", "validation": "dev",
    "test": "test", "testing": "test",
}  # fmt: skip
# The test set of some corpora, the development set of others.
_EVALUATION = frozenset({"eval", "evaluation"})
# Test1, train-2, dev_set: the word counts.
_SPLIT_NAME = re.compile(r"([a-z]+?)(?:[ _-]*(?:set|split))?[ _-]*\d*")


def is_plain(text: str) -> bool:
    """Whether text surely is spelled as `plain_name` spells it: ASCII without spaces."""
    return text.isascii() and text.isprintable() and " " not in text


def plain_name(text: str) -> str:
    """The one spelling of a name: NFC, single spaces, nothing that cannot be seen."""
    if is_plain(text):
        return text
    return " ".join(unicodedata.normalize("NFC", text.translate(_UNSEEN)).split())


def look_alike(name: str) -> str:
    """What names have in common that differ in upper case or in their spelling alone."""
    return plain_name(plain_name(name).casefold())


def is_missing(cell: str) -> bool:
    """Whether a cell says that nothing is known: `nan`, `None`, `N/A`, `-` or `?`."""
    return cell.strip().lower() in MISSING


def is_unknown(name: str) -> bool:
    """Whether a speaker or a session is not known: empty, "Unknown", or a spelling of missing."""
    return name.strip().lower() in _UNKNOWN


def split_named(name: str) -> str | None:
    """The split that a name says by itself: Val is dev, Test1 is test; None is none."""
    found = _SPLIT_NAME.fullmatch(plain_name(name).lower())
    return None if found is None else _SPLIT_WORDS.get(found[1])


def splits_named(names: Iterable[str]) -> dict[str, str]:
    """The split that each of a corpus's names says; names that say none are left out.

    `eval` is the test set of a corpus with no other, else the development set of one with no other.
    """
    names = dict.fromkeys(names)
    told = {name: split for name in names if (split := split_named(name))}
    taken = set(told.values())
    evaluation = next((split for split in ("test", "dev") if split not in taken), None)
    for name in names:
        found = _SPLIT_NAME.fullmatch(plain_name(name).lower())
        if evaluation and found and found[1] in _EVALUATION:
            told[name] = evaluation
    return told


def splits_note(told: Mapping[str, str]) -> tuple[str, ...]:
    """Say which names of splits were read as which, where they are others."""
    others = [f"{name} is {split}" for name, split in told.items() if name.lower() != split]
    return (f"Names of splits: {', '.join(others)}.",) if others else ()
