"""Training a cohort of heads side by side on frozen frames.

Every head has parameters, learning rate, weight decay, loss and clip of its own; only the work on
frames is shared. The order of batches depends on the data seed and the epoch, dropout on the
head's seed and the step: a head trained alone and in any company gives the same result.

Folds are trained beside one another: all heads see the same batches of the union of the rows, and
a row that is held out from a head has weight 0 in its loss. So frames are read once for all folds,
and each fold has class weights, input statistics and a loss denominator of its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, pairwise
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from cache.encoders.device import to_device
from corpora.base.codec import Jsonable
from corpora.base.errors import ConfigError
from heads.batches import PlannedStep, Thinning, plan_steps
from heads.dataset import Dataset
from heads.head import (
    Head,
    Inputs,
    ViewKey,
    as_outputs,
    classify,
    dropout_of,
    pooled_vectors,
    scaling,
)
from heads.losses import LossConfig, inverse_frequency, utterance_shares
from heads.pooling.segments import dealt, sharing_threads, side_by_side
from heads.predict import Reads
from heads.speakers import SPEAKER
from heads.stacked_loss import StackedLoss
from heads.step import Dropout, Optimiser, Recorded, step_words
from heads.vector_store import VectorStore

# Parts of a seed are combined with these primes, so that neighbours do not share streams.
EPOCH_PRIME, STEP_PRIME = 1_000_003, 7_919
# Attention has to move slower than the classifier that reads what it pools (docs/studies.md).
SCORER_RATE = 0.05
# About a quarter of the steps to the first rung of a search: heads are compared at their own rate.
WARMUP = 0.03
# On EMO-DB and RAVDESS heads that read every fourth frame (about 30 of an utterance) score as those
# that read all (docs/studies.md), for less than half of the work.
TRAINED_FRAMES = 48
# Frame values of a part of a batch that a thread works on by itself: 32 utterances of 48 frames
# of 1,024 features. Large enough that products are fast and that calling them costs little.
PART_VALUES = 3 * 2**19


@dataclass(frozen=True)
class TrainingConfig(Jsonable):
    """How one head is trained.

    Attributes:
        learning_rate: the peak of its schedule.
        weight_decay: of AdamW.
        scorer_rate: learning rate of what scores frames (attention), relative to `learning_rate`.
        loss: its loss.
        seed: for its first parameters and its dropout.
        attribute_weight: share of the attributes in the loss of a head that has them.
    """

    json_optional = "attribute_weight"

    learning_rate: float
    weight_decay: float = 0.01
    scorer_rate: float = SCORER_RATE
    loss: LossConfig = field(default_factory=LossConfig)
    seed: int = 0
    attribute_weight: float = 0.0

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
        pretrain: what heads are trained on before (see `heads.pretraining`); "" for nothing.
    """

    json_optional = "pretrain"

    epochs: int
    batch_size: int = 64
    warmup: float = WARMUP
    clip: float = 1.0
    data_seed: int = 0
    frames: int | None = TRAINED_FRAMES
    pretrain: str = ""

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
        ratings = as_outputs(store.dataset.attributes, store.dataset.ratings(rows))
        self._losses = [
            StackedLoss.of(
                config.loss,
                target,
                inverse_frequency(target[folds != own], len(store.dataset.labels)),
                (folds != own).float(),
                ratings,
                config.attribute_weight,
            )
            for config, target, own in zip(
                configs,
                loss_targets(store.dataset, rows, [c.loss for c in configs]),
                held_out,
                strict=True,
            )
        ]
        self._optimiser = Optimiser(
            [parameter_groups(*one) for one in zip(heads, configs, strict=True)], schedule.clip
        )
        # How the heads are dealt out, by the number of threads that share work.
        self._hands: dict[int, list[_Hand]] = {}
        self._meet()
        for own in sorted(set(held_out)):
            members = [head for head, fold in zip(heads, held_out, strict=True) if fold == own]
            set_input_statistics(members, store, rows[folds != own])

    def run_epoch(self) -> None:
        """One pass over the training rows."""
        self._run(list(self.batches(self.epoch)))
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
        self._run([positions])

    def _run(self, batches: Sequence[Tensor]) -> None:
        """A step on each batch."""
        numbers = range(self.step, self.step + len(batches))
        steps = self.schedule.epochs * self.steps_per_epoch
        factors = [self.schedule.factor(number, steps) for number in numbers]
        thinnings = [self._thinning(number) for number in numbers]
        if self._padded_step is None:
            for each in zip(batches, numbers, factors, thinnings, strict=True):
                self._run_ragged(*each)
            return
        size = min(self.schedule.batch_size, len(self.rows))
        offsets = {name: self.store.dataset.frames[name].offsets for name in self._widths}
        for step in plan_steps(
            *(batches, size, self.rows, offsets, self._widths, thinnings, factors, self.step),
            self.store.device,
        ):
            # Read while the device is busy with the step before.
            sent = [self.store.sent(step, *one) for one in self._elsewhere]
            self._padded_step(step.numbers, step.factor, *sent)
            self.step += 1

    def _meet(self) -> None:
        """What follows from who is in the cohort."""
        self._hands.clear()
        self._reads = Reads.of(self.heads)
        self._padded_step: Callable[..., None] | None = None
        most = self.schedule.frames
        names = dict.fromkeys(name for name, _ in self._reads.with_frames)
        if self.store.device.type == "cpu" or (names and most is None):
            return
        if not self._reads.takes_padding:
            return
        self._elsewhere = self.store.elsewhere(self._reads.with_frames)
        lengths = {name: self.store.dataset.frames[name].lengths[self.rows] for name in names}
        self._widths = {name: min(most or 0, int(own.max())) for name, own in lengths.items()}
        step = self._run_padded
        self._padded_step = Recorded(step) if self.store.recorded else step

    def _thinning(self, step: int) -> Thinning | None:
        if self.schedule.frames is None:
            return None
        return Thinning(
            self.schedule.frames, self.schedule.data_seed * EPOCH_PRIME + step * STEP_PRIME
        )

    def _run_padded(self, numbers: Tensor, factor: Tensor, *sent: Tensor) -> None:
        """A step whose numbers the device alone looks at."""
        step, reads = PlannedStep(numbers, factor, self._widths), self._reads
        batch = self.store.padded_inputs(
            step,
            reads.needs,
            with_frames=reads.with_frames,
            sent=dict(zip(self._elsewhere, sent, strict=True)),
        )
        self._learn(batch, step.positions, step.words, factor)

    def _run_ragged(
        self, positions: Tensor, number: int, factor: float, thinning: Thinning | None
    ) -> None:
        """A step on a batch whose utterances are as long as they are."""
        needs, with_frames = self._reads.needs, self._reads.with_frames
        batch = self.store.inputs(
            self.rows[positions], needs, with_frames=with_frames, thinning=thinning
        )
        device = self.store.device
        words = to_device(step_words(number, len(positions)), device)
        self._learn(batch, to_device(positions, device), words, factor)
        self.step += 1

    def _learn(
        self, batch: Mapping[str, Inputs], positions: Tensor, words: Tensor, factor: float | Tensor
    ) -> None:
        """Loss, gradients and the optimiser's step of every head.

        Args:
            batch: what they read.
            positions: `[B]` positions in `rows`, on the device.
            words: `[B]` of dropout, on the device.
            factor: of the learning rates.
        """
        parts = self._parts(batch, len(positions))
        pooled = side_by_side(lambda part: pooled_vectors(self.heads, part[1]), parts)
        hands, read = self._dealt(), pooled[0]
        cut = len(hands) > 1 or len(parts) > 1
        if cut:
            # Each thread differentiates its classifiers, down to the vectors they read; then a
            # part of the batch, whose poolings share their work on frames.
            read = [
                [
                    torch.cat([one.detach() for one in vectors]).requires_grad_(
                        vectors[0].requires_grad
                    )
                    for vectors in zip(*own, strict=True)
                ]
                for own in zip(*pooled, strict=True)
            ]
        self._optimiser.zero_gradients()

        def learn(hand: _Hand) -> None:
            heads = [self.heads[k] for k in hand.members]
            masks = None
            if any(head.config.dropout for head in heads):
                masks = hand.dropout.masks(words)
            logits = classify(heads, [read[k] for k in hand.members], masks)
            hand.loss(logits, positions).sum().backward()

        side_by_side(learn, hands)
        if cut:
            self._differentiate([rows for rows, _ in parts], pooled, read)
        side_by_side(lambda hand: self._optimiser.step(hand.members, factor), hands)

    def _parts(
        self, batch: Mapping[str, Inputs], count: int
    ) -> list[tuple[slice, Mapping[str, Inputs]]]:
        """The batch in parts of neighbours, for a thread each; one on a GPU.

        How many depends on its frames and not on threads, so that results do not either.
        """
        whole = [(slice(0, count), batch)]
        if self.store.device.type != "cpu":
            return whole
        values = [batch[name].view(*view).centred.numel() for name, view in self._reads.with_frames]
        parts = min(count, round(max(values, default=0) / PART_VALUES))
        if parts < 2:
            return whole
        ends = [round(count * k / parts) for k in range(parts + 1)]
        cuts = [slice(*both) for both in pairwise(ends)]
        return [(own, {name: each.part(own) for name, each in batch.items()}) for own in cuts]

    def _differentiate(
        self,
        parts: Sequence[slice],
        pooled: Sequence[Sequence[Sequence[Tensor]]],
        read: Sequence[Sequence[Tensor]],
    ) -> None:
        """Gradients of all poolings from those of the vectors that were read.

        Args:
            parts: utterances of each part of the batch.
            pooled: of each part and head its vectors.
            read: of each head those of the whole batch, with gradients.
        """
        moving = {k: leaf.grad for k, leaf in enumerate(chain(*read)) if leaf.grad is not None}
        if not moving:
            return
        parameters = [one for head in self.heads for one in head.poolings.parameters()]

        def one_part(at: int) -> tuple[Tensor | None, ...]:
            vectors = list(chain(*pooled[at]))
            return torch.autograd.grad(
                [vectors[k] for k in moving],
                parameters,
                [grown[parts[at]] for grown in moving.values()],
                allow_unused=True,
            )

        found = side_by_side(one_part, range(len(parts)))
        for parameter, first, *others in zip(parameters, *found, strict=True):
            parameter.grad = first
            for other in others:
                parameter.grad += other

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
                    StackedLoss.beside([self._losses[k] for k in members], self.store.device),
                )
                for members in dealt(self._sizes, threads)
            ]
        return self._hands[threads]

    def keep(self, positions: Sequence[int]) -> None:
        """Go on with the heads at `positions` only; the others leave, optimiser state and all."""
        self._optimiser.keep(positions)
        self.heads = [self.heads[k] for k in positions]
        self._sizes = [self._sizes[k] for k in positions]
        self.configs = [self.configs[k] for k in positions]
        self._losses = [self._losses[k] for k in positions]
        self._meet()


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


def loss_targets(dataset: Dataset, rows: Tensor, losses: Sequence[LossConfig]) -> list[Tensor]:
    """For each loss what is learnt of the rows: `[n]` classes, or `[n, C]` shares of votes.

    A row without a class, of which attributes are learnt, has no share of any.
    """
    classes, count = dataset.targets(rows), len(dataset.labels)
    if not count:
        return [torch.zeros(len(rows), 0)] * len(losses)
    known = classes >= 0

    def of_known(shares: Tensor) -> Tensor:
        return torch.zeros(len(rows), count).masked_scatter(known[:, None], shares)

    utterances = [dataset.utterances[row] for row in rows[known].tolist()]
    shares = {
        smoothing: of_known(utterance_shares(utterances, dataset.labels, smoothing))
        for smoothing in {loss.smoothing for loss in losses if loss.from_votes}
    }
    if not bool(known.all()):
        classes = of_known(F.one_hot(classes[known], count).float())
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
