"""What a check found, as data and as text to read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cache.keys import SharedSentences
from corpora.base.codec import Jsonable
from corpora.base.report import Part, Report, Table
from corpora.base.terminal import shortened, time_text
from corpora.utterance import Utterance

BINS = 12
BAR = 40  # columns of the longest bar
# The last bin takes the longest 1 %, so that one long recording does not squeeze all the others.
TAIL = 99.0
NICE = (1, 2, 5)


@dataclass(frozen=True)
class Histogram(Jsonable):
    """How often values fall between edges.

    Attributes:
        edges: `[bins + 1]`, the last is the largest value.
        counts: `[bins]`; a bin holds its lower edge, the last one both.
        of: what was counted.
        source: where the values come from.
    """

    json_entries = "of source edges counts"

    edges: tuple[int, ...]
    counts: tuple[int, ...]
    of: str
    source: str

    def table(self) -> Table:
        """As bars, for a terminal."""
        most = max(self.counts, default=0)
        rows = []
        for low, high, count in zip(self.edges, self.edges[1:], self.counts, strict=False):
            last = high == self.edges[-1]
            bar = "█" * max(round(BAR * count / most) if most else 0, int(count > 0))
            rows.append((low, high if last else high - 1, count, bar))
        title = f"{self.of} ({self.source})"
        return Table("", ("from", "to", "utterances", ""), rows, title, right=(0, 1, 2))


def histogram(values: Sequence[int], of: str, source: str) -> Histogram | None:
    """Count values in bins of equal, round width; None where there are none."""
    array = np.asarray(values, dtype=np.int64)
    if not array.size:
        return None
    top = max(float(np.percentile(array, TAIL)), 1.0)
    width = _nice(top / (BINS - 1))
    edges = [k * width for k in range(BINS) if k * width <= array.max()]
    edges.append(max(int(array.max()), edges[-1] + 1))
    counts, _ = np.histogram(array, bins=edges)
    return Histogram(tuple(edges), tuple(counts.tolist()), of, source)


def _nice(width: float) -> int:
    """The next of 1, 2, 5, 10, 20, 50 … that is not smaller."""
    scale = 1
    while True:
        for step in NICE:
            if step * scale >= width:
                return step * scale
        scale *= 10


SHOWN = 10  # of a list
UNUSED = "(not used)"
QUANTILES = {"5 %": 5, "median": 50, "95 %": 95}


@dataclass(frozen=True)
class Durations:
    """Lengths of utterances in seconds.

    Attributes:
        utterances: how many there are.
        known: how many have a known length.
        hours: of those.
        shortest: of those; 0 where there are none, as are the next.
        quantiles: by name.
        longest: of those.
    """

    utterances: int
    known: int
    hours: float
    shortest: float
    quantiles: Mapping[str, float]
    longest: float

    @classmethod
    def of(cls, seconds: Sequence[float], utterances: int) -> Durations:
        """Summarise the known lengths of some utterances."""
        values = np.asarray(seconds if len(seconds) else [0.0])
        found = np.percentile(values, list(QUANTILES.values())).tolist()
        return cls(
            utterances,
            len(seconds),
            float(values.sum() / 3600),
            float(values.min()),
            dict(zip(QUANTILES, found, strict=True)),
            float(values.max()),
        )


@dataclass(frozen=True)
class Heard:
    """What decoding told.

    Attributes:
        decoded: utterances that could be decoded.
        clipped: ids with the number of samples in runs at full scale, the most first.
        silent: ids of utterances that are nearly all silence.
        silence: mean share of silent frames.
    """

    decoded: int
    clipped: tuple[tuple[str, int], ...]
    silent: tuple[str, ...]
    silence: float


@dataclass(frozen=True)
class CorpusCheck(Jsonable):
    """The result of `prepare check`.

    Attributes:
        manifest: where it was read.
        corpus: its name.
        utterances: how many.
        durations: by split, and for `all`.
        formats: recordings by sampling rate and channels.
        heard: None where recordings were not opened.
        unheard: utterances whose sound could not be compared: it was not read.
        duplicates: groups of utterances with the same sound.
        sentences: of train that dev and test say too.
        known_speakers: how many there are.
        speakers_in_two_splits: how many of them.
        histograms: of frames, for the modalities where they are known.
        problems: what has to be mended.
        notes: what the user should know.
    """

    json_entries = (
        "manifest corpus ok utterances durations formats heard unheard "
        "duplicates=duplicates_named shared_sentences=sentences known_speakers "
        "speakers_in_two_splits histograms problems notes"
    )

    manifest: Path
    corpus: str
    utterances: int
    durations: Mapping[str, Durations]
    formats: Mapping[str, int]
    heard: Heard | None
    unheard: int
    duplicates: tuple[tuple[Utterance, ...], ...]
    sentences: SharedSentences
    known_speakers: int
    speakers_in_two_splits: int
    histograms: tuple[Histogram, ...]
    problems: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def duplicates_named(self) -> list[list[dict[str, str]]]:
        """The duplicates with what tells them apart, for JSON."""
        return [
            [{"id": u.id, "label": u.label, "split": u.split} for u in group]
            for group in self.duplicates
        ]

    @property
    def ok(self) -> bool:
        """Whether there is nothing to be mended."""
        return not self.problems

    def to_text(self) -> str:
        """For a terminal."""
        formats = "; ".join(f"{name}: {count:,}" for name, count in self.formats.items())
        mended = f"To be mended ({len(self.problems):,}):"
        parts: tuple[Part, ...] = (
            f"{self.manifest}: {self.utterances:,} utterances of {self.corpus or 'no name'}",
            self._durations(),
            *[f"Recordings by format: {formats}."] * bool(formats),
            "",
            *self._heard_lines(),
            "",
            *self._duplicate_lines(),
            "",
            *self._leakage_lines(),
            *(found.table() for found in self.histograms),
            *(f"Note: {note}" for note in self.notes),
            *["", mended, *shortened(self.problems, SHOWN)] * bool(self.problems),
            "",
            self._verdict(),
        )
        return Report("", parts).to_text()

    def _verdict(self) -> str:
        if not self.ok:
            return "Mend these before you train."
        skipped = ["lengths, clipping and silence"] if self.heard is None else []
        if self.unheard:
            skipped.append(f"the sound of {self.unheard:,} of {self.utterances:,} utterances")
        if not skipped:
            return "Nothing has to be mended."
        return (
            f"Nothing has to be mended in what was looked at. Not looked at: {'; '.join(skipped)}."
        )

    def _durations(self) -> Table:
        rows = []
        for split, found in self.durations.items():
            numbers = ("-",) * (len(QUANTILES) + 3)
            if found.known:
                inner = (found.shortest, *found.quantiles.values(), found.longest)
                told = (f"{value:,.2f}" for value in inner)
                numbers = (time_text(3600 * found.hours), *told)
            rows.append((split or UNUSED, f"{found.utterances:,}", *numbers))
        columns = ("seconds", "utterances", "together", "shortest", *QUANTILES, "longest")
        return Table("", columns, rows, right=range(1, len(columns)))

    def _heard_lines(self) -> list[str]:
        heard = self.heard
        if heard is None:
            return ["Recordings were not opened: nothing is told of clipping and silence."]
        worst = ", ".join(f"{name} ({count:,})" for name, count in heard.clipped[:SHOWN])
        clipped = (
            f"Clipped (three or more samples in a row at full scale): {len(heard.clipped):,} "
            f"utterances. The most: {worst}."
        )
        some = ", ".join(heard.silent[:SHOWN])
        silent = f"Nearly all silence: {len(heard.silent):,} utterances: {some}."
        return [
            f"Decoded {heard.decoded:,} utterances; {100 * heard.silence:.1f} % of their 20 ms "
            "frames are silent (RMS below -60 dB).",
            clipped if heard.clipped else "No utterance is clipped.",
            *[silent] * bool(heard.silent),
        ]

    def _duplicate_lines(self) -> list[str]:
        compared = self.utterances - self.unheard
        if not self.duplicates and not self.unheard:
            return ["No two utterances have the same sound."]
        if not self.duplicates and not compared:
            return ["Whether utterances have the same sound was not looked at."]
        if not self.duplicates:
            return [
                f"No two of {compared:,} utterances have the same sound; that of {self.unheard:,} "
                "others was not looked at."
            ]
        several = sum(len({u.label for u in group}) > 1 for group in self.duplicates)
        named = [
            ", ".join(f"{u.id} ({u.label or 'unlabelled'})" for u in group[:SHOWN])
            for group in self.duplicates
        ]
        differing = f", {several:,} of them with different labels" if several else ""
        return [
            f"The same sound more than once: {len(named):,} times{differing}:",
            *shortened(named, SHOWN),
        ]

    def _leakage_lines(self) -> list[str]:
        apart = (
            "No dev or test utterance shares its sentence with train."
            if self.sentences.held
            else "No dev or test utterance has a text: shared sentences cannot be told."
        )
        speakers = "No speaker is known: whether one stands in two splits cannot be told."
        if self.speakers_in_two_splits:
            speakers = f"Speakers in two splits: {self.speakers_in_two_splits:,}."
        elif self.known_speakers:
            speakers = "No known speaker stands in two splits."
        return [self.sentences.to_text() or apart, speakers]
