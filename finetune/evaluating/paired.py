"""Two subjects on the same utterances: is one better?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from corpora.base.errors import ConfigError
from finetune.evaluating.against import Against
from finetune.evaluating.subjects import Scored, Source
from heads.dataset import Dataset
from heads.statistics.bootstrap import Interval
from heads.statistics.comparison import Difference, paired_differences
from heads.statistics.confusion import confusion_matrix, macro_f1


def compare(
    own: Scored,
    others: Sequence[tuple[Source, Scored]],
    labels: Sequence[str],
    notes: Sequence[str],
) -> tuple[Against, ...]:
    """Compare by macro-F1; with several others the p-values are corrected for their number.

    Args:
        own: what the subject says.
        others: what others say about the same rows; of the same labels in any order.
        labels: of the subject.
        notes: one for each other (see `Against`).

    Raises:
        ConfigError: no utterance is common to all.
    """
    scored = [own, *(one for _, one in others)]
    orders = [labels, *(source.labels for source, _ in others)]
    common = set.intersection(*({u.id for u in one.utterances} for one in scored))
    if not common:
        raise ConfigError("there is no utterance that both could use: nothing can be compared.")
    index = {label: place for place, label in enumerate(labels)}
    predicted = []
    for one, order in zip(scored, orders, strict=True):
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
