"""Heads whose attention is not uniform, as training leaves them."""

from __future__ import annotations

import torch

from heads.head import Head


def draw_scorers(head: Head, seed: int = 0) -> Head:
    """Give the output weights of scorers, which start at 0, values within ±1; returns the head."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in head.scorer_parameters():
            if not parameter.any():
                parameter.uniform_(-1, 1, generator=generator)
    return head
