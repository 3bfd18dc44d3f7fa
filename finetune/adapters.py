"""LoRA (Hu et al. 2022): encoders that stay as they are, with small trained matrices beside theirs.

A linear layer W of an encoder answers Wx + (alpha / rank)·BAx, where A makes `rank` values of x. B
starts at 0, so that a model with adapters says what it said without. They are put into all layers
that the head reads; phase 2 trains those of the upper layers, phase 3 all of them, each with the
head. In phase 2 the lower ones are still 0: that is why its cached hidden states hold.

They are peft's (an extra), put into the encoder's own module: its forward pass, its list of layers
and its configuration stay what they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from cache.encoders.audio_encoder import AudioEncoder
from cache.encoders.grid import read_config
from cache.encoders.text_encoder import TextEncoder
from cache.recipe import LayersRead, layer_numbers
from corpora.base.errors import ConfigError, MissingExtraError, did_you_mean
from corpora.base.files import write_json
from finetune.config import FinetuneConfig
from finetune.model_files import save_tensors
from finetune.upper import probes
from heads.runs import seed_from

Encoder = AudioEncoder | TextEncoder

#: Query and value projections by what architectures call them (Whisper, wav2vec 2.0, HuBERT; BERT,
#: RoBERTa, data2vec; DeBERTa-v2 and -v3; W2V-BERT; DistilBERT; DeBERTa). WavLM's attention reads
#: the weights of its projections without calling them: there, the two feed-forward matrices.
USUAL_TARGETS = (
    ("q_proj", "v_proj"),
    ("query", "value"),
    ("query_proj", "value_proj"),
    ("linear_q", "linear_v"),
    ("q_lin", "v_lin"),
    ("in_proj",),
    ("intermediate_dense", "output_dense"),
)
# As peft has them, so that it reads the folder too.
SETTINGS, WEIGHTS, PREFIX = "adapter_config.json", "adapter_model.safetensors", "base_model.model."
# Keeps the draws of A apart from those of batches and dropout.
_DOMAIN = 6


def require_peft() -> None:
    """Check before any training that adapters can be made.

    Raises:
        MissingExtraError: peft is not installed.
    """
    if find_spec("peft") is None:
        raise MissingExtraError(
            "LoRA needs the package peft: python -m pip install -c constraints.txt -e '.[lora]'"
        )


def is_adapter(name: str) -> bool:
    """Whether a parameter of that name belongs to an adapter."""
    return ".lora_" in name


def has_adapters(encoder: nn.Module) -> bool:
    """Whether there are adapters in an encoder."""
    return any(is_adapter(name) for name, _ in encoder.named_parameters())


def add_adapters(
    encoders: Mapping[str, Encoder], layers: Mapping[str, LayersRead], config: FinetuneConfig
) -> dict[str, Any]:
    """Put adapters into the layers that a head reads.

    Args:
        encoders: by modality, changed in place.
        layers: what the head reads of each.
        config: rank, alpha, targets, and the seed that A is drawn by.

    Returns:
        What they are, JSON values: rank, alpha, and by modality the names that were adapted.

    Raises:
        MissingExtraError: peft is not installed.
        ConfigError: a target is no linear layer of these encoders, or one that is never called; or
            an encoder has no list of layers, or none of the targets.
    """
    require_peft()
    alpha = config.lora_alpha or 2 * config.lora_rank
    chosen: dict[str, list[str]] = {}
    known: set[str] = set()
    with torch.random.fork_rng([]):
        torch.manual_seed(seed_from(config.seed, _DOMAIN))
        for modality, encoder in encoders.items():
            called = _linear_layers(encoder, layer_numbers(layers[modality])[-1], modality)
            if not called:
                continue  # the head reads the input of its first layer
            known |= {_short(name) for name in called}
            chosen[modality] = targets = _targets(called, config.lora_targets, modality)
            _inject(encoder, config.lora_rank, alpha, _matching(called, targets))
    missing = [t for t in config.lora_targets if all(t not in own for own in chosen.values())]
    if missing:
        near = did_you_mean(missing[0], known)
        raise ConfigError(
            f"--lora-targets {missing[0]}: no linear layer of that name inside the layers of "
            f"{' or '.join(encoders)}.{near} Known: {', '.join(sorted(known))}."
        )
    if not chosen:
        raise ConfigError(
            "--adapter lora: the head reads what goes into the first layer, so there is no layer "
            "to adapt. Take a head of a higher layer, or leave it out."
        )
    return {"rank": config.lora_rank, "alpha": alpha, "targets": chosen}


def merge_adapters(encoder: Encoder) -> None:
    """Add what adapters have learnt to the weights beside them, and take them out."""
    from peft.tuners.lora import LoraLayer

    model: Any = encoder.model
    for name, module in list(model.named_modules()):
        if isinstance(module, LoraLayer):
            module.merge()
            model.set_submodule(name, module.get_base_layer())
    del model.peft_config


def base_tensors(model: nn.Module) -> dict[str, Tensor]:
    """The weights of a module without its adapters, by the names they have without them."""
    return {
        name.replace(".base_layer.", "."): value
        for name, value in model.state_dict().items()
        if not is_adapter(name)
    }


def write_adapter(folder: Path, encoder: Encoder) -> None:
    """Write adapters as peft does: `PeftModel.from_pretrained(encoder, folder)` reads them too."""
    folder.mkdir()
    model: Any = encoder.model
    (own,) = model.peft_config.values()
    settings = {
        "peft_type": "LORA",
        "r": own.r,
        "lora_alpha": own.lora_alpha,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": sorted(own.target_modules),
        "inference_mode": True,
    }
    write_json(folder / SETTINGS, settings)
    tensors = {
        PREFIX + name.replace(".default.", "."): value
        for name, value in model.state_dict().items()
        if is_adapter(name)
    }
    save_tensors(tensors, folder / WEIGHTS)


def read_adapter(folder: Path, encoder: Encoder) -> None:
    """Put adapters that `write_adapter` wrote into the encoder they are of.

    Raises:
        MissingExtraError: peft is not installed.
        ConfigError: they do not fit it.
    """
    require_peft()
    settings = read_config(folder, SETTINGS)
    found = {
        name.removeprefix(PREFIX).replace(".weight", ".default.weight"): value
        for name, value in load_file(folder / WEIGHTS).items()
    }
    try:
        _inject(encoder, settings["r"], settings["lora_alpha"], settings["target_modules"])
        own = {name for name in encoder.model.state_dict() if is_adapter(name)}
        if own != set(found):
            raise ValueError("its weights are of other layers than it names")
        encoder.model.load_state_dict(found, strict=False)
    except (KeyError, RuntimeError, TypeError, ValueError) as error:
        raise ConfigError(
            f"{folder} does not fit the encoder beside it ({error}). Restore the model."
        ) from error
    encoder.requires_grad_(False).eval()


def _inject(encoder: Encoder, rank: int, alpha: int, names: Sequence[str]) -> None:
    from peft import LoraConfig, inject_adapter_in_model

    settings = LoraConfig(r=rank, lora_alpha=alpha, target_modules=list(names))
    inject_adapter_in_model(settings, encoder.model)
    encoder.requires_grad_(False)


def _linear_layers(encoder: Encoder, read: int, modality: str) -> dict[str, bool]:
    """The linear layers inside the lowest `read` layers by name, and whether each is called.

    Raises:
        ConfigError: the encoder's layers are not a plain list.
    """
    if encoder.stack is None:
        raise ConfigError(
            f"--adapter lora: the layers of the {modality} encoder are not a plain list, so there "
            "is no telling upper ones from lower ones. Leave it out, or choose another encoder."
        )
    inside = {module for layer in list(encoder.stack)[:read] for module in layer.modules()}
    found = {
        module: name
        for name, module in encoder.model.named_modules()
        if isinstance(module, nn.Linear) and module in inside
    }
    called: set[nn.Module] = set()
    hooks = [module.register_forward_hook(lambda own, *_: called.add(own)) for module in found]
    try:
        with torch.no_grad():
            probes(encoder, [encoder.layers])
    finally:
        for hook in hooks:
            hook.remove()
    return {name: module in called for module, name in found.items()}


def _targets(called: Mapping[str, bool], asked: Sequence[str], modality: str) -> list[str]:
    """Those of an encoder's linear layers that are adapted, by their last names.

    Raises:
        ConfigError: none is, or one of them would do nothing.
    """
    for group in USUAL_TARGETS if not asked else (asked,):
        there = [target for target in group if _matching(called, [target])]
        idle = [t for t in there if not all(called[name] for name in _matching(called, [t]))]
        if asked and idle:
            raise ConfigError(
                f"--lora-targets {idle[0]}: the {modality} encoder reads the weights of this layer "
                "without calling it, so that an adapter there would do nothing. Of those it calls: "
                f"{_names(name for name, is_called in called.items() if is_called)}."
            )
        if there and not idle and (asked or len(there) == len(group)):
            return there
    wanted = "none of " + ", ".join(asked) if asked else "no query and value projection we know"
    raise ConfigError(
        f"--adapter lora: the {modality} encoder has {wanted} in its layers. Name some of its "
        f"linear layers with --lora-targets: {_names(called)}."
    )


def _matching(names: Iterable[str], targets: Sequence[str]) -> list[str]:
    return [name for name in names if any(name.endswith(f".{target}") for target in targets)]


def _names(names: Iterable[str]) -> str:
    return ", ".join(sorted({_short(name) for name in names}))


def _short(name: str) -> str:
    return name.rpartition(".")[2]
