"""What a search found, as data and as text to read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from corpora.text_table import aligned
from heads.metrics import Report, score_cells
from heads.reference import Reference
from heads.results import HeadRecord


@dataclass(frozen=True)
class TrialLine:
    """One line of the table of the best trials.

    Attributes:
        number: in the study.
        published: name of the published configuration it is; "" for a sampled one.
        params: the values of the search's axes.
        dev_macro_f1: what it was selected on.
    """

    number: int
    published: str
    params: Mapping[str, Any]
    dev_macro_f1: float


@dataclass(frozen=True)
class SearchReport:
    """The summary of one `search`.

    Attributes:
        folder: where the files are.
        completed: trials trained to the end, in all.
        halved: trials that left earlier, in all.
        added: trials finished by this run.
        epochs: of a completed trial.
        best: the best head, with its reports on dev and, where there is one, test.
        top: the best trials, at most ten.
        reference: logistic regression on the same frames and rows.
        notes: what the user should know about the data or the study.
        files: what was written.
    """

    folder: Path
    completed: int
    halved: int
    added: int
    epochs: int
    best: HeadRecord
    top: tuple[TrialLine, ...]
    reference: Reference
    notes: tuple[str, ...]
    files: tuple[Path, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "folder": str(self.folder),
            "completed": self.completed,
            "halved": self.halved,
            "added": self.added,
            "epochs": self.epochs,
            "best": self.best.to_json(),
            "top": [
                {
                    "number": line.number,
                    "published": line.published,
                    "params": dict(line.params),
                    "dev_macro_f1": line.dev_macro_f1,
                }
                for line in self.top
            ],
            "reference": self.reference.to_json(),
            "notes": list(self.notes),
            "files": [str(path) for path in self.files],
        }

    def to_text(self) -> str:
        """For a terminal."""
        best = self.best
        origin = best.origin
        encoders = ", ".join(
            f"{name} {origin.encoders.get(name, '?')} layer {origin.layers.get(name, '?')}"
            for name in best.head.modalities
        )
        corpus = f"{origin.corpus or 'unnamed corpus'}{', synthetic speech' * origin.synthetic}"
        work = self.folder.parent
        added = f"{self.added} of them now" if self.added else "nothing was left to do"
        return "\n".join(
            [
                f"{self.completed + self.halved} trials ({added}) on frozen frames of {corpus}: "
                f"{self.completed} over {self.epochs} epochs, {self.halved} halved earlier.",
                *(f"Note: {note}" for note in self.notes),
                "",
                *_trial_table(self.top),
                "",
                f"Best: trial {best.trial}{_named(best.published)}. Encoders: {encoders}.",
                *_score_table(best.scores, self.reference),
                "",
                "Wrote:",
                *(f"  {path}" for path in self.files),
                "",
                f"Next: python cli.py finetune --best --work {work}",
                f"  or: python cli.py evaluate --work {work}",
            ]
        )


def _trial_table(lines: Sequence[TrialLine]) -> list[str]:
    """The best trials; scores they were selected by are called so."""
    rows = [
        (
            str(line.number),
            _pooling(line),
            _shape(line.params),
            str(line.params["modalities"]),
            str(line.params["input_norm"]),
            f"{line.params['learning_rate']:.1e}",
            f"{line.dev_macro_f1:.3f}",
        )
        for line in lines
    ]
    titles = ("trial", "pooling", "Q/H/n/p", "modalities", "norm", "rate", "dev macro-F1")
    return aligned([titles, *rows], right=(0, 5, 6))


def _pooling(line: TrialLine) -> str:
    own = {
        name.removesuffix("pooling").rstrip("_"): str(value)
        for name, value in line.params.items()
        if name.endswith("pooling")
    }
    kinds = ", ".join(f"{name} {kind}".strip() for name, kind in own.items())
    if not line.published or line.published == kinds:
        return f"{kinds}{' (published)' * bool(line.published)}"
    return f"{line.published} (published)"


def _shape(params: Mapping[str, Any]) -> str:
    """Queries, heads, scorer layers and hidden size of attentive poolings."""
    shapes = []
    for name in params:
        if name.endswith("queries"):
            prefix = name.removesuffix("queries")
            axes = ("queries", "heads", "scorer_layers", "hidden")
            shapes.append("/".join(str(params.get(f"{prefix}{axis}", "-")) for axis in axes))
    return ", ".join(shapes) or "-"


def _score_table(scores: Mapping[str, Report], reference: Reference) -> list[str]:
    """Best head and reference, development and test set, beside one another."""
    lines: list[tuple[str, ...]] = [("", "macro-F1", "UA", "WA", "utterances")]
    titles = {"dev": "dev (selected on it)", "test": "test"}
    for split, report in scores.items():
        lines.append((f"best head, {titles[split]}", *score_cells(report)))
    for split, own in (("dev", reference.dev), ("test", reference.test)):
        if own is not None:
            lines.append((f"reference, {titles[split]}", *score_cells(own)))
    text = aligned(lines, right=(4,))
    text += [_interval_note(split, report) for split, report in scores.items()]
    text.append(
        f"Reference: scikit-learn logistic regression on mean and deviation of the frames "
        f"({'+'.join(reference.modalities)}, normalisation {reference.input_norm}), "
        f"C = {reference.strength:g} chosen on dev"
        f"{'' if reference.converged else ', stopped before it converged'}."
    )
    if "test" in scores:
        text.append(
            "The test set had no part in the choice. The dev score is what the winner was picked "
            "by, so it flatters it."
        )
    else:
        text.append(
            "There is no test split: a dev score that a head was selected on is not a result."
        )
    return text


def _interval_note(split: str, report: Report) -> str:
    reason = report.interval_reason
    if report.intervals is None:
        return f"{split}: no intervals: {reason}."
    found = f"{split}: {100 * report.confidence:g} % intervals, bootstrap over "
    return f"{found}{report.speakers} speakers{f'; {reason}' if reason else ''}."


def _named(published: str) -> str:
    return f" ({published}, a published configuration)" if published else ""
