"""What the scores of a search are, side by side, and how to read them."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from corpora.base.codec import Jsonable
from corpora.base.files import read_json, write_json
from corpora.base.report import Table
from heads.attributes import AttributeScores, attributes_table
from heads.bootstrap import Difference
from heads.gold import Optimism
from heads.metrics import Scores, scores_table
from heads.records import REFERENCE, RIDGE
from heads.reference import Reference
from heads.ridge import Ridge

FORMAT, VERSION = "emopool-ensemble", 1

S = TypeVar("S", Scores, AttributeScores)


@dataclass(frozen=True)
class Ensemble(Jsonable):
    """An ensemble of trials.

    Attributes:
        trials: their numbers, the best first.
        scores: reports by split, as in `HeadRecord`.
        attribute_scores: likewise.
    """

    json_optional = "attribute_scores"

    trials: tuple[int, ...]
    scores: Mapping[str, Scores]
    attribute_scores: Mapping[str, AttributeScores] = field(default_factory=dict)


@dataclass(frozen=True)
class References:
    """The regressions beside a head.

    Attributes:
        classes: logistic, where there are labels.
        attributes: ridge, where there are attributes.
    """

    classes: Reference | None
    attributes: Ridge | None

    @property
    def files(self) -> tuple[str, ...]:
        """Where they are kept."""
        return (
            *[REFERENCE] * (self.classes is not None),
            *[RIDGE] * (self.attributes is not None),
        )

    def score(self, split: str) -> float:
        """What is compared on a split."""
        logistic, ridge = self.classes, self.attributes
        return selection_score(
            logistic.scores if logistic else {}, ridge.scores if ridge else {}, split
        )

    def said(self, split: str, labels: int) -> NDArray[np.float64]:
        """`[n, C + A]`, as a head says it (see `Gold`)."""
        parts: list[NDArray[np.float64]] = []
        if self.classes is not None:
            parts.append(np.eye(labels)[list(self.classes.predicted[split])])
        if self.attributes is not None:
            parts.append(np.array(self.attributes.predicted[split]))
        return np.concatenate(parts, axis=1)


def write_ensemble(path: Path, ensemble: Ensemble) -> None:
    """Write an ensemble's members and scores as JSON."""
    write_json(path, {"format": FORMAT, "version": VERSION, **ensemble.to_json()})


def read_ensemble(path: Path) -> Ensemble:
    """Read an ensemble's members and scores back."""
    return Ensemble.from_json(read_json(path, kind=FORMAT, version=VERSION))


def average(probabilities: Sequence[Tensor]) -> Tensor:
    """The mean of what several heads said, `[n, C + A]`."""
    return torch.stack(list(probabilities)).mean(0)


def _beside(
    own: Mapping[str, S], team: Mapping[str, S], reference: Mapping[str, S], members: int
) -> dict[str, S]:
    """By title the reports of best head, ensemble and reference on every split."""
    dev = "dev (part of the folds)" if "folds" in own else "dev (selected on it)"
    titles = {"folds": "folds of train and dev (selected on them)", "dev": dev, "test": "test"}
    each = {"best head": own, f"ensemble of {members}": team, "reference": reference}
    return {
        f"{name}, {titles[split]}": scores[split]
        for name, scores in each.items()
        for split in titles
        if split in scores
    }


def _interval_notes(scores: Mapping[str, Scores] | Mapping[str, AttributeScores]) -> list[str]:
    return [
        f"On {split}: {note[0].lower()}{note[1:]}"
        for split, own in scores.items()
        for note in own.interval_notes
    ]


def selection_score(
    scores: Mapping[str, Scores], attribute_scores: Mapping[str, AttributeScores], split: str
) -> float:
    """What is compared on a split: macro-F1, the mean CCC, or the mean of both."""
    found = [scores[split].macro_f1] if split in scores else []
    found += [attribute_scores[split].mean_ccc] if split in attribute_scores else []
    return sum(found) / len(found)


def attribute_table(
    scores: Mapping[str, AttributeScores],
    team: Ensemble | None,
    ridge: Ridge,
    *,
    notes: Sequence[str] = (),
) -> Table:
    """Attributes of best head, ensemble and reference on every split, and how to read them.

    Args:
        scores: of the best head, by split.
        team: the ensemble, where it was asked for.
        ridge: the regression.
        notes: sentences under it, before those on the regression and the intervals.
    """
    others, members = (team.attribute_scores, len(team.trials)) if team else ({}, 0)
    rows = _beside(scores, others, ridge.scores, members)
    return attributes_table("", rows, [*_interval_notes(scores), ridge.to_text(), *notes])


def score_table(
    scores: Mapping[str, Scores],
    team: Ensemble | None,
    reference: Reference | None,
    *,
    fold_scores: Sequence[Scores] = (),
    ahead: Mapping[str, Difference],
    optimism: Optimism | None = None,
    trained_on: str = "train",
    last: bool = True,
) -> Table:
    """Best head, ensemble and reference on every split, and how to read them.

    Args:
        scores: of the best head, by split.
        team: the ensemble, where it was asked for.
        reference: the logistic regression, where it is known.
        fold_scores: of the best trial, on each fold by itself.
        ahead: by split, how far the best head is ahead of the reference.
        optimism: how much of the winner's score is the luck of being chosen.
        trained_on: the splits that the best head learnt from.
        last: whether it is said what the score of selection is worth.
    """
    others, members = (team.scores, len(team.trials)) if team else ({}, 0)
    averaged = ", ".join(str(number) for number in team.trials) if team else ""
    rows = _beside(scores, others, reference.scores if reference else {}, members)
    weighted = "; ".join(f"{name} {report.weighted_f1:.3f}" for name, report in rows.items())
    notes = [
        f"Weighted F1: {weighted}.",
        *_interval_notes(scores),
        *fold_note(fold_scores),
        *[f"Ensemble: the mean of the probabilities of trials {averaged}."] * bool(team),
        *([reference.to_text()] if reference else []),
        *(f"Best head minus reference, {split}: {by}." for split, by in ahead.items()),
        *(worth(optimism, trained_on, scores) if last else ()),
    ]
    return scores_table("", rows, right=(4,), notes=notes)


def verdict(
    difference: Difference | None, lead: float, where: str, *, classes: bool, attributes: bool
) -> list[str]:
    """What comes first where the reference is better than the head; nothing where it is not.

    Args:
        difference: head minus reference, where a bootstrap can say.
        lead: the same as a number.
        where: the rows.
        classes: whether there is a logistic regression.
        attributes: whether there is a ridge regression.
    """
    if lead >= 0:
        return []
    reference = f"The reference, a {'logistic' if classes else 'ridge'} regression, is"
    if classes and attributes:
        reference = "The references, a logistic and a ridge regression, are"
    by = f"{lead:+.3f}, too few speakers for an interval" if difference is None else str(difference)
    clear = difference is not None and difference.interval.high < 0
    return [
        f"{reference} {'better' if clear else 'ahead'} on {where}: "
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


def worth(
    optimism: Optimism | None, trained_on: str, splits: Container[str], objective: str = "macro-F1"
) -> list[str]:
    """What the score of selection is worth, and which score is a result, of those on splits."""
    where = "folds" if "folds" in splits else "dev"
    text = []
    if where == "folds":
        text.append(
            "The winner was chosen by its score on the folds, each said by a head trained without "
            f"it. The head that is kept was then trained on {trained_on}, for as many epochs."
        )
    if optimism is not None:
        few = f" (not by speaker: {optimism.reason})" if optimism.reason else ""
        luck = (
            f"so about {optimism.value:.3f} of it is the luck of being chosen"
            if optimism.value > 0
            else "so no luck of being chosen shows in it"
        )
        text += [
            f"Best of {optimism.candidates} trials on {where}: {objective} "
            f"{optimism.selected:.3f}; nested estimate {optimism.nested:.3f}; {luck}.",
            f"(Nested: chosen on resampled {optimism.unit}s, scored on those left out{few}.)",
        ]
    if "test" in splits:
        text.append(
            f"The test set had no part in the choice. The {where} score is what the winner was "
            "picked by, so it flatters it."
        )
    else:
        text.append(
            f"There is no test split: a {where} score that a head was selected on is not a result."
        )
    return text
