"""From rows to utterances: the step that all corpora share that come as a list of recordings.

A reader says what each row's cells are, by the names of `corpora.utterance.COLUMNS`; a row that
cannot be used is left out with its place and reason, and the rest is kept.
"""

from __future__ import annotations

import gzip
import json
import re
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from corpora.base.errors import CorpusError, ManifestError
from corpora.readers.options import Options
from corpora.readers.registry import Dropped, ReadResult
from corpora.readers.tree import found_below, ids_of_paths, locator
from corpora.splits import folds_of_count, speaker_groups
from corpora.utterance import (
    COLUMNS,
    MISSING_TEXTS,
    SEXES,
    SPLITS,
    Utterance,
    format_number,
    format_votes,
    is_missing,
    row_problem,
    splits_named,
    splits_note,
    to_utterance,
)

EMPTY = dict.fromkeys(COLUMNS, "")
TIMES = ("start", "end")
# Columns in which `nan`, `None`, `-`, … is an empty cell. In numbers it is one anyway, and of
# labels and speakers the user is warned (`corpora.readers.registry`).
EMPTIED = ("id", "audio", "fold", "session", "language", "corpus")
# How pandas writes times: 0 days 00:00:01.500000; the parts that are nought may be absent.
TIMEDELTA = re.compile(r"(\d+) days?(?: \+?(\d+):(\d\d):(\d\d(?:\.\d+)?))?")
DEV_SHARE = 5  # one in so many training rows is drawn as dev, as EmoBox does

Locate = Callable[[str], Path]


class Row(NamedTuple):  # a corpus has 270,000: a dataclass that is frozen takes longer to make
    """One row of a list.

    Attributes:
        place: where it stands, for messages: `table.csv:3`.
        cells: stripped cells by column; those that are absent are empty.
        line: of the file that the user knows the corpus by; 0 is none.
        problem: why it cannot be used, if that is known already.
    """

    place: str
    cells: Mapping[str, str]
    line: int = 0
    problem: str = ""


def read_rows(
    rows: Sequence[Row],
    source: Path,
    locate: Locate,
    *,
    corpus: str,
    language: str = "",
    dropped: Sequence[Dropped] = (),
    notes: Sequence[str] = (),
) -> ReadResult:
    """Make utterances of rows.

    Args:
        rows: in their order. Where none has a cell `id`, ids are made of the paths.
        source: what they were read from, for messages.
        locate: turns a path as written into an absolute one; its `ManifestError` is a reason.
        corpus: of rows that name none.
        language: of rows that name none.
        dropped: what was left out before.
        notes: what the user should read.

    Raises:
        CorpusError: no row can be used.
    """
    own_ids = any("id" in row.cells for row in rows)
    splits = splits_named(row.cells.get("split", "") for row in rows if not row.problem)
    utterances: list[Utterance] = []
    written: list[str] = []  # the audio cell of each utterance, for ids
    left_out = list(dropped)
    sexes: set[str] = set()
    for row in rows:
        cells = {**EMPTY, **row.cells}
        cells |= {column: "" for column in EMPTIED if is_missing(cells[column])}
        cells |= {column: seconds(cells[column]) for column in TIMES if "day" in cells[column]}
        if cells["text"].lower() in MISSING_TEXTS:
            cells["text"] = ""
        name = f" (utterance '{cells['id']}')" if cells["id"] else ""
        try:
            if row.problem:
                raise ManifestError(row.problem)
            # Without ids of their own rows get them from all paths below; a row stands alone here.
            cells["id"] = cells["id"] if own_ids else cells["audio"]
            cells["corpus"] = cells["corpus"] or corpus
            cells["language"] = cells["language"] or language
            cells["split"] = splits.get(cells["split"], cells["split"])
            utterance = to_utterance(cells, locate, row.line)
            if utterance.sex not in ("", *SEXES):
                sexes.add(utterance.sex)
                utterance = replace(utterance, sex="")
            problem = row_problem(utterance)
            if problem:
                raise ManifestError(problem)
        except ManifestError as error:
            left_out.append(Dropped(f"{row.place}{name}", str(error)))
            continue
        utterances.append(utterance)
        written.append(cells["audio"].replace("\\", "/"))
    if not utterances:
        first = f", the first: {left_out[0].where}: {left_out[0].reason}" if left_out else ""
        raise CorpusError(
            f"{source} has no row that can be used ({len(left_out)} left out{first})."
        )
    if not own_ids:
        ids = ids_of_paths(written, utterances)
        utterances = [replace(u, id=name) for u, name in zip(utterances, ids, strict=True)]
    notes = [*notes, *splits_note(splits), *_missing_texts(rows)]
    if sexes:
        notes.append(
            f"sex {', '.join(sorted(sexes))} is read as not known; known are {' and '.join(SEXES)}."
        )
    return ReadResult(
        utterances=tuple(utterances),
        labels=tuple(sorted({u.label for u in utterances} - {""})),
        dropped=tuple(left_out),
        notes=tuple(notes),
    )


def _missing_texts(rows: Sequence[Row]) -> list[str]:
    texts = Counter(row.cells.get("text", "") for row in rows if not row.problem)
    return [
        f"The text '{text}' of {count:,} rows is read as empty."
        for text, count in texts.items()
        if text.lower() in MISSING_TEXTS
    ]


def seconds(cell: str) -> str:
    """A time as seconds: as it is, but for pandas's way of writing it."""
    found = TIMEDELTA.fullmatch(cell)
    if found is None:
        return cell
    days, hours, minutes, rest = (float(part or 0) for part in found.groups())
    return format_number(round(((days * 24 + hours) * 60 + minutes) * 60 + rest, 9))


def located(options: Options, base: Path) -> Locate:
    """What makes the paths of a list absolute that names recordings anywhere on a machine.

    Args:
        options: completed ones; `audio` is a folder that the recordings lie in now.
        base: where relative paths start.
    """
    folder = str(options["audio"])
    if not folder:
        return locator(base, base, allow_outside=True)
    return found_below(Path(folder).expanduser().resolve())


def with_dev(utterances: Sequence[Utterance]) -> tuple[tuple[Utterance, ...], tuple[str, ...]]:
    """Draw development rows from the training rows of a corpus that has train and test alone.

    Returns:
        The utterances in their order, and a note. Whole speakers are drawn, where there are
        several in train.
    """
    train = [u if u.split == "train" else replace(u, label="") for u in utterances]
    held = {u.split for u in utterances if u.label}
    groups, _ = speaker_groups(train)
    if held & set(SPLITS) != {"train", "test"} or len(groups) < DEV_SHARE:
        return tuple(utterances), ()
    drawn = folds_of_count(train, DEV_SHARE, seed=0)
    made = tuple(
        replace(u, split="dev") if fold == "1" else u
        for u, fold in zip(utterances, drawn, strict=True)
    )
    return made, (f"There is no development set: one in {DEV_SHARE} of train was drawn as one.",)


def json_lines(path: Path) -> Iterator[tuple[int, dict[str, Any] | None]]:
    """Yield (line, object) of each line that is not blank; None is no JSON object.

    Args:
        path: UTF-8, packed if it ends in `.gz`.

    Raises:
        CorpusError: it cannot be unpacked, or is not UTF-8.
    """
    try:
        with (gzip.open if path.suffix == ".gz" else open)(
            path, "rt", encoding="utf-8-sig"
        ) as file:
            for number, line in enumerate(file, 1):
                if not line.strip():
                    continue
                try:
                    value = json.loads(line)
                except (ValueError, RecursionError):
                    value = None
                yield number, value if isinstance(value, dict) else None
    except UnicodeDecodeError as error:
        raise CorpusError(f"{path} is not UTF-8, which JSON lines are. Save it so.") from error
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise CorpusError(
            f"{path} cannot be unpacked ({error}). Fetch or write it again."
        ) from error


def cell(value: object) -> str:
    """A value of JSON, YAML or Arrow as a cell; an object of numbers is written as votes.

    Raises:
        ManifestError: a list or another object; the message is what it is.
    """
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return format_number(value)
    if isinstance(value, dict) and value and all(_is_number(one) for one in value.values()):
        return format_votes(value)
    if isinstance(value, list | dict | bytes):
        raise ManifestError("a list or an object, expected text or a number")
    return str(value).strip()


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
