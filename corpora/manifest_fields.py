"""A manifest on disk: the CSV, and `manifest.json` beside it with what belongs to none of its rows.

The two are one commit, which is the rename of the CSV. The JSON is written first; it holds the
CSV's SHA-256 (`csv_sha256`), and under `replaced` what the JSON said of the CSV that still stands,
which counts until the new CSV is in place. A CSV that fits neither was changed by hand: that is
allowed, and said.
"""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any

from corpora.base.errors import FormatVersionError, ManifestError, did_you_mean
from corpora.base.files import file_sha256, read_json, write_bytes, write_json
from corpora.utterance import Utterance, is_missing, plain_name, row_problem, speaker_key

FORMAT, VERSION = "emopool-manifest", 1
FIELDS = (
    "labels",
    "corpus",
    "protocol",
    "shared_speakers",
    "synthetic",
    "settings",
    "scales",
)


CSV_SHA256, REPLACED = "csv_sha256", "replaced"


def write_both(path: Path, table: bytes, fields: Mapping[str, Any]) -> None:
    """Write the CSV at `path` and the JSON of a manifest's `FIELDS` beside it, both or neither."""
    beside = path.with_suffix(".json")
    plain = {name: dict(v) if isinstance(v, Mapping) else v for name, v in fields.items()}
    value = {"format": FORMAT, "version": VERSION, **plain, CSV_SHA256: _sha256(table)}
    if not path.is_file():
        write_json(beside, value)
        write_bytes(path, table)
        return
    standing = file_sha256(path)
    try:
        earlier = _of_csv(_read(beside), standing)
    except FormatVersionError:
        earlier = {}  # it could not be read before either
    replaced = {**earlier, CSV_SHA256: standing}
    write_json(beside, {**value, REPLACED: replaced})
    write_bytes(path, table)
    write_json(beside, value)


def keep_both(path: Path, name: Callable[[int], str]) -> Path:
    """Copy a manifest and its JSON aside; one that is there already is not copied again.

    Args:
        path: the CSV.
        name: of the copy, from its number; the first that is free is taken.
    """
    data, beside = path.read_bytes(), path.with_suffix(".json")
    _take_back(beside, _sha256(data))
    fields = beside.read_bytes() if beside.is_file() else None
    for number in count(1):
        kept = path.with_name(name(number))
        other = kept.with_suffix(".json")
        if not kept.exists():
            if fields is not None:
                write_bytes(other, fields)
            write_bytes(kept, data)
            return kept
        same = kept.read_bytes() == data
        if same and (other.read_bytes() if other.is_file() else None) == fields:
            return kept
    raise AssertionError("numbers do not end")


def read_fields(path: Path, table: bytes) -> dict[str, Any]:
    """The arguments of `Manifest` that the JSON holds, or defaults where it is absent.

    Args:
        path: of the JSON.
        table: the bytes of the CSV beside it.
    """
    value = _read(path)
    if not value:
        return {"corpus": ""}
    found = _of_csv(value, _sha256(table))
    if set(found) == {CSV_SHA256}:
        return {"corpus": ""}  # of a CSV that had no JSON
    if found.get(CSV_SHA256, _sha256(table)) != _sha256(table):
        _say_edited(path.with_suffix(".csv"), _sha256(table), "rows")
    value = found
    labels = value.get("labels")
    if (
        not isinstance(labels, list)
        or not all(isinstance(label, str) and plain_name(label) for label in labels)
        or len(set(map(plain_name, labels))) != len(labels)
    ):
        raise ManifestError(
            f'{path}: "labels" is {labels!r}, expected a list of different, non-empty names.'
        )
    settings, scales = value.get("settings", {}), value.get("scales", {})
    if not (isinstance(settings, dict) and _are_scales(scales)):
        raise ManifestError(
            f'{path}: "settings" must be an object, and "scales" an object of pairs such as '
            '"valence": [1, 7].'
        )
    return {
        "labels": [plain_name(label) for label in labels],
        "settings": settings,
        "scales": {name: tuple(ends) for name, ends in scales.items()},
        "corpus": plain_name(str(value.get("corpus", ""))),
        "protocol": str(value.get("protocol", "")),
        "shared_speakers": value.get("shared_speakers") is True,
        "synthetic": value.get("synthetic") is True,
    }


def _are_scales(value: object) -> bool:
    return isinstance(value, dict) and all(
        isinstance(ends, list)
        and len(ends) == 2
        and all(isinstance(end, int | float) and not isinstance(end, bool) for end in ends)
        for ends in value.values()
    )


def _read(path: Path) -> dict[str, Any]:
    def altered() -> None:
        _say_edited(path, file_sha256(path), "values")

    if not path.is_file():
        return {}
    return read_json(path, kind=FORMAT, version=VERSION, altered=altered)


def _of_csv(value: dict[str, Any], standing: str) -> dict[str, Any]:
    """What a JSON says of the CSV with this digest: a killed run may not have replaced it."""
    replaced = value.get(REPLACED)
    if (
        value.get(CSV_SHA256) != standing
        and isinstance(replaced, dict)
        and replaced.get(CSV_SHA256) == standing
    ):
        return replaced
    return {name: entry for name, entry in value.items() if name != REPLACED}


def _take_back(beside: Path, standing: str) -> None:
    """Undo what a killed `write_both` began: the JSON is again that of the CSV that stands."""
    value = _read(beside)
    earlier = _of_csv(value, standing)
    if earlier is not value.get(REPLACED):
        return
    if set(earlier) == {CSV_SHA256}:  # there was none
        beside.unlink()
    else:
        write_json(beside, earlier)


@cache  # once for each file and state of it: a command reads it several times
def _say_edited(path: Path, sha256: str, what: str) -> None:
    logging.getLogger(__name__).warning(
        f"Note: {path} is not as Emopool wrote it (SHA-256 {sha256[:12]}…). If you changed it, go "
        f"on: its {what} are used as they are. If not, restore it or run `prepare` again."
    )


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


SHOWN_PROBLEMS = 10  # enough to see the pattern, few enough to read
ROUNDING = 0.01  # seconds by which neighbouring segments may overlap: tables round their times


@dataclass(frozen=True)
class Problem:
    """One thing wrong: the line (0: none) and the utterance it is at, and what it is."""

    line: int
    id: str
    text: str


def find_problems(
    utterances: Iterable[Utterance],
    labels: Sequence[str],
    *,
    shared_speakers: bool,
    declare: str,
) -> list[Problem]:
    """What is wrong with the utterances, each by itself and among each other.

    Args:
        utterances: in file order.
        labels: the labels that are known.
        shared_speakers: one speaker may stand in two splits.
        declare: how the user says so, for messages.
    """
    known = frozenset(labels)
    seen: dict[str, Utterance] = {}
    homes: dict[tuple[str, str], Utterance] = {}
    told: set[tuple[str, str]] = set()  # one message a speaker, not one a row
    used: list[Utterance] = []
    problems: list[Problem] = []

    def add(utterance: Utterance, text: str) -> None:
        problems.append(Problem(utterance.line, utterance.id, text))

    for utterance in utterances:
        reason = row_problem(utterance)
        if reason:
            add(utterance, reason)
        if is_missing(utterance.label):
            add(
                utterance,
                f"label '{utterance.label}' says that it is missing. Leave the cell empty "
                "(unlabelled), or give the class another name",
            )
        elif utterance.label and utterance.label not in known:
            hint = did_you_mean(utterance.label, labels)
            add(utterance, f"label '{utterance.label}' is not one of {', '.join(labels)}.{hint}")
        first = seen.setdefault(utterance.id, utterance)
        if first is not utterance and utterance.id:
            add(utterance, f"the id is used twice: {place(first)} and {place(utterance)}")
        if utterance.split:
            used.append(utterance)
        key = None if shared_speakers or not utterance.split else speaker_key(utterance)
        if key is None:
            continue
        home = homes.setdefault(key, utterance)
        if home.split != utterance.split and key not in told:
            told.add(key)
            add(
                utterance,
                f"speaker '{utterance.speaker}' is in {home.split} ({place(home)}) and in "
                f"{utterance.split} ({place(utterance)}). Give every speaker one split, or, if "
                f"the published split shares speakers, declare that: {declare}",
            )
    heard: set[Path] = set()  # one message a recording
    for first, second in overlaps(used, lambda utterance: utterance.split):
        one, other = sorted((first, second), key=lambda utterance: utterance.line)
        if other.audio not in heard:
            heard.add(other.audio)
            add(
                other,
                f"the recording {other.audio} is in {one.split} ({place(one)}) and in "
                f"{other.split} ({place(other)}), and what is cut from it overlaps. Give every "
                "stretch of a recording one split",
            )
    return problems


def overlaps(
    utterances: Iterable[Utterance], home: Callable[[Utterance], Hashable]
) -> Iterator[tuple[Utterance, Utterance]]:
    """Yield pairs that share sound and have different homes; at least one for each such meeting.

    Args:
        utterances: in any order.
        home: of an utterance, for example its split.
    """
    cuts: dict[str, list[Utterance]] = {}
    for utterance in utterances:
        cuts.setdefault(str(utterance.audio), []).append(utterance)
    for several in cuts.values():
        if len(several) == 1:
            continue
        longest: dict[Hashable, tuple[float, Utterance]] = {}  # the end reached so far, by home
        for utterance in sorted(several, key=lambda one: one.start or 0.0):
            start = utterance.start or 0.0
            end = math.inf if utterance.end is None else utterance.end
            own = home(utterance)
            for other, (reached, earlier) in longest.items():
                if other != own and min(reached, end) - start > ROUNDING:
                    yield earlier, utterance
            if own not in longest or end > longest[own][0]:
                longest[own] = end, utterance


def place(utterance: Utterance) -> str:
    """Say where an utterance stands: its line, or its recording where it has none."""
    return f"line {utterance.line}" if utterance.line else str(utterance.audio)


def refuse(where: str, problems: Sequence[Problem]) -> None:
    """Raise one error that names the first ten problems in line order, if there are any.

    Raises:
        ManifestError: there is a problem.
    """
    if not problems:
        return
    texts = []
    for problem in sorted(problems, key=lambda problem: problem.line)[:SHOWN_PROBLEMS]:
        line = f"line {problem.line}" if problem.line else ""
        name = f"utterance '{problem.id}'" if problem.id else ""
        texts.append(f"{', '.join(part for part in (line, name) if part)}: {problem.text}")
    if len(problems) == 1:
        raise ManifestError(f"{where}, {texts[0]}")
    more = len(problems) - SHOWN_PROBLEMS
    if more > 0:
        texts.append(f"… and {more} more")
    raise ManifestError(f"{where} has {len(problems)} problems:\n  " + "\n  ".join(texts))
