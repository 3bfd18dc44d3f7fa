"""What `prepare` found and did, as data and as text to read."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from corpora.registry import Dropped
from corpora.utterance import SPLITS, Utterance, speaker_key

UNLABELLED, UNUSED = "(unlabelled)", "(not used)"  # how the empty label and split are shown
SHOWN_REASONS, SHOWN_PLACES = 12, 3  # lines of a list, and examples for one reason
WIDTH = 100


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
        seed: of the splits made.
        synthetic: not human speech.
        counts: utterances by split and label; the empty split is not used, the empty label is
            unlabelled.
        speakers: known speakers by split.
        all_speakers: known speakers in all.
        unknown_speakers: utterances of unknown speakers by split.
        hours: of the recordings whose header could be read, by split.
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
    seed: int
    synthetic: bool
    counts: Mapping[str, Mapping[str, int]]
    speakers: Mapping[str, int]
    all_speakers: int
    unknown_speakers: Mapping[str, int]
    hours: Mapping[str, float]
    missing: tuple[Dropped, ...]
    unreadable: tuple[Dropped, ...]
    dropped: tuple[Dropped, ...]
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return everything as JSON values."""
        return {**asdict(self), "root": str(self.root), "manifest": str(self.manifest)}

    def to_text(self) -> str:
        """Return the report as plain text, at most 100 columns wide where names allow it."""
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
        *_table(report),
        "",
        *_wrap(_splits_line(report)),
    ]
    for note in report.notes:
        lines += _wrap(note if note.startswith("WARNING") else f"Note: {note}")
    lines += _section(f"Left out ({len(report.dropped)})", report.dropped)
    lines += _section(f"Missing files ({len(report.missing)})", report.missing)
    lines += _section(
        f"Kept, but extraction may fail on them ({len(report.unreadable)})", report.unreadable
    )
    lines += ["", f"Wrote {report.manifest}: {total:,} utterances, label order as above."]
    return "\n".join(lines)


def _table(report: PrepareReport) -> list[str]:
    splits = list(report.counts)
    labels = [*report.labels]
    if any(report.counts[split][""] for split in splits):
        labels.append("")
    rows = [["utterances", *(split or UNUSED for split in splits), "all"]]
    for label in labels:
        rows.append(_counts(label or UNLABELLED, [report.counts[s][label] for s in splits]))
    rows.append(_counts("all", [sum(report.counts[s].values()) for s in splits]))
    rows.append([])
    speakers = [f"{report.speakers[s]:,}" for s in splits]
    rows.append(["speakers", *speakers, f"{report.all_speakers:,}"])
    unknown = [report.unknown_speakers[s] for s in splits]
    if any(unknown):
        rows.append(_counts("of unknown speakers", unknown))
    hours = [report.hours[s] for s in splits]
    rows.append(["hours", *(f"{h:,.2f}" for h in (*hours, sum(hours)))])
    columns = list(zip(*(row for row in rows if row), strict=True))
    widths = [max(map(len, column)) for column in columns]
    return [
        "  ".join(
            cell.ljust(width) if k == 0 else cell.rjust(width)
            for k, (cell, width) in enumerate(zip(row, widths, strict=False))
        ).rstrip()
        for row in rows
    ]


def _counts(name: str, values: Sequence[int]) -> list[str]:
    return [name, *(f"{value:,}" for value in (*values, sum(values)))]


def _splits_line(report: PrepareReport) -> str:
    if report.splits_made:
        return (
            f"Splits: made here (seed {report.seed}), no known speaker in two of them, as near to "
            "60/20/20 and to the corpus's label shares as whole speakers allow."
        )
    used = any(any(held.values()) for split, held in report.counts.items() if split)
    return "Splits: the corpus's own." if used else "Splits: none."


def _wrap(text: str, indent: str = "") -> list[str]:
    return textwrap.wrap(
        text,
        WIDTH,
        initial_indent=indent,
        subsequent_indent=indent + "  ",
        break_long_words=False,
        break_on_hyphens=False,
    )


def _section(title: str, items: Sequence[Dropped]) -> list[str]:
    """List places by reason, the most frequent reason first, at a readable length."""
    if not items:
        return []
    reasons = Counter(item.reason for item in items)
    lines = ["", f"{title}:"]
    for reason, count in reasons.most_common(SHOWN_REASONS):
        places = [item.where for item in items if item.reason == reason][:SHOWN_PLACES]
        more = f", … ({count} in all)" if count > len(places) else ""
        lines += _wrap(f"{reason}: {', '.join(places)}{more}", "  ")
    hidden = sum(n for _, n in reasons.most_common()[SHOWN_REASONS:])
    return [*lines, f"  … and {hidden} more for other reasons"] if hidden else lines
