"""The scores of a search's winner as text: beside the reference, and with what they are worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from corpora.text_table import aligned
from heads.metrics import Report, score_cells
from heads.reference import Reference
from heads.search.ensemble import Ensemble
from heads.statistics.comparison import Difference
from heads.statistics.optimism import Optimism


def score_table(
    scores: Mapping[str, Report],
    team: Ensemble | None,
    reference: Reference,
    *,
    fold_scores: Sequence[Report] = (),
    ahead: Mapping[str, Difference],
    optimism: Optimism | None = None,
) -> list[str]:
    """Best head, ensemble and reference on every split, and how to read them.

    Args:
        scores: of the best head, by split.
        team: the ensemble, where it was asked for.
        reference: the logistic regression.
        fold_scores: of the best trial, on each fold by itself.
        ahead: by split, how far the best head is ahead of the reference.
        optimism: how much of the winner's score is the luck of being chosen.
    """
    folded = "folds" in scores
    titles = {
        "folds": "folds of train and dev (selected on them)",
        "dev": "dev (part of the folds)" if folded else "dev (selected on it)",
        "test": "test",
    }
    lines: list[tuple[str, ...]] = [("", "macro-F1", "UA", "WA", "utterances")]
    for name, own in (
        ("best head", scores),
        (f"ensemble of {len(team.trials) if team else 0}", team.scores if team else {}),
        ("reference", reference.scores),
    ):
        lines += [
            (f"{name}, {titles[split]}", *score_cells(own[split]))
            for split in titles
            if split in own
        ]
    return [
        *aligned(lines, right=(4,)),
        *(_interval_note(split, own) for split, own in scores.items()),
        *_fold_note(fold_scores),
        *([_ensemble_note(team.trials)] if team else []),
        _reference_note(reference, folded=folded),
        *(f"Best head minus reference, {split}: {by}." for split, by in ahead.items()),
        *_worth(optimism, folded=folded, tested="test" in scores),
    ]


def _interval_note(split: str, report: Report) -> str:
    reason = report.interval_reason
    if report.intervals is None:
        return f"{split}: no intervals: {reason}."
    found = f"{split}: {100 * report.confidence:g} % intervals, bootstrap over "
    return f"{found}{report.speakers} speakers{f'; {reason}' if reason else ''}."


def _fold_note(reports: Sequence[Report]) -> list[str]:
    """Mean and deviation over folds of UA and WA, as the field reports cross-validation."""
    if not reports:
        return []
    cells = []
    for title, name in (("UA", "uar"), ("WA", "accuracy")):
        values = np.array([getattr(report, name) for report in reports])
        cells.append(f"{title} {values.mean():.3f} ± {values.std(ddof=1):.3f}")
    return [f"Mean and standard deviation over {len(reports)} folds: {', '.join(cells)}."]


def _ensemble_note(trials: Sequence[int]) -> str:
    members = ", ".join(str(number) for number in trials)
    return f"Ensemble: the mean of the probabilities of trials {members}."


def _reference_note(reference: Reference, *, folded: bool) -> str:
    return (
        f"Reference: scikit-learn logistic regression on mean and deviation of the frames "
        f"({'+'.join(reference.modalities)}, normalisation {reference.input_norm}), "
        f"C = {reference.strength:g} chosen on {'the same folds' if folded else 'dev'}"
        f"{'' if reference.converged else ', stopped before it converged'}."
    )


def _worth(optimism: Optimism | None, *, folded: bool, tested: bool) -> list[str]:
    """What the score of selection is worth, and which score is a result."""
    where = "folds" if folded else "dev"
    text = []
    if folded:
        text.append(
            "The winner was chosen by its score on the folds. The head itself is then trained on "
            "train alone; its dev score is no result either, for dev was part of the folds."
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
        f"Best of {optimism.candidates} completed trials on {where}: macro-F1 "
        f"{optimism.selected:.3f}; nested estimate {optimism.nested:.3f}; {luck}.",
        f"(Nested: chosen on resampled {optimism.unit}s, scored on those left out{few}.)",
    ]
