"""How much arithmetic heads take, and how much the processor could do."""

from __future__ import annotations

import time

import torch

from heads.head import HeadConfig
from heads.pooling.attentive import Attentive
from heads.pooling.registry import pooling_config

SIZE, REPEATS = 2048, 5


def head_epoch_flops(config: HeadConfig, utterances: int, frames: int) -> float:
    """Operations of the matrix products that one head's training over so many frames needs.

    Two a multiplication; a product costs as much again for the gradient of its weights and, where
    one is needed, of its input. Frames have no gradient.
    """
    total, pooled = 0.0, 0
    for name, dim in config.dims.items():
        pooling = pooling_config(config.pooling[name])
        pooled += pooling.out_dim(dim)
        if not isinstance(pooling, Attentive):
            continue
        queries, rows = pooling.queries, utterances * frames
        # Scores of all heads of a query read every feature once; so do both moments.
        units = 1 if pooling.scorer_layers == 1 else pooling.hidden
        scorer = 2 * rows * dim * queries * units
        moments = 2 * (2 * rows * dim * queries)
        total += 2 * scorer + 2 * moments
    width = config.mlp_width or len(config.labels)
    return total + 3 * 2 * utterances * pooled * width


def peak_flops() -> float:
    """Operations a second of a large square product, in bfloat16 or fp32, whichever is faster."""
    return max(_product(torch.bfloat16), _product(torch.float32))


def _product(dtype: torch.dtype) -> float:
    one, other = (torch.randn(SIZE, SIZE).to(dtype) for _ in range(2))
    times = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        one @ other
        times.append(time.perf_counter() - started)
    return 2 * SIZE**3 / min(times)
