"""What a manifest tool wrote, as data and as text to read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from corpora.base.terminal import wrapped
from corpora.manifest import Manifest
from corpora.summary import table_lines, tally


@dataclass(frozen=True)
class ToolReport:
    """A manifest that was written.

    Attributes:
        did: what was done, a sentence.
        manifest: the CSV that was written.
        corpus: its name.
        labels: the label order.
        tallied: counts by split, as `corpora.summary.tally` gives them.
        corpora: utterances by corpus.
        settings: how splits and folds were made.
        notes: sentences to read.
    """

    did: str
    manifest: Path
    corpus: str
    labels: tuple[str, ...]
    tallied: Mapping[str, Any]
    corpora: Mapping[str, int]
    settings: Mapping[str, Any]
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return everything as JSON values."""
        return {
            "did": self.did,
            "manifest": str(self.manifest),
            "corpus": self.corpus,
            "labels": list(self.labels),
            "corpora": dict(self.corpora),
            "counts": self.tallied["counts"],
            "speakers": self.tallied["speakers"],
            "all_speakers": self.tallied["all_speakers"],
            "settings": dict(self.settings),
            "notes": list(self.notes),
        }

    def to_text(self) -> str:
        """For a terminal."""
        lines = [*wrapped(self.did), "", *table_lines(self.tallied, self.labels), ""]
        if len(self.corpora) > 1:
            listed = ", ".join(f"{name} {count:,}" for name, count in self.corpora.items())
            lines += wrapped(f"Corpora: {listed}.")
        for note in self.notes:
            lines += wrapped(note if note.startswith("WARNING") else f"Note: {note}")
        total = sum(sum(held.values()) for held in self.tallied["counts"].values())
        lines.append(f"Wrote {self.manifest}: {total:,} utterances, label order as above.")
        return "\n".join(lines)


def report_on(did: str, manifest: Manifest, path: Path, notes: Sequence[str]) -> ToolReport:
    """Return the report on a manifest that was written to `path`."""
    counts: dict[str, int] = {}
    for utterance in manifest.utterances:
        counts[utterance.corpus] = counts.get(utterance.corpus, 0) + 1
    return ToolReport(
        did,
        path,
        manifest.corpus,
        manifest.labels,
        tally(manifest.utterances, manifest.labels, {}),
        counts,
        manifest.settings,
        tuple(notes),
    )
