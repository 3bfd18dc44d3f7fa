"""What `cache verify` found, and what it did about it."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cache.last_extraction import extract_command
from cache.upkeep.info import CUES
from corpora.base.terminal import bytes_text, count_text
from corpora.base.work import command_line

_WIDTH = 100


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong.

    Attributes:
        path: of the part, or of what does not belong.
        reason: what is wrong with it.
        is_part: a part, which `fix` drops; other things it sets aside.
        keys: of the utterances it concerns; None if they cannot be told.
        utterances: their ids, or keys where no id is known. Where they cannot be told, those of the
            manifest that the stream lacks: it was some of them.
        imported: computed elsewhere, so that `extract` cannot compute it again.
        remedy: what was done about it; "" is nothing.
    """

    path: Path
    reason: str
    is_part: bool
    keys: tuple[str, ...] | None = ()
    utterances: tuple[str, ...] = ()
    imported: bool = False
    remedy: str = ""


@dataclass(frozen=True)
class VerifyReport:
    """What was looked at and what is wrong.

    Attributes:
        work: the work folder.
        streams: how many there are.
        parts: in all streams.
        utterances: in all parts that could be read.
        nbytes: of their matrices.
        seconds: it took.
        fix: whether something was to be done about it.
        problems: all that is wrong.
    """

    work: Path
    streams: int
    parts: int
    utterances: int
    nbytes: int
    seconds: float
    fix: bool
    problems: tuple[Problem, ...]

    @property
    def ok(self) -> bool:
        """Nothing is wrong, or nothing any more."""
        return all(problem.remedy for problem in self.problems)

    def to_json(self) -> dict[str, Any]:
        """Everything as JSON values."""
        return {
            "ok": self.ok,
            "streams": self.streams,
            "parts": self.parts,
            "utterances": self.utterances,
            "bytes": self.nbytes,
            "seconds": round(self.seconds, 3),
            "problems": [
                {
                    "path": str(problem.path),
                    "reason": problem.reason,
                    "part": problem.is_part,
                    "utterances": list(problem.utterances),
                    "certain": problem.keys is not None,
                    "remedy": problem.remedy,
                }
                for problem in self.problems
            ],
        }

    def to_text(self, manifest: Path | None = None) -> str:
        """The same to read; every utterance concerned is named.

        Args:
            manifest: named in place of the work folder's own; the next command gets it too.
        """
        lines = [
            f"Checked {count_text(self.streams, 'stream')}, {count_text(self.parts, 'part')}, "
            f"{count_text(self.utterances, 'utterance')}, {bytes_text(self.nbytes)} "
            f"in {self.seconds:.1f} s."
        ]
        if not self.problems:
            return "\n".join([*lines, "Everything is as it was written."])
        lines.append(f"{count_text(len(self.problems), 'thing is', 'things are')} wrong:")
        for problem in self.problems:
            lines += ["", *_problem_lines(problem)]
        return "\n".join([*lines, "", *_next(self, manifest)])


def _problem_lines(problem: Problem) -> list[str]:
    lines = [str(problem.path), *_wrap(problem.reason)]
    names = ", ".join(problem.utterances)
    if problem.is_part and problem.keys is None:
        lines += _wrap(
            f"Which utterances it held is not known. They are among those missing now: {names}"
            if names
            else "Which utterances it held is not known, and no manifest tells which are missing."
        )
    elif names:
        lines += _wrap(f"{count_text(len(problem.utterances), 'utterance')}: {names}")
    return [*lines, *(_wrap(f"-> {problem.remedy}") if problem.remedy else ())]


def _wrap(text: str) -> list[str]:
    return textwrap.wrap(
        text,
        _WIDTH,
        initial_indent="  ",
        subsequent_indent="    ",
        break_long_words=False,
        break_on_hyphens=False,
    )


def _next(report: VerifyReport, manifest: Path | None) -> list[str]:
    work = report.work
    if not report.ok:
        return [
            f"Next: {command_line('cache verify --fix', work, manifest)}  (drops damaged parts; "
            "what else is wrong is moved out of the cache, not deleted)"
        ]
    lines = [f"Next: {extract_command(work, manifest)}  (computes what is missing now)"]
    parts = [problem for problem in report.problems if problem.is_part]
    if any(part.path.parents[1].name.startswith(f"{CUES}-") for part in parts):
        lines.append("Cues are computed again by the next `explain`.")
    if any(problem.imported for problem in report.problems):
        lines.append("Imported features were dropped too: import their folder or file again.")
    return lines
