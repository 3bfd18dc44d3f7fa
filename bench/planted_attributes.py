"""Do heads find an attribute that a tenth of the frames carries? Real frames of speech.

Pieces of utterances, each used several times. A tenth of its frames, in one stretch at a random
place, get a marker and are moved along one direction by a drawn amount. The rating is linear in the
frames of the tenth, the mean of their projections s, and has noise added, e. As a control the
ratings are dealt out anew.

What the noise allows: all that can be known of a rating is s. Of a prediction c · s

    CCC = 2 c σ_s² / (c² σ_s² + σ_s² + σ_e²),

which is largest at c = √(σ_s² + σ_e²) / σ_s, where it is σ_s / √(σ_s² + σ_e²).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import mean, stdev

import numpy as np
import torch

from bench.planted import ATTENTIVE, MARKER, PIECE, POOLINGS, SHARE
from cache.frames import Frames
from cache.lookup import FrameCache
from corpora.base.terminal import aligned
from corpora.manifest import Manifest, Utterance
from heads.dataset import Dataset
from heads.gold import Gold
from heads.head import Head, HeadConfig
from heads.load import load_dataset, suitable_threads
from heads.predict import predict
from heads.ridge import ridge_reference
from heads.search.space import PUBLISHED_REST
from heads.training import Cohort, Schedule, TrainingConfig
from heads.vector_store import VectorStore

# How often a piece is used, and deviations: of the drawn movement, in those of the features; of the
# noise, in those of what the rating is linear in.
TIMES, MOVED, NOISE = 2, 1.0, 0.5
# Relative rate of scorers.
SCORER_RATE = 0.3
EPOCHS = 30
SCALE = (1.0, 7.0)


@dataclass(frozen=True)
class Line:
    """One pooling, or the regression: CCC on held-out speakers for each seed, and the control's."""

    name: str
    allowed: tuple[float, ...]
    scores: tuple[float, ...]
    control: tuple[float, ...]

    def cells(self) -> tuple[str, ...]:
        """Name, mean and deviation of CCC, share of what the noise allows, the control's mean."""
        spread = stdev(self.scores) if len(self.scores) > 1 else 0.0
        share = mean(s / a for s, a in zip(self.scores, self.allowed, strict=True))
        control = f"{mean(self.control):+.3f}"
        return self.name, f"{mean(self.scores):.3f}", f"{spread:.3f}", f"{share:.2f}", control


def attribute_lines(cache: FrameCache, manifest: Manifest, seeds: Sequence[int]) -> list[Line]:
    """CCC of every pooling on speakers that were held out (every fourth one).

    Args:
        cache: with audio frames.
        manifest: the utterances.
        seeds: of what is planted, and of the heads.
    """
    plain = load_dataset(cache, manifest, ["audio"])
    names = [*POOLINGS, "ridge regression"]
    found: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in names}
    allowed = []
    for seed in seeds:
        dataset, most = plant(plain, seed)
        allowed.append(most)
        for control in (False, True):
            own = dealt_anew(dataset, seed) if control else dataset
            for name, score in _scores(own, seed).items():
                found[name][control].append(score)
    return [Line(name, tuple(allowed), tuple(s), tuple(c)) for name, (s, c) in found.items()]


def attribute_text(lines: Sequence[Line]) -> str:
    """A table."""
    header = ("pooling", "CCC", "±", "of what the noise allows", "dealt anew")
    table = aligned([header, *(line.cells() for line in lines)], right=(1, 2, 3, 4))
    return "\n".join([*table, f"The noise allows {mean(lines[0].allowed):.3f}."])


def _scores(dataset: Dataset, seed: int) -> dict[str, float]:
    store, rest = VectorStore(dataset), PUBLISHED_REST
    heads = [
        Head(
            HeadConfig(
                (),
                dataset.dims,
                {"audio": pooling},
                rest["input_norm"],
                rest["mlp_width"],
                attributes=dataset.attributes,
            ),
            seed,
        )
        for pooling in POOLINGS.values()
    ]
    training = [
        TrainingConfig(
            rest["learning_rate"],
            rest["weight_decay"],
            SCORER_RATE if name in ATTENTIVE else 1.0,
            seed=seed,
            attribute_weight=1.0,
        )
        for name in POOLINGS
    ]
    schedule, test = Schedule(EPOCHS, data_seed=seed), dataset.rows("test")
    with suitable_threads(dataset, schedule.batch_size):
        cohort = Cohort(heads, training, store, dataset.rows("train"), schedule)
        while cohort.epoch < EPOCHS:
            cohort.run_epoch()
        said = predict(heads, store, test)
    gold = Gold.of(dataset, test)
    scores = {name: gold.score(own.numpy()) for name, own in zip(POOLINGS, said, strict=True)}
    ridge = ridge_reference(store).predicted["test"]
    return {**scores, "ridge regression": gold.score(np.array(ridge))}


def plant(plain: Dataset, seed: int) -> tuple[Dataset, float]:
    """The data set, and the CCC that its noise allows."""
    random = np.random.default_rng(seed)
    source = plain.frames["audio"]
    speakers = sorted({u.speaker for u in plain.utterances})
    pieces = [
        (utterance, part)
        for i, utterance in enumerate(plain.utterances)
        for part in source.utterance(i).float().split(PIECE)
        if len(part) == PIECE
    ]
    every = torch.cat([part for _, part in pieces])
    centre, deviation = every.mean(dim=0), every.std(dim=0)
    drawn = torch.from_numpy(random.standard_normal((2, len(centre))).astype(np.float32))
    marker, direction = drawn[0], drawn[1] / drawn[1].norm()
    width = round(SHARE * PIECE)
    values, s, owners = [], [], []
    for utterance, part in pieces * TIMES:
        at = int(random.integers(0, PIECE - width + 1))
        seen = (part - centre) / deviation
        seen[at : at + width] += MARKER * marker
        moved = float(random.standard_normal()) * MOVED * len(centre) ** 0.5
        seen[at : at + width] += moved * direction
        values.append(seen * deviation + centre)
        s.append(float((seen[at : at + width] @ direction).mean()))
        owners.append(utterance)
    linear = np.array(s)
    rated = linear + NOISE * linear.std() * random.standard_normal(len(linear))
    # Six deviations are the length of the scale: of a thousand ratings some three are at its ends.
    ratings = (4 + (rated - rated.mean()) / rated.std()).clip(*SCALE)
    utterances = tuple(
        Utterance(
            id=f"u{number}",
            audio=own.audio,
            label="",
            speaker=own.speaker,
            split=("test", "dev", "train", "train")[speakers.index(own.speaker) % 4],
            arousal=float(rating),
        )
        for number, (own, rating) in enumerate(zip(owners, ratings, strict=True))
    )
    frames = {"audio": Frames.from_list(values)}
    return Dataset(utterances, (), frames, attributes={"arousal": SCALE}), 1 / (1 + NOISE**2) ** 0.5


def dealt_anew(dataset: Dataset, seed: int) -> Dataset:
    """The same with every rating at an utterance drawn by chance."""
    order = np.random.default_rng(seed).permutation(len(dataset))
    ratings = [dataset.utterances[k].arousal for k in order]
    rows = zip(dataset.utterances, ratings, strict=True)
    return replace(dataset, utterances=tuple(replace(u, arousal=value) for u, value in rows))
