"""The utterance: one labelled stretch of speech, the noun that everything above is made of.

Between table rows and utterances: cells, numbers, votes, and what one row may not say.

Shared by the manifest and by corpora that come as a table. Cells are stripped of surrounding
white space. Votes are written `label:count;label:count`, for example `anger:3;neutral:2`.

How names are told apart: one spelling of each, spellings of "missing", words for splits.

José may be typed with one character é or with e and an accent; a spreadsheet puts no-break spaces
and characters of no width into cells. Such names look the same and mean the same person or class.
"""

from __future__ import annotations

import csv
import io
import math
import re
import sys
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import Path

from corpora.base.errors import ManifestError

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


SPLITS = ("train", "dev", "test")
# The ratings that an utterance may have, in the order in which the field names them.
ATTRIBUTES = ("arousal", "valence", "dominance")
# In place of a split's name: every utterance, those in no split too.
ALL = "all"
SEXES = ("female", "male")
# What tells utterances, people and classes apart. Paths and texts stay as they are written.
NAMES = ("id", "label", "speaker", "split", "fold", "session", "sex", "language", "corpus")
_names = attrgetter(*NAMES)


@dataclass(frozen=True, slots=True)
class Utterance:
    """One labelled stretch of speech; its names are kept as `plain_name` has them.

    Attributes:
        id: unique within its manifest.
        audio: the recording; absolute in memory, relative to the CSV on disk.
        label: the emotion; "" is unlabelled: it can be predicted, not trained on or scored.
        start: where the utterance begins in the recording, seconds; None is the file's own start.
        end: where it ends, seconds; None is the file's own end.
        text: what is said; "" is an empty text, which is encoded as its special tokens.
        text_source: who wrote the text: "" is the corpus (or a person), else the recogniser's name.
        description: how it sounds, in words (`prepare describe`); "" where nothing is known.
        speaker: "" (or "Unknown", "nan", …) is not known, and never counts as one speaker.
        split: train, dev or test; "" is not used.
        fold: the fold of a cross-validation protocol.
        session: the recording session, where the corpus has such.
        sex: female, male or "".
        language: a BCP-47 tag such as en or de.
        corpus: the corpus it comes from; speakers of different corpora are different people.
        alignment: a TextGrid with its words and phones.
        valence: the mean rating, on the corpus's own scale.
        arousal: the same for arousal (activation).
        dominance: the same for dominance.
        votes: how many raters gave each label.
        line: where it stands in its table (1 is the header), for messages; 0 is nowhere.
    """

    id: str
    audio: Path
    label: str
    start: float | None = None
    end: float | None = None
    text: str = ""
    text_source: str = ""
    description: str = ""
    speaker: str = ""
    split: str = ""
    fold: str = ""
    session: str = ""
    sex: str = ""
    language: str = ""
    corpus: str = ""
    alignment: Path | None = None
    valence: float | None = None
    arousal: float | None = None
    dominance: float | None = None
    votes: Mapping[str, float] | None = field(default=None, hash=False)
    line: int = field(default=0, compare=False)

    def __post_init__(self) -> None:
        """Give every name its one spelling, whoever made the utterance and of whatever."""
        together = "".join(_names(self))
        if not is_plain(together):  # one look at most utterances, of which a corpus has 270,000
            for attribute in NAMES:
                object.__setattr__(self, attribute, plain_name(getattr(self, attribute)))
        if self.votes and not all(map(is_plain, self.votes)):
            votes: dict[str, float] = {}
            for label, count in self.votes.items():
                votes[plain_name(label)] = votes.get(plain_name(label), 0.0) + count
            object.__setattr__(self, "votes", votes)


def split_name(split: str) -> str:
    """What a split is called in a sentence: `the test split`, `the whole manifest`."""
    return "the whole manifest" if split == ALL else f"the {split} split"


def speaker_key(utterance: Utterance) -> tuple[str, str] | None:
    """What tells speakers apart, (corpus, speaker), or None where the speaker is unknown."""
    if is_unknown(utterance.speaker):
        return None
    return utterance.corpus, utterance.speaker


def where_of(utterance: Utterance) -> str:
    """Where an utterance comes from, for messages."""
    line = f"manifest line {utterance.line}, " if utterance.line else ""
    return f"{line}utterance {utterance.id}"


# Column names, in the order in which a manifest is written.
COLUMNS = (
    "id", "audio", "start", "end", "label", "text", "text_source", "description", "speaker",
    "split", "fold", "session", "sex", "language", "corpus", "alignment", "valence", "arousal",
    "dominance", "votes",
)  # fmt: skip
SEX_SPELLINGS = {"f": "female", "female": "female", "m": "male", "male": "male"}


def table_rows(
    text: str, where: str, delimiter: str = ",", *, quoting: bool = True
) -> Iterator[tuple[int, list[str]]]:
    """Yield (line, stripped cells) of each row that is not blank; the first line is 1.

    Args:
        text: the table, line ends as in the file.
        where: the file's name, for messages.
        delimiter: one character.
        quoting: False reads quotation marks as text (common in tab-separated tables).

    Raises:
        ManifestError: the quotation marks do not pair up.
    """
    rows = csv.reader(
        io.StringIO(text, newline=""),
        delimiter=delimiter,
        skipinitialspace=True,
        strict=True,  # else an open quotation mark silently swallows the rows after it
        quoting=csv.QUOTE_MINIMAL if quoting else csv.QUOTE_NONE,
    )
    line = 1
    try:
        for row in rows:
            cells = [cell.strip() for cell in row]
            if any(cells):
                yield line, cells
            line = rows.line_num + 1
    except csv.Error as error:
        raise ManifestError(
            f"{where}, line {line}: cannot be read as a row ({error}). "
            'A cell in quotation marks must end with one, and " inside it is written "".'
        ) from error


def number(cells: Mapping[str, str], column: str) -> float | None:
    """The cell as a number, None where it is empty or says that it is missing.

    Raises:
        ManifestError: it is not a finite number.
    """
    cell = cells.get(column)
    if not cell or is_missing(cell):
        return None
    try:
        value = float(cell)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ManifestError(f"{column} '{cell}' is not a number (written like 1.5)")
    return value


def parse_votes(cell: str) -> Mapping[str, float] | None:
    """Read `label:count;label:count`; a cell that is empty or says so is None.

    Raises:
        ManifestError: not of that form, a label twice, or no positive count.
    """
    if not cell or is_missing(cell):
        return None
    votes: dict[str, float] = {}
    for part in cell.split(";"):
        label, colon, count = part.rpartition(":")
        label = label.strip()
        try:
            value = float(count) if colon and label and label not in votes else math.nan
        except ValueError:
            value = math.nan
        if not (math.isfinite(value) and value >= 0):
            raise ManifestError(f"votes '{cell}' are not of the form anger:3;neutral:2")
        votes[label] = value
    if not any(votes.values()):
        raise ManifestError(f"votes '{cell}' hold no vote")
    return votes


def format_number(value: float | None) -> str:
    """Write a number so that it reads back as the same; None is empty."""
    if value is None:
        return ""
    return str(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)


def format_votes(votes: Mapping[str, float] | None) -> str:
    """Write votes as `label:count;label:count`, the inverse of `parse_votes`."""
    return ";".join(f"{label}:{format_number(float(n))}" for label, n in (votes or {}).items())


def to_utterance(cells: Mapping[str, str], locate: Callable[[str], Path], line: int) -> Utterance:
    """Make an utterance of one row.

    Args:
        cells: column name to stripped cell; columns that are absent count as empty, and so does
            `nan`, `None`, `-`, … where it can be no value.
        locate: turns a path as written in the table into an absolute one.
        line: where the row begins in its file.

    Raises:
        ManifestError: a cell that cannot be read; the message is the reason alone.
    """
    get = cells.get

    def optional(column: str) -> str:
        cell = get(column, "")
        return "" if is_missing(cell) else cell

    def shared(column: str) -> str:
        """Names that many rows have are one string in memory, which saves half of a row's."""
        return sys.intern(get(column, ""))

    audio = get("audio")
    if not audio:
        raise ManifestError("audio is empty")
    alignment = optional("alignment")
    sex = optional("sex")
    return Utterance(
        id=get("id", ""),
        audio=locate(audio),
        label=shared("label"),
        start=number(cells, "start"),
        end=number(cells, "end"),
        text=get("text", ""),
        text_source=shared("text_source"),
        description=shared("description"),
        speaker=shared("speaker"),
        split=sys.intern(optional("split")),
        fold=shared("fold"),
        session=shared("session"),
        sex=SEX_SPELLINGS.get(sex.lower(), sex),
        language=shared("language"),
        corpus=shared("corpus"),
        alignment=locate(alignment) if alignment else None,
        valence=number(cells, "valence"),
        arousal=number(cells, "arousal"),
        dominance=number(cells, "dominance"),
        votes=parse_votes(get("votes", "")),
        line=line,
    )


def row_problem(utterance: Utterance) -> str | None:
    """Say what is wrong with this utterance by itself, or return None."""
    start, end = utterance.start, utterance.end
    if not utterance.id:
        return "id is empty"
    if start is not None and start < 0:
        return f"start {start:g} is negative"
    if end is not None and end <= (start or 0.0):
        return f"end {end:g} is not after start {start or 0.0:g} (both in seconds)"
    if utterance.split and utterance.split not in SPLITS:
        return f"split '{utterance.split}' is not one of {', '.join(SPLITS)} (or empty: not used)"
    if utterance.sex and utterance.sex not in SEXES:
        return f"sex '{utterance.sex}' is not one of {', '.join(SEXES)} (or empty: not known)"
    return None
