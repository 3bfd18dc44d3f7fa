"""Training a cohort of heads side by side on frozen frames.

Every head has parameters, learning rate, weight decay, loss and clip of its own; only the work on
frames is shared. The order of batches depends on the data seed and the epoch, dropout on the
head's seed and the step: a head trained alone and in any company gives the same result.

Folds are trained beside one another: all heads see the same batches of the union of the rows, and
a row that is held out from a head has weight 0 in its loss. So frames are read once for all folds,
and each fold has class weights, input statistics and a loss denominator of its own.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from cache.encoders.device import to_device
from corpora.base.codec import Jsonable
from corpora.base.errors import ConfigError
from heads.dataset import Thinning, VectorStore
from heads.head import (
    Head,
    Inputs,
    ViewKey,
    classify,
    dropout_of,
    pooled_vectors,
    scaling,
    stack_logits,
)
from heads.losses import LossConfig, StackedLoss, inverse_frequency, soft_targets
from heads.pooling.segments import dealt, sharing_threads, side_by_side
from heads.speakers import SPEAKER
from heads.step import Dropout, Optimiser

# Parts of a seed are combined with these primes, so that neighbours do not share streams.
EPOCH_PRIME, STEP_PRIME = 1_000_003, 7_919
# Attention has to move slower than the classifier that reads what it pools (docs/results.md).
SCORER_RATE = 0.05
# About a quarter of the steps to the first rung of a search: heads are compared at their own rate.
WARMUP = 0.03
# On EMO-DB and RAVDESS heads that read every fourth frame (about 30 of an utterance) score as those
# that read all (docs/results.md), for less than half of the work.
TRAINED_FRAMES = 48


@dataclass(frozen=True)
class TrainingConfig(Jsonable):
    """How one head is trained.

    Attributes:
        learning_rate: the peak of its schedule.
        weight_decay: of AdamW.
        scorer_rate: learning rate of what scores frames (attention), relative to `learning_rate`.
        loss: its loss.
        seed: for its first parameters and its dropout.
    """

    learning_rate: float
    weight_decay: float = 0.01
    scorer_rate: float = SCORER_RATE
    loss: LossConfig = field(default_factory=LossConfig)
    seed: int = 0

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> TrainingConfig:
        """Read one back; heads of earlier versions had one rate for all their parameters."""
        return super().from_json({"scorer_rate": 1.0, **value})


@dataclass(frozen=True)
class Schedule(Jsonable):
    """What all heads of a cohort have in common.

    Attributes:
        epochs: passes over the training rows at the end of the schedule.
        batch_size: utterances a step.
        warmup: share of all steps with a linearly rising learning rate; a cosine to 0 follows.
        clip: largest gradient norm of a head.
        data_seed: for the order of batches.
        frames: of an utterance that a step reads at most (see `Thinning`); None: all.
    """

    epochs: int
    batch_size: int = 64
    warmup: float = WARMUP
    clip: float = 1.0
    data_seed: int = 0
    frames: int | None = TRAINED_FRAMES

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Schedule:
        """Read one back; heads of earlier versions were trained on all frames."""
        return super().from_json({"frames": None, **value})

    def factor(self, step: int, steps: int) -> float:
        """The learning rate's factor at a step (from 0) of `steps` in all."""
        rising = max(1, round(self.warmup * steps))
        if step < rising:
            return (step + 1) / rising
        return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, steps - rising)))


class Cohort:
    """Heads in training.

    Args:
        heads: all with the same labels; they are the cohort's from here on, which moves them
            to the store's device and sets their input statistics.
        configs: one a head.
        store: the data.
        rows: utterances trained on.
        schedule: what the heads have in common.
        folds: `[n]`, the fold of each row; None where every head is trained on all rows.
        held_out: for each head the fold that is held out from it; with `folds` only.
    """

    def __init__(
        self,
        heads: Sequence[Head],
        configs: Sequence[TrainingConfig],
        store: VectorStore,
        rows: Tensor,
        schedule: Schedule,
        folds: Tensor | None = None,
        held_out: Sequence[int] = (),
    ) -> None:
        if len(rows) == 0:
            raise ConfigError("there is no labelled utterance to train on")
        if folds is None:
            folds, held_out = torch.zeros_like(rows), [-1] * len(heads)
        self.heads = [head.to(store.device) for head in heads]
        self._sizes = [sum(weights.numel() for weights in head.parameters()) for head in heads]
        self.configs = list(configs)
        self.store = store
        self.rows = rows
        self.schedule = schedule
        self.epoch = 0
        self.step = 0
        self.steps_per_epoch = math.ceil(len(rows) / schedule.batch_size)
        self._losses = [
            StackedLoss.of(
                config.loss,
                target,
                inverse_frequency(target[folds != own], len(store.dataset.labels)),
                (folds != own).float(),
            )
            for config, target, own in zip(
                configs, _targets(store, rows, [c.loss for c in configs]), held_out, strict=True
            )
        ]
        self._optimiser = Optimiser(
            [parameter_groups(*one) for one in zip(heads, configs, strict=True)], schedule.clip
        )
        # How the heads are dealt out, by the number of threads that share work.
        self._hands: dict[int, list[_Hand]] = {}
        for own in sorted(set(held_out)):
            members = [head for head, fold in zip(heads, held_out, strict=True) if fold == own]
            set_input_statistics(members, store, rows[folds != own])

    def run_epoch(self) -> None:
        """One pass over the training rows."""
        for positions in self.batches(self.epoch):
            self.run_step(positions)
        self.epoch += 1

    def batches(self, epoch: int) -> Iterable[Tensor]:
        """Positions in `rows` of each batch of an epoch."""
        seed = self.schedule.data_seed * EPOCH_PRIME + epoch
        generator = torch.Generator().manual_seed(seed)
        order = torch.randperm(len(self.rows), generator=generator)
        parts: tuple[Tensor, ...] = order.split(self.schedule.batch_size)
        return parts

    def run_step(self, positions: Tensor) -> None:
        """One optimiser step of every head on one batch."""
        thinning = None
        if self.schedule.frames is not None:
            seed = self.schedule.data_seed * EPOCH_PRIME + self.step * STEP_PRIME
            thinning = Thinning(self.schedule.frames, seed)
        batch = gather(self.store, self.heads, self.rows[positions], thinning)
        factor = self.schedule.factor(self.step, self.schedule.epochs * self.steps_per_epoch)
        positions = to_device(positions, self.store.device)
        pooled = pooled_vectors(self.heads, batch)
        hands, read = self._dealt(), pooled
        if len(hands) > 1:
            # Each thread differentiates its classifiers, down to the vectors they read; then
            # poolings that share their work on frames are differentiated together.
            read = [
                [one.detach().requires_grad_(one.requires_grad) for one in own] for own in pooled
            ]
        self._optimiser.zero_gradients()

        def learn(hand: _Hand) -> None:
            heads = [self.heads[k] for k in hand.members]
            masks = None
            if any(head.config.dropout for head in heads):
                masks = hand.dropout.masks(self.step, len(positions))
            logits = classify(heads, [read[k] for k in hand.members], masks)
            hand.loss(logits, positions).sum().backward()

        side_by_side(learn, hands)
        pairs = zip(chain(*pooled), chain(*read), strict=True)
        roots = [(one, leaf.grad) for one, leaf in pairs if leaf.is_leaf and leaf.requires_grad]
        if roots:
            torch.autograd.backward([one for one, _ in roots], [grown for _, grown in roots])
        side_by_side(lambda hand: self._optimiser.step(hand.members, factor), hands)
        self.step += 1

    def _dealt(self) -> list[_Hand]:
        """The heads for each thread, which have about as many parameters to learn."""
        threads = sharing_threads() if self.store.device.type == "cpu" else 1
        if threads not in self._hands:
            self._hands[threads] = [
                _Hand(
                    members,
                    dropout_of(
                        [self.heads[k] for k in members], [self.configs[k].seed for k in members]
                    ),
                    StackedLoss.beside([self._losses[k] for k in members]).to(self.store.device),
                )
                for members in dealt(self._sizes, threads)
            ]
        return self._hands[threads]

    def keep(self, positions: Sequence[int]) -> None:
        """Go on with the heads at `positions` only; the others leave, optimiser state and all."""
        self._optimiser.keep(positions)
        self._hands.clear()
        self.heads = [self.heads[k] for k in positions]
        self._sizes = [self._sizes[k] for k in positions]
        self.configs = [self.configs[k] for k in positions]
        self._losses = [self._losses[k] for k in positions]


@dataclass(frozen=True, eq=False)
class _Hand:
    """Heads whose classifiers one thread works on: their positions, dropout and loss."""

    members: list[int]
    dropout: Dropout
    loss: StackedLoss


def parameter_groups(head: Head, config: TrainingConfig) -> list[dict[str, Any]]:
    """A head's parameters for an optimiser, with the `peak` of each group's learning rate.

    What scores frames has a rate of its own, relative to the head's.
    """
    scorers = head.scorer_parameters()
    own = {id(parameter) for parameter in scorers}
    rest = [parameter for parameter in head.parameters() if id(parameter) not in own]
    rates = ((rest, config.learning_rate), (scorers, config.learning_rate * config.scorer_rate))
    return [
        {"params": group, "lr": rate, "peak": rate, "weight_decay": config.weight_decay}
        for group, rate in rates
        if group
    ]


def _targets(store: VectorStore, rows: Tensor, losses: Sequence[LossConfig]) -> list[Tensor]:
    """For each loss what is learnt of the rows: `[n]` classes, or `[n, C]` shares of votes."""
    classes = store.dataset.targets(rows)
    shares = {
        smoothing: soft_targets(store.dataset, rows, smoothing)
        for smoothing in {loss.smoothing for loss in losses if loss.from_votes}
    }
    return [shares[loss.smoothing] if loss.from_votes else classes for loss in losses]


def set_input_statistics(heads: Sequence[Head], store: VectorStore, rows: Tensor) -> None:
    """Give mean and deviation of the training frames to the heads that are normalised by them."""
    readers = [head for head in heads if head.affine(head.config.modalities[0]) is not None]
    reads: dict[tuple[str, ViewKey], list[Head]] = {}
    for head in readers:
        for name in head.config.modalities:
            reads.setdefault((name, head.config.view(name)), []).append(head)
    for (modality, (norm, layers, layer)), own in reads.items():
        mean, deviation = (
            store.speakers_target(modality, layers, layer)
            if norm == SPEAKER
            else store.frame_statistics(modality, rows, layers, layer)
        )
        mean, deviation = mean.clone(), scaling(deviation.clone())
        for head in own:
            head.set_input_statistics(modality, mean, deviation)


def gather(
    store: VectorStore, heads: Sequence[Head], rows: Tensor, thinning: Thinning | None = None
) -> dict[str, Inputs]:
    """The inputs of one batch that these heads need, and no more."""
    needs: dict[str, dict[ViewKey, list[str]]] = {}
    with_frames: set[tuple[str, ViewKey]] = set()
    for head in heads:
        for modality in head.config.modalities:
            view = head.config.view(modality)
            own = head.pooling(modality).needs
            wanted = needs.setdefault(modality, {}).setdefault(view, [])
            if own is None:
                with_frames.add((modality, view))
            else:
                wanted.extend(name for name in own if name not in wanted)
    return store.inputs(rows, needs, with_frames=with_frames, thinning=thinning)


def predict(
    heads: Sequence[Head], store: VectorStore, rows: Tensor, batch_size: int = 64
) -> Tensor:
    """Class probabilities `[K, n, C]` of every head for the given utterances, in their order.

    They are on the CPU, wherever the heads are.
    """
    # Copies of those that are elsewhere: heads that are lent stay where they are.
    heads = [
        head if head.output.weight.device == store.device else copy.deepcopy(head).to(store.device)
        for head in heads
    ]
    with torch.no_grad():
        parts = [
            torch.softmax(stack_logits(heads, gather(store, heads, part)), dim=-1)
            for part in rows.split(batch_size)
        ]
    return torch.cat(parts, dim=1).cpu()
