"""Work shared between threads gives what one thread gives, and leaves torch as it was."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from heads.pooling.attentive import network_scores
from heads.pooling.segments import Place, attentive_moments, places, share_utterances, side_by_side
from tests.rounding import summed


@pytest.fixture(autouse=True)
def threads() -> Iterator[int]:
    """Three threads of torch's, whatever the machine has."""
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield 3
    torch.set_num_threads(before)


@given(lengths=st.lists(st.integers(1, 50), min_size=1, max_size=20))
def test_every_utterance_is_worked_on_once(lengths: list[int]) -> None:
    seen: list[Place] = []
    share_utterances(seen.extend, lengths)
    assert sorted(seen, key=lambda place: place[0]) == places(lengths)


def test_results_come_in_the_order_of_the_parts() -> None:
    assert side_by_side(lambda part: part * 2, [3, 1, 2, 5, 4]) == [6, 2, 4, 10, 8]


def test_inside_torch_has_one_thread_and_the_callers_gradient_mode() -> None:
    with torch.no_grad():
        found = side_by_side(
            lambda _: (torch.get_num_threads(), torch.is_grad_enabled()), [0, 1, 2, 3]
        )
    assert found == [(1, False)] * 4


def test_the_number_of_threads_is_restored_after_a_failure(threads: int) -> None:
    def fail(part: int) -> None:
        raise ValueError(part)

    with pytest.raises(ValueError, match="1"):
        side_by_side(fail, [1, 1])
    assert torch.get_num_threads() == threads


def run(lengths: Sequence[int], *, threads: int) -> list[torch.Tensor]:
    """Scores, moments and gradients of a batch large enough to be shared."""
    torch.set_num_threads(threads)
    generator = torch.Generator().manual_seed(0)
    frames = torch.randn(sum(lengths), 256, generator=generator)
    shapes = {"weight": (1, 64, 256), "bias": (1, 64, len(lengths)), "output": (1, 4, 64)}
    leaves = [torch.randn(s, generator=generator).requires_grad_() for s in shapes.values()]
    weight, bias, output = leaves
    scores = network_scores(weight, bias, output, frames, lengths)
    mean, deviation = attentive_moments(scores, frames, lengths)
    (mean.square().sum() + deviation.sum()).backward()
    gradients = [leaf.grad for leaf in leaves if leaf.grad is not None]
    return [scores.detach(), mean.detach(), deviation.detach(), *gradients]


def test_poolings_are_the_same_on_one_thread_and_on_three() -> None:
    lengths = [700, 200, 300, 150, 1]
    # Gradients are sums over all frames of what comes out of sums over 256 features.
    terms = sum(lengths) + 256
    for one, other in zip(run(lengths, threads=1), run(lengths, threads=3), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=summed(one, terms))
