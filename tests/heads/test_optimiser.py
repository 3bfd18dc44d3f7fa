"""The optimiser of many heads is AdamW by its equations, each head with its own numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from heads.step import BETAS, EPSILON, Optimiser

CLIP, FACTORS = 1.0, (0.5, 1.0, 0.25)
# By head its groups: shapes of parameters, peak rate; and its decay.
HEADS: list[tuple[list[Any], float]] = [
    ([(((3, 4), (3,)), 0.1)], 0.0),
    ([(((5,),), 0.02), (((2, 2), (4,)), 0.3)], 0.5),
]


def gradients(step: int) -> list[NDArray[np.float32]]:
    """Small ones for the first head, and for the second such as have to be clipped."""
    random = np.random.default_rng(step)
    shapes = [[shape for own, _ in groups for shape in own] for groups, _ in HEADS]
    sizes = ((0.05, shapes[0]), (3.0, shapes[1]))
    return [
        random.normal(scale=scale, size=shape).astype(np.float32)
        for scale, own in sizes
        for shape in own
    ]


def reference() -> list[NDArray[np.float64]]:
    """Loshchilov and Hutter 2019, algorithm 2, after clipping the gradient of each head."""
    found, at = [], 0
    for groups, decay in HEADS:
        numbers = [(at + k, rate) for k, rate in enumerate(_rates(groups))]
        at += len(numbers)
        values = {n: np.zeros(gradients(0)[n].shape) + 1 for n, _ in numbers}
        mean, square = ({n: 0 * value for n, value in values.items()} for _ in range(2))
        for step, factor in enumerate(FACTORS):
            grown = {n: gradients(step)[n].astype(np.float64) for n, _ in numbers}
            norm = np.sqrt(sum(float((own**2).sum()) for own in grown.values()))
            for n, peak in numbers:
                g, rate = grown[n] / max(norm / CLIP, 1), peak * factor
                mean[n] = BETAS[0] * mean[n] + (1 - BETAS[0]) * g
                square[n] = BETAS[1] * square[n] + (1 - BETAS[1]) * g**2
                m, v = (
                    s[n] / (1 - b ** (step + 1)) for s, b in zip((mean, square), BETAS, strict=True)
                )
                values[n] = values[n] - rate * (m / (np.sqrt(v) + EPSILON) + decay * values[n])
        found += list(values.values())
    return found


def _rates(groups: list[Any]) -> list[float]:
    return [rate for shapes, rate in groups for _ in shapes]


@pytest.mark.parametrize("together", [True, False])
def test_steps_of_many_heads_are_adamw_with_each_ones_rates_decay_and_norm(together: bool) -> None:
    made: list[list[dict[str, Any]]] = [
        [
            {
                "params": [torch.nn.Parameter(torch.ones(shape)) for shape in shapes],
                "peak": rate,
                "weight_decay": decay,
            }
            for shapes, rate in groups
        ]
        for groups, decay in HEADS
    ]
    parameters = [p for groups in made for group in groups for p in group["params"]]
    optimiser = Optimiser(made, CLIP)
    for step, factor in enumerate(FACTORS):
        optimiser.zero_gradients()
        for parameter, own in zip(parameters, gradients(step), strict=True):
            parameter.grad = torch.from_numpy(own)
        for heads in ([0, 1],) if together else ([1], [0]):
            optimiser.step(heads, factor)
    for parameter, expected in zip(parameters, reference(), strict=True):
        np.testing.assert_allclose(parameter.detach().numpy(), expected, rtol=2e-6, atol=1e-6)
