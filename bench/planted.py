"""Does attention find a cue that only it can see? Real frames of speech, a class planted in some.

Utterances of one label are cut into pieces, and each piece is used once for every class. A tenth of
its frames, in one stretch at a random place, get the pattern of the class and a marker, which is
the same for all classes. Each piece as a whole is moved along all patterns by chance, three times
as far as the stretch moves its mean: so the mean says little of the class, and leaving the stretch
out says nothing. Attention can look for the marker.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, stdev
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cache.frames import Frames
from cache.lookup import FrameCache
from corpora.base.terminal import aligned
from corpora.manifest import Manifest, Utterance
from heads.confusion import confusion_matrix, macro_f1
from heads.dataset import Dataset
from heads.head import Head, HeadConfig
from heads.load import load_dataset, suitable_threads
from heads.losses import LossConfig
from heads.predict import predict
from heads.search.space import PUBLISHED_REST
from heads.training import Cohort, Schedule, TrainingConfig
from heads.vector_store import VectorStore

CLASSES = ("a", "b", "c", "d")
SHARE = 0.1
# Frames of a piece: 1.2 s.
PIECE = 60
# Relative rates of scorers, over the range that a search draws from.
SCORER_RATES = (0.05, 0.3, 1.0)
# Deviations of a frame's features: of the marker, and of the pattern.
MARKER, PATTERN = 2.0, 1.0
EPOCHS = 45
POOLINGS: Mapping[str, Mapping[str, Any]] = {
    "average": {"kind": "average"},
    "statistics": {"kind": "statistics"},
    "AS": {"kind": "as"},
    "SA": {"kind": "sa"},
    "MHA": {"kind": "mha"},
    "MQMHA 2/2": {"kind": "mqmha"},
}
ATTENTIVE = ("AS", "SA", "MHA", "MQMHA 2/2")


@dataclass(frozen=True)
class Line:
    """One pooling: macro-F1 and attention on the planted frames, for each seed."""

    name: str
    scores: tuple[float, ...]
    mass: tuple[float, ...]

    def cells(self) -> tuple[str, ...]:
        """Name, mean and deviation of macro-F1, mean share of attention on the marked frames."""
        spread = stdev(self.scores) if len(self.scores) > 1 else 0.0
        share = f"{mean(self.mass):.2f}" if self.mass else "-"
        return self.name, f"{mean(self.scores):.3f}", f"{spread:.3f}", share


def planted_lines(
    cache: FrameCache, manifest: Manifest, label: str, seeds: Sequence[int]
) -> list[Line]:
    """Scores of every pooling on speakers that were held out (every third one).

    Args:
        cache: with audio frames.
        manifest: the utterances.
        label: whose utterances the pieces are cut from.
        seeds: of what is planted, and of the heads.
    """
    plain = load_dataset(cache, manifest, ["audio"])
    runs = [
        (name, pooling, rate)
        for name, pooling in POOLINGS.items()
        for rate in (SCORER_RATES if name in ATTENTIVE else SCORER_RATES[:1])
    ]
    found: list[tuple[list[float], list[float]]] = [([], []) for _ in runs]
    rest = PUBLISHED_REST
    for seed in seeds:
        dataset, planted = _plant(plain, label, seed)
        store, rows = VectorStore(dataset), {s: dataset.rows(s) for s in ("train", "test")}
        norm, width = rest["input_norm"], rest["mlp_width"]
        heads = [
            Head(HeadConfig(CLASSES, dataset.dims, {"audio": pooling}, norm, width), seed)
            for _, pooling, _ in runs
        ]
        training = [
            TrainingConfig(
                rest["learning_rate"],
                rest["weight_decay"],
                rate,
                LossConfig("cross_entropy"),
                seed,
            )
            for _, _, rate in runs
        ]
        schedule = Schedule(EPOCHS, data_seed=seed)
        with suitable_threads(dataset, schedule.batch_size):
            cohort = Cohort(heads, training, store, rows["train"], schedule)
            while cohort.epoch < EPOCHS:
                cohort.run_epoch()
            said = predict(heads, store, rows["test"])
        gold = dataset.targets(rows["test"]).numpy()
        frames = dataset.select("audio", rows["test"].tolist())
        there = torch.cat([planted[row] for row in rows["test"].tolist()])
        for (name, _, _), head, answers, (scores, mass) in zip(
            runs, heads, said, found, strict=True
        ):
            confusion = confusion_matrix(gold, answers.argmax(-1).numpy(), len(CLASSES))
            scores.append(float(macro_f1(confusion)))
            if name in ATTENTIVE:
                with torch.no_grad():
                    weights = head.attention({"audio": frames}, "audio").mean(dim=1)
                mass.append(float(weights[there].sum() / len(gold)))
    return [
        Line(f"{name}, scorers × {rate:g}" if name in ATTENTIVE else name, tuple(s), tuple(m))
        for (name, _, rate), (s, m) in zip(runs, found, strict=True)
    ]


def planted_text(lines: Sequence[Line]) -> str:
    """A table."""
    header = ("pooling", "macro-F1", "±", "attention on the marked tenth")
    return "\n".join(aligned([header, *(line.cells() for line in lines)], right=(1, 2, 3)))


def _plant(plain: Dataset, label: str, seed: int) -> tuple[Dataset, list[Tensor]]:
    """The data set, and for each utterance `[T]`, which frames bear the cue."""
    random = np.random.default_rng(seed)
    source = plain.frames["audio"]
    chosen = [i for i, u in enumerate(plain.utterances) if u.label == label]
    speakers = sorted({plain.utterances[i].speaker for i in chosen})
    pieces = [
        (plain.utterances[i], part)
        for i in chosen
        for part in source.utterance(i).float().split(PIECE)
        if len(part) == PIECE
    ]
    deviation = torch.cat([part for _, part in pieces]).std(dim=0)
    drawn = torch.from_numpy(
        random.standard_normal((1 + len(CLASSES), len(deviation))).astype(np.float32)
    )
    marker, patterns = drawn[0], drawn[1:]
    utterances, values, planted = [], [], []
    width = round(SHARE * PIECE)
    for number, (own, part) in enumerate(pieces):
        for name in CLASSES:
            at = int(random.integers(0, PIECE - width + 1))
            there = torch.zeros(PIECE, dtype=torch.bool)
            there[at : at + width] = True
            moved = random.standard_normal(len(CLASSES)).astype(np.float32) * 3 * SHARE * PATTERN
            added = (torch.from_numpy(moved) @ patterns).expand_as(part).clone()
            added[there] += PATTERN * patterns[CLASSES.index(name)] + MARKER * marker
            values.append(part + deviation * added)
            planted.append(there)
            split = "test" if speakers.index(own.speaker) % 3 == 0 else "train"
            utterances.append(
                Utterance(
                    id=f"{number}{name}",
                    audio=own.audio,
                    label=name,
                    speaker=own.speaker,
                    split=split,
                )
            )
    return Dataset(tuple(utterances), CLASSES, {"audio": Frames.from_list(values)}), planted
