"""How much arithmetic heads take, and how much the processor could do."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from heads.head import HeadConfig
from heads.pooling.registry import pooling_config

SIZE, REPEATS = 2048, 5
COPIED = 2**28  # bytes


def head_epoch_flops(config: HeadConfig, utterances: int, frames: float) -> float:
    """Operations of the matrix products that one head's training over so many frames needs.

    Two a multiplication; a product costs as much again for the gradient of its weights and, where
    one is needed, of its input. Frames have no gradient.
    """
    total, pooled = 0.0, 0
    for name, dim in config.dims.items():
        pooling = pooling_config(config.pooling[name])
        pooled += pooling.out_dim(dim)
        total += 2 * 2 * utterances * frames * dim * pooling.cost
    width = config.mlp_width or len(config.labels)
    return total + 3 * 2 * utterances * pooled * width


def peak_flops(device: str) -> float:
    """Operations a second of a large square product, in bfloat16 or fp32, whichever is faster."""
    return max(_product(torch.bfloat16, device), _product(torch.float32, device))


def copy_bandwidth(device: str) -> float:
    """Bytes a second that copying within the device's memory reads and writes."""
    values = torch.empty(COPIED, dtype=torch.uint8, device=device)
    other = torch.empty_like(values)
    return 2 * COPIED / _fastest(lambda: other.copy_(values), device)


def _product(dtype: torch.dtype, device: str) -> float:
    size = SIZE if device == "cpu" else 4 * SIZE
    one, other = (torch.randn(size, size).to(device, dtype) for _ in range(2))
    return 2 * size**3 / _fastest(lambda: one @ other, device)


def _fastest(action: Callable[[], object], device: str) -> float:
    times = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        action()
        if device != "cpu":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
    return min(times)
