"""Making deletion and insertion curves: one pass over the frames for all orders together.

What a head says of utterances when only some of their frames are kept.

A frame's score does not depend on the other frames, so an attentive head needs its scores once:
every set of kept frames is one more query, whose softmax runs over those frames alone, and all
sets share one pass over the frames. Other poolings get the shorter utterances as they are.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from cache.frames import Frames
from corpora.base.terminal import progress_bar
from explain.cues.measure import speech_frames
from explain.curves import (
    ATTENTION,
    ENERGY,
    EXCHANGED,
    GRADIENTS,
    RANDOM,
    SHARES,
    UNTRAINED,
    CurveConfig,
    Curves,
)
from explain.pooled import (
    as_scores,
    frame_view,
    gradient_saliency,
    has_captum,
    integrated_gradients,
    is_attentive,
    logits_of,
    one_thread_each,
    pooled,
    runs,
    scores,
)
from explain.ragged import (
    Bools,
    Floats,
    Ints,
    correlations,
    floats,
    ints,
    order_within,
    positions,
    ranks_within,
    segment_sum,
)
from explain.subject import Subject, draw_donors, exchanged, frame_order, usable_counts
from heads.head import Head
from heads.pooling.pooling import attention_weights
from heads.pooling.view import View


def places(values: Floats, offsets: Ints, ties: Ints) -> Ints:
    """`[N]`, each frame's place in its utterance's order, 0 for the largest value.

    Attention that learnt nothing is even, and gradients are often 0: taking equal frames from the
    start of an utterance on would make an order by time of them, which can seem to know something.

    Args:
        values: `[N]`.
        offsets: `[B+1]`.
        ties: `[N]`, from `tie_order`: of equal values, the frame that comes first in it is first.
    """
    result = np.empty(len(values), dtype=np.int64)
    result[ties[order_within(values[ties], offsets)]] = positions(offsets)
    return result


def tie_order(offsets: Ints, random: np.random.Generator) -> Ints:
    """`[N]` frame numbers, utterance after utterance, those of each in a random order."""
    return order_within(random.random(int(offsets[-1])), offsets)


def exchanged_attention(
    values: Floats, offsets: Ints, usable: Bools, random: np.random.Generator
) -> Floats:
    """`[N]`, each utterance with the values of another one, drawn at random (`explain.subject`).

    Relative to the mean over usable frames, of saliency to that of its size: attention sums to 1,
    so that a longer donor's would otherwise fall below what the utterance's own is in silence.
    """
    counts = usable_counts(usable, offsets)
    mean = segment_sum(np.where(usable, np.abs(values), 0.0), offsets) / np.maximum(counts, 1)
    relative = values / np.repeat(np.where(mean > 0, mean, 1.0), np.diff(offsets))
    return exchanged(relative, offsets, usable, draw_donors(len(counts), random))


# Added to a seed: a trained head keeps much of what it was drawn as, maybe from that seed.
UNTRAINED_SEED = 1_000_003
# Another one: the layers of a scorer are not to be made of the same numbers.
SCORER_SEED = 2_000_003


def random_head(head: Head, seed: int) -> Head:
    """A head of the same shape whose parameters were never trained; input statistics are kept.

    It attends to arbitrary frames: scorers begin at 0, which is even attention and no order at all,
    so parameters that are 0 are drawn as `torch.nn.Linear` draws its weights.
    """
    fresh = Head(head.config, UNTRAINED_SEED + seed)
    generator = torch.Generator().manual_seed(SCORER_SEED + seed)
    with torch.no_grad():
        for parameter in fresh.scorer_parameters():
            if not parameter.any():
                bound = 1 / math.sqrt(parameter.shape[-1])
                parameter.uniform_(-bound, bound, generator=generator)
    for name, kept in head.named_buffers():
        fresh.get_buffer(name).copy_(kept)
    return fresh.eval().requires_grad_(False)


def importance(
    head: Head, subject: Subject, rows: Sequence[int], modality: str, view: View
) -> Floats:
    """`[N]`, by which a head of the subject's shape orders frames of some of its utterances.

    Its attention; where it learns no weights, gradient saliency (see `frame_order`).

    Args:
        head: with the subject's input statistics.
        subject: whose utterances.
        rows: their numbers.
        modality: whose frames.
        view: of these frames, by `frame_view`.
    """
    if is_attentive(head, modality):
        with torch.no_grad():
            weights = attention_weights(scores(head, view, modality), view)
        return floats(weights.double().mean(dim=1))
    frames = {name: batch.select(rows) for name, batch in subject.frames.items()}
    return floats(gradient_saliency(head, frames)[modality])


@dataclass(frozen=True, eq=False)
class Known:
    """What is known of a batch already, so that it is not computed anew.

    Attributes:
        weights: `[N, Q·H]`, the head's attention to the frames that are chosen from.
        vectors: by modality `[B, P]`, what the head pools the others to.
        view: of the frames that are chosen from, by `frame_view`.
    """

    weights: Tensor | None = None
    vectors: Mapping[str, Tensor] = field(default_factory=dict)
    view: View | None = None


def known_batch(
    subject: Subject, modality: str, rows: Sequence[int], numbers: Tensor
) -> tuple[Frames, Known]:
    """The frames of some utterances of a subject, and all that is known of them.

    Args:
        subject: whose.
        modality: whose frames are chosen from.
        rows: numbers of the utterances.
        numbers: `[N]`, of their frames in the subject.
    """
    frames, weights = subject.frames[modality].select(rows), subject.weights.get(modality)
    return frames, Known(
        None if weights is None else weights[numbers],
        {name: vectors[list(rows)] for name, vectors in subject.vectors.items()},
        frame_view(subject.head, frames, modality),
    )


def probabilities_of_kept(
    head: Head,
    frames: Mapping[str, Frames],
    modality: str,
    kept: Tensor,
    known: Known | None = None,
) -> Tensor:
    """Class probabilities under V choices of frames of one modality.

    Args:
        head: in eval mode.
        frames: a batch of B utterances, by modality; the other modalities stay whole, and need not
            be there where their vectors are known.
        modality: whose frames are chosen.
        kept: `[V, N]` bool, at least one frame of every utterance in each choice.
        known: what is known of the batch.

    Returns:
        `[V, B, C]`.

    Raises:
        ValueError: a choice keeps no frame of an utterance.
    """
    known = known or Known()
    lengths = frames[modality].lengths.tolist()
    counts = torch.stack([part.sum(dim=1) for part in kept.split(lengths, dim=1)], dim=1)
    if bool((counts == 0).any()):
        raise ValueError("every choice has to keep at least one frame of each utterance")
    with torch.no_grad():
        vectors = {
            name: known.vectors[name]
            if name in known.vectors
            else pooled(head, frame_view(head, frames[name], name), name)
            for name in head.config.modalities
            if name != modality
        }
        if is_attentive(head, modality):
            vectors[modality] = _as_queries(head, frames[modality], modality, kept, known)
        else:
            shorter = [_shortened(frames[modality], row) for row in kept]
            vectors[modality] = torch.stack(
                [pooled(head, frame_view(head, own, modality), modality) for own in shorter]
            )
        return torch.softmax(logits_of(head, vectors), dim=-1)


def _as_queries(head: Head, frames: Frames, modality: str, kept: Tensor, known: Known) -> Tensor:
    """`[V, B, 2·Q·K]` of an attentive head, each choice as one more query."""
    view = known.view or frame_view(head, frames, modality)
    weights = known.weights
    if weights is not None and bool((weights > 0).all()):
        # The softmax does not mind the constant that the logarithm of a softmax is off by. A
        # weight that was rounded to 0 does not say by how much it is smaller than the others.
        scored = as_scores(head, weights.log(), modality)
    else:
        scored = scores(head, view, modality)
    masked = scored[:, None].masked_fill(~kept[None, :, None], float("-inf"))
    return pooled(head, view, modality, masked)


def _shortened(frames: Frames, kept: Tensor) -> Frames:
    """The frames that are kept, `[N]` bool."""
    counts = torch.stack([part.sum() for part in kept.split(frames.lengths.tolist())])
    offsets = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    return frames.part(kept, offsets)


# Frames and utterances whose choices are evaluated together: their frames stay in a processor's
# cache (8 MB at 1024-d); many short texts would have too many vectors in hand.
CHUNK_FRAMES, CHUNK_UTTERANCES = 2_048, 32
# More draws of one utterance add little beside the differences between utterances.
MOST_DRAWS = 5
WHOLE, AGREEMENT = "whole", "agreement"

# Integrated gradients by utterance and modality.
Attributions = dict[int, dict[str, Tensor]]
# By order, the place of each frame in it, once for each draw.
Orders = Mapping[str, Sequence[Ints]]


@dataclass(frozen=True, eq=False)
class _Drawn:
    """Utterances in the order they were drawn in: the first get what is not made of all.

    Attributes:
        subject: whose.
        modality: whose frames are dropped.
        rows: `[m]`, their numbers in the subject.
        offsets: `[m+1]`, of their frames end to end.
        frames: `[N]`, the numbers of these frames in the subject.
        ties: `[N]`, which of equal frames comes first in all orders (see `tie_order`).
    """

    subject: Subject
    modality: str
    rows: Ints
    offsets: Ints
    frames: Tensor
    ties: Ints

    @classmethod
    def of(cls, subject: Subject, modality: str, rows: Ints, random: np.random.Generator) -> _Drawn:
        """Lay the frames of these utterances end to end."""
        bounds = ints(subject.frames[modality].offsets)
        counts = np.diff(bounds)[rows]
        offsets = np.concatenate([[0], np.cumsum(counts)])
        moved = np.repeat(bounds[rows] - offsets[:-1], counts) + np.arange(offsets[-1])
        ties = tie_order(offsets, random)
        return cls(subject, modality, rows, offsets, torch.from_numpy(moved), ties)

    @property
    def attended(self) -> Floats:
        """`[N]`."""
        return floats(frame_order(self.subject, self.modality)[self.frames])

    @property
    def usable(self) -> Bools:
        """`[N]`, the frames among which attention is exchanged: speech, or all tokens."""
        chosen: Bools = speech_frames(self.subject, self.modality)[self.frames.numpy()]
        return chosen

    def ties_of(self, run: tuple[int, int]) -> Ints:
        """`ties` of some of the utterances, counted from the first of their frames."""
        start, end = self.offsets[list(run)]
        own: Ints = self.ties[start:end] - start
        return own


def frame_curves(
    subject: Subject,
    modality: str,
    config: CurveConfig | None = None,
    attributions: Attributions | None = None,
) -> Curves:
    """Curves of a subject's utterances for all orders that can be had.

    Args:
        subject: what is explained.
        modality: whose frames are dropped.
        config: see `CurveConfig`.
        attributions: what is computed for all modalities at once; what is not there is added.
    """
    config = config or CurveConfig()
    attributions = {} if attributions is None else attributions
    random = np.random.default_rng(config.seed)
    rows = random.permutation(len(subject)).astype(np.int64)
    if not is_attentive(subject.head, modality):
        rows = rows[: config.plain_limit]
    drawn = _Drawn.of(subject, modality, rows, random)
    orders = _orders(drawn, min(max(1, round(config.draws / len(rows))), MOST_DRAWS), random)
    untrained = random_head(subject.head, config.seed)
    shape = (len(rows), 2, len(SHARES))
    found: dict[str, Floats] = {n: np.full(len(rows), np.nan) for n in (WHOLE, AGREEMENT)}
    found |= {name: np.full(shape, np.nan) for name in (*orders, UNTRAINED, GRADIENTS)}

    def measure(run: tuple[int, int]) -> None:
        part = slice(*drawn.offsets[list(run)])
        own = {name: [one[part] for one in several] for name, several in orders.items()}
        head = untrained if run[0] < config.untrained_limit else None
        for name, values in _curves(drawn, run, own, head).items():
            found[name][slice(*run)] = values
        bar.update(run[1] - run[0])

    def attribute(place: int) -> None:
        row = int(rows[place])
        if row not in attributions:
            attributions[row] = _attributed(subject, row, config.gradient_steps)
        values = floats(attributions[row][modality])
        run = place, place + 1
        own = {GRADIENTS: [places(values, np.array([0, len(values)]), drawn.ties_of(run))]}
        found[GRADIENTS][place] = _curves(drawn, run, own)[GRADIENTS][0]

    with (
        progress_bar(f"Curves ({modality})", len(rows), "utterance", show=config.progress) as bar,
        one_thread_each() as threads,
    ):
        list(threads.map(measure, _runs(drawn, config.untrained_limit)))
        if has_captum():
            list(threads.map(attribute, range(min(config.gradient_limit, len(rows)))))
    back = np.argsort(rows)
    whole, agreement = found.pop(WHOLE)[back], found.pop(AGREEMENT)[back]
    held = {name: v[back] for name, v in found.items() if not np.isnan(v).all()}
    return Curves(
        modality,
        rows[back],
        whole,
        {name: values[:, 0] for name, values in held.items()},
        {name: values[:, 1] for name, values in held.items()},
        agreement,
    )


def _runs(drawn: _Drawn, first: int) -> list[tuple[int, int]]:
    """Utterances that are worked on together; the first ones apart from the others."""
    counts = np.diff(drawn.offsets).tolist()
    parts = [(start, counts[start:end]) for start, end in ((0, first), (first, len(counts)))]
    return [
        (start + a, start + b)
        for start, part in parts
        if part
        for a, b in runs(part, CHUNK_FRAMES, CHUNK_UTTERANCES)
    ]


def _orders(drawn: _Drawn, draws: int, random: np.random.Generator) -> Orders:
    """All orders that need no head."""
    offsets, attended, usable = drawn.offsets, drawn.attended, drawn.usable
    values = {
        ATTENTION: [attended],
        EXCHANGED: [exchanged_attention(attended, offsets, usable, random) for _ in range(draws)],
        RANDOM: [random.random(len(attended)) for _ in range(draws)],
    }
    if drawn.modality == "audio" and drawn.subject.energy is not None:
        values[ENERGY] = [floats(drawn.subject.energy[drawn.frames])]
    return {
        name: [places(one, offsets, drawn.ties) for one in several]
        for name, several in values.items()
    }


def _curves(
    drawn: _Drawn, run: tuple[int, int], orders: Orders, untrained: Head | None = None
) -> dict[str, Floats]:
    """`[B, 2, S]` by order, and `whole` `[B]`, of some of the utterances.

    With an untrained head those of its order too, and its `agreement` `[B]` with attention.

    Args:
        drawn: all utterances.
        run: from which place to before which.
        orders: of the frames of this run.
        untrained: whose order is wanted too.
    """
    subject, modality = drawn.subject, drawn.modality
    rows, here = drawn.rows[slice(*run)].tolist(), drawn.frames[slice(*drawn.offsets[list(run)])]
    frames, known = known_batch(subject, modality, rows, here)
    offsets = ints(frames.offsets)
    result: dict[str, Floats] = {}
    if untrained is not None:
        assert known.view is not None
        fresh = importance(untrained, subject, rows, modality, known.view)
        attended = floats(frame_order(subject, modality)[here])
        ranks = ranks_within(attended, offsets), ranks_within(fresh, offsets)
        result[AGREEMENT] = correlations(*ranks, offsets)
        orders = {**orders, UNTRAINED: [places(fresh, offsets, drawn.ties_of(run))]}
    choices = [np.ones((1, int(offsets[-1])), dtype=np.bool_)]
    choices += [_choices(one, np.diff(offsets)) for several in orders.values() for one in several]
    kept = torch.from_numpy(np.concatenate(choices))
    every = probabilities_of_kept(subject.head, {modality: frames}, modality, kept, known)
    targets = subject.predicted[rows][None, :, None].expand(len(kept), -1, 1)
    chosen = floats(every.gather(2, targets)[:, :, 0])
    result[WHOLE] = chosen[0]
    at = 1
    for name, several in orders.items():
        own = chosen[at : at + 2 * len(SHARES) * len(several)]
        at += len(own)
        mean = own.reshape(len(several), 2, len(SHARES), -1).mean(axis=0)
        result[name] = np.moveaxis(mean, 2, 0)
    return result


def _attributed(subject: Subject, row: int, steps: int) -> dict[str, Tensor]:
    """Integrated gradients `[T]` of one utterance's predicted class, by modality."""
    one = {name: frames.select([row]) for name, frames in subject.frames.items()}
    target = int(subject.predicted[row])
    return integrated_gradients(subject.head, one, target=target, steps=steps)


def _choices(place: Ints, counts: Ints) -> Bools:
    """`[2·S, N]`, the frames kept: after deletion of each share, then with only it inserted."""
    total = np.repeat(counts, counts)
    # At least one frame stays, and at least one comes.
    dropped = [place >= np.clip(np.rint(share * total), 0, total - 1) for share in SHARES]
    held = [place < np.maximum(np.rint(share * total), 1) for share in SHARES]
    return np.stack(dropped + held)
