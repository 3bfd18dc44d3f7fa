"""What `prepare` found and did, as data and as text to read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from corpora.base.terminal import aligned, wrapped
from corpora.protocol import Protocol, metrics_text
from corpora.readers.registry import Dropped
from corpora.utterance import SPLITS, Utterance, speaker_key

UNLABELLED, UNUSED = "(unlabelled)", "(not used)"  # how the empty label and split are shown
SHOWN_REASONS, SHOWN_PLACES = 12, 3  # lines of a list, and examples for one reason


@dataclass(frozen=True)
class PrepareReport:
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
        counts: utterances by split and label; the empty split is not used, the empty label is
            unlabelled.
        speakers: known speakers by split.
        all_speakers: known speakers in all.
        unknown_speakers: utterances of unknown speakers by split.
        hours: of the recordings whose header could be read, by split.
        protocol: the published evaluation that chose the rows, or None.
        folds: rows by fold, in order; empty without cross-validation.
        removed: rows left out to balance classes, by split and label.
        missing: files that do not exist.
        unreadable: recordings in the manifest that look broken; extraction reports them again.
        dropped: what else was left out.
        notes: sentences to read.
    """

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
    counts: Mapping[str, Mapping[str, int]]
    speakers: Mapping[str, int]
    all_speakers: int
    unknown_speakers: Mapping[str, int]
    hours: Mapping[str, float]
    protocol: Protocol | None
    folds: Mapping[str, int]
    removed: Mapping[str, Mapping[str, int]]
    missing: tuple[Dropped, ...]
    unreadable: tuple[Dropped, ...]
    dropped: tuple[Dropped, ...]
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Everything as JSON values."""
        return {
            **asdict(replace(self, protocol=None)),
            "root": str(self.root),
            "manifest": str(self.manifest),
            "protocol": self.protocol and self.protocol.name,
            "metrics": list(self.protocol.metrics) if self.protocol else [],
        }

    def to_text(self) -> str:
        """The report as plain text, at most 100 columns wide where names allow it."""
        return _render(self)


def tally(
    utterances: Sequence[Utterance], labels: Sequence[str], seconds: Mapping[str, float]
) -> dict[str, Any]:
    """Count what `PrepareReport` says by split; `seconds` is the length by utterance id."""
    splits = [*SPLITS, *([""] if any(not u.split for u in utterances) else [])]
    by_split = {split: [u for u in utterances if u.split == split] for split in splits}
    return {
        "counts": {
            split: {label: sum(u.label == label for u in held) for label in (*labels, "")}
            for split, held in by_split.items()
        },
        "speakers": {split: _speakers(held) for split, held in by_split.items()},
        "all_speakers": _speakers(utterances),
        "unknown_speakers": {
            split: sum(speaker_key(u) is None for u in held) for split, held in by_split.items()
        },
        "hours": {
            split: sum(seconds.get(u.id, 0.0) for u in held) / 3600
            for split, held in by_split.items()
        },
    }


def _speakers(utterances: Iterable[Utterance]) -> int:
    return len({speaker_key(u) for u in utterances} - {None})


def _render(report: PrepareReport) -> str:
    total = sum(sum(by_label.values()) for by_label in report.counts.values())
    lines = [
        report.title,
        f"Licence: {report.licence}",
        f"Read from {report.root}",
        "",
        *table_lines(vars(report), report.labels),
        "",
        *_arrangement_lines(report),
    ]
    lines += _section(f"Left out ({len(report.dropped)})", report.dropped)
    lines += _section(f"Missing files ({len(report.missing)})", report.missing)
    lines += _section(
        f"Kept, but extraction may fail on them ({len(report.unreadable)})", report.unreadable
    )
    lines += ["", f"Wrote {report.manifest}: {total:,} utterances, label order as above."]
    return "\n".join(lines)


def table_lines(tallied: Mapping[str, Any], labels: Sequence[str]) -> list[str]:
    """Counts of utterances, speakers and hours by split as a table.

    Args:
        tallied: what `tally` returns; without hours where nothing is known of them.
        labels: the label order.
    """
    counts = tallied["counts"]
    splits = list(counts)
    shown = [*labels, *([""] if any(counts[split][""] for split in splits) else [])]
    rows = [["utterances", *(split or UNUSED for split in splits), "all"]]
    rows += [_counts(label or UNLABELLED, [counts[s][label] for s in splits]) for label in shown]
    rows.append(_counts("all", [sum(counts[s].values()) for s in splits]))
    rows.append([""] * (len(splits) + 2))
    speakers = [f"{tallied['speakers'][s]:,}" for s in splits]
    rows.append(["speakers", *speakers, f"{tallied['all_speakers']:,}"])
    unknown = [tallied["unknown_speakers"][s] for s in splits]
    if any(unknown):
        rows.append(_counts("of unknown speakers", unknown))
    hours = [tallied["hours"][s] for s in splits]
    if any(hours):
        rows.append(["hours", *(f"{h:,.2f}" for h in (*hours, sum(hours)))])
    return aligned(rows, right=range(1, len(splits) + 2))


def _counts(name: str, values: Sequence[int]) -> list[str]:
    return [name, *(f"{value:,}" for value in (*values, sum(values)))]


def _arrangement_lines(report: PrepareReport) -> list[str]:
    """Say where rows, splits and folds come from, and which rows were left out."""
    lines = []
    protocol = report.protocol
    if protocol is not None:
        lines += wrapped(
            f"Protocol {protocol.name}: {protocol.source}. Scores: "
            f"{metrics_text(protocol.metrics)}."
        )
    lines += wrapped(f"Splits: {report.how}")
    if report.folds:
        lines += wrapped(f"Rows by fold: {_listed(report.folds)}.")
    for split, removed in report.removed.items():
        if removed:
            what = "within the largest imbalance" if split == "train" else "equally frequent"
            lines += wrapped(
                f"Left out of {split} at random (seed {report.seed}), so that classes are {what}: "
                f"{_listed(removed)}. They stay in the manifest without a split."
            )
    notes = () if protocol is None else protocol.notes
    for note in (*notes, *report.notes):
        lines += wrapped(note if note.startswith("WARNING") else f"Note: {note}")
    return lines


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
        lines += wrapped(f"  {reason}: {', '.join(places)}{more}", "    ")
    hidden = sum(n for _, n in reasons.most_common()[SHOWN_REASONS:])
    return [*lines, f"  … and {hidden} more for other reasons"] if hidden else lines
