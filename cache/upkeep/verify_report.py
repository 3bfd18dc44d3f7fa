"""What `cache verify` found, and what it did about it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cache.last_extraction import extract_command
from cache.upkeep.info import CUES
from corpora.base.codec import Jsonable
from corpora.base.report import Report
from corpora.base.terminal import bytes_text, count_text
from corpora.base.work import command_line


@dataclass(frozen=True)
class Problem(Jsonable):
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

    json_entries = "path reason part=is_part utterances certain remedy"

    path: Path
    reason: str
    is_part: bool
    keys: tuple[str, ...] | None = ()
    utterances: tuple[str, ...] = ()
    imported: bool = False
    remedy: str = ""

    @property
    def certain(self) -> bool:
        """Whether it can be told which utterances it concerns."""
        return self.keys is not None


@dataclass(frozen=True)
class VerifyReport(Jsonable):
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

    json_entries = "ok streams parts utterances bytes=nbytes seconds problems"

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

    def to_text(self, manifest: Path | None = None) -> str:
        """The same to read; every utterance concerned is named.

        Args:
            manifest: named in place of the work folder's own; the next command gets it too.
        """
        parts = [
            f"Checked {count_text(self.streams, 'stream')}, {count_text(self.parts, 'part')}, "
            f"{count_text(self.utterances, 'utterance')}, {bytes_text(self.nbytes)} "
            f"in {self.seconds:.1f} s."
        ]
        if not self.problems:
            return Report("", [*parts, "Everything is as it was written."]).to_text()
        parts.append(f"{count_text(len(self.problems), 'thing is', 'things are')} wrong:")
        for problem in self.problems:
            parts += ["", *_problem_lines(problem)]
        if not self.ok:
            step = command_line("cache verify --fix", self.work, manifest)
            how = "drops damaged parts; what else is wrong is moved out of the cache, not deleted"
            return Report("", parts, next=(f"{step}  ({how})",)).to_text()
        step = f"{extract_command(self.work, manifest)}  (computes what is missing now)"
        text = Report("", parts, next=(step,)).to_text()
        dropped = [problem for problem in self.problems if problem.is_part]
        if any(part.path.parents[1].name.startswith(f"{CUES}-") for part in dropped):
            text += "\nCues are computed again by the next `explain`."
        if any(problem.imported for problem in self.problems):
            text += "\nImported features were dropped too: import their folder or file again."
        return text


def _problem_lines(problem: Problem) -> list[str]:
    lines = [str(problem.path), f"  {problem.reason}"]
    names = ", ".join(problem.utterances)
    if problem.is_part and problem.keys is None:
        lines.append(
            f"  Which utterances it held is not known. They are among those missing now: {names}"
            if names
            else "  Which utterances it held is not known, and no manifest tells which are missing."
        )
    elif names:
        lines.append(f"  {count_text(len(problem.utterances), 'utterance')}: {names}")
    return [*lines, *[f"  -> {problem.remedy}"] * bool(problem.remedy)]
