"""The processes and the device that training runs on, by Hugging Face accelerate.

One process by default; several under `accelerate launch` or `torchrun`, each with a copy of the
model and batches of its own. Which arithmetic the speech encoder computes in is its own affair, as
in extraction (`AudioEncoder.compute_dtype`): text encoders and the head stay in float32, for their
attention and their variances overflow and cancel in half precision.

Noise for encoders that are trained: masked stretches of the input, layers passed over.

SpecAugment (Park et al. 2019) hides stretches of time and a band of the spectrogram behind its
mean, which is 0 after the front end's normalisation. Layerdrop (Fan et al. 2020) is ours: the
library's asks for the mode of the whole encoder, and would drop frozen layers too.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import AutocastKwargs, DistributedDataParallelKwargs
from torch import Tensor, nn

from cache.encoders.device import ComputeDtype, usual_dtype
from cache.encoders.grid import FBANK_MODELS
from cache.frames import Frames
from corpora.base.command_options import PRECISIONS
from corpora.base.errors import ConfigError
from corpora.base.terminal import progress_bar
from finetune.batches import Batch, Examples, counted, load_batches, plan_batches
from finetune.model import EmotionModel
from finetune.upper import Boundary, PassOn, standing_in
from heads.head import as_inputs, stack_logits
from heads.runs import seed_from

# Frames of a masked stretch, .2 s: as in wav2vec 2.0, which takes ten at the same 20 ms.
SPAN = 10
# Two frames of 10 ms are stacked to one of 20 ms: a band is masked in both.
STACKED = 2
# Keeps the draws apart from those of dropout.
_DOMAIN = 5


@dataclass(frozen=True, eq=False)
class Augment:
    """What is done to the encoders in training.

    Attributes:
        spec: share of frames and of mel bands that are masked; 0 for none.
        drop: probability that a layer is passed over.
        layers: by modality, the positions of layers that are trained.
        outputs: by modality, see `PassOn`.
    """

    spec: float = 0.0
    drop: float = 0.0
    layers: dict[str, tuple[int, ...]] = field(default_factory=dict)
    outputs: dict[str, int] = field(default_factory=dict)

    @contextmanager
    def applied(self, model: EmotionModel, seed: int) -> Iterator[None]:
        """During one forward pass; all draws follow from the seed."""
        generator = torch.Generator().manual_seed(seed_from(seed, _DOMAIN))
        with ExitStack() as stack:
            for modality, positions in self.layers.items():
                drawn = torch.rand(len(positions), generator=generator) < self.drop
                passed: dict[int, nn.Module] = {
                    position: PassOn(self.outputs[modality])
                    for position, out in zip(positions, drawn.tolist(), strict=True)
                    if out
                }
                layers = model.get_submodule(f"{modality}_encoder").stack
                if isinstance(layers, nn.ModuleList):
                    stack.enter_context(standing_in(layers, passed))
            if self.spec and model.audio_encoder is not None:
                stack.enter_context(_masked_input(model.audio_encoder.model, self.spec, generator))
            yield


def takes_spectrograms(model: EmotionModel) -> bool:
    """Whether the speech encoder's input has mel bands to mask."""
    if model.audio_encoder is None:
        return False
    config: Any = model.audio_encoder.model.config
    return config.model_type in FBANK_MODELS


def masked(features: Tensor, mask: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Features `[B, T, F]` with stretches of time and one band of mels set to 0.

    Args:
        features: of spectrograms, two frames stacked; with zeros behind each utterance.
        mask: `[B, T]`, 1 where a frame is valid.
        share: of each utterance's frames and of its mel bands, at most.
        generator: for the draws.
    """
    hidden = torch.zeros(features.shape, dtype=torch.bool)
    bands = features.shape[2] // STACKED
    for row, frames in enumerate(mask.sum(dim=1).tolist()):
        wanted = share * frames / SPAN
        # One more stretch by chance, so that short utterances get their share on average.
        count = int(wanted) + int(float(torch.rand(1, generator=generator)) < wanted % 1)
        for start in torch.randint(max(1, frames - SPAN + 1), (count,), generator=generator):
            hidden[row, int(start) : int(start) + SPAN] = True
        width = int(torch.randint(int(share * bands) + 1, (1,), generator=generator))
        low = int(torch.randint(bands - width + 1, (1,), generator=generator))
        for stacked in range(STACKED):
            hidden[row, :, stacked * bands + low : stacked * bands + low + width] = True
    return features.masked_fill(hidden.to(features.device), 0.0)


@contextmanager
def _masked_input(model: nn.Module, share: float, generator: torch.Generator) -> Iterator[None]:
    def hook(_: nn.Module, inputs: Any, named: dict[str, Any]) -> Any:  # noqa: ANN401
        features, mask = named["input_features"], named["attention_mask"]
        return inputs, {**named, "input_features": masked(features, mask, share, generator)}

    handle = model.register_forward_pre_hook(hook, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


def compute_activations_again(model: EmotionModel) -> None:
    """Let the backward pass compute again what happens inside layers in training mode.

    Raises:
        ConfigError: an encoder's architecture cannot.
    """
    for encoder in model.encoders.values():
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
        accelerator: wraps and sums.
        device: where its model lies.
        rank: its number.
        world: how many there are.
    """

    accelerator: Accelerator
    device: torch.device
    rank: int = 0
    world: int = 1

    @property
    def leads(self) -> bool:
        """Whether it is the one that writes and speaks."""
        return self.rank == 0

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


def start_engine(device: torch.device | str = "cpu") -> Engine:
    """Find the other processes, where there are.

    Args:
        device: of this process (see `cache.encoders.device.choose_device`).

    Raises:
        ConfigError: several processes were told to train on one GPU.
    """
    device = torch.device(device)
    accelerator = Accelerator(
        cpu=device.type == "cpu",
        # "no" although bf16 may be computed in: the encoders see to it themselves.
        mixed_precision="no",
        kwargs_handlers=[AutocastKwargs(enabled=False)],
    )
    rank, world = accelerator.process_index, accelerator.num_processes
    if world > 1 and device.type == "cuda" and accelerator.device != device:
        raise ConfigError(
            f"--device {device}: process {rank} of {world} trains on {accelerator.device}. "
            "Leave the number out, so that each process takes a GPU of its own."
        )
    return Engine(accelerator, device, rank, world)


def compute_dtype(asked: str, device: torch.device | str) -> ComputeDtype:
    """What the speech encoder computes in.

    Args:
        asked: `fp32`, `bf16` or `auto`: what `accelerate launch --mixed_precision` asks for; else
            as in extraction.
        device: where.

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
        return "bf16" if launched == "bf16" else usual_dtype(device)
    return "bf16" if asked == "bf16" else "fp32"


def predict_logits(
    model: EmotionModel,
    examples: Examples,
    frame_budget: int,
    *,
    skipped: dict[str, str] | None = None,
    title: str = "",
    boundary: Boundary | None = None,
    engine: Engine | None = None,
) -> Tensor:
    """Logits `[N, C + A]` of examples in their order, float32 on the CPU.

    Args:
        model: put in eval mode.
        examples: what to score.
        frame_budget: see `plan_batches`.
        skipped: where given, reasons of unreadable recordings are put here, and their rows are NaN;
            otherwise an unreadable recording raises.
        title: of the progress bar; "" for none.
        boundary: hidden states from the cache, which take the place of recordings or texts.
        engine: the processes that share the work; each gets all logits.

    Raises:
        AudioError: a recording cannot be read, and `skipped` is None.
    """
    model.eval()
    rank, world = (0, 1) if engine is None else (engine.rank, engine.world)
    # With several processes a sum puts the rows together.
    outputs = model.head.config.outputs
    logits = torch.full((len(examples), outputs), float("nan") if world == 1 else 0.0)
    lengths = counted(model, examples.lengths, frame_budget)
    plan = plan_batches(lengths, frame_budget)[rank::world]
    batches = load_batches(
        examples.utterances,
        plan,
        audio=model.audio_encoder is not None,
        skipped=skipped,
        boundary=boundary,
    )
    trainee = Trainee(model, boundary)
    bar = progress_bar(title, sum(map(len, plan)), "utterance", show=bool(title))
    # Not inference mode: some encoders keep position embeddings for the next call, and those of
    # inference mode cannot be trained through.
    with bar, torch.no_grad():
        for batch in batches:
            logits[list(batch.rows)] = trainee(batch).float().cpu()
            bar.update(len(batch.rows))
    return logits if engine is None else engine.sum(logits).cpu()
