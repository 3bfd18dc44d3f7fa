"""The lines of the tables: each row at its rate, beside the best one of its table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from heads.comparing.grid import Entry, Plan, Row, TablePlan
from heads.comparing.outcomes import Classes, Outcome, Scorer, choose_rate, classes_of
from heads.comparing.published import Figures
from heads.comparing.references import Answered
from heads.comparing.units import Kept, Unit


@dataclass(frozen=True)
class Line:
    """One line of a table.

    Attributes:
        title: its name in the table.
        key: of its row, or of the reference.
        rates: chosen on dev, one in each part (with folds each fold has its own); empty of the
            reference.
        at_edge: in every part it is the lowest or highest of several: a better one may lie beyond.
        selection: for each rate the mean over seeds of macro-F1 on dev, all parts together.
        outcomes: by split; on dev the score is one of selection.
        published: figures of the same configuration, from another corpus and protocol.
        params: values of the search's axes; empty of the reference.
        strengths: of the reference: C in each part.
        layer: the hidden state read, in a sweep over layers.
    """

    title: str
    key: str
    rates: tuple[float, ...]
    at_edge: bool
    selection: Mapping[float, float]
    outcomes: Mapping[str, Outcome]
    published: Figures | None = None
    params: Mapping[str, Any] = field(default_factory=dict)
    strengths: tuple[float, ...] = ()
    layer: int | None = None

    @property
    def is_reference(self) -> bool:
        """Whether it is the logistic regression."""
        return not self.rates


@dataclass(frozen=True)
class Table:
    """One table.

    Attributes:
        name: `poolings`, `modalities`, `grid` or `layers`.
        title: in words.
        lines: in the plan's order.
        best: title of the line with the best selection score on dev, which the others are compared
            with.
    """

    name: str
    title: str
    lines: tuple[Line, ...]
    best: str


# By key: the line without its outcome, and by split the classes [R, n] said.
Said = Mapping[str, tuple[Line, Mapping[str, Classes]]]


def chosen_line(
    row: Row, kept: Kept, scorer: Scorer, rates: tuple[float, ...], seeds: int
) -> tuple[Line, dict[str, Classes]]:
    """A row at the rate that is best on dev, over all seeds; the test set has no part in it.

    Of folds each has a choice of its own: the others' development sets hold what it is scored on.
    """
    found = {
        rate: [kept.answers(Unit(row.key, rate, seed)) for seed in range(seeds)] for rate in rates
    }
    said = {
        split: {
            rate: torch.stack([own[split] for own in answers]) for rate, answers in found.items()
        }
        for split in scorer.division.splits
    }
    chosen = tuple(
        choose_rate({rate: scorer.selection("dev", own, part) for rate, own in said["dev"].items()})
        for part in range(len(scorer.division.parts))
    )
    classes = {
        split: np.concatenate(
            [
                classes_of(own[rate][:, place])
                for rate, place in zip(chosen, scorer.places(split), strict=True)
            ],
            axis=1,
        )
        for split, own in said.items()
    }
    line = Line(
        row.key,
        row.key,
        chosen,
        len(rates) > 1 and all(rate in (min(rates), max(rates)) for rate in chosen),
        {rate: float(np.mean(scorer.selection("dev", own))) for rate, own in said["dev"].items()},
        {},
        params=row.params,
    )
    return line, classes


def reference_line(key: str, answered: Answered) -> tuple[Line, dict[str, Classes]]:
    """The logistic regression, one run of which there is."""
    classes = {
        split: np.array(own, dtype=np.int64)[None] for split, own in answered.predicted.items()
    }
    return Line(key, key, (), False, {}, {}, strengths=answered.strengths), classes


def make_tables(plan: Plan, said: Said, scorer: Scorer) -> tuple[Table, ...]:
    """Every table, its lines scored and compared."""
    return tuple(_table(table, said, scorer) for table in plan.tables)


def _table(plan: TablePlan, said: Said, scorer: Scorer) -> Table:
    lines = {entry.title: _scored(entry, *said[entry.key], scorer=scorer) for entry in plan.entries}
    keys = {entry.title: entry.key for entry in plan.entries}

    def on_dev(title: str) -> float:
        return lines[title].outcomes["dev"].scores["macro_f1"].mean

    heads = [title for title, line in lines.items() if not line.is_reference]
    best = max(heads, key=on_dev)
    others = [title for title in lines if title != best]
    for split in scorer.division.splits:
        if not others:
            break
        own = said[keys[best]][1][split]
        # One run of the reference counts in each comparison like every run of it.
        rows = [np.broadcast_to(said[keys[title]][1][split], own.shape) for title in others]
        found, _ = scorer.differences(split, rows, own)
        for title, difference in zip(others, found or [], strict=False):
            line = lines[title]
            outcome = replace(line.outcomes[split], difference=difference)
            lines[title] = replace(line, outcomes={**line.outcomes, split: outcome})
    return Table(plan.name, plan.title, tuple(lines.values()), best)


def _scored(entry: Entry, line: Line, classes: Mapping[str, Classes], *, scorer: Scorer) -> Line:
    return replace(
        line,
        title=entry.title,
        published=entry.published,
        layer=entry.layer,
        outcomes={split: Outcome(scorer.scores(split, own)) for split, own in classes.items()},
    )
