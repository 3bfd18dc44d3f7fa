"""What a transcription did, as data and as text to read. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from cache.transcribing.word_errors import WordErrors
from corpora.base.terminal import count_text, table_lines
from corpora.base.work import command_line

SHOWN_FAILURES = 5
_WER_HEAD = ("", "utterances", "words", "substituted", "deleted", "inserted", "error rate")


@dataclass(frozen=True)
class TranscribeReport:
    """The summary of one run.

    Attributes:
        manifest: that was filled in.
        work: the work folder.
        source: of the texts; "" where nothing was wanted.
        device: `cpu` or `cuda`; "" if all was known.
        heard: recordings transcribed in this run.
        known: recordings whose transcripts were there.
        silent: utterances without speech, whose text is empty.
        changed: rows of the manifest with a new text or source.
        skipped: rows that somebody changed meanwhile.
        human: rows whose human text stays.
        edited: rows whose text was corrected by hand, or recognised elsewhere; it stays.
        languages: utterances by language told or detected.
        failures: reasons by utterance id.
        kept_as: the old manifest, if it was replaced.
        lost_columns: of the old manifest, which Emopool does not know.
        seconds_of_audio: heard in this run.
        seconds: it took.
        errors: of words, by label, and under "all"; empty without `--reference`.
    """

    manifest: Path
    work: Path
    source: str = ""
    device: str = ""
    heard: int = 0
    known: int = 0
    silent: int = 0
    changed: int = 0
    skipped: int = 0
    human: int = 0
    edited: int = 0
    languages: Mapping[str, int] = field(default_factory=dict)
    failures: Mapping[str, str] = field(default_factory=dict)
    kept_as: Path | None = None
    lost_columns: tuple[str, ...] = ()
    seconds_of_audio: float = 0.0
    seconds: float = 0.0
    errors: Mapping[str, WordErrors] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Everything as JSON values."""
        return {
            **asdict(self),
            "manifest": str(self.manifest),
            "work": str(self.work),
            "kept_as": None if self.kept_as is None else str(self.kept_as),
            "lost_columns": list(self.lost_columns),
            "errors": {name: errors.to_json() for name, errors in self.errors.items()},
        }

    def to_text(self) -> str:
        """The report as plain text."""
        lines = [*self._what_was_done(), *self._what_stays(), *self._failures(), *self._rates()]
        step = command_line("extract", self.work, self.manifest)
        return "\n".join([*lines, "", f"Next: {step}"])

    def _what_was_done(self) -> list[str]:
        if not self.source:
            return [f"No utterance asked for in {self.manifest} lacks a text: nothing to do."]
        lines = []
        if self.heard:
            speed = self.seconds_of_audio / self.seconds if self.seconds else 0.0
            lines.append(
                f"Transcribed {count_text(self.heard, 'recording')} "
                f"({self.seconds_of_audio / 3600:.2f} h) with {self.source} in {self.seconds:.0f} "
                f"s on {self.device}, {speed:.1f}× real time."
            )
        if self.known:
            lines.append(f"{count_text(self.known, 'transcript')} by {self.source} were there.")
        if self.languages:
            spoken = ", ".join(f"{name} {count:,}" for name, count in self.languages.items())
            lines.append(f"Languages (given or detected): {spoken}.")
        if self.silent:
            lines.append(
                f"{count_text(self.silent, 'utterance')} without speech: their text stays empty "
                "(--speech-threshold 0 decodes them, too)."
            )
        if self.changed:
            lines.append(
                f"{self.manifest}: {count_text(self.changed, 'text')} written. "
                f"The manifest before is {self.kept_as}."
            )
        else:
            lines.append(f"{self.manifest} is as it was.")
        return lines

    def _what_stays(self) -> list[str]:
        lines = []
        if self.human:
            lines.append(
                f"{count_text(self.human, 'human text')} kept (--overwrite replaces them)."
            )
        if self.edited:
            lines.append(
                f"{count_text(self.edited, 'text')} kept that no model gave here: corrected by "
                "hand, or recognised in another work folder (--overwrite replaces them)."
            )
        if self.skipped:
            lines.append(
                f"{count_text(self.skipped, 'row')} changed in the manifest meanwhile and left "
                "alone. Run transcribe again."
            )
        if self.lost_columns:
            lines.append(
                f"Columns that Emopool does not know are in {self.kept_as} alone: "
                f"{', '.join(self.lost_columns)}."
            )
        return lines

    def _failures(self) -> list[str]:
        if not self.failures:
            return []
        lines = ["", f"{count_text(len(self.failures), 'utterance')} could not be transcribed:"]
        lines += [f"  {reason}" for reason in list(self.failures.values())[:SHOWN_FAILURES]]
        if len(self.failures) > SHOWN_FAILURES:
            lines.append(f"  and {len(self.failures) - SHOWN_FAILURES:,} more (--json lists them)")
        return [*lines, "They are tried again at the next transcribe."]

    def _rates(self) -> list[str]:
        if not self.errors:
            return []
        rows: list[tuple[str, ...]] = [_WER_HEAD]
        for name, one in self.errors.items():
            rate = "-" if one.rate is None else f"{100 * one.rate:.1f} %"
            counts = (one.utterances, one.words, one.substitutions, one.deletions, one.insertions)
            rows.append((name, *(f"{count:,}" for count in counts), rate))
        return [
            "",
            f"Word error rate of {self.source} against the human texts (edits / words; lower "
            "case, without punctuation and what is in brackets; characters for languages "
            "written without spaces):",
            *(f"  {line}" for line in table_lines(rows, 1)),
        ]
