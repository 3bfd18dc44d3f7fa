"""What utterances may not be among each other, and the one message that names the problems."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from corpora.base.errors import ManifestError, did_you_mean
from corpora.names import is_missing
from corpora.rows import row_problem
from corpora.utterance import Utterance, speaker_key

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
    """Return what is wrong with the utterances, each by itself and among each other.

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
