"""What is trainable when: gradual unfreezing in three phases.

Phase 1 trains the head alone on frozen frames: that is what the search did. Phase 2 adds the upper
layers of both encoders, phase 3 everything else (Leygue et al., Interspeech 2025). Layer n is the
one whose output is hidden state n, so the head on hidden state L reads layers 1 to L (of several
hidden states L is the highest: what the lower ones come from is below it). What serves
all layers, such as DeBERTa's relative embeddings and their layer norm, waits for phase 3.

With layer-wise decay d, layer n learns at d^(L − n) of the rate, what lies below and beside the
layers at d^L (as in ELECTRA and BEiT), the head at the rate itself.

Of an encoder with adapters (`finetune.adapters`) these alone are trained, in the same layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import nn

from cache.encoders.audio_encoder import AudioEncoder
from cache.encoders.budget import GPU_SHARE, Need, batch_need, spoken_tokens
from cache.recipe import layer_numbers
from corpora.base.codec import Jsonable
from corpora.base.errors import ConfigError
from corpora.base.terminal import aligned
from finetune.adapters import has_adapters, is_adapter
from finetune.config import FinetuneConfig
from finetune.model import EmotionModel
from heads.losses import LossConfig

# Published: one rate a phase for all that is trainable in it. (Phase 1: 1e-5; here by default the
# rate of the search's trial, which was found on these very frames.)
LEARNING_RATES = {2: 3e-6, 3: 1e-6}
# The published rates are for encoders that know speech; at them, tiny ones do not move within some
# hundred steps. Measured on the sample corpus and on EMO-DB: at three times these rates the first
# epochs undo what the head had learnt.
TINY_LEARNING_RATES = {2: 1e-4, 3: 3e-5}
# Adapters start at 0 and there are few of them: at an encoder's rates they do not move.
ADAPTER_LEARNING_RATES = {2: 1e-4, 3: 1e-4}


@dataclass(frozen=True)
class PhaseConfig:
    """How one phase is trained.

    Attributes:
        phase: 1, 2 or 3.
        learning_rate: at the peak of the schedule, for all that is trainable.
        epochs: the most passes over the training rows.
        patience: evaluations (one an epoch) without a better one after which the phase ends.
        unfreeze_layers: see `finetune.phases.trainable_parts`.
        layer_decay: see `finetune.phases`; 1 is none.
        spec_augment: share of each utterance's frames, and of its mel bands, that are masked while
            its encoder is trained (`finetune.launch`).
        layerdrop: probability that a layer that is trained is passed over.
    """

    phase: int
    learning_rate: float
    epochs: int = FinetuneConfig.epochs
    patience: int = FinetuneConfig.patience
    unfreeze_layers: int | None = None
    layer_decay: float = 1.0
    spec_augment: float = 0.0
    layerdrop: float = 0.0

    @classmethod
    def of(cls, config: FinetuneConfig, phase: int, *, tiny: bool) -> PhaseConfig:
        """Phase 2 or 3 as the user asks, with the rate that holds for these encoders."""
        usual = TINY_LEARNING_RATES if tiny else LEARNING_RATES
        usual = ADAPTER_LEARNING_RATES if config.adapter else usual
        return cls(
            phase=phase,
            learning_rate=config.learning_rates.get(phase, usual[phase]),
            epochs=config.epochs,
            patience=config.patience,
            unfreeze_layers=config.unfreeze_layers,
            layer_decay=config.layer_decay,
            spec_augment=config.spec_augment,
            layerdrop=config.layerdrop,
        )


# Sixteen utterances of three seconds: a step then fits a laptop's memory with the full encoders'
# upper layers, and an epoch of some hundred utterances still has a dozen steps. A GPU spends as
# long on so few as the host on launching their kernels; four times as many keep it busy.
FRAME_BUDGET = {"cpu": 2_400, "cuda": 9_600}


@dataclass(frozen=True)
class StepConfig(Jsonable):
    """What the steps of all phases have in common.

    Attributes:
        frame_budget: largest number of frames that go through the encoders together, padding
            included.
        accumulate: batches of a step, over all processes together.
        loss: the loss; class weights are the training rows' inverse frequencies.
        weight_decay: of AdamW.
        warmup: share of a phase's steps with a rising learning rate; a cosine to 0 follows.
        clip: largest gradient norm.
        seed: for batches and dropout.
        attribute_weight: share of the attributes in the loss of a head of both.
    """

    json_optional = "attribute_weight"

    frame_budget: int = FRAME_BUDGET["cpu"]
    accumulate: int = 1
    loss: LossConfig = field(default_factory=LossConfig)
    weight_decay: float = 0.01
    warmup: float = 0.1
    clip: float = 1.0
    seed: int = 0
    attribute_weight: float = 0.0


PHASES = (1, 2, 3)
# Phases that train encoders.
ENCODER_PHASES = (2, 3)
# By default phase 2 unfreezes this part of the layers that the head reads.
UPPER_PART = 4
_NAMES = {"audio": "audio encoder", "text": "text encoder"}


@dataclass(frozen=True, eq=False)
class Part:
    """Parameters that become trainable together.

    Attributes:
        module: which module, in words.
        layers: which of its layers, in words.
        parameters: by their names in the model.
        factor: of the phase's learning rate.
    """

    module: str
    layers: str
    parameters: dict[str, nn.Parameter]
    factor: float = 1.0


@dataclass(frozen=True)
class TrainableRow:
    """One row of the table of what is trainable.

    Attributes:
        module: which module.
        layers: which of its layers.
        parameters: how many numbers.
        learning_rate: at the peak of the schedule.
    """

    module: str
    layers: str
    parameters: int
    learning_rate: float


def trainable_parts(
    model: EmotionModel,
    phase: int,
    unfreeze_layers: int | None = None,
    layer_decay: float = 1.0,
) -> tuple[Part, ...]:
    """What a phase trains, from the bottom up.

    Parameters that no logit depends on (a sentence pooler, the vector that masks frames in
    pre-training) belong to no part.

    Args:
        model: the model.
        phase: 1, 2 or 3.
        unfreeze_layers: upper layers of each encoder in phase 2; None is a quarter of those the
            head reads, at least one. More than there are means all.
        layer_decay: see above; below 1 each layer is a part of its own.

    Raises:
        ConfigError: another phase, or a negative number of layers.
    """
    if phase not in PHASES:
        raise ConfigError(f"phase {phase} is unknown; fine-tuning has the phases 1, 2 and 3.")
    if unfreeze_layers is not None and unfreeze_layers < 0:
        raise ConfigError(f"--unfreeze-layers {unfreeze_layers}: expected 0 or more.")
    parts = []
    if phase in ENCODER_PHASES:
        used = used_parameters(model)
        for modality in model.head.config.modalities:
            parts += _encoder_parts(model, modality, phase, unfreeze_layers, layer_decay, used)
    head = {f"head.{name}": value for name, value in model.head.named_parameters()}
    parts.append(Part("head", "all", head))
    return tuple(part for part in parts if part.parameters)


def lowest_trained(model: EmotionModel, modality: str, unfreeze_layers: int | None) -> int:
    """The lowest layer (from 1) that phase 2 trains; one more than the head reads for none."""
    read = layer_numbers(model.layers[modality])[-1]
    wanted = max(1, read // UPPER_PART) if unfreeze_layers is None else unfreeze_layers
    return max(1, read - wanted + 1)


def step_frames(
    model: EmotionModel,
    phases: Sequence[int],
    lengths: Sequence[int],
    *,
    unfreeze_layers: int | None = None,
    checkpointing: bool = False,
) -> int:
    """The frame budget of a step where none is asked for.

    On a GPU as many frames as its memory takes, all of it and not what is free: a run that goes on
    later has to make the same batches.

    Args:
        model: on its device.
        phases: that are trained; the highest needs the most.
        lengths: of the utterances, in frames.
        unfreeze_layers: see `trainable_parts`.
        checkpointing: whether activations are computed again.
    """
    most = FRAME_BUDGET[model.device.type]
    if model.device.type != "cuda" or not set(phases) & set(ENCODER_PHASES):
        return most
    _, total = torch.cuda.mem_get_info(model.device)
    left, audio = GPU_SHARE * total, model.audio_encoder

    def need(length: int) -> Need:
        found = Need(0, 0)
        for name, encoder in model.encoders.items():
            read = layer_numbers(model.layers[name])
            upper = read[-1] + 1 - lowest_trained(model, name, unfreeze_layers)
            found += batch_need(
                encoder.model.config,
                length if audio is None or encoder is audio else spoken_tokens(audio, length),
                compute_dtype=encoder.compute_dtype
                if isinstance(encoder, AudioEncoder)
                else "fp32",
                states=len(read),
                trained=encoder.layers if 3 in phases else upper,
                checkpointing=checkpointing,
            )
        return found

    # In float32: every weight; of adapters, else as if all were trained, gradient and two moments.
    weights = {name: parameter.numel() for name, parameter in model.named_parameters()}
    own = {name: n for name, n in weights.items() if is_adapter(name) or name.startswith("head.")}
    adapted = any(map(is_adapter, weights))
    left -= 4 * sum(weights.values()) + 3 * 4 * sum((own if adapted else weights).values())
    fitting = min(length * need(length).fitting(left) for length in set(lengths))
    # In hundreds: what a driver keeps for itself differs a little from one to the next.
    return min(most, max(fitting, 100) // 100 * 100)


def unfreeze(model: EmotionModel, parts: Sequence[Part]) -> list[nn.Parameter]:
    """Make exactly these parts trainable; returns their parameters."""
    model.requires_grad_(False)
    chosen = [parameter for part in parts for parameter in part.parameters.values()]
    for parameter in chosen:
        parameter.requires_grad_(True)
    return chosen


def trainable_table(parts: Sequence[Part], learning_rate: float) -> tuple[TrainableRow, ...]:
    """The parts of a phase with their numbers of parameters."""
    return tuple(
        TrainableRow(
            part.module,
            part.layers,
            sum(parameter.numel() for parameter in part.parameters.values()),
            learning_rate * part.factor,
        )
        for part in parts
    )


def format_table(rows: Sequence[TrainableRow]) -> str:
    """The table as text."""
    cells = [("module", "layers", "parameters", "learning rate")] + [
        (row.module, row.layers, f"{row.parameters:,}", f"{row.learning_rate:.3g}") for row in rows
    ]
    return "\n".join(aligned(cells, right=(2, 3)))


def used_parameters(model: EmotionModel) -> frozenset[str]:
    """Names of the parameters that the logits depend on.

    Asked of autograd, on half a second of noise and one word, and not guessed from names, which
    every architecture chooses anew.
    """
    named = dict(model.named_parameters())
    before = {name: parameter.requires_grad for name, parameter in named.items()}
    noise = torch.rand(8_000, generator=torch.Generator().manual_seed(0)) - 0.5
    training = model.training
    model.eval().requires_grad_(True)
    try:
        logits = model([noise], ["word"])
        gradients = torch.autograd.grad(logits.sum(), list(named.values()), allow_unused=True)
    finally:
        for name, parameter in named.items():
            parameter.requires_grad_(before[name])
        model.train(training)
    return frozenset(
        name for name, gradient in zip(named, gradients, strict=True) if gradient is not None
    )


def _encoder_parts(
    model: EmotionModel,
    modality: str,
    phase: int,
    unfreeze_layers: int | None,
    decay: float,
    used: frozenset[str],
) -> list[Part]:
    prefix = f"{modality}_encoder"
    encoder = model.get_submodule(prefix)
    read = layer_numbers(model.layers[modality])[-1]
    stack = encoder.stack  # None: no plain list of layers, so that only phase 3 can train them
    layers = list(stack)[:read] if isinstance(stack, nn.ModuleList) else []
    number = {
        parameter: position + 1
        for position, layer in enumerate(layers)
        for parameter in layer.parameters()
    }
    named = {
        f"{prefix}.{name}": parameter
        for name, parameter in encoder.named_parameters()
        if f"{prefix}.{name}" in used
    }
    title, lowest, parts = _NAMES[modality], 1, []
    if has_adapters(encoder):
        named = {name: p for name, p in named.items() if is_adapter(name)}
        title += ", adapters"
    if phase == 2:
        lowest = lowest_trained(model, modality, unfreeze_layers)
    else:
        shared = {name: p for name, p in named.items() if p not in number}
        parts.append(Part(title, "below and beside the layers", shared, decay**read))
    runs = [(lowest, read)] if decay == 1 else [(n, n) for n in range(lowest, read + 1)]
    for first, last in runs:
        held = {name: p for name, p in named.items() if first <= number.get(p, 0) <= last}
        parts.append(Part(title, _range(first, last), held, decay ** (read - last)))
    return parts


def _range(first: int, last: int) -> str:
    return f"layer {last}" if first == last else f"layers {first} to {last}"
