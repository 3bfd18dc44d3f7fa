"""Which device a command runs on, what encoders compute in there, and copies that run beside work.

Pinned memory goes to a GPU and comes from it without waiting; on a CPU nothing is copied.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from corpora.base.errors import ConfigError
from corpora.base.work import current_rank

if TYPE_CHECKING:
    import torch
    from torch import Tensor

ComputeDtype = Literal["fp32", "bf16"]
# Turing and Volta take bfloat16 too, and emulate it slowly.
_BF16_CAPABILITY = (8, 0)


def choose_device(name: str) -> str:
    """`cpu`, or a GPU with its number, such as `cuda:0`, which the process then works on.

    `auto` takes a GPU where there is one. Without a number it is the first; where torchrun or
    `accelerate launch` started several processes on a machine, LOCAL_RANK deals its GPUs out.

    From here on fp32 is fp32 in every stage: TF32, which rounds factors to 10 bits, is off. So is
    cuDNN's attention, which plans some 100 ms for every new shape, and batches are of many shapes.

    Torch is imported only where the driver of a GPU is present: asking it takes seconds, and a
    laptop without one should not wait for the answer.

    Raises:
        ConfigError: an unknown name, or a GPU that is not there.
    """
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", name):
        raise ConfigError(f"device must be auto, cpu, cuda or cuda:N, got {name!r}")
    if name == "cpu" or not _cuda_is_usable():
        if name.startswith("cuda"):
            raise ConfigError(
                f"--device {name}: PyTorch finds no usable GPU here. Check the driver and that "
                "PyTorch was installed with CUDA, or use --device cpu."
            )
        return "cpu"
    import torch

    count = torch.cuda.device_count()
    _, _, number = name.partition(":")
    index = int(number) if number else current_rank().local % count
    if index >= count:
        there = "only cuda:0" if count == 1 else f"cuda:0 to cuda:{count - 1}"
        raise ConfigError(f"--device {name}: this machine has {there}. Choose one of these.")
    torch.cuda.set_device(index)
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.enable_cudnn_sdp(False)
    return f"cuda:{index}"


def usual_dtype(device: torch.device | str) -> ComputeDtype:
    """What speech encoders compute in: bf16 on a GPU that has units for it, else fp32.

    fp16, which older GPUs have units for, has overflowed in these encoders.
    """
    return "bf16" if str(device).startswith("cuda") and has_bf16_units(device) else "fp32"


def has_bf16_units(device: torch.device | str) -> bool:
    """Whether a processor multiplies bfloat16 faster than float32."""
    import torch

    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_capability(device) >= _BF16_CAPABILITY
    known = torch.cpu.get_capabilities()
    return bool(known.get("avx512_bf16") or known.get("amx_bf16"))


def to_device(tensor: Tensor, device: torch.device | str) -> Tensor:
    """A CPU tensor on a device. To a GPU the copy is queued behind its work, not waited for."""
    import torch

    target = torch.device(device)
    if target.type == "cuda" and not tensor.is_cuda:
        return tensor.pin_memory().to(target, non_blocking=True)
    return tensor.to(target)


def to_host(tensor: Tensor) -> Tensor:
    """A tensor on the CPU; from a GPU it is right only once `arrival` was waited for."""
    if not tensor.is_cuda:
        return tensor
    import torch

    host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    host.copy_(tensor, non_blocking=True)
    return host


# What want of memory looks like where it is not torch.OutOfMemoryError: of CUDA itself, of its
# libraries, which allocate too, of CTranslate2, and of the CPU's allocator.
_NO_MEMORY = re.compile(
    r"out of memory|_ALLOC_FAILED|_ALLOCATION_FAILED|not enough memory|can't allocate memory"
    r"|bad_alloc|failed to allocate",
    re.IGNORECASE,
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that there was not memory enough, on a GPU or on the CPU."""
    # torch.OutOfMemoryError is a RuntimeError that says so, too.
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and bool(_NO_MEMORY.search(str(error)))
    )


def arrival(device: torch.device | str) -> Callable[[], None]:
    """A function that waits until all that `to_host` was asked for so far has arrived."""
    import torch

    if torch.device(device).type != "cuda":
        return lambda: None
    event = torch.cuda.Event()
    event.record(torch.cuda.current_stream(torch.device(device)))
    return event.synchronize


def _cuda_is_usable() -> bool:
    if not any(Path(device).exists() for device in ("/dev/nvidiactl", "/dev/dxg")):
        return False
    import torch

    return torch.cuda.is_available()
