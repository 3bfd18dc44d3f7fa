"""Losses of the heads: class-weighted focal loss and cross-entropy, for one head or a stack.

With p = softmax(logits), target class c and class weight α, one utterance costs

    focal          α_c (1 − p_c)^γ (−log p_c)      (Lin et al. 2017, eq. 5; Leygue et al.: γ = 2)
    cross-entropy  the same with γ = 0

and a batch costs Σ cost / Σ α_c, the weighted mean of `torch.nn.functional.cross_entropy`. So the
scale of α, which Leygue et al. do not state, cancels, γ = 0 is torch's cross-entropy, and ranks,
accumulation steps and folds add up exactly when each divides by the weight of the whole
(`denominator`). The reduction is over utterances only: each head of a stack keeps its own loss.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from corpora.errors import ConfigError, did_you_mean

LOSS_KINDS = ("focal", "cross_entropy")


class Loss(Protocol):
    """`(logits [..., B, C], target [B])` to a loss for each leading element, `[...]`."""

    def __call__(
        self, logits: Tensor, target: Tensor, *, denominator: Tensor | float | None = None
    ) -> Tensor:
        """Return the loss; `denominator` as in `focal_loss`."""


@dataclass(frozen=True)
class LossConfig:
    """Which loss a head is trained with.

    Attributes:
        kind: one of `LOSS_KINDS`.
        gamma: focusing exponent of the focal loss, at least 0; cross-entropy ignores it.
        class_weight: whether classes are weighted (by `inverse_frequency` of the training rows).

    Raises:
        ConfigError: an unknown kind, or a gamma that is negative or not finite.
    """

    kind: str = "focal"
    gamma: float = 2.0
    class_weight: bool = True

    def __post_init__(self) -> None:
        if self.kind not in LOSS_KINDS:
            raise ConfigError(
                f"Unknown loss '{self.kind}', expected one of {list(LOSS_KINDS)}."
                f"{did_you_mean(str(self.kind), LOSS_KINDS)}"
            )
        _check_gamma(self.gamma)


def loss_function(config: LossConfig, class_weight: Tensor | None = None) -> Loss:
    """The loss a configuration names, as a function of logits and targets.

    Args:
        config: kind, gamma and whether classes are weighted.
        class_weight: `[C]` (or `[..., C]`, one row a head), on the device of the logits; needed
            when `config.class_weight`, ignored otherwise, so that one call serves every trial.

    Raises:
        ConfigError: weights are asked for and none are given.
    """
    if config.class_weight and class_weight is None:
        raise ConfigError(
            "The loss asks for class weights and none were given. "
            "Pass inverse_frequency(targets, classes), or set class_weight to false."
        )
    weight = class_weight if config.class_weight else None
    gamma = config.gamma if config.kind == "focal" else 0.0
    return partial(focal_loss, class_weight=weight, gamma=gamma)


def focal_loss(
    logits: Tensor,
    target: Tensor,
    class_weight: Tensor | None = None,
    gamma: float = 2.0,
    *,
    denominator: Tensor | float | None = None,
) -> Tensor:
    """Class-weighted focal loss, averaged over utterances by their weight.

    Computed in fp32 (fp64 for fp64 logits) whatever the dtype of the logits; finite, as are its
    gradients, for any finite logits. Target values are not checked: on a GPU that would wait.

    Args:
        logits: `[..., B, C]`; leading dimensions are heads of a stack. `[C]` is a batch of one.
        target: class indices, integer `[B]` (or `[..., B]`), or probabilities, float `[B, C]` (or
            `[..., B, C]`), for which the cost is Σ_c y_c α_c (1 − p_c)^γ (−log p_c) and the weight
            Σ_c y_c α_c. One-hot probabilities therefore cost what the index costs (torch
            divides by B in that case).
        class_weight: α, `[C]`, or `[..., C]` with weights of its own for each head.
        gamma: focusing exponent, at least 0; 0 is cross-entropy.
        denominator: what the summed cost is divided by, a number or `[...]`. Default: the weight
            of this batch. Where a batch is spread over ranks, accumulation steps or folds: the
            weight of the whole, Σ α_c over its utterances.

    Returns:
        `[...]`: a scalar for `[B, C]`, one loss a head for `[K, B, C]`. Where all
        weights are 0 the loss is 0, not NaN.

    Raises:
        ValueError: shapes that do not fit, or an integer target where none is.
        ConfigError: gamma is negative or not finite.
    """
    _check_gamma(gamma)
    if logits.ndim == 1:
        logits, target = logits.unsqueeze(0), target.unsqueeze(0)
    _check_shapes(logits, target, class_weight)
    stack, classes = logits.shape[:-2], logits.shape[-1]
    dtype = torch.promote_types(logits.dtype, torch.float32)
    log_p = F.log_softmax(logits.to(dtype), dim=-1)
    weight = log_p.new_ones(classes) if class_weight is None else class_weight.to(log_p)
    if target.is_floating_point():
        mass = target.to(log_p) * weight.unsqueeze(-2)  # [..., B, C]
        cost = (mass * _focused(log_p, gamma)).sum(dim=(-2, -1))
        total = mass.sum(dim=(-2, -1))
    else:
        index = target.long().expand(logits.shape[:-1])
        picked = log_p.gather(-1, index.unsqueeze(-1)).squeeze(-1)
        item_weight = weight.expand(*stack, classes).gather(-1, index)  # [..., B]
        cost = (item_weight * _focused(picked, gamma)).sum(dim=-1)
        total = item_weight.sum(dim=-1)
    if denominator is not None:
        return cost / denominator
    return cost / torch.where(total > 0, total, torch.ones_like(total))


def inverse_frequency(targets: Tensor, classes: int) -> Tensor:
    """Class weights α_c ∝ 1 / n_c over the rows trained on, with a mean of 1 over those rows.

    A class without a row gets weight 0: no finite weight follows from its frequency, training
    never meets it, and on other data its utterances then leave the loss alone instead of
    ruling it. Whether a missing class is an error is for the caller, who knows its name, to say.

    Args:
        targets: `[N]` class indices of the training rows.
        classes: number of classes C.

    Returns:
        `[C]` fp32 on the CPU: N / (C′ · n_c), with C′ the number of classes that occur.

    Raises:
        ConfigError: no rows, or an index outside 0 … C − 1.
    """
    rows = torch.as_tensor(targets, dtype=torch.int64, device="cpu").flatten()
    if rows.numel() == 0:
        raise ConfigError("Class weights need training rows and there are none.")
    low, high = int(rows.min()), int(rows.max())
    if low < 0 or high >= classes:
        raise ConfigError(
            f"Class index {low if low < 0 else high} among the training targets; "
            f"{classes} classes have the indices 0 to {classes - 1}."
        )
    counts = torch.bincount(rows, minlength=classes).double()
    present = counts > 0
    weight = rows.numel() / (present.sum() * counts.clamp(min=1))
    return torch.where(present, weight, torch.zeros_like(weight)).float()


def _focused(log_p: Tensor, gamma: float) -> Tensor:
    """−(1 − p)^γ log p from log p, with finite gradients at p = 0 and p = 1."""
    if gamma == 0:
        return -log_p
    # expm1 keeps the digits of 1 − p near p = 1. The clamp acts only where 1 − p rounds to 0: there
    # the slope of (1 − p)^γ is infinite for γ < 1, and ∞ · 0 would make the gradient NaN.
    miss = (-torch.expm1(log_p)).clamp(min=torch.finfo(log_p.dtype).tiny)
    return -miss.pow(gamma) * log_p


def _check_gamma(gamma: float) -> None:
    if not (math.isfinite(gamma) and gamma >= 0):
        raise ConfigError(f"gamma is {gamma}, expected a finite number of at least 0.")


def _check_shapes(logits: Tensor, target: Tensor, class_weight: Tensor | None) -> None:
    """Refuse shapes that broadcasting would accept with another meaning."""
    soft = target.is_floating_point()
    if not soft and (target.dtype == torch.bool or target.is_complex()):
        raise ValueError(f"target must be class indices or probabilities, got {target.dtype}")
    expected = logits.shape if soft else logits.shape[:-1]
    own = 2 if soft else 1  # dimensions that are not the stack's
    fits = target.ndim in (own, len(expected)) and target.shape == expected[-target.ndim :]
    if not fits:
        raise ValueError(
            f"{'float' if soft else 'integer'} target must be {list(expected[-own:])} or "
            f"{list(expected)} for logits {list(logits.shape)}, got {list(target.shape)}"
        )
    if class_weight is not None and class_weight.shape not in (
        logits.shape[-1:],
        (*logits.shape[:-2], logits.shape[-1]),
    ):
        raise ValueError(
            f"class_weight must be [{logits.shape[-1]}], or one row a head, for logits "
            f"{list(logits.shape)}, got {list(class_weight.shape)}"
        )
