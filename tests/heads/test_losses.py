"""Losses against NumPy float64 written from the equations, and against torch's cross-entropy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch.nn import functional as F

from corpora.base.errors import ConfigError
from heads.losses import (
    LossConfig,
    focal_loss,
    inverse_frequency,
    kl_loss,
    log_prior,
    loss_function,
)
from heads.stacked_loss import StackedLoss

Floats = NDArray[np.float64]


def reference(
    logits: Floats, target: NDArray[np.int64], alpha: Floats | None, gamma: float
) -> float:
    """Σ_i α_c(i) (1 − p_i)^γ (−log p_i) / Σ_i α_c(i), term by term."""
    alpha = np.ones(logits.shape[1]) if alpha is None else alpha
    total, weight = 0.0, 0.0
    for row, c in zip(logits, target, strict=True):
        p = np.exp(row - row.max())
        p /= p.sum()
        total += alpha[c] * (1 - p[c]) ** gamma * -np.log(p[c])
        weight += alpha[c]
    return total / weight


def batch(seed: int, size: int = 9, classes: int = 5) -> tuple[Floats, NDArray[np.int64], Floats]:
    random = np.random.default_rng(seed)
    logits = random.normal(scale=3, size=(size, classes))
    return logits, random.integers(0, classes, size), random.uniform(0.1, 4, classes)


@settings(max_examples=40)
@given(
    seed=st.integers(0, 10_000),
    size=st.integers(1, 12),
    classes=st.integers(2, 8),
    gamma=st.sampled_from([0.0, 0.5, 1.0, 2.0, 3.7]),
    weighted=st.booleans(),
)
def test_focal_loss_equals_the_equation(
    seed: int, size: int, classes: int, gamma: float, weighted: bool
) -> None:
    logits, target, alpha = batch(seed, size, classes)
    weight = torch.tensor(alpha) if weighted else None
    loss = focal_loss(torch.tensor(logits), torch.tensor(target), weight, gamma)
    expected = reference(logits, target, alpha if weighted else None, gamma)
    assert loss.shape == ()
    assert float(loss) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("weighted", [False, True])
def test_gamma_zero_equals_torch_cross_entropy(weighted: bool) -> None:
    logits, target, alpha = (torch.tensor(a) for a in batch(1))
    weight = alpha if weighted else None
    expected = F.cross_entropy(logits, target, weight=weight)
    assert torch.allclose(focal_loss(logits, target, weight, gamma=0), expected, rtol=1e-12)
    config = LossConfig("cross_entropy", gamma=2.0, class_weight=weighted)
    assert torch.allclose(loss_function(config, alpha)(logits, target), expected, rtol=1e-12)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("soft", [False, True])
def test_gradients_equal_finite_differences(gamma: float, soft: bool) -> None:
    logits, target, alpha = batch(2, size=4, classes=3)
    given_target = torch.tensor(target)
    if soft:
        given_target = torch.tensor(np.random.default_rng(3).dirichlet(np.ones(3), size=4))
    leaf = torch.tensor(logits, requires_grad=True)
    focal_loss(leaf, given_target, torch.tensor(alpha), gamma).backward()
    step = 1e-6
    numeric = np.zeros_like(logits)
    for place in np.ndindex(*logits.shape):
        ends = []
        for sign in (1, -1):
            moved = logits.copy()
            moved[place] += sign * step
            ends.append(
                float(focal_loss(torch.tensor(moved), given_target, torch.tensor(alpha), gamma))
            )
        numeric[place] = (ends[0] - ends[1]) / (2 * step)
    assert leaf.grad is not None
    np.testing.assert_allclose(leaf.grad.numpy(), numeric, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0, 5.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_loss_and_gradients_are_finite_at_extreme_logits(gamma: float, dtype: torch.dtype) -> None:
    logits = torch.tensor([[1e4, -1e4, 0], [-1e4, 1e4, 0], [0, 0, 0]], dtype=dtype)
    for target in (torch.tensor([0, 0, 0]), torch.tensor([[0.5, 0.5, 0.0]] * 3)):
        leaf = logits.clone().requires_grad_()
        loss = focal_loss(leaf, target, gamma=gamma)
        loss.backward()
        assert leaf.grad is not None
        assert bool(torch.isfinite(loss))
        assert bool(torch.isfinite(leaf.grad).all())


def test_a_sure_miss_costs_its_margin_and_a_sure_hit_nothing() -> None:
    logits = torch.tensor([[1e4, -1e4]])
    assert float(focal_loss(logits, torch.tensor([1]))) == pytest.approx(2e4)
    assert float(focal_loss(logits, torch.tensor([0]))) == 0.0


def test_focal_loss_keeps_the_digits_of_a_nearly_sure_hit() -> None:
    logits, target = np.array([[6.0, -6.0]]), np.array([0])
    loss = focal_loss(torch.tensor(logits, dtype=torch.float32), torch.tensor(target))
    assert float(loss) == pytest.approx(reference(logits, target, None, 2.0), rel=0.05)


def test_each_head_of_a_stack_has_the_loss_it_has_alone() -> None:
    random = np.random.default_rng(4)
    logits = torch.tensor(random.normal(size=(3, 7, 4)))
    target = torch.tensor(random.integers(0, 4, 7))
    weights = torch.tensor(random.uniform(0.2, 2, (3, 4)))
    soft = torch.tensor(random.dirichlet(np.ones(4), size=7))
    for given_target in (target, soft):
        shared = focal_loss(logits, given_target, weights[0])
        own = focal_loss(logits, given_target, weights)
        assert shared.shape == own.shape == (3,)
        for k in range(3):
            assert torch.allclose(shared[k], focal_loss(logits[k], given_target, weights[0]))
            assert torch.allclose(own[k], focal_loss(logits[k], given_target, weights[k]))


def test_a_stack_can_have_targets_of_its_own() -> None:
    random = np.random.default_rng(5)
    logits = torch.tensor(random.normal(size=(2, 6, 3)))
    targets = torch.tensor(random.integers(0, 3, (2, 6)))
    losses = focal_loss(logits, targets)
    for k in range(2):
        assert torch.allclose(losses[k], focal_loss(logits[k], targets[k]))


@pytest.mark.parametrize("gamma", [0.0, 2.0])
def test_one_hot_probabilities_cost_what_the_index_costs(gamma: float) -> None:
    logits, target, alpha = (torch.tensor(a) for a in batch(6))
    one_hot = F.one_hot(target, 5).double()
    assert torch.allclose(
        focal_loss(logits, one_hot, alpha, gamma), focal_loss(logits, target, alpha, gamma)
    )


def test_soft_targets_equal_the_equation() -> None:
    logits, _, alpha = batch(7)
    y = np.random.default_rng(8).dirichlet(np.ones(5), size=9)
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    expected = (y * alpha * (1 - p) ** 2 * -np.log(p)).sum() / (y * alpha).sum()
    loss = focal_loss(torch.tensor(logits), torch.tensor(y), torch.tensor(alpha))
    assert float(loss) == pytest.approx(expected, rel=1e-10)


def test_pieces_divided_by_the_weight_of_the_whole_add_up_to_the_whole() -> None:
    logits, target, alpha = (torch.tensor(a) for a in batch(9))
    whole = focal_loss(logits, target, alpha)
    weight = alpha[target].sum()
    pieces = [
        focal_loss(logits[rows], target[rows], alpha, denominator=weight)
        for rows in (slice(0, 2), slice(2, 3), slice(3, 9))
    ]
    assert torch.allclose(torch.stack(pieces).sum(), whole)


def test_the_scale_of_the_class_weights_cancels() -> None:
    logits, target, alpha = (torch.tensor(a) for a in batch(10))
    assert torch.allclose(focal_loss(logits, target, alpha), focal_loss(logits, target, 7 * alpha))


def test_a_batch_of_weight_zero_costs_zero() -> None:
    loss = focal_loss(torch.randn(2, 3), torch.tensor([1, 1]), torch.tensor([1.0, 0.0, 1.0]))
    assert float(loss) == 0.0


def test_half_precision_logits_are_computed_in_fp32() -> None:
    logits, target = torch.randn(5, 4).to(torch.bfloat16), torch.tensor([0, 1, 2, 3, 0])
    loss = focal_loss(logits, target)
    assert loss.dtype == torch.float32
    assert torch.equal(loss, focal_loss(logits.float(), target))


def test_single_logits_are_a_batch_of_one() -> None:
    logits = torch.tensor([0.3, -1.0, 2.0])
    assert torch.equal(
        focal_loss(logits, torch.tensor(1)), focal_loss(logits[None], torch.tensor([1]))
    )


@pytest.mark.parametrize(
    ("logits", "target"),
    [
        ((4, 3), torch.zeros(3, dtype=torch.int64)),
        ((4, 3), torch.zeros(1, dtype=torch.int64)),
        ((3, 3), torch.zeros(3)),
        ((4, 3), torch.zeros(4, 2)),
        ((2, 4, 3), torch.zeros(3, 4, dtype=torch.int64)),
        ((4, 3), torch.zeros(4, dtype=torch.bool)),
        ((4, 3), torch.tensor(1)),
    ],
)
def test_targets_that_do_not_fit_are_refused(logits: tuple[int, ...], target: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="target must be"):
        focal_loss(torch.zeros(logits), target)


def test_class_weights_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"class_weight must be \[3\]"):
        focal_loss(torch.zeros(4, 3), torch.zeros(4, dtype=torch.int64), torch.ones(2))


@given(rows=st.lists(st.integers(0, 5), min_size=1, max_size=60))
def test_inverse_frequency_gives_present_classes_equal_weight_in_sum(rows: list[int]) -> None:
    weight = inverse_frequency(torch.tensor(rows), 6).double().numpy()
    counts = np.bincount(rows, minlength=6)
    present = counts > 0
    np.testing.assert_allclose((weight * counts)[present], len(rows) / present.sum(), rtol=1e-6)


@given(rows=st.lists(st.integers(0, 5), min_size=1, max_size=60))
def test_inverse_frequency_has_mean_one_over_the_rows(rows: list[int]) -> None:
    weight = inverse_frequency(torch.tensor(rows), 6).double()
    assert float(weight[rows].mean()) == pytest.approx(1.0, rel=1e-6)


def test_a_class_without_rows_has_weight_zero() -> None:
    assert inverse_frequency(torch.tensor([0, 0, 2]), 4).tolist() == [0.75, 0.0, 1.5, 0.0]


@pytest.mark.parametrize("rows", [[], [0, 3], [-1, 0]])
def test_inverse_frequency_refuses_rows_it_cannot_weigh(rows: list[int]) -> None:
    with pytest.raises(ConfigError):
        inverse_frequency(torch.tensor(rows, dtype=torch.int64), 3)


def test_an_unknown_loss_names_the_close_match() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'cross_entropy'"):
        LossConfig("crossentropy")


@pytest.mark.parametrize("gamma", [-1.0, float("nan"), float("inf")])
def test_a_gamma_that_is_no_exponent_is_refused(gamma: float) -> None:
    with pytest.raises(ConfigError, match="gamma"):
        LossConfig(gamma=gamma)
    with pytest.raises(ConfigError, match="gamma"):
        focal_loss(torch.zeros(1, 2), torch.tensor([0]), gamma=gamma)


def test_class_weights_asked_for_and_not_given_are_an_error() -> None:
    with pytest.raises(ConfigError, match="none were given"):
        loss_function(LossConfig(class_weight=True))


def test_class_weights_not_asked_for_are_ignored() -> None:
    logits, target, alpha = (torch.tensor(a) for a in batch(11))
    loss = loss_function(LossConfig("focal", gamma=1.0, class_weight=False), alpha)
    assert torch.equal(loss(logits, target), focal_loss(logits, target, None, 1.0))


def shares(seed: int, size: int = 9, classes: int = 5) -> Floats:
    """Vote shares with some classes that nobody voted for."""
    y = np.random.default_rng(seed).multinomial(4, np.ones(classes) / classes, size=size) / 4
    return y.astype(np.float64)


@pytest.mark.parametrize("weighted", [False, True])
def test_kl_equals_the_equation(weighted: bool) -> None:
    logits, _, alpha = batch(12)
    y = shares(13)
    weight = alpha if weighted else np.ones(5)
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    total, mass = 0.0, 0.0
    for row, column in zip(*np.nonzero(y), strict=True):
        share = y[row, column] * weight[column]
        total += share * np.log(y[row, column] / p[row, column])
        mass += share
    loss = kl_loss(torch.tensor(logits), torch.tensor(y), torch.tensor(weight))
    assert float(loss) == pytest.approx(total / mass, rel=1e-10)


def test_kl_equals_torch() -> None:
    logits, y = torch.tensor(batch(14)[0]), torch.tensor(shares(15))
    expected = F.kl_div(F.log_softmax(logits, dim=1), y, reduction="batchmean")
    assert torch.allclose(kl_loss(logits, y), expected, rtol=1e-12)


def test_kl_of_a_met_target_is_zero_and_its_gradients_are_finite() -> None:
    y = torch.tensor(shares(16)).clamp_min(1e-300)
    leaf = y.log().requires_grad_()
    loss = kl_loss(leaf, y)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(0.0, abs=1e-12)
    assert leaf.grad is not None
    assert bool(torch.isfinite(leaf.grad).all())


def test_kl_refuses_class_indices() -> None:
    with pytest.raises(ValueError, match="probabilities"):
        kl_loss(torch.zeros(4, 3), torch.zeros(4, dtype=torch.int64))


def test_a_kl_configuration_takes_labels_as_undisputed_votes() -> None:
    logits, target, alpha = (torch.tensor(a) for a in batch(17))
    loss = loss_function(LossConfig("kl"), alpha)
    one_hot = F.one_hot(target, 5).double()
    assert torch.allclose(loss(logits, target), loss(logits, one_hot))


def test_logit_adjustment_adds_the_log_share_of_each_class() -> None:
    logits, target, _ = batch(18)
    rows = np.array([0] * 10 + [1] * 5 + [2] * 3 + [3] * 1 + [4] * 1)
    prior = np.bincount(rows) / len(rows)
    weight = inverse_frequency(torch.tensor(rows), 5).double()
    config = LossConfig("cross_entropy", class_weight=False, logit_adjustment=True)
    loss = loss_function(config, weight)(torch.tensor(logits), torch.tensor(target))
    expected = reference(logits + np.log(prior), target, None, 0.0)
    assert float(loss) == pytest.approx(expected, rel=1e-6)
    np.testing.assert_allclose(log_prior(weight).exp().numpy(), prior, rtol=1e-6)


def test_an_adjusted_head_learns_the_logits_of_equally_frequent_classes() -> None:
    # Classes that look the same: only their frequency tells them apart.
    target = torch.tensor([0] * 90 + [1] * 10)
    weight = inverse_frequency(target, 2)
    config = LossConfig("cross_entropy", class_weight=False, logit_adjustment=True)
    loss = loss_function(config, weight)
    bias = torch.zeros(2, requires_grad=True)
    optimiser = torch.optim.SGD([bias], lr=1.0)
    for _ in range(300):
        optimiser.zero_grad()
        loss(bias.expand(100, 2), target).backward()
        optimiser.step()
    assert torch.softmax(bias, 0).tolist() == pytest.approx([0.5, 0.5], abs=1e-3)


def test_a_class_without_rows_is_adjusted_as_the_rarest() -> None:
    prior = log_prior(torch.tensor([0.75, 0.0, 1.5])).exp()
    assert prior.tolist() == pytest.approx([0.5, 0.25, 0.25])


def test_logit_adjustment_together_with_class_weights_is_refused() -> None:
    with pytest.raises(ConfigError, match="correct twice"):
        LossConfig("cross_entropy", logit_adjustment=True)


@pytest.mark.parametrize("smoothing", [-0.1, 0.5, float("nan")])
def test_a_smoothing_that_leaves_no_votes_is_refused(smoothing: float) -> None:
    with pytest.raises(ConfigError, match="smoothing"):
        LossConfig("kl", smoothing=smoothing)


@pytest.mark.parametrize("soft", [False, True])
def test_rows_of_weight_zero_are_as_good_as_absent(soft: bool) -> None:
    logits, target, alpha = (torch.tensor(a) for a in batch(19))
    given_target = torch.tensor(shares(20)) if soft else target
    used = torch.tensor([1, 0, 1, 1, 0, 1, 0, 1, 1]).bool()
    for loss in (
        loss_function(LossConfig("kl" if soft else "focal"), alpha),
        loss_function(LossConfig("cross_entropy", class_weight=False)),
    ):
        weighted = loss(logits, given_target, row_weight=used.double())
        assert torch.allclose(weighted, loss(logits[used], given_target[used]))


KINDS = [
    LossConfig("focal", gamma=2.0),
    LossConfig("focal", gamma=0.5, class_weight=False),
    LossConfig("cross_entropy"),
    LossConfig("cross_entropy", class_weight=False, logit_adjustment=True),
    LossConfig("kl", class_weight=False, smoothing=0.05),
    LossConfig("kl"),
]


def test_losses_of_all_kinds_beside_one_another_have_each_ones_gradients() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(len(KINDS), 6, 4, generator=generator, dtype=torch.float64)
    labels = torch.arange(9) % 4
    votes = torch.softmax(torch.randn(9, 4, generator=generator, dtype=torch.float64), dim=-1)
    alpha = torch.tensor([0.5, 1.0, 2.0, 0.7], dtype=torch.float64)
    rows, weight = torch.tensor([8, 0, 3, 3, 5, 1]), (torch.arange(9) != 3).double()
    stack = StackedLoss.beside(
        [StackedLoss.of(c, votes if c.from_votes else labels, alpha, weight) for c in KINDS],
        torch.device("cpu"),
    )
    values = logits.clone().requires_grad_()
    found = stack(values, rows)
    found.sum().backward()
    for k, config in enumerate(KINDS):
        own = logits[k].clone().requires_grad_()
        target = votes if config.from_votes else labels
        expected = loss_function(config, alpha)(own, target[rows], row_weight=weight[rows])
        expected.backward()
        assert values.grad is not None
        assert own.grad is not None
        torch.testing.assert_close(values.grad[k], own.grad, rtol=1e-9, atol=1e-12)
        if not config.from_votes:  # the entropy of the votes is left out
            torch.testing.assert_close(found[k], expected)


def test_inverse_frequency_of_shares_counts_them() -> None:
    rows = torch.tensor([0, 0, 2, 1])
    one_hot = F.one_hot(rows, 4).float()
    assert torch.allclose(inverse_frequency(one_hot, 4), inverse_frequency(rows, 4))
