"""What a search found, as data and as text to read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cache.layers import layers_text
from corpora.base.terminal import aligned
from corpora.base.work import command_line
from heads.layers import layer_weights_text
from heads.metrics import Report
from heads.reference import Reference
from heads.results import HeadRecord
from heads.search.ensemble import Ensemble
from heads.search.score_table import score_table, verdict
from heads.search.space import PUBLISHED
from heads.search.weighing import WEIGHTED
from heads.statistics.comparison import Difference
from heads.statistics.optimism import Optimism


@dataclass(frozen=True)
class TrialLine:
    """One line of the table of the best trials.

    Attributes:
        number: in the study.
        start: name of the starting configuration it is; "" for a sampled one.
        params: the values of the search's axes.
        dev_macro_f1: what it was selected on; with folds their pooled macro-F1.
        difference: from the best trial, where a bootstrap can say; None for the best one.
    """

    number: int
    start: str
    params: Mapping[str, Any]
    dev_macro_f1: float
    difference: Difference | None = None


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
        selected_on: `dev`, or `folds` of train and dev.
        not_compared: why the best trials are not compared with each other; "" where they are.
        ahead: by split, how far the best head is ahead of the reference, where that can be said.
        optimism: how much of the winner's score is the luck of being chosen, where there is
            enough to say.
        fold_scores: with folds, the best trial's report on each by itself.
        ensemble: the average of the best, where it was asked for.
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
    selected_on: str = "dev"
    not_compared: str = ""
    ahead: Mapping[str, Difference] = field(default_factory=dict)
    optimism: Optimism | None = None
    fold_scores: tuple[Report, ...] = ()
    ensemble: Ensemble | None = None

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
                    "start": line.start,
                    "params": dict(line.params),
                    "dev_macro_f1": line.dev_macro_f1,
                    "difference": line.difference and line.difference.to_json(),
                }
                for line in self.top
            ],
            "reference": self.reference.to_json(),
            "notes": list(self.notes),
            "files": [str(path) for path in self.files],
            "selected_on": self.selected_on,
            "not_compared": self.not_compared,
            "ahead": {split: entry.to_json() for split, entry in self.ahead.items()},
            "optimism": self.optimism and self.optimism.to_json(),
            "fold_scores": [report.to_json() for report in self.fold_scores],
            "ensemble": self.ensemble and self.ensemble.to_json(),
        }

    def to_text(self, manifest: Path | None = None) -> str:
        """For a terminal; the next command gets a manifest named in place of the folder's own."""
        best = self.best
        origin = best.origin
        encoders = ", ".join(
            f"{name} {origin.encoders.get(name, '?')} "
            f"{layers_text(origin.layers[name]) if name in origin.layers else 'layer ?'}"
            for name in best.head.modalities
        )
        corpus = f"{origin.corpus or 'unnamed corpus'}{', synthetic speech' * origin.synthetic}"
        weights = layer_weights_text(best.layer_weights, origin.layers)
        work = self.folder.parent
        added = f"{self.added} of them now" if self.added else "nothing was left to do"
        # On test where there is one, and else on what the head was chosen by.
        where = "test" if "test" in best.scores else self.selected_on
        lead = best.scores[where].macro_f1 - self.reference.scores[where].macro_f1
        return "\n".join(
            [
                *verdict(self.ahead.get(where), lead, where),
                f"{self.completed + self.halved} trials ({added}) on frozen frames of {corpus}: "
                f"{self.completed} over {self.epochs} epochs, {self.halved} halved earlier.",
                *([f"Trials are compared by {best.selected_on}."] * (best.selected_on != "dev")),
                *(f"Note: {note}" for note in self.notes),
                "",
                *_trial_table(self.top, self.selected_on),
                *_comparison_notes(self),
                "",
                f"Best: trial {best.trial}{_named(best.start)}. Encoders: {encoders}.",
                *([f"Layer weights: {weights}."] if weights else []),
                *score_table(
                    best.scores,
                    self.ensemble,
                    self.reference,
                    fold_scores=self.fold_scores,
                    ahead=self.ahead,
                    optimism=self.optimism,
                    trained_on=best.trained_on,
                ),
                "",
                "Wrote:",
                *(f"  {path}" for path in self.files),
                "",
                f"Next: {command_line('finetune --best', work, manifest)}",
                f"  or: {command_line('evaluate', work, manifest)}",
            ]
        )


def _trial_table(lines: Sequence[TrialLine], selected_on: str) -> list[str]:
    """The best trials; scores they were selected by are called so."""
    compared = any(line.difference for line in lines)
    rows = [
        (
            str(line.number),
            trial_title(line.start, line.params),
            _shape(line.params),
            str(line.params["modalities"]),
            str(line.params["input_norm"]),
            f"{line.params['learning_rate']:.1e}",
            f"{line.dev_macro_f1:.3f}",
            *([_differing(line.difference)] * compared),
        )
        for line in lines
    ]
    titles = ("trial", "pooling", "Q/H/n/p", "modalities", "norm", "rate")
    score = (f"{selected_on} macro-F1", *(["to the best"] * compared))
    return aligned([(*titles, *score), *rows], right=(0, 5, 6))


def _differing(difference: Difference | None) -> str:
    if difference is None:
        return "-"
    p = "p < .001" if difference.p < 0.001 else f"p = {difference.p:.3f}"
    return f"{difference.value:+.3f} ({p})"


def _comparison_notes(report: SearchReport) -> list[str]:
    """What the last column of the table means, or why there is none."""
    if any(line.difference for line in report.top):
        count = sum(line.difference is not None for line in report.top)
        return [
            f"p: chance of such a difference between equal heads (paired bootstrap over speakers, "
            f"Holm-corrected for {count} comparisons). Above .05, do not take them for different; "
            "below, remember that the best was chosen on these same data, which favours it."
        ]
    if report.not_compared:
        return [f"Trials are not tested against each other: {report.not_compared}."]
    return []


def trial_title(start: str, params: Mapping[str, Any]) -> str:
    """What a trial is called: the start that it is, or its pooling kinds."""
    if start:
        return f"{start} (published)" if start in PUBLISHED else start
    own = {
        name.removesuffix("pooling").rstrip("_"): f"{value}{_weighing(params, name)}"
        for name, value in params.items()
        if name.endswith("pooling")
    }
    return ", ".join(f"{name} {kind}".strip() for name, kind in own.items())


def _weighing(params: Mapping[str, Any], pooling: str) -> str:
    """What to say of a pooling (the name of its axis) that weighs layers."""
    chosen = params.get(f"{pooling.removesuffix('pooling')}layers")
    return " of weighted layers" if chosen == WEIGHTED else ""


def _shape(params: Mapping[str, Any]) -> str:
    """Queries, heads, scorer layers and hidden size of attentive poolings."""
    shapes = []
    for name in params:
        if name.endswith("queries"):
            prefix = name.removesuffix("queries")
            axes = ("queries", "heads", "scorer_layers", "hidden")
            shapes.append("/".join(str(params.get(f"{prefix}{axis}", "-")) for axis in axes))
    return ", ".join(shapes) or "-"


def _named(start: str) -> str:
    if start in PUBLISHED:
        return f" ({start}, a published pooling)"
    return f" ({start})" if start else ""
