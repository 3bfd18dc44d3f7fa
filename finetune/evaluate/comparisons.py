"""Scores on all utterances, on groups of them, and of each member of an ensemble."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from corpora.base.errors import ConfigError
from corpora.utterance import Utterance
from finetune.evaluate.evaluation import Against
from finetune.evaluate.scored import Predictions, Source
from heads.bootstrap import Difference, Interval, confusion_matrix, macro_f1, paired_differences
from heads.dataset import Dataset
from heads.metrics import Scores, classification_report


def compare(
    own: Predictions,
    others: Sequence[tuple[Source, Predictions]],
    labels: Sequence[str],
    notes: Sequence[str],
) -> tuple[Against, ...]:
    """Compare by macro-F1; with several others the p-values are corrected for their number.

    Args:
        own: what is compared.
        others: what others say about the same rows; of the same labels in any order.
        labels: of its probabilities.
        notes: one for each other (see `Against`).

    Raises:
        ConfigError: no utterance is common to all.
    """
    said = [own, *(one for _, one in others)]
    orders = [labels, *(source.labels for source, _ in others)]
    common = set.intersection(*({u.id for u in one.utterances} for one in said))
    if not common:
        raise ConfigError("there is no utterance that both could use: nothing can be compared.")
    index = {label: place for place, label in enumerate(labels)}
    predicted = []
    for one, order in zip(said, orders, strict=True):
        rows = [row for row, u in enumerate(one.utterances) if u.id in common]
        chosen = one.probabilities[rows].argmax(dim=1).numpy()
        predicted.append(np.array([index[label] for label in order])[chosen])
    kept = Dataset(tuple(u for u in own.utterances if u.id in common), tuple(labels), {})
    gold = np.array([index[u.label] for u in kept.utterances])
    found, reason = paired_differences(
        gold,
        np.stack(predicted[1:]),
        predicted[0],
        len(labels),
        kept.speakers(torch.arange(len(kept))),
    )
    scores = macro_f1(confusion_matrix(gold, np.stack(predicted), len(labels)))
    return tuple(
        Against(
            kind=source.kind,
            source=source.path,
            n=len(kept),
            own=float(scores[0]),
            other=float(scores[number + 1]),
            difference=None if found is None else _negated(found[number]),
            reason=reason,
            note=note,
        )
        for number, ((source, _), note) in enumerate(zip(others, notes, strict=True))
    )


def _negated(one: Difference) -> Difference:
    return Difference(-one.value, Interval(-one.interval.high, -one.interval.low), one.p)


def by_group(
    dataset: Dataset, probabilities: Tensor, group: Callable[[Utterance], str]
) -> dict[str, Scores]:
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


def report_on(dataset: Dataset, probabilities: Tensor) -> Scores:
    """Scores of a data set's utterances, all labelled, with probabilities `[n, C]`."""
    return classification_report(
        [u.label for u in dataset.utterances],
        probabilities.numpy(),
        dataset.labels,
        dataset.speakers(torch.arange(len(dataset))),
    )


def of_members(
    sources: Sequence[Source], each: Sequence[Predictions], together: Predictions
) -> Mapping[str, Scores]:
    """The scores of each member on the utterances that all could use."""
    common = {u.id for u in together.utterances}
    reports = {}
    for source, one in zip(sources, each, strict=True):
        rows = [row for row, u in enumerate(one.utterances) if u.id in common]
        kept = tuple(one.utterances[row] for row in rows)
        dataset = Dataset(kept, source.labels, {})
        reports[str(source.path)] = report_on(dataset, one.probabilities[rows])
    return reports
