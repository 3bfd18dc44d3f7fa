"""Losses of the heads: focal loss, cross-entropy and KL to the votes, and 1 − CCC of attributes.

With p = softmax(logits), target class c and class weight α, one utterance costs

    focal          α_c (1 − p_c)^γ (−log p_c)      (Lin et al. 2017, eq. 5; Leygue et al.: γ = 2)
    cross-entropy  the same with γ = 0
    kl             Σ_c α_c y_c (log y_c − log p_c), y the shares of its votes (`heads.losses`)

and a batch costs Σ cost / Σ α_c, the weighted mean of `torch.nn.functional.cross_entropy`. So the
scale of α, which Leygue et al. do not state, cancels, γ = 0 is torch's cross-entropy, and ranks,
accumulation steps and folds add up exactly when each divides by the weight of the whole
(`denominator`). The reduction is over utterances only: each head of a stack keeps its own loss.

Logit adjustment (Menon et al. 2021, eq. 10, τ = 1) trains on logits + log π, with π the shares of
the classes among the training rows. A head predicts without them: as for equally frequent classes.

Attributes (arousal, valence, dominance) cost 1 − CCC over the batch, the mean of all attributes.
With x the outputs, y the ratings, and means over the rows that were rated (Lin 1989)

    CCC           2 s_xy / (s_x² + s_y² + (x̄ − ȳ)²)

A head of both costs (1 − w) · its classes' loss + w · its attributes'.

Soft labels: the shares of the raters' votes, smoothed as in EMO-SUPERB.

With K classes and y the shares, y′ = (1 − K s) y + s with s = .05 / (K − 1) (Wu et al. 2024): no
class that nobody voted for is ruled out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from corpora.base.errors import ConfigError, did_you_mean
from corpora.utterance import Utterance

# What an undisputed label gives away to the other classes together, in EMO-SUPERB.
EMO_SUPERB_SMOOTHING = 0.05


def vote_shares(utterance: Utterance, labels: Sequence[str]) -> list[float] | None:
    """The share of each label among an utterance's votes, or None where it has none for them.

    Votes for anything but the labels (such as "other") are left out.
    """
    votes = [float((utterance.votes or {}).get(label, 0.0)) for label in labels]
    total = sum(votes)
    return [vote / total for vote in votes] if total > 0 else None


def utterance_shares(
    utterances: Sequence[Utterance], labels: Sequence[str], smoothing: float = 0.0
) -> Tensor:
    """`[n, C]` fp32: the votes of each; of one without votes its label has them all.

    Args:
        utterances: labelled ones.
        labels: the label order.
        smoothing: see `smoothed`.
    """
    positions = {label: position for position, label in enumerate(labels)}
    own = torch.tensor([positions[utterance.label] for utterance in utterances], dtype=torch.int64)
    shares = torch.nn.functional.one_hot(own, len(labels)).float()
    for row, utterance in enumerate(utterances):
        voted = vote_shares(utterance, labels)
        if voted is not None:
            shares[row] = torch.tensor(voted)
    return smoothed(shares, smoothing)


def smoothed(shares: Tensor, smoothing: float) -> Tensor:
    """y′ = (1 − K s) y + s with s = smoothing / (K − 1), for shares `[..., K]`."""
    classes = shares.shape[-1]
    s = smoothing / (classes - 1)
    return (1 - classes * s) * shares + s


LOSS_KINDS = ("focal", "cross_entropy", "kl")
# At .5, the share that two classes can give up, smoothing leaves nothing of the votes.
MOST_SMOOTHING = 0.5


#: `(logits [..., B, C], target [B] or [B, C])` to a loss for each leading element, `[...]`;
#: `row_weight` and `denominator` as in `focal_loss`.
Loss = Callable[..., Tensor]


@dataclass(frozen=True)
class LossConfig:
    """Which loss a head is trained with.

    Attributes:
        kind: one of `LOSS_KINDS`; `kl` learns from the raters' votes, the others from labels.
        gamma: focusing exponent of the focal loss, at least 0; the others ignore it.
        class_weight: whether classes are weighted (by `inverse_frequency` of the training rows).
        logit_adjustment: whether the classes' shares among the training rows are taken out.
        smoothing: of `kl`: how much of an undisputed label the other classes get together.

    Raises:
        ConfigError: an unknown kind, a value out of range, or two corrections for class
            frequencies at once.
    """

    kind: str = "focal"
    gamma: float = 2.0
    class_weight: bool = True
    logit_adjustment: bool = False
    smoothing: float = 0.0

    def __post_init__(self) -> None:
        if self.kind not in LOSS_KINDS:
            raise ConfigError(
                f"Unknown loss '{self.kind}', expected one of {list(LOSS_KINDS)}."
                f"{did_you_mean(str(self.kind), LOSS_KINDS)}"
            )
        _check_gamma(self.gamma)
        if self.class_weight and self.logit_adjustment:
            raise ConfigError(
                "Class weights and logit adjustment both correct for how frequent classes are; "
                "together they would correct twice. Choose one of them."
            )
        if not 0 <= self.smoothing < MOST_SMOOTHING:
            raise ConfigError(
                f"smoothing is {self.smoothing}, expected at least 0 and less than {MOST_SMOOTHING}"
            )

    @property
    def from_votes(self) -> bool:
        """Whether targets are shares of votes instead of class indices."""
        return self.kind == "kl"


def loss_function(config: LossConfig, class_weight: Tensor | None = None) -> Loss:
    """The loss a configuration names, as a function of logits and targets.

    Args:
        config: the loss.
        class_weight: `[C]` (or `[..., C]`, one row a head) from `inverse_frequency`, on the device
            of the logits; needed for class weights and for logit adjustment, which reads the
            shares of the classes from it; ignored otherwise, so that one call serves every trial.

    Raises:
        ConfigError: weights are needed and none are given.
    """
    if (config.class_weight or config.logit_adjustment) and class_weight is None:
        raise ConfigError(
            "The loss asks for class weights and none were given. Pass inverse_frequency(targets, "
            "classes), or set class_weight and logit_adjustment to false."
        )
    weight = class_weight if config.class_weight else None
    adjustment = (
        log_prior(class_weight) if class_weight is not None and config.logit_adjustment else None
    )
    gamma = config.gamma if config.kind == "focal" else 0.0

    def loss(
        logits: Tensor,
        target: Tensor,
        *,
        row_weight: Tensor | None = None,
        denominator: Tensor | float | None = None,
    ) -> Tensor:
        if adjustment is not None:
            logits = logits.to(_wide(logits)) + adjustment.unsqueeze(-2)
        if config.kind == "kl" and target.is_floating_point():
            return kl_loss(logits, target, weight, row_weight=row_weight, denominator=denominator)
        return focal_loss(
            logits, target, weight, gamma, row_weight=row_weight, denominator=denominator
        )

    return loss


def focal_loss(
    logits: Tensor,
    target: Tensor,
    class_weight: Tensor | None = None,
    gamma: float | Tensor = 2.0,
    *,
    row_weight: Tensor | None = None,
    denominator: Tensor | float | None = None,
) -> Tensor:
    """Class-weighted focal loss, averaged over utterances by their weight.

    >>> even = torch.zeros(2, 4)  # logits of two utterances: p = 1/4, (1 − p)² · log 4
    >>> round(float(focal_loss(even, torch.tensor([0, 3]))), 4)
    0.7798

    Computed in fp32 (fp64 for fp64 logits) whatever the dtype of the logits; finite, as are its
    gradients, for any finite logits. Target values are not checked: on a GPU that would wait.

    Args:
        logits: `[..., B, C]`; leading dimensions are heads of a stack. `[C]` is a batch of one.
        target: class indices, integer `[B]` (or `[..., B]`), or probabilities, float `[B, C]` (or
            `[..., B, C]`), for which the cost is Σ_c y_c α_c (1 − p_c)^γ (−log p_c) and the weight
            Σ_c y_c α_c. One-hot probabilities therefore cost what the index costs (torch
            divides by B in that case).
        class_weight: α, `[C]`, or `[..., C]` with weights of its own for each head.
        gamma: focusing exponent, at least 0; 0 is cross-entropy. A tensor is broadcast to the
            targets and not checked.
        row_weight: `[B]` (or `[..., B]`), a factor on each utterance's weight; 0 leaves it out.
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
    if not isinstance(gamma, Tensor):
        _check_gamma(gamma)
    if logits.ndim == 1:
        logits, target = logits.unsqueeze(0), target.unsqueeze(0)
    _check_shapes(logits, target, class_weight)
    stack, classes = logits.shape[:-2], logits.shape[-1]
    log_p = F.log_softmax(logits.to(_wide(logits)), dim=-1)
    if target.is_floating_point():
        mass = target.to(log_p)  # [..., B, C]
        if class_weight is not None:
            mass = mass * class_weight.to(log_p).unsqueeze(-2)
        cost, item_weight = (mass * _focused(log_p, gamma)).sum(dim=-1), mass.sum(dim=-1)
    else:
        weight = log_p.new_ones(classes) if class_weight is None else class_weight.to(log_p)
        index = target.long().expand(logits.shape[:-1])
        picked = log_p.gather(-1, index.unsqueeze(-1)).squeeze(-1)
        item_weight = weight.expand(*stack, classes).gather(-1, index)  # [..., B]
        cost = item_weight * _focused(picked, gamma)
    return _weighted_mean(cost, item_weight, row_weight, denominator)


def kl_loss(
    logits: Tensor,
    target: Tensor,
    class_weight: Tensor | None = None,
    *,
    row_weight: Tensor | None = None,
    denominator: Tensor | float | None = None,
) -> Tensor:
    """Kullback-Leibler divergence of the predicted from the given distribution, KL(y‖p).

    Its gradients are those of cross-entropy with the same soft targets; its value is 0 where the
    prediction meets the target, whatever the raters' disagreement.

    Args:
        logits: `[..., B, C]`.
        target: probabilities y, float `[B, C]` (or `[..., B, C]`).
        class_weight: α: the cost is Σ_c α_c y_c (log y_c − log p_c), the weight Σ_c α_c y_c.
        row_weight: as in `focal_loss`.
        denominator: as in `focal_loss`.

    Returns:
        `[...]`, a loss for each leading element.

    Raises:
        ValueError: shapes that do not fit, or class indices as a target.
    """
    if not target.is_floating_point():
        raise ValueError(f"target must be probabilities, float [B, C], got {target.dtype}")
    _check_shapes(logits, target, class_weight)
    log_p = F.log_softmax(logits.to(_wide(logits)), dim=-1)
    y = target.to(log_p)
    weight = log_p.new_ones(logits.shape[-1]) if class_weight is None else class_weight.to(log_p)
    alpha = weight.unsqueeze(-2)
    cost = (alpha * (torch.xlogy(y, y) - y * log_p)).sum(dim=-1)
    return _weighted_mean(cost, (alpha * y).sum(dim=-1), row_weight, denominator)


# Beside ratings from −1 to 1, whose variance is some .1: where neither outputs nor ratings vary and
# they agree, CCC is 0 / 0. This makes it 0, whose gradient is 0 too.
CCC_FLOOR = 1e-6


def ccc_loss(values: Tensor, ratings: Tensor, weight: Tensor) -> Tensor:
    """1 − CCC over a batch, of each attribute by itself.

    Computed in fp32 (fp64 for fp64 values). Constant ratings, a single rated row or none of them
    cost 1 and have the gradient 0.

    Args:
        values: `[..., B, A]` outputs.
        ratings: `[..., B, A]`, finite everywhere.
        weight: `[..., B, A]` of each row; 0 leaves it out.

    Returns:
        `[..., A]`.
    """
    values = values.to(_wide(values))
    share = weight / weight.sum(-2, keepdim=True).clamp_min(torch.finfo(values.dtype).tiny)
    x, y = ((share * one).sum(-2) for one in (values, ratings))
    dx, dy = values - x.unsqueeze(-2), ratings - y.unsqueeze(-2)
    together = (share * dx * dy).sum(-2)
    apart = (share * (dx.square() + dy.square())).sum(-2) + (x - y).square()
    return 1 - 2 * together / (apart + CCC_FLOOR)


def inverse_frequency(targets: Tensor, classes: int) -> Tensor:
    """Class weights α_c ∝ 1 / n_c over the rows trained on, with a mean of 1 over those rows.

    A class without a row gets weight 0: no finite weight follows from its frequency, training
    never meets it, and on other data its utterances then leave the loss alone instead of
    ruling it. Whether a missing class is an error is for the caller, who knows its name, to say.

    Args:
        targets: of the training rows: `[N]` class indices, or probabilities, float `[N, C]`, of
            which n_c are the sums.
        classes: number of classes C.

    Returns:
        `[C]` fp32 on the CPU: N / (C′ · n_c), with C′ the number of classes that occur.

    Raises:
        ConfigError: no rows, or an index outside 0 … C − 1.
    """
    if len(targets) == 0:
        raise ConfigError("Class weights need training rows and there are none.")
    if targets.is_floating_point():
        counts = targets.detach().cpu().double().sum(0)
    else:
        rows = torch.as_tensor(targets, dtype=torch.int64, device="cpu").flatten()
        low, high = int(rows.min()), int(rows.max())
        if low < 0 or high >= classes:
            raise ConfigError(
                f"Class index {low if low < 0 else high} among the training targets; "
                f"{classes} classes have the indices 0 to {classes - 1}."
            )
        counts = torch.bincount(rows, minlength=classes).double()
    present = counts > 0
    weight = counts.sum() / (present.sum() * torch.where(present, counts, 1.0))
    return torch.where(present, weight, torch.zeros_like(weight)).float()


def log_prior(class_weight: Tensor) -> Tensor:
    """The log of π, `[..., C]`, of the classes whose `inverse_frequency` weights these are.

    A class without a row counts as the rarest one: its logit is then not left to chance.
    """
    rarest = class_weight.amax(dim=-1, keepdim=True)
    weight = torch.where(class_weight > 0, class_weight, rarest)
    return F.log_softmax(-weight.log(), dim=-1)


def _wide(logits: Tensor) -> torch.dtype:
    return torch.promote_types(logits.dtype, torch.float32)


def _weighted_mean(
    cost: Tensor,
    item_weight: Tensor,
    row_weight: Tensor | None,
    denominator: Tensor | float | None,
) -> Tensor:
    """Σ cost / Σ weight over utterances, `[..., B] -> [...]`."""
    if row_weight is not None:
        cost, item_weight = cost * row_weight, item_weight * row_weight
    summed = cost.sum(dim=-1)
    if denominator is not None:
        return summed / denominator
    total = item_weight.sum(dim=-1)
    return summed / total.clamp_min(torch.finfo(total.dtype).tiny)


def _focused(log_p: Tensor, gamma: float | Tensor) -> Tensor:
    """−(1 − p)^γ log p from log p, with finite gradients at p = 0 and p = 1."""
    if not isinstance(gamma, Tensor) and gamma == 0:
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
