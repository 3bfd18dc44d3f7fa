"""What `prepare` found and did, as data and as text to read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from corpora.base.codec import Jsonable
from corpora.base.report import Part, Report, Table
from corpora.base.terminal import time_text
from corpora.protocol import Protocol, metrics_text
from corpora.readers.registry import Dropped
from corpora.utterance import SPLITS, Utterance, speaker_key

UNLABELLED, UNUSED = "(unlabelled)", "(not used)"  # how the empty label and split are shown
SHOWN_REASONS, SHOWN_PLACES = 12, 3  # lines of a list, and examples for one reason


@dataclass(frozen=True)
class Tally(Jsonable):
    """Counts by split; the empty split is not used, the empty label is unlabelled.

    Attributes:
        counts: utterances by split and label.
        speakers: known speakers by split.
        all_speakers: known speakers in all.
        unknown_speakers: utterances of unknown speakers by split.
        hours: of the recordings whose header could be read, by split.
    """

    counts: Mapping[str, Mapping[str, int]]
    speakers: Mapping[str, int]
    all_speakers: int
    unknown_speakers: Mapping[str, int]
    hours: Mapping[str, float]

    @classmethod
    def of(
        cls, utterances: Sequence[Utterance], labels: Sequence[str], seconds: Mapping[str, float]
    ) -> Tally:
        """Count utterances; `seconds` is the length by utterance id."""
        splits = [*SPLITS, *([""] if any(not u.split for u in utterances) else [])]
        held = {split: [u for u in utterances if u.split == split] for split in splits}
        return cls(
            {
                split: {label: sum(u.label == label for u in own) for label in (*labels, "")}
                for split, own in held.items()
            },
            {split: _speakers(own) for split, own in held.items()},
            _speakers(utterances),
            {split: sum(speaker_key(u) is None for u in own) for split, own in held.items()},
            {split: sum(seconds.get(u.id, 0.0) for u in own) / 3600 for split, own in held.items()},
        )

    def table(self, labels: Sequence[str]) -> Table:
        """Counts of utterances, speakers and audio (where known) by split, in label order."""
        counts = self.counts
        splits = list(counts)
        shown = [*labels, *([""] if any(counts[split][""] for split in splits) else [])]
        rows = [_counts(label or UNLABELLED, [counts[s][label] for s in splits]) for label in shown]
        rows.append(_counts("all", [sum(counts[s].values()) for s in splits]))
        rows.append([""] * (len(splits) + 2))
        speakers = [f"{self.speakers[s]:,}" for s in splits]
        rows.append(["speakers", *speakers, f"{self.all_speakers:,}"])
        unknown = [self.unknown_speakers[s] for s in splits]
        if any(unknown):
            rows.append(_counts("of unknown speakers", unknown))
        hours = [self.hours[s] for s in splits]
        if any(hours):
            rows.append(["audio", *(time_text(3600 * h) for h in (*hours, sum(hours)))])
        columns = ("utterances", *(split or UNUSED for split in splits), "all")
        return Table("", columns, rows, right=range(1, len(columns)))

    def written(self, manifest: Path) -> str:
        """A sentence on the manifest that was written."""
        total = sum(sum(by_label.values()) for by_label in self.counts.values())
        return f"Wrote {manifest}: {total:,} utterances, label order as above."


def _speakers(utterances: Iterable[Utterance]) -> int:
    return len({speaker_key(u) for u in utterances} - {None})


@dataclass(frozen=True)
class PrepareReport(Jsonable):
    """The summary of one `prepare`.

    Attributes:
        corpus: the reader's name.
        title: the corpus in full.
        licence: of the corpus.
        root: where it was read.
        manifest: the CSV that was written.
        labels: the label order.
        splits_made: the splits were made here (else they are the corpus's own).
        how: where the splits come from, a sentence.
        seed: of the splits made.
        synthetic: not human speech.
        tally: what the manifest holds.
        protocol: the published evaluation that chose the rows, or None.
        folds: rows by fold, in order; empty without cross-validation.
        removed: rows left out to balance classes, by split and label.
        missing: files that do not exist.
        unreadable: recordings in the manifest that look broken; extraction reports them again.
        dropped: what else was left out.
        notes: sentences to read.
    """

    json_entries = (
        "corpus title licence root manifest labels splits_made how seed synthetic **tally "
        "protocol=protocol_name folds removed missing unreadable dropped notes metrics"
    )

    corpus: str
    title: str
    licence: str
    root: Path
    manifest: Path
    labels: tuple[str, ...]
    splits_made: bool
    how: str
    seed: int
    synthetic: bool
    tally: Tally
    protocol: Protocol | None
    folds: Mapping[str, int]
    removed: Mapping[str, Mapping[str, int]]
    missing: tuple[Dropped, ...]
    unreadable: tuple[Dropped, ...]
    dropped: tuple[Dropped, ...]
    notes: tuple[str, ...]

    @property
    def protocol_name(self) -> str | None:
        """Its name, or None."""
        return self.protocol.name if self.protocol else None

    @property
    def metrics(self) -> tuple[str, ...]:
        """The scores that the protocol reports."""
        return self.protocol.metrics if self.protocol else ()

    def to_text(self) -> str:
        """The report as plain text, at most 100 columns wide where names allow it."""
        broken = "Kept, but extraction may fail on them"
        parts: tuple[Part, ...] = (
            self.title,
            f"Licence: {self.licence}",
            f"Read from {self.root}",
            self.tally.table(self.labels),
            *_arrangement_lines(self),
            *_section(f"Left out ({len(self.dropped)})", self.dropped),
            *_section(f"Missing files ({len(self.missing)})", self.missing),
            *_section(f"{broken} ({len(self.unreadable)})", self.unreadable),
            "",
            self.tally.written(self.manifest),
        )
        return Report("", parts).to_text()


def _counts(name: str, values: Sequence[int]) -> list[str]:
    return [name, *(f"{value:,}" for value in (*values, sum(values)))]


def _arrangement_lines(report: PrepareReport) -> list[str]:
    """Say where rows, splits and folds come from, and which rows were left out."""
    lines = []
    protocol = report.protocol
    if protocol is not None:
        scores = metrics_text(protocol.metrics)
        lines.append(f"Protocol {protocol.name}: {protocol.source}. Scores: {scores}.")
    lines.append(f"Splits: {report.how}")
    if report.folds:
        lines.append(f"Rows by fold: {_listed(report.folds)}.")
    for split, removed in report.removed.items():
        if removed:
            what = "within the largest imbalance" if split == "train" else "equally frequent"
            lines.append(
                f"Left out of {split} at random (seed {report.seed}), so that classes are {what}: "
                f"{_listed(removed)}. They stay in the manifest without a split."
            )
    notes = () if protocol is None else protocol.notes
    return lines + noted((*notes, *report.notes))


def noted(notes: Sequence[str]) -> list[str]:
    """Notes, called so unless they are warnings."""
    return [note if note.startswith("WARNING") else f"Note: {note}" for note in notes]


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counts.items())


def _section(title: str, items: Sequence[Dropped]) -> list[str]:
    """List places by reason, the most frequent reason first, at a readable length."""
    if not items:
        return []
    reasons = Counter(item.reason for item in items)
    lines = ["", f"{title}:"]
    for reason, count in reasons.most_common(SHOWN_REASONS):
        places = [item.where for item in items if item.reason == reason][:SHOWN_PLACES]
        more = f", … ({count} in all)" if count > len(places) else ""
        lines.append(f"  {reason}: {', '.join(places)}{more}")
    hidden = sum(n for _, n in reasons.most_common()[SHOWN_REASONS:])
    return [*lines, f"  … and {hidden} more for other reasons"] if hidden else lines
