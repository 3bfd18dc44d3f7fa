"""The processes and the device that training runs on, by Hugging Face accelerate.

One process by default; several under `accelerate launch` or `torchrun`, each with a copy of the
model and batches of its own. Which arithmetic the speech encoder computes in is its own affair, as
in extraction (`AudioEncoder.compute_dtype`): text encoders and the head stay in float32, for their
attention and their variances overflow and cancel in half precision.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any, Literal

import torch
from accelerate import Accelerator
from accelerate.utils import AutocastKwargs, DistributedDataParallelKwargs
from torch import Tensor, nn

from cache.frames import Frames
from corpora.base.command_options import PRECISIONS
from corpora.base.errors import ConfigError
from finetune.augment import Augment
from finetune.batches import Batch
from finetune.boundary import Boundary
from finetune.model import EmotionModel
from heads.head import as_inputs, stack_logits


def compute_activations_again(model: EmotionModel) -> None:
    """Let the backward pass compute again what happens inside layers in training mode.

    Raises:
        ConfigError: an encoder's architecture cannot.
    """
    for encoder in (model.audio_encoder, model.text_encoder):
        if encoder is None:
            continue
        library: Any = encoder.model
        if not library.supports_gradient_checkpointing:
            raise ConfigError(
                f"{type(library).__name__} has no gradient checkpointing. Leave "
                "--gradient-checkpointing out, and lower --frame-budget instead."
            )
        # Its older name warns in transformers 5.23, and this one is not in earlier versions.
        newer = getattr(library, "activation_checkpointing_enable", None)
        (newer or library.gradient_checkpointing_enable)({"use_reentrant": False})


class Trainee(nn.Module):
    """A model that takes batches of recordings and texts, or of cached hidden states.

    Args:
        model: the model.
        boundary: which modalities come from the cache, and the layers that are run from there.
        augment: what is done to the encoders in training.
    """

    def __init__(
        self, model: EmotionModel, boundary: Boundary | None = None, augment: Augment | None = None
    ) -> None:
        super().__init__()
        self.model = model
        self._boundary = boundary
        self._augment = augment or Augment()

    def forward(self, batch: Batch, dropout_seed: int | None = None) -> Tensor:
        """Logits `[B, C]`.

        Args:
            batch: with hidden states for each modality of the boundary.
            dropout_seed: for the head's dropout and the augmentation; None switches both off.
        """
        if dropout_seed is None:
            return self._logits(batch, None)
        with self._augment.applied(self.model, dropout_seed):
            return self._logits(batch, dropout_seed)

    def _logits(self, batch: Batch, dropout_seed: int | None) -> Tensor:
        if not batch.states:
            logits: Tensor = self.model(batch.waveforms, batch.texts, dropout_seed=dropout_seed)
            return logits
        frames = {name: self._frames(name, batch) for name in self.model.head.config.modalities}
        seeds = None if dropout_seed is None else [dropout_seed]
        return stack_logits([self.model.head], as_inputs(frames), seeds)[0]

    def _frames(self, modality: str, batch: Batch) -> Frames:
        if modality not in batch.states:
            return (
                self.model.listen(batch.waveforms)
                if modality == "audio"
                else self.model.read(batch.texts)
            )
        if self._boundary is None:
            raise ConfigError("a batch of cached hidden states needs the layers to run from them.")
        upper = self._boundary.uppers[modality]
        return upper(batch.states[modality], batch.lengths.get(modality))


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
