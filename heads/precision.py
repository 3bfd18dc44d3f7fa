"""In which precision frames and their products are: fp32, or bfloat16 where that is faster."""

from __future__ import annotations

import torch

from heads.dataset import Dataset
from heads.load import batch_values

# Frame values of a batch from which on `auto` is bf16, where the processor has units for it. Small
# batches gain nothing.
WORTHWHILE_VALUES = 2**22


def choose_precision(asked: str, dataset: Dataset, batch_size: int, device: str = "cpu") -> str:
    """`fp32` or `bf16`: what was asked for, or what is faster on this processor."""
    if asked != "auto":
        return asked
    worthwhile = batch_values(dataset, batch_size) >= WORTHWHILE_VALUES
    return "bf16" if worthwhile and _has_bf16_units(device) else "fp32"


def _has_bf16_units(device: str) -> bool:
    if torch.device(device).type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    known = torch.cpu.get_capabilities()
    return bool(known.get("avx512_bf16") or known.get("amx_bf16"))
