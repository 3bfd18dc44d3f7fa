"""The scores of a search's winner as text: beside the reference, and with what they are worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from corpora.base.terminal import aligned
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
    trained_on: str = "train",
) -> list[str]:
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
    lines: list[tuple[str, ...]] = [("", "macro-F1", "UA", "WA", "utterances")]
    lines += [(name, *score_cells(report)) for name, report in rows.items()]
    weighted = "; ".join(f"{name} {report.weighted_f1:.3f}" for name, report in rows.items())
    return [
        *aligned(lines, right=(4,)),
        f"Weighted F1: {weighted}.",
        *(_interval_note(split, own) for split, own in scores.items()),
        *fold_note(fold_scores),
        *([_ensemble_note(team.trials)] if team else []),
        reference.to_text(),
        *(f"Best head minus reference, {split}: {by}." for split, by in ahead.items()),
        *_worth(optimism, trained_on, folded=folded, tested="test" in scores),
    ]


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


def _interval_note(split: str, report: Report) -> str:
    reason = report.interval_reason
    if report.intervals is None:
        return f"{split}: no intervals: {reason}."
    found = f"{split}: {100 * report.confidence:g} % intervals, bootstrap over "
    return f"{found}{report.speakers} speakers{f'; {reason}' if reason else ''}."


def fold_note(reports: Sequence[Report]) -> list[str]:
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
