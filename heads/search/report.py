"""What a search found, as data and as text to read."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cache.recipe import layers_text
from corpora.base.codec import Jsonable
from corpora.base.report import Part, Report, Table
from corpora.base.work import command_line
from heads.bootstrap import Difference
from heads.config import KEPT
from heads.gold import Optimism, objective_key, objective_name
from heads.metrics import Scores
from heads.records import ENSEMBLE, TRIALS, HeadRecord, layer_weights_text, load_head
from heads.reference import Reference
from heads.ridge import Ridge
from heads.search.layer_axes import WEIGHTED
from heads.search.score_tables import (
    Ensemble,
    References,
    attribute_table,
    read_ensemble,
    score_table,
    selection_score,
    verdict,
    worth,
)
from heads.search.space import PUBLISHED


@dataclass(frozen=True)
class TrialLine:
    """One line of the table of the best trials.

    Attributes:
        number: in the study.
        start: name of the starting configuration it is; "" for a sampled one.
        params: the values of the search's axes.
        dev_macro_f1: what it was selected on; with folds their pooled macro-F1. With attributes
            another score (the report's `objective`), by whose name the JSON calls it.
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
        added: trials finished by this run; None where it is looked at later.
        epochs: of a completed trial.
        best: the best head, with its reports on dev and, where there is one, test.
        top: the best trials, at most ten.
        logistic: regression on the same frames and rows, where there are labels.
        notes: what the user should know about the data or the study.
        files: what was written.
        selected_on: `dev`, or `folds` of train and dev.
        not_compared: why the best trials are not compared with each other; "" where they are.
        ahead: by split, how far the best head is ahead of the reference, where that can be said.
        optimism: how much of the winner's score is the luck of being chosen, where there is
            enough to say.
        fold_scores: with folds, the best trial's report on each by itself.
        ensemble: the average of the best, where it was asked for.
        ridge: ridge regression on the same frames and rows, where there are attributes.
        objective: what the score of selection is called; "" is macro-F1.
    """

    json_entries = (
        "folder completed halved added epochs best top reference=logistic notes files selected_on "
        "not_compared ahead optimism fold_scores ensemble ridge objective"
    )
    json_optional = "ridge objective"

    folder: Path
    completed: int
    halved: int
    added: int | None
    epochs: int
    best: HeadRecord
    top: tuple[TrialLine, ...]
    logistic: Reference | None
    notes: tuple[str, ...]
    files: tuple[Path, ...]
    selected_on: str = "dev"
    not_compared: str = ""
    ahead: Mapping[str, Difference] = field(default_factory=dict)
    optimism: Optimism | None = None
    fold_scores: tuple[Scores, ...] = ()
    ensemble: Ensemble | None = None
    ridge: Ridge | None = None
    objective: str = ""

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; what trials were selected on is called what it is."""
        found, head = super().to_json(), self.best.head
        own = f"dev_{objective_key(head.labels, head.attributes)}"
        named = {"dev_macro_f1": own}
        found["top"] = [{named.get(k, k): v for k, v in line.items()} for line in found["top"]]
        return found

    @property
    def reference(self) -> Reference:
        """The logistic regression of a search for classes."""
        assert self.logistic is not None, "a search for attributes has ridge regression alone"
        return self.logistic

    @property
    def references(self) -> References:
        """Both regressions, as far as there are."""
        return References(self.logistic, self.ridge)

    def to_text(self, manifest: Path | None = None) -> str:
        """For a terminal; the next command gets a manifest named in place of the folder's own."""
        return self.to_report(manifest).to_text()

    def to_report(self, manifest: Path | None = None) -> Report:
        """In parts."""
        best = self.best
        origin = best.origin
        encoders = ", ".join(
            f"{name} {origin.encoders.get(name, '?')} "
            f"{layers_text(origin.layers[name]) if name in origin.layers else 'layer ?'}"
            for name in best.head.modalities
        )
        weights = layer_weights_text(best.layer_weights, origin.layers)
        work = self.folder.parent
        added = f" ({self.added} of them now)" if self.added else " (nothing was left to do)"
        added *= self.added is not None
        # On test where there is one, and else on what the head was chosen by.
        splits = {*best.scores, *best.attribute_scores}
        where = "test" if "test" in splits else self.selected_on
        lead = 0.0
        if self.logistic or self.ridge:
            lead = selection_score(best.scores, best.attribute_scores, where)
            lead -= self.references.score(where)
        parts: tuple[Part, ...] = (
            *verdict(
                self.ahead.get(where),
                lead,
                where,
                classes=self.logistic is not None,
                attributes=self.ridge is not None,
            ),
            f"{self.completed + self.halved} trials{added} on frozen frames of "
            f"{origin.corpus_name}: {self.completed} over {self.epochs} epochs, {self.halved} "
            "halved earlier.",
            *[f"Trials are compared by {best.selected_on}."] * (best.selected_on != "dev"),
            *(f"Note: {note}" for note in self.notes),
            self._trial_table(),
            f"Best: trial {best.trial}{_named(best.start)}. Encoders: {encoders}.",
            *[f"Layer weights: {weights}."] * bool(weights),
            *self._score_tables(),
        )
        following = tuple(
            command_line(step, work, manifest) for step in ("finetune --best", "evaluate")
        )
        return Report("", parts, self.files, following)

    @property
    def tables(self) -> dict[str, Table]:
        """The best head's values on the axes, all trials, and the scores."""
        with (self.folder / TRIALS).open(encoding="utf-8", newline="") as file:
            columns, *rows = csv.reader(file)
        axes = [(name, str(value)) for name, value in self.best.params.items()]
        scores = self._score_tables()
        names = ["scores"] * bool(self.best.scores) + ["attributes"]
        return {
            "best": Table("", ("axis", "value"), [("trial", str(self.best.trial)), *axes]),
            "trials": Table("", columns, rows),
            **dict(zip(names, scores, strict=False)),
        }

    def _score_tables(self) -> list[Table]:
        """Classes, attributes, or both: what follows from all scores stands under the last one."""
        best, both = self.best, self.logistic is not None and self.ridge is not None
        tables = []
        if best.scores:
            alone = {} if both else self.ahead
            tables.append(
                score_table(
                    best.scores,
                    self.ensemble,
                    self.logistic,
                    fold_scores=self.fold_scores,
                    ahead=alone,
                    optimism=self.optimism,
                    trained_on=best.trained_on,
                    last=not both,
                )
            )
        if self.ridge is not None:
            splits = best.attribute_scores
            head = selection_score(best.scores, splits, self.selected_on)
            notes = [
                *[f"Selected by the {self.objective}: {head:.3f}."] * both,
                *(
                    f"Best head minus reference{'s' * both}, {self.objective} on {split}: {by}."
                    for split, by in self.ahead.items()
                ),
                *worth(self.optimism, best.trained_on, splits, self.objective),
            ]
            tables.append(attribute_table(splits, self.ensemble, self.ridge, notes=notes))
        return tables

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
        score = (
            f"{self.selected_on} {self.objective or 'macro-F1'}",
            *["to the best"] * bool(count),
        )
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


def read_search(
    folder: Path,
    classes: Reference | None,
    attributes: Ridge | None,
    ahead: Mapping[str, Difference],
) -> SearchReport:
    """The summary of an earlier search, from its files; without what only a search works out.

    That is: how its trials compare, and how much of the winner's score is luck.

    Args:
        folder: of the search.
        classes: the logistic regression, where it is known.
        attributes: the ridge regression, likewise.
        ahead: by split, how far the best head is ahead of them.
    """
    best = load_head(folder)[1]
    with (folder / TRIALS).open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    kept = [row for row in rows if row["state"] == "complete"]
    score = "dev_score" if best.head.attributes else "dev_macro_f1"
    kept.sort(key=lambda row: (-float(row[score]), int(row["number"])))
    team = folder / ENSEMBLE
    objective = objective_name(best.head.labels, best.head.attributes)
    return SearchReport(
        folder=folder,
        completed=len(kept),
        halved=sum(row["state"] == "pruned" for row in rows),
        added=None,
        epochs=best.schedule.epochs,
        best=best,
        top=tuple(_read_line(row, score) for row in kept[:KEPT]),
        logistic=classes,
        notes=(),
        files=(),
        selected_on="folds" if "folds" in {*best.scores, *best.attribute_scores} else "dev",
        ahead=ahead,
        ensemble=read_ensemble(team) if team.is_file() else None,
        ridge=attributes,
        objective="" if objective == "macro-F1" else objective,
    )


def _read_line(row: Mapping[str, str], score: str) -> TrialLine:
    """A row of `trials.csv`; an earlier Emopool called starts published."""
    others = ("number", "start", "published", "state", score, "epochs", "seconds", "seed")
    params: dict[str, Any] = {k: cell for k, cell in row.items() if cell and k not in others}
    params["learning_rate"] = float(params["learning_rate"])
    start = row.get("start", row.get("published", ""))
    return TrialLine(int(row["number"]), start, params, float(row[score]))


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
