"""The lines of the tables: each row with its tuning, beside the best one of its table.

The heads of a comparison as files that `finetune --head` takes: of each row the first seed's.

The seed is not chosen: the best of several would be a choice the tables do not show.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from corpora.base.codec import Jsonable
from heads.bootstrap import Difference
from heads.compare.outcomes import Outcome, Said, Scorer, choose_tuning, finite
from heads.compare.passes import (
    HEAD,
    HEAD_WEIGHTS,
    Answered,
    KeptRuns,
    RunKey,
    head_config,
    training_config,
)
from heads.compare.rows import Figures, Plan, Row, TableEntry, TablePlan
from heads.config import CompareConfig, Tuning
from heads.head import Head
from heads.records import HeadRecord, Origin, package_versions, save_head
from heads.runs import learns_weights
from heads.training import Schedule


def save_heads(
    plan: Plan,
    kept: KeptRuns,
    origin: Origin,
    config: CompareConfig,
    scorer: Scorer,
    lines: Mapping[str, Line],
    epochs: int,
) -> dict[str, Path]:
    """Write the first seed's head of each row with its chosen tuning.

    Args:
        plan: the rows.
        kept: the runs.
        origin: what they were trained on.
        config: of the comparison.
        scorer: for the score on dev.
        lines: by key, with the tuning.
        epochs: of every run.

    Returns:
        The JSON file of each row, by key.
    """
    titles = {entry.key: entry.title for table in plan.tables for entry in table.entries}
    found = {}
    for number, (key, row) in enumerate(plan.rows.items()):
        (tuning,) = lines[key].tunings  # of the one part that splits make
        unit, shape = RunKey(key, tuning, 0), head_config(row, tuning)
        head = Head(shape)
        head.load_state_dict(kept.weights(unit))
        record = HeadRecord(
            trial=number,
            start=titles[key],
            params={**row.params, **tuning.to_json()},
            head=shape,
            training=training_config(row, tuning, 0, 0),
            schedule=Schedule(epochs, config.batch_size, data_seed=0),
            origin=origin,
            study_seed=0,
            versions=package_versions(),
            dev_macro_f1=scorer.selection(kept.answers(unit)["dev"][None])[0],
        )
        path = kept.folder / key / HEAD
        save_head(path, path.with_name(HEAD_WEIGHTS), head, record)
        found[key] = path
    return found


@dataclass(frozen=True)
class Line(Jsonable):
    """One line of a table.

    Attributes:
        title: its name in the table.
        key: of its row, or of the reference.
        tunings: chosen on dev, one in each part (with folds each fold has its own); empty of the
            reference.
        at_edge: in every part the rate is the lowest or highest of several: a better one may lie
            beyond.
        selection: for each tuning the objective of the first seed on dev, all parts together.
        outcomes: by split; on dev the score is one of selection.
        published: figures of the same configuration, from another corpus and protocol.
        params: values of the search's axes; empty of the reference.
        strengths: of the reference: C in each part.
        layer: the hidden state read, in a sweep over layers.
    """

    json_entries = (
        "title key layer params tunings rate_at_edge=at_edge selection=selection_by_key "
        "reference_strengths=strengths published **outcomes"
    )

    title: str
    key: str
    tunings: tuple[Tuning, ...]
    at_edge: bool
    selection: Mapping[Tuning, float]
    outcomes: Mapping[str, Outcome]
    published: Figures | None = None
    params: Mapping[str, Any] = field(default_factory=dict)
    strengths: tuple[float, ...] = ()
    layer: int | None = None

    @property
    def selection_by_key(self) -> dict[str, float]:
        """The selection by the tunings' keys, for JSON."""
        return {tuning.key: score for tuning, score in self.selection.items()}

    @property
    def is_reference(self) -> bool:
        """Whether it is the logistic regression."""
        return not self.tunings


@dataclass(frozen=True)
class RowTable(Jsonable):
    """One table.

    Attributes:
        name: `poolings`, `modalities`, `grid` or `layers`.
        title: in words.
        lines: in the plan's order.
        best: title of the line with the best score on dev, perhaps the reference's, which the
            others are compared with.
        best_head: title of the best that is a head.
    """

    json_entries = "name title best_on_dev=best best_head_on_dev=best_head lines"

    name: str
    title: str
    lines: tuple[Line, ...]
    best: str
    best_head: str


# By key: the line without its outcome, and by split what its runs said.
Answers = Mapping[str, tuple[Line, Mapping[str, Said]]]


def chosen_tuning(
    row: Row, kept: KeptRuns, scorer: Scorer, config: CompareConfig, part: int
) -> Tuning:
    """A row's tuning in a part, the best on dev of the first seed; the test set has no part in it.

    Of folds each has a choice of its own: the others' development sets hold what it is scored on.
    """
    selection = {}
    for tuning in config.tunings(attentive=learns_weights(row.head)):
        said = kept.answers(RunKey(row.key, tuning, 0, part))["dev"]
        (selection[tuning],) = scorer.selection(said[None], part)
    return choose_tuning(selection)


def chosen_line(
    row: Row, kept: KeptRuns, scorer: Scorer, config: CompareConfig
) -> tuple[Line, dict[str, Said]]:
    """A row with the tuning that is best on dev in each part, and what all seeds of it say."""
    parts = range(len(scorer.division.parts))
    chosen = tuple(chosen_tuning(row, kept, scorer, config, part) for part in parts)
    said = [
        [kept.answers(RunKey(row.key, tuning, seed, part)) for seed in range(config.seeds)]
        for part, tuning in enumerate(chosen)
    ]
    answers = {
        split: np.concatenate(
            [finite(torch.stack([seed[split] for seed in own])) for own in said], axis=1
        )
        for split in scorer.division.splits
    }
    selection = {}
    for tuning in config.tunings(attentive=learns_weights(row.head)):
        own = [kept.answers(RunKey(row.key, tuning, 0, part))["dev"] for part in parts]
        (selection[tuning],) = scorer.selection(torch.cat(own)[None])
    rates = config.learning_rates
    line = Line(
        row.key,
        row.key,
        chosen,
        len(rates) > 1 and all(t.learning_rate in (min(rates), max(rates)) for t in chosen),
        selection,
        {},
        params=row.params,
    )
    return line, answers


def reference_line(key: str, answered: Answered, labels: int) -> tuple[Line, dict[str, Said]]:
    """The regressions, one run of which there is, on so many labels."""
    said = {split: answered.said(split, labels)[None] for split in answered.splits}
    return Line(key, key, (), False, {}, {}, strengths=answered.strengths), said


def make_table(plan: TablePlan, said: Answers, scorer: Scorer) -> RowTable:
    """A table, its lines scored and compared."""
    lines = {entry.title: _scored(entry, *said[entry.key], scorer=scorer) for entry in plan.entries}
    keys = {entry.title: entry.key for entry in plan.entries}

    def on_dev(title: str) -> float:
        return lines[title].outcomes["dev"].scores[scorer.objective].mean

    heads = [title for title, line in lines.items() if not line.is_reference]
    best = max(lines, key=on_dev)
    others = [title for title in lines if title != best]
    references = [title for title, line in lines.items() if line.is_reference]
    for split in scorer.division.splits:
        for title, found in _compared(others, best, split, keys, said, scorer).items():
            outcome = replace(lines[title].outcomes[split], difference=found)
            lines[title] = replace(lines[title], outcomes={**lines[title].outcomes, split: outcome})
        for reference in references:
            read = keys[reference].rpartition("reference-")[2]
            own = [title for title in heads if lines[title].params["modalities"] == read]
            for title, found in _compared(own, reference, split, keys, said, scorer).items():
                outcome = replace(lines[title].outcomes[split], to_reference=found)
                lines[title] = replace(
                    lines[title], outcomes={**lines[title].outcomes, split: outcome}
                )
    return RowTable(plan.name, plan.title, tuple(lines.values()), best, max(heads, key=on_dev))


def _compared(
    titles: Sequence[str],
    other: str,
    split: str,
    keys: Mapping[str, str],
    said: Answers,
    scorer: Scorer,
) -> dict[str, Difference]:
    """By title the difference from another line, where a bootstrap can say."""
    runs = {title: said[keys[title]][1][split] for title in (*titles, other)}
    most = max(len(own) for own in runs.values())
    # One run of the reference counts in each comparison like every run of it.
    same = {t: np.broadcast_to(own, (most, *own.shape[1:])) for t, own in runs.items()}
    if not titles:
        return {}
    found, _ = scorer.differences(split, [same[title] for title in titles], same[other])
    return dict(zip(titles, found, strict=True)) if found else {}


def _scored(entry: TableEntry, line: Line, said: Mapping[str, Said], *, scorer: Scorer) -> Line:
    return replace(
        line,
        title=entry.title,
        published=entry.published,
        layer=entry.layer,
        outcomes={split: Outcome(scorer.scores(split, own)) for split, own in said.items()},
    )
