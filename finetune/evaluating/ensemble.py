"""Several subjects as one: the mean of their probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from cache.layers import LayersRead
from corpora.base.errors import ConfigError
from finetune.evaluating.subjects import Scored, Source
from finetune.evaluation import ENSEMBLE


def average(scored: Sequence[Scored], labels: Sequence[Sequence[str]]) -> Scored:
    """The mean of what several subjects say about the utterances that all of them could use.

    Args:
        scored: one a subject, of the same rows.
        labels: their label orders; the first one's is that of the result.
    """
    if len(scored) == 1:
        return scored[0]
    common = set.intersection(*({u.id for u in one.utterances} for one in scored))
    parts = []
    for one, order in zip(scored, labels, strict=True):
        rows = [row for row, u in enumerate(one.utterances) if u.id in common]
        columns = [list(order).index(label) for label in labels[0]]
        parts.append(one.probabilities[rows][:, columns].double())
    utterances = tuple(u for u in scored[0].utterances if u.id in common)
    skipped = {name: reason for one in scored for name, reason in one.skipped.items()}
    return Scored(utterances, torch.stack(parts).mean(dim=0).float(), skipped)


def check_labels_equal(one: Source, other: Source) -> None:
    """Refuse to average or compare answers to different questions."""
    own, others = set(one.labels), set(other.labels)
    if own != others:
        changes = [f"{one.path} alone has {', '.join(sorted(own - others))}"] * bool(own - others)
        changes += [f"{other.path} alone has {', '.join(sorted(others - own))}"] * bool(
            others - own
        )
        raise ConfigError(
            f"the labels differ: {'; '.join(changes)}. Name models of the same labels."
        )


def joint(sources: Sequence[Source]) -> Source:
    """What there is to say about an ensemble as a whole."""
    if len(sources) == 1:
        return sources[0]
    encoders: dict[str, dict[str, None]] = {}
    layers: dict[str, set[LayersRead]] = {}
    for one in sources:
        for kind, name in one.encoders.items():
            encoders.setdefault(kind, {})[name] = None
            layers.setdefault(kind, set()).add(one.layers[kind])
    return replace(
        sources[0],
        kind=ENSEMBLE,
        encoders={kind: " and ".join(names) for kind, names in encoders.items()},
        layers={kind: found.pop() for kind, found in layers.items() if len(found) == 1},
        layer_weights={},
    )
