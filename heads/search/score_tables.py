"""What the scores of a search are, side by side, and how to read them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from corpora.base.codec import Jsonable
from corpora.base.files import read_json, write_json
from corpora.base.report import Table
from heads.attributes import AttributeScores, attributes_table
from heads.bootstrap import Difference
from heads.metrics import Scores, scores_table
from heads.optimism import Optimism
from heads.records import REFERENCE, RIDGE
from heads.reference import Reference
from heads.ridge import Ridge

FORMAT, VERSION = "emopool-ensemble", 1


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


def selection_score(
    scores: Mapping[str, Scores], attribute_scores: Mapping[str, AttributeScores], split: str
) -> float:
    """What is compared on a split: macro-F1, the mean CCC, or the mean of both."""
    found = [scores[split].macro_f1] if split in scores else []
    found += [attribute_scores[split].mean_ccc] if split in attribute_scores else []
    return sum(found) / len(found)


def splits_table_titles(*, folded: bool) -> dict[str, str]:
    """What tables call the splits."""
    return {
        "folds": "folds of train and dev (selected on them)",
        "dev": "dev (part of the folds)" if folded else "dev (selected on it)",
        "test": "test",
    }


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
    titles = splits_table_titles(folded="folds" in scores)
    rows = {
        f"{name}, {titles[split]}": own[split]
        for name, own in (
            ("best head", scores),
            (
                f"ensemble of {len(team.trials) if team else 0}",
                team.attribute_scores if team else {},
            ),
            ("reference", ridge.scores),
        )
        for split in titles
        if split in own
    }
    said = [
        f"On {split}: {note[0].lower()}{note[1:]}"
        for split, own in scores.items()
        for note in own.interval_notes
    ]
    return attributes_table("", rows, [*said, ridge.to_text(), *notes])


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
    folded = "folds" in scores
    titles = splits_table_titles(folded=folded)
    rows = {
        f"{name}, {titles[split]}": own[split]
        for name, own in (
            ("best head", scores),
            (f"ensemble of {len(team.trials) if team else 0}", team.scores if team else {}),
            ("reference", reference.scores if reference else {}),
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
        *([reference.to_text()] if reference else []),
        *(f"Best head minus reference, {split}: {by}." for split, by in ahead.items()),
        *(worth(optimism, trained_on, folded=folded, tested="test" in scores) if last else ()),
    ]
    return scores_table("", rows, right=(4,), notes=notes)


def verdict(
    difference: Difference | None,
    lead: float,
    where: str,
    reference: str = "The reference, a logistic regression, is",
) -> list[str]:
    """What comes first where the reference is better than the head; nothing where it is not.

    Args:
        difference: head minus reference, where a bootstrap can say.
        lead: the same as a number.
        where: the rows.
        reference: how the sentence begins.
    """
    if lead >= 0:
        return []
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


def _ensemble_note(trials: Sequence[int]) -> str:
    members = ", ".join(str(number) for number in trials)
    return f"Ensemble: the mean of the probabilities of trials {members}."


def worth(
    optimism: Optimism | None,
    trained_on: str,
    *,
    folded: bool,
    tested: bool,
    objective: str = "macro-F1",
) -> list[str]:
    """What the score of selection is worth, and which score is a result."""
    where = "folds" if folded else "dev"
    text = []
    if folded:
        text.append(
            "The winner was chosen by its score on the folds, each said by a head trained without "
            f"it. The head that is kept was then trained on {trained_on}, for as many epochs."
        )
    if optimism is not None:
        text += optimism_lines(optimism, where, objective)
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


def optimism_lines(optimism: Optimism, where: str, objective: str = "macro-F1") -> list[str]:
    """How much of the selection score is luck."""
    few = f" (not by speaker: {optimism.reason})" if optimism.reason else ""
    luck = (
        f"so about {optimism.value:.3f} of it is the luck of being chosen"
        if optimism.value > 0
        else "so no luck of being chosen shows in it"
    )
    return [
        f"Best of {optimism.candidates} trials on {where}: {objective} "
        f"{optimism.selected:.3f}; nested estimate {optimism.nested:.3f}; {luck}.",
        f"(Nested: chosen on resampled {optimism.unit}s, scored on those left out{few}.)",
    ]
