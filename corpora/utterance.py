"""The utterance: one labelled stretch of speech, the noun that everything above is made of.

Between table rows and utterances: cells, numbers, votes, and what one row may not say.

Shared by the manifest and by corpora that come as a table. Cells are stripped of surrounding
white space. Votes are written `label:count;label:count`, for example `anger:3;neutral:2`.
"""

from __future__ import annotations

import csv
import io
import math
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import Path

from corpora.base.errors import ManifestError
from corpora.names import is_missing, is_plain, is_unknown, plain_name

SPLITS = ("train", "dev", "test")
# In place of a split's name: every utterance, those in no split too.
ALL = "all"
SEXES = ("female", "male")
# What tells utterances, people and classes apart. Paths and texts stay as they are written.
NAMES = ("id", "label", "speaker", "split", "fold", "session", "sex", "language", "corpus")
_names = attrgetter(*NAMES)


@dataclass(frozen=True, slots=True)
class Utterance:
    """One labelled stretch of speech; its names are kept as `corpora.names.plain_name` has them.

    Attributes:
        id: unique within its manifest.
        audio: the recording; absolute in memory, relative to the CSV on disk.
        label: the emotion; "" is unlabelled: it can be predicted, not trained on or scored.
        start: where the utterance begins in the recording, seconds; None is the file's own start.
        end: where it ends, seconds; None is the file's own end.
        text: what is said; "" is an empty text, which is encoded as its special tokens.
        text_source: who wrote the text: "" is the corpus (or a person), else the recogniser's name.
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
    "id", "audio", "start", "end", "label", "text", "text_source", "speaker", "split", "fold",
    "session", "sex", "language", "corpus", "alignment", "valence", "arousal", "dominance", "votes",
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
