"""Between the processor and a GPU without waiting: pinned memory, and copies that run beside work.

On a CPU all of this does nothing.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def to_device(tensor: Tensor, device: torch.device | str) -> Tensor:
    """A CPU tensor on a device. To a GPU the copy is queued behind its work, not waited for."""
    target = torch.device(device)
    if target.type == "cuda" and not tensor.is_cuda:
        return tensor.pin_memory().to(target, non_blocking=True)
    return tensor.to(target)


def to_host(tensor: Tensor) -> Tensor:
    """A tensor on the CPU; from a GPU it is right only once `arrival` was waited for."""
    if not tensor.is_cuda:
        return tensor
    host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    host.copy_(tensor, non_blocking=True)
    return host


def arrival(device: torch.device | str) -> Callable[[], None]:
    """A function that waits until all that `to_host` was asked for so far has arrived."""
    if torch.device(device).type != "cuda":
        return lambda: None
    event = torch.cuda.Event()
    event.record(torch.cuda.current_stream(torch.device(device)))
    return event.synchronize
