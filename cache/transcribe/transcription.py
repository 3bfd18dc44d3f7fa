"""What a transcription did, as data and as text to read. Imports no torch.

Word error rate: edits to turn what was recognised into what was said, a word of what was said.

Both texts are normalised alike, by what reports call `basic`: Unicode NFKC, lower case, what stands
in round, square or angle brackets dropped (`[laughter]`), apostrophes dropped, everything but
letters, marks and digits made a space. Numbers are not spelled out, contractions not expanded,
spellings not unified, so the rate is higher than with Whisper's own English normaliser; and unlike
Whisper's own for other languages it keeps marks, without which words of many scripts are none.
Languages that are written without spaces are counted by characters.

Over several utterances edits and words are summed before dividing: long utterances count for more,
and an utterance without words counts with its insertions.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, field
from importlib.util import find_spec
from operator import add
from pathlib import Path

from corpora.base.codec import Jsonable
from corpora.base.errors import MissingExtraError
from corpora.base.report import Part, Report, Table
from corpora.base.terminal import count_text, shortened, time_text
from corpora.base.work import command_line

#: Written without spaces: their characters are counted.
UNSPACED = frozenset({"ja", "km", "lo", "my", "th", "yue", "zh"})
NORMALISER = "basic"
_BRACKETED = re.compile(r"\([^()]*\)|\[[^\[\]]*\]|<[^<>]*>")
_APOSTROPHES = re.compile("['\u2018\u2019\u02bc]")


@dataclass(frozen=True)
class WordErrors(Jsonable):
    """Counts of edits.

    Attributes:
        words: of the references.
        substitutions: words recognised as others.
        deletions: words not recognised.
        insertions: words that were not said.
        utterances: counted.
    """

    json_entries = "* word_error_rate=rate"

    words: int = 0
    substitutions: int = 0
    deletions: int = 0
    insertions: int = 0
    utterances: int = 0

    def __add__(self, other: WordErrors) -> WordErrors:
        return WordErrors(*map(add, astuple(self), astuple(other)))

    @property
    def edits(self) -> int:
        """Of all kinds."""
        return self.substitutions + self.deletions + self.insertions

    @property
    def rate(self) -> float | None:
        """Edits a word; None without words. Above 1 if more was recognised than said."""
        return self.edits / self.words if self.words else None


def normalised_words(text: str, language: str = "") -> list[str]:
    """The words of a text, or its characters if its language is written without spaces."""
    plain = _APOSTROPHES.sub("", unicodedata.normalize("NFKC", text).lower())
    plain = _BRACKETED.sub(" ", plain)
    kept = "".join(c if unicodedata.category(c)[0] in "LMN" else " " for c in plain)
    return list("".join(kept.split())) if language in UNSPACED else kept.split()


def word_errors(reference: Sequence[str], recognised: Sequence[str]) -> WordErrors:
    """Count the edits of one utterance.

    Their number is the Levenshtein distance; of the alignments with as few edits, the one with the
    fewest substitutions, which has the most words right (jiwer's split of the edits can differ).

    Args:
        reference: normalised words.
        recognised: the same.

    Raises:
        MissingExtraError: RapidFuzz is not installed.
    """
    require_rapidfuzz()
    from rapidfuzz.distance import Levenshtein

    # One number for both: edits first, then substitutions, which are fewer than `edit`.
    edit = len(reference) + len(recognised) + 1
    distance = Levenshtein.distance(reference, recognised, weights=(edit, edit, edit + 1))
    edits, substitutions = divmod(distance, edit)
    # Deletions less insertions is how much longer the reference is.
    deletions = (edits - substitutions + len(reference) - len(recognised)) // 2
    insertions = edits - substitutions - deletions
    return WordErrors(len(reference), substitutions, deletions, insertions, 1)


def require_rapidfuzz() -> None:
    """Check before anything is heard that errors can be counted.

    Raises:
        MissingExtraError: RapidFuzz is not installed.
    """
    if find_spec("rapidfuzz") is None:
        raise MissingExtraError(
            "The word error rate needs RapidFuzz, an extra that is not installed: "
            "pip install 'emopool[wer]', or leave --reference out."
        )


SHOWN_FAILURES = 5
_WER_HEAD = ("", "utterances", "words", "substituted", "deleted", "inserted", "error rate")


@dataclass(frozen=True)
class WordTimes(Jsonable):
    """What became of the utterances that have a text and no TextGrid of another's making.

    Attributes:
        timed: those that have their words' times.
        known: of these, whose times were there.
        kept_as: the old manifest, if it was replaced.
        missing: reasons by id, for the others.
    """

    timed: int
    known: int
    kept_as: Path | None
    missing: Mapping[str, str]

    def to_lines(self) -> list[str]:
        """The same to read."""
        lines = [
            f"{count_text(self.timed, 'utterance')} with times of their words (column "
            f"`alignment`), {self.known:,} of them as they were there."
        ]
        if self.kept_as is not None:
            lines.append(f"The manifest before is {self.kept_as}.")
        if self.missing:
            reasons = list(self.missing.values())
            lines.append(f"{count_text(len(reasons), 'utterance')} without:")
            lines += shortened(reasons, SHOWN_FAILURES, " (--json lists them)")
        return lines


@dataclass(frozen=True)
class TranscribeReport(Jsonable):
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
        normaliser: of both texts before errors are counted; with `--reference`.
        word_times: with `--word-times`.
    """

    json_optional = "word_times normaliser"

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
    normaliser: str | None = None
    word_times: WordTimes | None = None

    def to_text(self) -> str:
        """The report as plain text."""
        parts = [*self._what_was_done(), *self._what_stays(), *self._failures(), *self._rates()]
        if self.word_times is not None:
            parts += ["", *self.word_times.to_lines()]
        step = command_line("extract", self.work, self.manifest)
        return Report("", parts, next=(step,)).to_text()

    def _what_was_done(self) -> list[str]:
        if not self.source:
            return [f"No utterance asked for in {self.manifest} lacks a text: nothing to do."]
        lines = []
        if self.heard:
            speed = self.seconds_of_audio / self.seconds if self.seconds else 0.0
            lines.append(
                f"Transcribed {count_text(self.heard, 'recording')} "
                f"({time_text(self.seconds_of_audio)}) with {self.source} in "
                f"{time_text(self.seconds)} on {self.device}, {speed:.1f}× real time."
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
        reasons = list(self.failures.values())
        return [
            "",
            f"{count_text(len(reasons), 'utterance')} could not be transcribed:",
            *shortened(reasons, SHOWN_FAILURES, " (--json lists them)"),
            "They are tried again at the next transcribe.",
        ]

    def _rates(self) -> list[Part]:
        if not self.errors:
            return []
        rows = [
            (
                name,
                *(one.utterances, one.words, one.substitutions, one.deletions, one.insertions),
                "-" if one.rate is None else f"{100 * one.rate:.1f} %",
            )
            for name, one in self.errors.items()
        ]
        how = (
            f"Word error rate of {self.source} against the human texts (edits / words; "
            f"alignment: RapidFuzz; normaliser {self.normaliser}: NFKC, lower case, without "
            "punctuation and what is in brackets; characters for languages written without "
            "spaces):"
        )
        return ["", how, Table("", _WER_HEAD, rows, right=range(1, len(_WER_HEAD)))]
