"""Encoders of transformers: loading one, and reading chosen hidden states from it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel
from transformers.utils import logging as transformers_logging

from cache.encoders.device import is_out_of_memory
from cache.encoders.files import weight_files
from corpora.base.errors import ConfigError, EmopoolError, UnreadableLayersError

# What may be missing from a checkpoint because no hidden state passes through it: sentence poolers,
# and the vector that masks frames in pre-training.
_UNUSED_WEIGHTS = ("pooler.", "masked_spec_embed")
RANDOM = "they would be random. Check that config.json belongs to the weights."


def load_model(
    directory: Path,
    overrides: Mapping[str, object],
    model_class: Any = None,  # noqa: ANN401 (untyped library)
    key_mapping: Mapping[str, str] | None = None,
    lacking: str = RANDOM,
) -> Any:  # noqa: ANN401 (untyped library)
    """The bare encoder in a directory, in float32, frozen and in eval mode.

    Args:
        directory: config.json and weights. Code that comes with an encoder is never run.
        overrides: entries of its config to replace, where it has them.
        model_class: of transformers; by default what config.json names. One has to be given for
            the encoder of an encoder-decoder.
        key_mapping: from patterns in the names of weights to what stands there instead.
        lacking: what follows where weights are missing, for the message.

    Raises:
        ConfigError: the model cannot be built, or weights for some of its layers are missing.
    """
    safe = weight_files(directory)[0].suffix == ".safetensors"
    with loading(
        f"{directory} cannot be loaded as an encoder",
        "Check config.json and the weights, or copy them again.",
    ):
        config = AutoConfig.from_pretrained(directory, local_files_only=True)
        for name, value in overrides.items():
            if hasattr(config, name):
                setattr(config, name, value)
        if config.is_encoder_decoder and model_class is None:
            raise ValueError("it is an encoder-decoder, and Emopool reads encoders")
        model, report = (model_class or AutoModel).from_pretrained(
            directory,
            config=config,
            local_files_only=True,
            use_safetensors=safe,
            dtype=torch.float32,  # some checkpoints (DeBERTa-v3) are stored in half precision
            output_loading_info=True,
            key_mapping=dict(key_mapping) if key_mapping else None,
        )
    refuse_missing(directory, [key for key in report["missing_keys"] if not _unused(key)], lacking)
    return model.requires_grad_(False).eval()


def refuse_missing(directory: Path, missing: Iterable[str], lacking: str = RANDOM) -> None:
    """Refuse a model of which weights are missing (ConfigError); `lacking` says what follows."""
    names = sorted(missing)
    if names:
        raise ConfigError(
            f"{directory}: the weights lack {len(names)} parameters of the model, such as "
            f"{names[0]}; {lacking}"
        )


class Encoder(nn.Module):
    """What encoders of sound and of text have in common.

    It comes frozen and in eval mode, and stays in eval mode whatever its parent is told, until a
    parameter of it is made trainable. Inference mode is the caller's choice.

    Attributes:
        model: the transformers model.
        dim: features per frame.
        layers: the number of the last layer; 0 is the input of the first.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        config: Any = model.config
        self.model = model
        self.layers = int(config.num_hidden_layers)
        self.dim = int(config.hidden_size)

    @property
    def stack(self) -> nn.ModuleList | None:
        """The list of layers, if it is a plain one; `stack[L]` turns layer L into L + 1."""
        found = [
            module
            for name, module in self.model.named_modules()
            if isinstance(module, nn.ModuleList)
            and len(module) == self.layers
            and name.rpartition(".")[2] in {"layer", "layers"}
        ]
        return found[0] if len(found) == 1 else None

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.model.parameters()).device

    def train(self, mode: bool = True) -> Self:
        """Training mode, for an encoder with trainable parameters; else it stays in eval mode."""
        return super().train(mode and any(p.requires_grad for p in self.parameters()))

    def read_layers(self, run: Callable[[], Any], wanted: Sequence[int]) -> dict[int, Tensor]:
        """Run the model once and keep only the layers asked for.

        Layer L is what layer L (counted from 0) receives; `layers` is the encoder's last hidden
        state, which in some encoders is a layer norm after the last layer.

        Args:
            run: calls the model and returns its output.
            wanted: layer numbers.

        Returns:
            Layer number to `[B, T, D]`.

        Raises:
            ConfigError: a number is out of range.
            UnreadableLayersError: intermediate layers cannot be read.
        """
        stack, layers = self.stack, self.layers
        for layer in wanted:
            if not 0 <= layer <= layers:
                raise ConfigError(
                    f"layer {layer} does not exist: this encoder has layers 0 (the input of the "
                    f"first) to {layers} (the last)."
                )
            if layer != layers and stack is None:
                raise UnreadableLayersError(
                    f"layer {layer} cannot be read from this encoder, whose layers are not a plain "
                    f"list. Take the last, {layers}."
                )
        kept: dict[int, Tensor] = {}

        def keep(layer: int, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            kept[layer] = args[0] if args else kwargs["hidden_states"]

        handles = [
            stack[layer].register_forward_pre_hook(partial(keep, layer), with_kwargs=True)
            for layer in set(wanted)
            if stack is not None and layer < layers
        ]
        try:
            last = run().last_hidden_state
        finally:
            for handle in handles:
                handle.remove()
        if layers in wanted:
            kept[layers] = last
        return {layer: kept[layer] for layer in wanted}


@contextmanager
def loading(what: str, advice: str) -> Iterator[None]:
    """Quietly let libraries read files of an encoder; whatever they raise becomes one message.

    Args:
        what: did not work, with the place.
        advice: what to do then.

    Raises:
        ConfigError: with the library's reason between the two.
    """
    try:
        with quiet():
            yield
    except EmopoolError:
        raise
    # Files of wrong types and damaged ones reach nearly every line of these libraries, and some of
    # them (tokenizers, safetensors) raise exceptions that have no other base.
    except Exception as error:
        if is_out_of_memory(error):  # says nothing of the files
            raise
        raise ConfigError(f"{what} ({first_line(error)}). {advice}") from error


@contextmanager
def quiet() -> Iterator[None]:
    """No progress bars or load reports from transformers; what matters is checked and raised."""
    verbosity = transformers_logging.get_verbosity()
    bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bars:
            transformers_logging.enable_progress_bar()


def _unused(key: str) -> bool:
    return any(part in key for part in _UNUSED_WEIGHTS)


def first_line(error: Exception) -> str:
    """The first line of a library's message, for one of ours."""
    if "weights_only" in str(error):  # torch advises to run what is in the file: never
        return "its pickled weights are damaged, or hold more than tensors"
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
