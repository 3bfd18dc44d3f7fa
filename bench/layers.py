"""What each layer of an encoder knows of emotion, and whether the data can tell: on real speech.

For every speaker in turn the others train. The curve is a logistic regression on mean and deviation
of each layer whose strength is chosen inside, on folds of the training speakers drawn anew by every
seed. `auto` is the layer that `extract` would choose from those training speakers alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean, stdev

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import GroupKFold

from cache.lookup import FrameCache
from corpora.base.terminal import aligned
from corpora.manifest import Manifest, Utterance, speaker_key
from heads.layer_choice import STRENGTH, rank_layers
from heads.metrics import Scores, classification_report
from heads.reference import fit_logistic

STRENGTHS = (0.01, 0.1, 1.0)
INNER_FOLDS = 3

Vectors = NDArray[np.float32]


@dataclass(frozen=True)
class Line:
    """A layer, or `auto`: the reports of every seed."""

    name: str
    reports: tuple[Scores, ...]

    def cells(self) -> tuple[str, ...]:
        """Name, mean and deviation over the seeds, interval over speakers of the middle seed."""
        scores = [one.macro_f1 for one in self.reports]
        middle = sorted(self.reports, key=lambda one: one.macro_f1)[len(scores) // 2]
        interval = "too few speakers"
        if middle.intervals is not None:
            interval = "{:.3f} to {:.3f}".format(*middle.intervals["macro_f1"])
        spread = stdev(scores) if len(scores) > 1 else 0.0
        return self.name, f"{mean(scores):.3f}", f"{spread:.3f}", interval


def layer_curve(cache: FrameCache, manifest: Manifest, seeds: Sequence[int]) -> list[Line]:
    """Lines for all layers whose moments are cached, then for the layer that the data chooses."""
    failed = cache.failed
    utterances = [u for u in manifest.utterances if u.id not in failed]
    labelled = [n for n, u in enumerate(utterances) if u.label and u.speaker]
    source = cache.extraction.source("audio")
    layers = sorted({*source.layers, *source.moments})
    found: dict[int, Vectors] = {}
    for layer in layers:
        both = cache.moments(utterances, "audio", layer)
        found[layer] = np.concatenate([one.numpy() for one in both], axis=1)[labelled]
    rows = [utterances[n] for n in labelled]
    speakers = np.array(["/".join(speaker_key(u) or ()) for u in rows])
    gold = np.array([manifest.labels.index(u.label) for u in rows])
    said = {
        layer: [_held_out(x, gold, speakers, seed) for seed in seeds] for layer, x in found.items()
    }
    lines = [_line(str(layer), said[layer], gold, manifest, speakers) for layer in layers]
    chosen = _chosen(layers, found, rows, speakers)
    automatic = []
    for number in range(len(seeds)):
        answers = np.empty(len(gold), dtype=np.int64)
        for speaker, layer in chosen.items():
            own = speakers == speaker
            answers[own] = said[layer][number][own]
        automatic.append(answers)
    counts = ", ".join(
        f"layer {n} for {list(chosen.values()).count(n)}" for n in sorted(set(chosen.values()))
    )
    plain = np.empty(len(gold), dtype=np.int64)
    for speaker, layer in chosen.items():
        own = speakers == speaker
        model, _ = fit_logistic(found[layer][~own], gold[~own], STRENGTH)
        plain[own] = model.predict(found[layer][own])
    return [
        *lines,
        _line(f"auto ({counts})", automatic, gold, manifest, speakers),
        _line(f"auto, C = {STRENGTH} as in extract", [plain], gold, manifest, speakers),
    ]


def curve_text(lines: Sequence[Line]) -> str:
    """As a table."""
    head = ("layer", "macro-F1", "± (seeds)", "95 % over speakers")
    return "\n".join(aligned([head, *(line.cells() for line in lines)], right=(1, 2)))


def _held_out(
    x: Vectors, gold: NDArray[np.int64], speakers: NDArray[np.str_], seed: int
) -> NDArray[np.int64]:
    """The class of every utterance, said by a regression that never heard its speaker."""
    said = np.empty(len(gold), dtype=np.int64)
    for speaker in np.unique(speakers):
        out = speakers == speaker
        strength = _strength(x[~out], gold[~out], speakers[~out], seed)
        model, _ = fit_logistic(x[~out], gold[~out], strength)
        said[out] = model.predict(x[out])
    return said


def _strength(x: Vectors, gold: NDArray[np.int64], speakers: NDArray[np.str_], seed: int) -> float:
    """The one with the best macro-F1 on folds of speakers; of equals the most regularised."""
    folds = GroupKFold(min(INNER_FOLDS, len(np.unique(speakers))), shuffle=True, random_state=seed)
    labels = [str(n) for n in range(int(gold.max()) + 1)]
    scores = []
    for strength in STRENGTHS:
        said = np.empty(len(gold), dtype=np.int64)
        for train, test in folds.split(x, gold, speakers):
            model, _ = fit_logistic(x[train], gold[train], strength)
            said[test] = model.predict(x[test])
        scores.append(classification_report(gold, said, labels).macro_f1)
    return STRENGTHS[int(np.argmax(scores))]


def _chosen(
    layers: Sequence[int],
    found: dict[int, Vectors],
    rows: Sequence[Utterance],
    speakers: NDArray[np.str_],
) -> dict[str, int]:
    """For every held-out speaker the layer that the other speakers' utterances rank first."""
    chosen = {}
    for speaker in np.unique(speakers):
        train = speakers != speaker
        sample = [u for u, own in zip(rows, train, strict=True) if own]
        scores, _, _ = rank_layers(layers, lambda layer, t=train: found[layer][t], sample)  # type: ignore[misc]
        chosen[str(speaker)] = max(scores, key=lambda one: (one.macro_f1, -one.layer)).layer
    return chosen


def _line(
    name: str,
    said: Sequence[NDArray[np.int64]],
    gold: NDArray[np.int64],
    manifest: Manifest,
    speakers: NDArray[np.str_],
) -> Line:
    return Line(
        name,
        tuple(classification_report(gold, one, manifest.labels, speakers.tolist()) for one in said),
    )
