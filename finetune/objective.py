"""What a phase is trained by and chosen by: the loss of examples, and how well they are answered.

The loss is the search's (`heads.losses`): of classes, 1 − CCC of attributes, or both mixed. Costs
of classes add up over the batches of a step. CCC does not: that of a step is the mean of its
batches', each counting by its rated rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cache.encoders.device import to_device
from corpora.base.codec import Jsonable
from finetune.batches import Examples
from finetune.phases import StepConfig
from heads.bootstrap import Floats
from heads.gold import Gold
from heads.head import as_outputs
from heads.losses import ccc_loss, inverse_frequency, loss_function


@dataclass(frozen=True)
class Score(Jsonable):
    """How good a model is on a split.

    Attributes:
        macro_f1: mean F1 over the classes that occur; None for a model of attributes alone.
        loss: the training loss on the same utterances.
        mean_ccc: of the attributes; None for a model without.
    """

    macro_f1: float | None
    loss: float
    mean_ccc: float | None = None

    @property
    def value(self) -> float:
        """What is compared: macro-F1, the mean CCC, or the mean of both."""
        known = [one for one in (self.macro_f1, self.mean_ccc) if one is not None]
        return sum(known) / len(known)

    def better_than(self, other: Score) -> bool:
        """Higher value; among equals, which a small split has many of, the lower loss."""
        return (self.value, -self.loss) > (other.value, -other.loss)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values of what there is."""
        return {name: value for name, value in super().to_json().items() if value is not None}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Score:
        """The inverse of `to_json`."""
        return super().from_json({"macro_f1": None, **value})

    def __str__(self) -> str:
        """Such as `0.512`, or `0.512 (macro-F1 0.500, mean CCC 0.524)`."""
        if self.macro_f1 is None or self.mean_ccc is None:
            return f"{self.value:.3f}"
        return f"{self.value:.3f} (macro-F1 {self.macro_f1:.3f}, mean CCC {self.mean_ccc:.3f})"


def score(said: Floats, gold: Gold, loss: float) -> Score:
    """Score what was said, `[N, C + A]` (see `Gold`), with the loss on the same utterances."""
    found = gold.scores(gold.tables(said, np.zeros(len(said), dtype=np.int64)))
    macro_f1, mean_ccc = (
        float(found[name][0]) if name in found else None for name in ("macro_f1", "mean_ccc")
    )
    return Score(macro_f1, loss, mean_ccc)


@dataclass(frozen=True, eq=False)
class StepWeight:
    """What the rows of a step weigh together.

    Attributes:
        classes: in the loss of classes.
        rated: `[A]`, how many were rated for each attribute.
    """

    classes: float
    rated: Tensor


class ExampleLoss:
    """The training loss of examples.

    Args:
        examples: what is learnt, or scored.
        steps: which loss.
        device: of the logits.
        class_weight: `[C]` of those trained on; by default the examples' own.

    Attributes:
        class_weight: `[C]`.
    """

    def __init__(
        self,
        examples: Examples,
        steps: StepConfig,
        device: torch.device | str = "cpu",
        class_weight: Tensor | None = None,
    ) -> None:
        self._targets = examples.loss_targets(steps.loss)
        self._classes = len(examples.labels)
        if class_weight is None:
            class_weight = inverse_frequency(self._targets, self._classes)
        self.class_weight = class_weight
        weighed = steps.loss.class_weight
        self._row_weights = _row_weights(
            self._targets, class_weight if weighed else torch.ones_like(class_weight)
        )
        self._loss = loss_function(steps.loss, class_weight.to(device)) if self._classes else None
        ratings = as_outputs(examples.attributes, torch.from_numpy(examples.gold.ratings)).float()
        self._rated = ratings.isfinite().float()
        self._ratings = ratings.nan_to_num()
        self._share = steps.attribute_weight

    def weight(self, batches: Sequence[Sequence[int]]) -> StepWeight:
        """Of the rows of a step, by batch."""
        classes = sum(float(self._row_weights[list(rows)].sum()) for rows in batches)
        rated = self._rated[[row for rows in batches for row in rows]].sum(dim=0)
        return StepWeight(classes or 1.0, rated.clamp_min(1.0))

    def __call__(self, logits: Tensor, rows: Sequence[int], of: StepWeight | None = None) -> Tensor:
        """A batch's part of a step's loss.

        Args:
            logits: `[B, C + A]`.
            rows: the `[B]` examples that they are of.
            of: the step's; None: the batch is all of it.
        """
        numbers, device, wrong = list(rows), logits.device, None
        if self._loss is not None:
            own, target = logits[:, : self._classes], to_device(self._targets[numbers], device)
            wrong = self._loss(own, target, denominator=None if of is None else of.classes)
            if not self._rated.shape[1]:
                return wrong
        rated = self._rated[numbers]
        whole = rated.sum(dim=0).clamp_min(1.0) if of is None else of.rated
        counts = to_device(rated.sum(dim=0) / whole, device)
        ratings, rated = (to_device(one, device) for one in (self._ratings[numbers], rated))
        off = (ccc_loss(logits[:, self._classes :], ratings, rated) * counts).mean()
        return off if wrong is None else (1 - self._share) * wrong + self._share * off


def _row_weights(targets: Tensor, weight: Tensor) -> Tensor:
    """`[n]`, what each row adds to the denominator of the loss."""
    return targets @ weight if targets.is_floating_point() else weight[targets]
