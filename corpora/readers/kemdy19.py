"""KEMDy19: Korean, dyadic sessions of forty actors, scripted and improvised.

Noh, Jeong: Emotion recognition in multi-domain datasets, Sensors 21(5), 2021, 1579 (KEMDy19, ETRI).
A segment is named `Sess01_impro01_F001`: session, dialog, and who speaks in it, F or M. Each
session has an `_F_res.csv` and an `_M_res.csv` that list the segments of both speakers beside the
signals of one, so that an F segment counts in the F file alone and an M segment in the M file.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from corpora.base.encodings import read_transcript
from corpora.base.errors import CorpusError, ManifestError
from corpora.readers.delimited import lines_of_cells
from corpora.readers.options import DROP, TIES, Options
from corpora.readers.registry import Dropped, ReadResult, register
from corpora.readers.tree import files_below, inside, wrong_root
from corpora.utterance import Utterance, number

LABELS = ("angry", "disgust", "fear", "happy", "neutral", "sad", "surprise")
MISSPELT = {"disqust": "disgust"}  # in the published tables
SCALE = (1.0, 5.0)
ENCODINGS = ("utf-8-sig", "cp949")
TABLE = re.compile(r"Session\d+_(?P<sex>[FM])_res\.csv", re.IGNORECASE)
SEGMENT = re.compile(r"Sess(?P<session>\d\d)_\w+_(?P<sex>[FM])\d+")
RATER = re.compile(r"eval\s*\d+\s*[fm]?")
LOOKED_FOR = "annotation/Session01_F_res.csv and _M_res.csv, and wav/Session01/…"

RATING = ("emotion", "valence", "arousal")  # three columns under each upper header


@dataclass(frozen=True)
class Columns:
    """Where a table has what: the segment, the outcome, and what each rater said."""

    segment: int
    total: Mapping[str, int]
    raters: tuple[int, ...]


@register(
    "kemdy19",
    title="KEMDy19, Korean, scripted and improvised dialogues, 40 speakers in 20 sessions",
    licence="ETRI, for research, on request",
    source="https://nanum.etri.re.kr/share/kjnoh/KEMDy19",
    needs="the folder that holds annotation/ and wav/",
    options={"ties": TIES},
)
def read_kemdy19(root: Path, options: Options) -> ReadResult:
    """Read the segments of the annotation tables, each from the file of its speaker."""
    tables = [p for p in files_below(root, "_res.csv") if TABLE.fullmatch(p.name)]
    if not tables:
        raise wrong_root(root, "KEMDy19", LOOKED_FOR)
    utterances: list[Utterance] = []
    dropped: list[Dropped] = []
    for table in tables:
        utterances += _segments(table, root, str(options["ties"]), dropped)
    notes = []
    silent = sum(not u.text for u in utterances)
    if silent:
        notes.append(f"{silent} segments have no text beside their recording.")
    names = {table.name.lower() for table in tables}
    for name in sorted(names):
        other = name.replace("_f_", "_m_") if "_f_" in name else name.replace("_m_", "_f_")
        if other not in names:
            notes.append(f"WARNING: {name} has no {other}: the segments of that speaker are lost.")
    return ReadResult(
        utterances=tuple(utterances),
        labels=LABELS,
        dropped=tuple(dropped),
        notes=tuple(notes),
        tables=tuple(tables),
        scales=dict.fromkeys(("valence", "arousal"), SCALE),
    )


def _segments(table: Path, root: Path, ties: str, dropped: list[Dropped]) -> Iterator[Utterance]:
    """Yield the segments of one table that its own speaker says."""
    file = TABLE.fullmatch(table.name)
    own = file["sex"].upper() if file else ""
    rows = lines_of_cells(table, ENCODINGS)
    columns = _columns(table, rows)
    place, seen = inside(table, root), set[str]()
    for line, row in rows:
        try:
            if row is None or len(row) <= max(columns.total.values()):
                raise ManifestError("fewer cells than the header")
            name = row[columns.segment].strip()
            segment = SEGMENT.fullmatch(name)
            if segment is None:
                raise ManifestError("the segment is not named like Sess01_impro01_F001")
            if segment["sex"] != own:
                continue
            if name in seen:
                raise ManifestError(f"segment {name} is listed twice")
            seen.add(name)
            yield _utterance(table.parents[1], name, segment, row, columns, ties)
        except ManifestError as error:
            dropped.append(Dropped(f"{place}:{line}", str(error)))


def _columns(table: Path, rows: Iterator[tuple[int, list[str] | None]]) -> Columns:
    """Read the two header rows: an upper name holds for the columns up to the next one.

    Raises:
        CorpusError: a column that is needed is not there.
    """
    upper, lower = (next(rows, (0, None))[1] or [] for _ in range(2))
    groups: dict[str, dict[str, int]] = {}
    group: dict[str, int] = {}
    for place, (above, below) in enumerate(zip(upper, lower, strict=False)):
        if above.strip():
            group = groups.setdefault(above.strip().lower(), {})
        group.setdefault(below.strip().lower(), place)
    total = groups.get("total evaluation", {})
    if "segment id" not in groups or not all(name in total for name in RATING):
        found = ", ".join(cell.strip() for cell in upper if cell.strip())
        raise CorpusError(
            f"{table} lacks the columns 'Segment ID' and 'Total Evaluation' with "
            f"{', '.join(RATING)} in the second header row. Upper header: {found or 'none'}."
        )
    return Columns(
        segment=min(groups["segment id"].values()),
        total={name: total[name] for name in RATING},
        raters=tuple(
            held["emotion"]
            for name, held in groups.items()
            if RATER.fullmatch(name) and "emotion" in held
        ),
    )


def _utterance(
    root: Path,
    name: str,
    segment: re.Match[str],
    row: Sequence[str],
    columns: Columns,
    ties: str,
) -> Utterance:
    """Make the utterance of one row.

    Raises:
        ManifestError: its label ties, is not known, or a rating is not a number.
    """
    cells = {name: row[place].strip() for name, place in columns.total.items()}
    emotions = [_label(part) for part in cells["emotion"].split(";")]
    for emotion in emotions:
        if emotion not in LABELS:
            raise ManifestError(f"emotion '{emotion}' is not one of {', '.join(LABELS)}")
    if len(emotions) > 1 and ties == DROP:
        raise ManifestError("the vote ties (--set ties=first keeps it)")
    votes: dict[str, float] = {}
    for place in columns.raters:
        vote = _label(row[place]) if place < len(row) else ""
        if vote in LABELS:
            votes[vote] = votes.get(vote, 0.0) + 1.0
    sex, session = segment["sex"], segment["session"]
    audio = root / "wav" / f"Session{session}" / name.rpartition("_")[0] / f"{name}.wav"
    return Utterance(
        id=name,
        audio=audio,
        label=min(emotions, key=LABELS.index),
        text=read_transcript(audio.with_suffix(".txt"), ENCODINGS),
        speaker=f"Sess{session}{sex}",
        session=str(int(session)),
        sex="female" if sex == "F" else "male",
        language="ko",
        corpus="kemdy19",
        valence=number(cells, "valence"),
        arousal=number(cells, "arousal"),
        votes=votes or None,
    )


def _label(cell: str) -> str:
    name = cell.strip().lower()
    return MISSPELT.get(name, name)
