"""Dropout's masks: the written hash, even shares, and no company, device or order in them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from heads.step import Dropout, step_words

CPU = torch.device("cpu")


def mix(x: NDArray[np.uint32]) -> NDArray[np.uint32]:
    x = x ^ x >> np.uint32(16)
    x = x * np.uint32(0x7FEB352D)
    x = x ^ x >> np.uint32(15)
    x = x * np.uint32(0x846CA68B)
    return x ^ x >> np.uint32(16)


def reference(seed: int, width: int, share: float, step: int, rows: int) -> NDArray[np.float64]:
    """The mask of one head, by the equations of the module."""
    seeds = mix(np.array([seed % 2**32, seed // 2**32 % 2**32], dtype=np.uint32))
    start = np.uint32(int(seeds.astype(np.uint64).sum()) % 2**32)
    r = mix(np.arange(rows, dtype=np.uint32) + np.uint32((step + 1) * 0x9E3779B9 % 2**32))
    c = mix(np.arange(width, dtype=np.uint32) + start)
    y = (r[:, None] ^ c) * np.uint32(0x7FEB352D)
    y ^= (y.view(np.int32) >> 15).view(np.uint32)
    y *= np.uint32(0x846CA68B)
    kept = y.view(np.int32).astype(np.int64) + 2**31 >= round(share * 2**32)
    return kept / (1 - share)


@pytest.mark.parametrize("seed", [0, 7, 2**40 + 5, -3])
@pytest.mark.parametrize("step", [0, 30_000])
def test_masks_are_the_written_hash_in_any_company(seed: int, step: int) -> None:
    masks = Dropout([1, seed, 9], [64, 256, 3], [0.1, 0.3, 0.0], CPU).masks(step_words(step, 48))
    np.testing.assert_allclose(masks[1].numpy(), reference(seed, 256, 0.3, step, 48), rtol=1e-6)
    assert bool((masks[2] == 1).all())
    (alone,) = Dropout([seed], [256], [0.3], CPU).masks(step_words(step, 48))
    assert torch.equal(alone, masks[1])


@pytest.mark.parametrize("share", [0.05, 0.3, 0.5])
def test_every_row_unit_step_and_seed_keeps_its_share(share: float) -> None:
    steps, rows, width, seeds = 40, 64, 256, 6
    made = Dropout(range(seeds), [width] * seeds, [share] * seeds, CPU)
    kept = (
        torch.stack([torch.stack(made.masks(step_words(step, rows))) for step in range(steps)]) > 0
    )
    # [steps, seeds, rows, width]; six deviations of each count.
    for over in ((0, 1, 2, 3), (1, 2, 3), (0, 2, 3), (0, 1, 3), (0, 1, 2), (0, 3), (0, 2)):
        found = kept.double().mean(over)
        count = kept.numel() / found.numel()
        assert bool(((found - (1 - share)).abs() < 6 * (share * (1 - share) / count) ** 0.5).all())


def test_masks_of_two_steps_rows_units_or_seeds_are_independent() -> None:
    made = Dropout(range(6), [256] * 6, [0.5] * 6, CPU)
    kept = torch.stack([torch.stack(made.masks(step_words(step, 64))) for step in range(40)]) > 0
    signs = kept.double() * 2 - 1
    for dim in range(4):
        for lag in (1, 2, 3):
            moved = signs.narrow(dim, lag, signs.shape[dim] - lag)
            product = moved * signs.narrow(dim, 0, signs.shape[dim] - lag)
            assert abs(float(product.mean())) < 6 / product.numel() ** 0.5
    # And the four corners of rectangles of rows and units, which r ⊕ c alone would give away.
    corners = signs[..., :-1, :-1] * signs[..., 1:, :-1] * signs[..., :-1, 1:] * signs[..., 1:, 1:]
    assert abs(float(corners.mean())) < 6 / corners.numel() ** 0.5
