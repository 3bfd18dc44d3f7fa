"""What `explain` found and wrote, and what is said before it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from corpora.base.report import Section
from corpora.base.terminal import wrapped
from corpora.utterance import split_name
from explain.alignments import Aligned
from explain.item import Item
from explain.subject import Subject
from finetune.evaluation import SUBJECTS, caveats, encoders_text
from heads.layers import layer_weights, layer_weights_text


@dataclass(frozen=True, eq=False)
class Explanation:
    """What `explain` found and wrote.

    Attributes:
        subject: what was explained.
        sections: of the report.
        intro: sentences that come first.
        written: files and folders.
        summary: JSON values.
    """

    subject: Subject
    sections: tuple[Section, ...]
    intro: tuple[str, ...]
    written: tuple[Path, ...]
    summary: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {**self.summary, "written": [str(path) for path in self.written]}

    def to_text(self) -> str:
        """For a terminal."""
        lines = [line for sentence in self.intro for line in wrapped(sentence)]
        for section in self.sections:
            if section.text:
                lines += ["", section.title]
                lines += [line for text in section.text for line in wrapped(f"  {text}", "    ")]
        lines += ["", "Wrote:", *(f"  {path}" for path in self.written)]
        return "\n".join([*lines, f"Open {self.written[0]} in a browser."])


def introduction(subject: Subject, items: Sequence[Item]) -> list[str]:
    """Sentences on who is explained on what, and all that has to be said first."""
    labelled = [item for item in items if item.right is not None]
    right = sum(bool(item.right) for item in labelled)
    where = f", {split_name(subject.split).removeprefix('the ')}" if subject.split else ""
    weights = layer_weights_text(layer_weights(subject.head), subject.layers)
    lines = [
        f"The {SUBJECTS[subject.kind]} ({subject.source}): {len(subject):,} "
        f"utterance{'' if len(subject) == 1 else 's'} of {subject.corpus or 'no corpus'}{where}"
        + (f", {right:,} of {len(labelled):,} labelled ones right." if labelled else "."),
        f"Encoders: {encoders_text(subject.encoders, subject.layers)}.",
        *([f"Layer weights: {weights}."] if weights else []),
        *caveats(subject.encoders, synthetic=subject.synthetic),
    ]
    bare = [name for name in subject.frames if name not in subject.weights]
    if bare:
        lines.append(
            f"The pooling of {' and '.join(bare)} learns no attention: what is shown in its place "
            "is gradient saliency, gradient × (frame − the utterance's mean frame), of the frames "
            "that speak for the answer, scaled to sum to 1; those that speak against it get 0."
        )
    lines += subject.notes
    if subject.skipped:
        first = next(iter(subject.skipped.values()))
        lines.append(f"{len(subject.skipped):,} utterances could not be used. First: {first}")
    absent = [
        label for label in subject.labels if label not in {u.label for u in subject.utterances}
    ]
    if subject.split and labelled and absent:
        lines.append(f"No utterance is labelled {', '.join(absent)}.")
    return lines


def summarise(
    subject: Subject, items: Sequence[Item], sections: Sequence[Section], aligned: Aligned
) -> dict[str, Any]:
    """JSON values: what was explained, and each section's numbers."""
    return {
        "subject": subject.kind,
        "source": str(subject.source),
        "corpus": subject.corpus,
        "split": subject.split,
        "synthetic": subject.synthetic,
        "encoders": dict(subject.encoders),
        "methods": dict(subject.methods),
        "utterances": len(subject),
        "aligned": aligned.count,
        "skipped": dict(subject.skipped),
        "notes": list(subject.notes),
        "items": [
            {
                "id": item.utterance.id,
                "label": item.utterance.label,
                "predicted": item.predicted,
                "probability": item.confidence,
            }
            for item in items
        ]
        if not subject.split
        else [],
        "sections": {section.title: section.summary for section in sections if section.summary},
    }
