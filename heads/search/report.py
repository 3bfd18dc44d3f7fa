"""What a search found, as data and as text to read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cache.recipe import layers_text
from corpora.base.codec import Jsonable
from corpora.base.files import write_json
from corpora.base.report import Part, Report, Table
from corpora.base.work import command_line
from heads.bootstrap import Difference, Optimism
from heads.load import WEIGHTED
from heads.metrics import Scores, scores_table
from heads.records import HeadRecord, layer_weights_text
from heads.reference import Reference
from heads.search.space import PUBLISHED

FORMAT, VERSION = "emopool-ensemble", 1


@dataclass(frozen=True)
class Ensemble(Jsonable):
    """An ensemble of trials.

    Attributes:
        trials: their numbers, the best first.
        scores: reports by split, as in `HeadRecord`.
    """

    trials: tuple[int, ...]
    scores: Mapping[str, Scores]


def write_ensemble(path: Path, ensemble: Ensemble) -> None:
    """Write an ensemble's members and scores as JSON."""
    write_json(path, {"format": FORMAT, "version": VERSION, **ensemble.to_json()})


def average(probabilities: Sequence[Tensor]) -> Tensor:
    """The mean of several heads' probabilities `[n, C]`."""
    return torch.stack(list(probabilities)).mean(0)


def score_table(
    scores: Mapping[str, Scores],
    team: Ensemble | None,
    reference: Reference,
    *,
    fold_scores: Sequence[Scores] = (),
    ahead: Mapping[str, Difference],
    optimism: Optimism | None = None,
    trained_on: str = "train",
) -> Table:
    """Best head, ensemble and reference on every split, and how to read them.

    Args:
        scores: of the best head, by split.
        team: the ensemble, where it was asked for.
        reference: the logistic regression.
        fold_scores: of the best trial, on each fold by itself.
        ahead: by split, how far the best head is ahead of the reference.
        optimism: how much of the winner's score is the luck of being chosen.
        trained_on: the splits that the best head learnt from.
    """
    folded = "folds" in scores
    titles = {
        "folds": "folds of train and dev (selected on them)",
        "dev": "dev (part of the folds)" if folded else "dev (selected on it)",
        "test": "test",
    }
    rows = {
        f"{name}, {titles[split]}": own[split]
        for name, own in (
            ("best head", scores),
            (f"ensemble of {len(team.trials) if team else 0}", team.scores if team else {}),
            ("reference", reference.scores),
        )
        for split in titles
        if split in own
    }
    weighted = "; ".join(f"{name} {report.weighted_f1:.3f}" for name, report in rows.items())
    notes = [
        f"Weighted F1: {weighted}.",
        *(
            f"On {split}: {note[0].lower()}{note[1:]}"
            for split, own in scores.items()
            for note in own.interval_notes
        ),
        *fold_note(fold_scores),
        *([_ensemble_note(team.trials)] if team else []),
        reference.to_text(),
        *(f"Best head minus reference, {split}: {by}." for split, by in ahead.items()),
        *_worth(optimism, trained_on, folded=folded, tested="test" in scores),
    ]
    return scores_table("", rows, right=(4,), notes=notes)


def verdict(difference: Difference | None, lead: float, where: str) -> list[str]:
    """What comes first where the reference is better than the head; nothing where it is not.

    Args:
        difference: head minus reference, where a bootstrap can say.
        lead: the same as a number.
        where: the rows.
    """
    if lead >= 0:
        return []
    by = f"{lead:+.3f}, too few speakers for an interval" if difference is None else str(difference)
    clear = difference is not None and difference.interval.high < 0
    return [
        f"The reference, a logistic regression, is {'better' if clear else 'ahead'} on {where}: "
        f"head minus reference {by}. "
        + (
            "Use the reference, or search on: more --trials, or another layer (extract "
            "--audio-layers auto:3)."
            if clear
            else "Do not claim a gain for the head: they cannot be told apart here."
        ),
        "",
    ]


def fold_note(reports: Sequence[Scores]) -> list[str]:
    """Mean and deviation over folds of each score, as the field reports cross-validation."""
    if not reports:
        return []
    cells = []
    for title, name in (
        ("macro-F1", "macro_f1"),
        ("UA", "uar"),
        ("WA", "accuracy"),
        ("weighted F1", "weighted_f1"),
    ):
        values = np.array([getattr(report, name) for report in reports])
        cells.append(f"{title} {values.mean():.3f} ± {values.std(ddof=1):.3f}")
    return [f"Mean and standard deviation over {len(reports)} folds: {', '.join(cells)}."]


def _ensemble_note(trials: Sequence[int]) -> str:
    members = ", ".join(str(number) for number in trials)
    return f"Ensemble: the mean of the probabilities of trials {members}."


def _worth(optimism: Optimism | None, trained_on: str, *, folded: bool, tested: bool) -> list[str]:
    """What the score of selection is worth, and which score is a result."""
    where = "folds" if folded else "dev"
    text = []
    if folded:
        text.append(
            "The winner was chosen by its score on the folds, each said by a head trained without "
            f"it. The head that is kept was then trained on {trained_on}, for as many epochs."
        )
    if optimism is not None:
        text += optimism_lines(optimism, where)
    if tested:
        text.append(
            f"The test set had no part in the choice. The {where} score is what the winner was "
            "picked by, so it flatters it."
        )
    else:
        text.append(
            f"There is no test split: a {where} score that a head was selected on is not a result."
        )
    return text


def optimism_lines(optimism: Optimism, where: str) -> list[str]:
    """How much of the selection score is luck."""
    few = f" (not by speaker: {optimism.reason})" if optimism.reason else ""
    luck = (
        f"so about {optimism.value:.3f} of it is the luck of being chosen"
        if optimism.value > 0
        else "so no luck of being chosen shows in it"
    )
    return [
        f"Best of {optimism.candidates} trials on {where}: macro-F1 "
        f"{optimism.selected:.3f}; nested estimate {optimism.nested:.3f}; {luck}.",
        f"(Nested: chosen on resampled {optimism.unit}s, scored on those left out{few}.)",
    ]


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
class SearchReport(Jsonable):
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
    fold_scores: tuple[Scores, ...] = ()
    ensemble: Ensemble | None = None

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
        scored = score_table(
            best.scores,
            self.ensemble,
            self.reference,
            fold_scores=self.fold_scores,
            ahead=self.ahead,
            optimism=self.optimism,
            trained_on=best.trained_on,
        )
        parts: tuple[Part, ...] = (
            *verdict(self.ahead.get(where), lead, where),
            f"{self.completed + self.halved} trials ({added}) on frozen frames of {corpus}: "
            f"{self.completed} over {self.epochs} epochs, {self.halved} halved earlier.",
            *[f"Trials are compared by {best.selected_on}."] * (best.selected_on != "dev"),
            *(f"Note: {note}" for note in self.notes),
            self._trial_table(),
            f"Best: trial {best.trial}{_named(best.start)}. Encoders: {encoders}.",
            *[f"Layer weights: {weights}."] * bool(weights),
            scored,
        )
        steps = (command_line(step, work, manifest) for step in ("finetune --best", "evaluate"))
        return Report("", parts, self.files, tuple(steps)).to_text()

    def _trial_table(self) -> Table:
        """The best trials; scores they were selected by are called so."""
        count = sum(line.difference is not None for line in self.top)
        rows = [
            (
                str(line.number),
                trial_title(line.start, line.params),
                shape_text(line.params),
                str(line.params["modalities"]),
                str(line.params["input_norm"]),
                f"{line.params['learning_rate']:.1e}",
                f"{line.dev_macro_f1:.3f}",
                *[line.difference.short if line.difference else "-"] * bool(count),
            )
            for line in self.top
        ]
        columns = ("trial", "pooling", "Q/H/n/p", "modalities", "norm", "rate")
        score = (f"{self.selected_on} macro-F1", *["to the best"] * bool(count))
        notes = [f"Trials are not tested against each other: {self.not_compared}."]
        if count:
            notes = [
                "p: chance of such a difference between equal heads (paired bootstrap over "
                f"speakers, Holm-corrected for {count} comparisons). Above .05, do not take them "
                "for different; below, remember that the best was chosen on these same data, which "
                "favours it."
            ]
        shown = notes if count or self.not_compared else ()
        return Table("", (*columns, *score), rows, right=(0, 5, 6), notes=shown)


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


def shape_text(params: Mapping[str, Any]) -> str:
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
