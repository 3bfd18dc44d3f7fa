"""The losses of many heads in training, of whatever kinds, as one formula."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from heads.losses import LossConfig, ccc_loss, focal_loss, log_prior


@dataclass(frozen=True, eq=False)
class StackedLoss:
    """The losses of K heads on n rows, of whatever kinds, in one formula.

    All kinds are focal losses of shares of classes: cross-entropy has γ = 0, a label all of the
    share, and `kl` differs from cross-entropy by what does not depend on the logits: its gradients
    are the same.

    Attributes:
        mass: `[K, n, C]`, what each row counts for each class: share · α · weight of the row.
        gamma: `[K, 1, 1]`.
        prior: `[K, 1, C]`, what is added to the logits: log π, or 0.
        ratings: `[K, n, A]` of each attribute, −1 and 1 at the ends of its scale.
        rated: `[K, n, A]`, what each row counts for each attribute; 0 where it was not rated.
        share: `[K]`, w: of the attributes in the loss.
    """

    mass: Tensor
    gamma: Tensor
    prior: Tensor
    ratings: Tensor
    rated: Tensor
    share: Tensor

    @classmethod
    def of(
        cls,
        config: LossConfig,
        target: Tensor,
        class_weight: Tensor,
        row_weight: Tensor | None = None,
        ratings: Tensor | None = None,
        share: float = 0.0,
    ) -> StackedLoss:
        """The loss of one head.

        Args:
            config: the loss.
            target: `[n]` classes, or `[n, C]` shares of votes.
            class_weight: `[C]` from `inverse_frequency`.
            row_weight: `[n]`, a factor on each row; 0 leaves it out.
            ratings: `[n, A]`, −1 and 1 at the ends of a scale, not a number where a row has none.
            share: w, of the attributes in the loss.
        """
        shares = target if target.is_floating_point() else F.one_hot(target, len(class_weight))
        mass = shares.to(class_weight)
        if config.class_weight:
            mass = mass * class_weight
        if row_weight is not None:
            mass = mass * row_weight[:, None]
        gamma = config.gamma if config.kind == "focal" else 0.0
        none = torch.zeros_like(class_weight)
        prior = log_prior(class_weight) if config.logit_adjustment else none
        ratings = mass.new_zeros(len(mass), 0) if ratings is None else ratings.to(mass)
        rated = ratings.isfinite().to(mass)
        if row_weight is not None:
            rated = rated * row_weight[:, None]
        return cls(
            mass[None],
            mass.new_full((1, 1, 1), gamma),
            prior[None, None],
            ratings.nan_to_num()[None],
            rated[None],
            mass.new_full((1,), share),
        )

    @classmethod
    def beside(cls, losses: Sequence[StackedLoss], device: torch.device) -> StackedLoss:
        """Several as one, on a device; with one row more, which costs nothing."""
        names = ["mass", "gamma", "prior"]
        if losses[0].rated.shape[-1]:
            names += ["ratings", "rated", "share"]
        stacked = {
            name: torch.cat([getattr(one, name) for one in losses]).to(device) for name in names
        }
        for name in {"mass", "ratings", "rated"} & set(names):
            stacked[name] = F.pad(stacked[name], (0, 0, 0, 1))
        return replace(losses[0], **stacked)

    def __call__(self, logits: Tensor, rows: Tensor) -> Tensor:
        """`[K]` losses of logits `[K, B, C]` for these `[B]` of the n rows."""
        classes = self.mass.shape[-1]
        if not self.rated.shape[-1]:
            return focal_loss(logits + self.prior, self.mass[:, rows], None, self.gamma)
        values = logits[..., classes:]
        off = ccc_loss(values, self.ratings[:, rows], self.rated[:, rows]).mean(-1)
        if not classes:
            return off
        own = logits[..., :classes] + self.prior
        wrong = focal_loss(own, self.mass[:, rows], None, self.gamma)
        return (1 - self.share) * wrong + self.share * off
