"""Deletion and insertion curves: the predicted class's probability as frames go, or come.

Deletion (Petsiuk et al. 2018, on frames): the frames an order puts first are dropped; the faster
the probability falls, the more they mattered. Insertion: only those are kept; the faster it is
back, the better. Frames are ragged, so dropped means gone: nothing stands in their place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from corpora.progress import progress_bar
from explain.faithfulness.dropping import probabilities_of_kept
from explain.faithfulness.orders import importance, places, random_head, shifted
from explain.ragged import Bools, Floats, Ints, correlations, floats, ints, ranks_within
from explain.saliency import has_captum, integrated_gradients
from explain.subject import Subject, frame_attention
from explain.workers import one_thread_each
from heads.head import Head
from heads.pooling.attentive import AttentivePooling

# Dense where attention is: the published head holds 80 % of it in 15 % of the frames.
SHARES = (0.05, 0.1, 0.2, 0.35, 0.6, 0.9)
# Frames whose choices are evaluated together: 100 choices of them take 0.2 GB at 1024-d.
CHUNK_FRAMES = 16_384
# More draws of one utterance add little beside the differences between utterances.
MOST_DRAWS = 5
ATTENTION, SHIFTED, RANDOM = "attention", "shifted attention", "random"
ENERGY, UNTRAINED, GRADIENTS = "energy", "untrained head", "integrated gradients"


@dataclass(frozen=True)
class CurveConfig:
    """How curves are made.

    Attributes:
        draws: random orders and random shifts of attention: of each utterance as many as give
            this many in all, and at least one.
        seed: of these and of the untrained head.
        plain_limit: utterances, drawn at random, for heads that learn no weights: their frames
            have to be pooled again for each choice.
        untrained_limit: utterances with the order of an untrained head, drawn at random: scoring
            their frames anew is most of the work.
        gradient_limit: utterances with integrated gradients (0: none), drawn at random.
        gradient_steps: of the integral.
        progress: whether to show a bar.
    """

    draws: int = 1000
    seed: int = 0
    plain_limit: int = 600
    untrained_limit: int = 600
    gradient_limit: int = 24
    gradient_steps: int = 16
    progress: bool = False


@dataclass(frozen=True, eq=False)
class Curves:
    """Curves of m utterances of a subject, for each order of their frames.

    Attributes:
        modality: whose frames were dropped.
        rows: `[m]`, the utterances' numbers in the subject.
        whole: `[m]`, the probability of the predicted class with all frames.
        deletion: by order `[m, S]`, after dropping each of `SHARES`; NaN where there is none.
        insertion: by order `[m, S]`, with only each of `SHARES` kept.
        agreement: `[m]`, rank correlation of attention with that of the untrained head.
    """

    modality: str
    rows: Ints
    whole: Floats
    deletion: Mapping[str, Floats]
    insertion: Mapping[str, Floats]
    agreement: Floats = field(default_factory=lambda: np.empty(0))

    def deletion_area(self, order: str) -> Floats:
        """`[m]`, mean probability over the shares dropped, from none on: lower is better."""
        points = np.concatenate([self.whole[:, None], self.deletion[order]], axis=1)
        return _area(points, (0.0, *SHARES))

    def insertion_area(self, order: str) -> Floats:
        """`[m]`, mean probability over the shares kept, up to all: higher is better."""
        points = np.concatenate([self.insertion[order], self.whole[:, None]], axis=1)
        return _area(points, (*SHARES, 1.0))

    def advantage(self, order: str, rival: str) -> Floats:
        """`[m, 2]`, by how much an order's areas are better: deletion, insertion."""
        return np.stack(
            [
                self.deletion_area(rival) - self.deletion_area(order),
                self.insertion_area(order) - self.insertion_area(rival),
            ],
            axis=1,
        )


def frame_curves(subject: Subject, modality: str, config: CurveConfig | None = None) -> Curves:
    """Curves of a subject's utterances for all orders that can be had."""
    config = config or CurveConfig()
    random = np.random.default_rng(config.seed)
    count = len(subject)
    if not isinstance(subject.head.poolings[modality], AttentivePooling):
        count = min(count, config.plain_limit)
    rows = np.sort(random.permutation(len(subject))[:count])
    gradients = config.gradient_limit if has_captum() else 0
    with_gradients = set(random.permutation(rows)[:gradients].tolist())
    with_untrained = set(random.permutation(rows)[: config.untrained_limit].tolist())
    draws = max(1, round(config.draws / len(rows)))
    untrained = random_head(subject.head, config.seed)
    bounds = ints(subject.frames[modality].offsets)

    def work(numbered: tuple[int, list[int]]) -> dict[str, Floats]:
        number, part = numbered
        chance = np.random.default_rng([config.seed, number])
        found = _chunk_curves(subject, modality, part, chance, min(draws, MOST_DRAWS))
        wanted = [row in with_untrained for row in part]
        found.update(_untrained_curves(subject, untrained, modality, part, wanted))
        wanted = [row in with_gradients for row in part]
        found[GRADIENTS] = _gradient_curves(subject, modality, part, wanted, config.gradient_steps)
        bar.update(len(part))
        return found

    chunks = enumerate(_chunks(rows, np.diff(bounds)))
    with (
        progress_bar(f"Curves ({modality})", len(rows), "utterance", show=config.progress) as bar,
        one_thread_each() as threads,
    ):
        found = list(threads.map(work, chunks))
    joined = {name: np.concatenate([one[name] for one in found]) for name in found[0]}
    whole, agreement = joined.pop("whole"), joined.pop("agreement")
    held = {name: values for name, values in joined.items() if not np.isnan(values).all()}
    return Curves(
        modality,
        rows.astype(np.int64),
        whole,
        {name: values[:, 0] for name, values in held.items()},
        {name: values[:, 1] for name, values in held.items()},
        agreement,
    )


def _chunk_curves(
    subject: Subject, modality: str, part: Sequence[int], random: np.random.Generator, draws: int
) -> dict[str, Floats]:
    """Curves `[B, 2, S]` of some utterances by order, and `whole` `[B]`."""
    offsets = ints(subject.frames[modality].select(part).offsets)
    here = torch.from_numpy(_frames_of(part, ints(subject.frames[modality].offsets)))
    attended = floats(frame_attention(subject, modality)[here])
    orders = {
        ATTENTION: [attended],
        SHIFTED: [shifted(attended, offsets, random) for _ in range(draws)],
        RANDOM: [random.random(len(attended)) for _ in range(draws)],
    }
    if modality == "audio" and subject.energy is not None:
        orders[ENERGY] = [floats(subject.energy[here])]
    return _curves(subject, modality, part, orders)


def _untrained_curves(
    subject: Subject, untrained: Head, modality: str, part: Sequence[int], wanted: Sequence[bool]
) -> dict[str, Floats]:
    """Curves of the untrained head's order, and its `agreement` `[B]`; NaN where not wanted."""
    curves, agreement = np.full((len(part), 2, len(SHARES)), np.nan), np.full(len(part), np.nan)
    places_of = [place for place, there in enumerate(wanted) if there]
    if places_of:
        rows = [part[place] for place in places_of]
        batch = {name: frames.select(rows) for name, frames in subject.frames.items()}
        offsets = ints(batch[modality].offsets)
        here = torch.from_numpy(_frames_of(rows, ints(subject.frames[modality].offsets)))
        fresh = importance(untrained, batch, modality)
        ranks = (
            ranks_within(floats(frame_attention(subject, modality)[here]), offsets),
            ranks_within(fresh, offsets),
        )
        agreement[places_of] = correlations(*ranks, offsets)
        curves[places_of] = _curves(subject, modality, rows, {UNTRAINED: [fresh]})[UNTRAINED]
    return {UNTRAINED: curves, "agreement": agreement}


def _curves(
    subject: Subject, modality: str, part: Sequence[int], orders: Mapping[str, Sequence[Floats]]
) -> dict[str, Floats]:
    """`[B, 2, S]` of each order, and `whole` `[B]`."""
    batch = {name: frames.select(part) for name, frames in subject.frames.items()}
    targets = subject.predicted[part]
    offsets = ints(batch[modality].offsets)
    weights = subject.weights.get(modality)
    if weights is not None:
        here = _frames_of(part, ints(subject.frames[modality].offsets))
        weights = weights[torch.from_numpy(here)]
    choices = [np.ones((1, int(offsets[-1])), dtype=np.bool_)]
    for several in orders.values():
        choices += [_choices(places(values, offsets), np.diff(offsets)) for values in several]
    kept = torch.from_numpy(np.concatenate(choices))
    every = probabilities_of_kept(subject.head, batch, modality, kept, weights)
    chosen = floats(every.gather(2, targets[None, :, None].expand(len(kept), -1, 1))[:, :, 0])
    result: dict[str, Floats] = {"whole": chosen[0]}
    at = 1
    for name, several in orders.items():
        own = chosen[at : at + 2 * len(SHARES) * len(several)]
        at += len(own)
        mean = own.reshape(len(several), 2, len(SHARES), -1).mean(axis=0)
        result[name] = np.moveaxis(mean, 2, 0)
    return result


def _gradient_curves(
    subject: Subject, modality: str, part: Sequence[int], wanted: Sequence[bool], steps: int
) -> Floats:
    """`[B, 2, S]`, curves of integrated gradients; NaN for utterances that get none."""
    curves = np.full((len(part), 2, len(SHARES)), np.nan)
    for place, row in enumerate(part):
        if not wanted[place]:
            continue
        one = {name: frames.select([row]) for name, frames in subject.frames.items()}
        target = int(subject.predicted[row])
        values = integrated_gradients(subject.head, one, target=target, steps=steps)
        order = {GRADIENTS: [floats(values[modality])]}
        curves[place] = _curves(subject, modality, [row], order)[GRADIENTS][0]
    return curves


def _choices(place: Ints, counts: Ints) -> Bools:
    """`[2·S, N]`, the frames kept: after deletion of each share, then with only it inserted."""
    total = np.repeat(counts, counts)
    # At least one frame stays, and at least one comes.
    dropped = [place >= np.clip(np.rint(share * total), 0, total - 1) for share in SHARES]
    held = [place < np.maximum(np.rint(share * total), 1) for share in SHARES]
    return np.stack(dropped + held)


def _area(points: Floats, shares: Sequence[float]) -> Floats:
    """The mean height of a curve `[m, k]` over its shares (trapezoids)."""
    area: Floats = np.trapezoid(points, np.array(shares), axis=1) / (shares[-1] - shares[0])
    return area


def _frames_of(rows: Sequence[int], bounds: Ints) -> Ints:
    """Frame numbers of utterances, end to end."""
    return np.concatenate([np.arange(bounds[row], bounds[row + 1]) for row in rows])


def _chunks(rows: Ints, counts: Ints) -> list[list[int]]:
    """Utterance numbers in runs of at most `CHUNK_FRAMES` frames, at least one each."""
    runs: list[list[int]] = [[]]
    held = 0
    for row in rows.tolist():
        if runs[-1] and held + counts[row] > CHUNK_FRAMES:
            runs.append([])
            held = 0
        runs[-1].append(row)
        held += int(counts[row])
    return runs
