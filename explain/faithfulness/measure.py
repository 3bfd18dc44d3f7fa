"""Making deletion and insertion curves: one pass over the frames for all orders together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from corpora.base.terminal import progress_bar
from explain.cues.analysis import speech_frames
from explain.faithfulness.curves import (
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
from explain.faithfulness.dropping import Known, probabilities_of_kept
from explain.faithfulness.orders import (
    exchanged_attention,
    importance,
    places,
    random_head,
    tie_order,
)
from explain.pooled import frame_view, is_attentive, runs
from explain.ragged import Bools, Floats, Ints, correlations, floats, ints, ranks_within
from explain.saliency import has_captum, integrated_gradients
from explain.subject import Subject, frame_order
from explain.workers import one_thread_each
from heads.head import Head

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
        if self.modality != "audio":
            return np.ones(len(self.frames), dtype=np.bool_)
        chosen: Bools = speech_frames(self.subject)[self.frames.numpy()]
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
    frames = subject.frames[modality].select(rows)
    offsets, weights = ints(frames.offsets), subject.weights.get(modality)
    view = frame_view(subject.head, frames, modality)
    known = Known(
        None if weights is None else weights[here],
        {name: vectors[rows] for name, vectors in subject.vectors.items()},
        view,
    )
    result: dict[str, Floats] = {}
    if untrained is not None:
        fresh = importance(untrained, subject, rows, modality, view)
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
