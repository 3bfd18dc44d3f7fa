"""Scores on all utterances, on groups of them, and of each member of an ensemble."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from corpora.utterance import Utterance
from finetune.evaluating.subjects import Scored, Source
from heads.dataset import Dataset
from heads.metrics import Report, classification_report


def by_group(
    dataset: Dataset, probabilities: Tensor, group: Callable[[Utterance], str]
) -> dict[str, Report]:
    """Scores on each group of utterances, where there are several.

    Args:
        dataset: labelled utterances.
        probabilities: `[n, C]` of them.
        group: the group's name; "" where it is not known.
    """
    named = [group(utterance) or "not given" for utterance in dataset.utterances]
    names = sorted(set(named))
    if len(names) < 2:
        return {}
    reports = {}
    for name in names:
        rows = [row for row, own in enumerate(named) if own == name]
        part = Dataset(tuple(dataset.utterances[row] for row in rows), dataset.labels, {})
        reports[name] = report_on(part, probabilities[rows])
    return reports


def report_on(dataset: Dataset, probabilities: Tensor) -> Report:
    """Scores of a data set's utterances, all labelled, with probabilities `[n, C]`."""
    return classification_report(
        [u.label for u in dataset.utterances],
        probabilities.numpy(),
        dataset.labels,
        dataset.speakers(torch.arange(len(dataset))),
    )


def of_members(
    sources: Sequence[Source], each: Sequence[Scored], scored: Scored
) -> Mapping[str, Report]:
    """The scores of each member on the utterances that all could use."""
    common = {u.id for u in scored.utterances}
    reports = {}
    for source, one in zip(sources, each, strict=True):
        rows = [row for row, u in enumerate(one.utterances) if u.id in common]
        kept = tuple(one.utterances[row] for row in rows)
        dataset = Dataset(kept, source.labels, {})
        reports[str(source.path)] = report_on(dataset, one.probabilities[rows])
    return reports
