"""The processes and the device that training runs on, by Hugging Face accelerate.

One process by default; several under `accelerate launch` or `torchrun`, each with a copy of the
model and batches of its own. Which arithmetic the speech encoder computes in is its own affair, as
in extraction (`AudioEncoder.compute_dtype`): text encoders and the head stay in float32, for their
attention and their variances overflow and cancel in half precision.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Literal

import torch
from accelerate import Accelerator
from accelerate.utils import AutocastKwargs, DistributedDataParallelKwargs
from torch import Tensor, nn

from corpora.base.errors import ConfigError

PRECISIONS = ("auto", "fp32", "bf16")


@dataclass(frozen=True, eq=False)
class Engine:
    """One process of a training.

    Attributes:
        accelerator: moves, wraps and sums.
        rank: its number.
        world: how many there are.
    """

    accelerator: Accelerator
    rank: int = 0
    world: int = 1

    @property
    def leads(self) -> bool:
        """Whether it is the one that writes and speaks."""
        return self.rank == 0

    @property
    def device(self) -> torch.device:
        """Where its model lies."""
        device: torch.device = self.accelerator.device
        return device

    def wrapped(self, module: nn.Module, *, all_used: bool) -> nn.Module:
        """A module whose gradients are averaged over the processes.

        Args:
            module: its trainable parameters are marked.
            all_used: whether every pass uses all of these.
        """
        if self.world == 1:
            return module
        self.accelerator.ddp_handler = DistributedDataParallelKwargs(
            find_unused_parameters=not all_used
        )
        prepared: nn.Module = self.accelerator.prepare_model(module)
        return prepared

    def sum(self, values: Tensor) -> Tensor:
        """The sum over all processes, in each of them."""
        if self.world == 1:
            return values
        total: Tensor = self.accelerator.reduce(values.to(self.device), reduction="sum")
        return total

    def wait(self) -> None:
        """Until all are here."""
        self.accelerator.wait_for_everyone()

    def end(self) -> None:
        """Part from the other processes."""
        if self.world > 1:
            self.accelerator.end_training()


def start_engine(device: str = "cpu") -> Engine:
    """Find the other processes, where there are.

    Args:
        device: `cpu` or `cuda`.
    """
    accelerator = Accelerator(
        cpu=device == "cpu",
        # "no" although bf16 may be computed in: the encoders see to it themselves.
        mixed_precision="no",
        kwargs_handlers=[AutocastKwargs(enabled=False)],
    )
    return Engine(accelerator, accelerator.process_index, accelerator.num_processes)


def compute_dtype(asked: str, device: str) -> Literal["fp32", "bf16"]:
    """What the speech encoder computes in.

    Args:
        asked: `fp32`, `bf16` or `auto`: what `accelerate launch --mixed_precision` asks for; else
            as in extraction, bf16 on a GPU.
        device: `cpu` or `cuda`.

    Raises:
        ConfigError: an unknown name, or fp16, which has overflowed in these encoders.
    """
    launched = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
    if asked not in PRECISIONS or (asked == "auto" and launched not in ("no", "bf16")):
        raise ConfigError(
            f"precision {launched if asked == 'auto' else asked}: expected one of "
            f"{', '.join(PRECISIONS)}."
        )
    if asked == "auto":
        return "bf16" if launched == "bf16" or device == "cuda" else "fp32"
    return "bf16" if asked == "bf16" else "fp32"
