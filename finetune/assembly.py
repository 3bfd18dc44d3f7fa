"""Putting a model together from a head and the encoders its frames came from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from cache.encoders.audio_encoder import AudioEncoder, ComputeDtype, load_audio_encoder
from cache.encoders.padding import Padding
from cache.encoders.text_encoder import TextEncoder, load_text_encoder
from cache.encoders.vad import load_detector
from cache.frames import Frames
from cache.layers import LayersRead, layer_numbers
from corpora.base.errors import ConfigError
from finetune.model import EmotionModel
from finetune.model_directory import Parts, front_end_files
from heads.head import Head

Encoder = TypeVar("Encoder", AudioEncoder, TextEncoder)


def assemble(
    head: Head,
    directories: Mapping[str, Path],
    layers: Mapping[str, LayersRead],
    *,
    device: torch.device | str = "cpu",
    compute_dtype: ComputeDtype | None = None,
    padding: Padding | None = None,
    speech_dtype: str = "float16",
    provenance: Mapping[str, Any] | None = None,
) -> EmotionModel:
    """Put a head on its encoders.

    Layers above the highest one that the head reads are left out: they would be computed, stored
    and called trainable for nothing.

    Args:
        head: a copy is not made.
        directories: the encoder of each modality that the head reads (see `resolve_encoder`).
        layers: the hidden state that the head reads of each, or those that it weighs.
        device: where it goes.
        compute_dtype: of the speech encoder; by default as in extraction, bf16 on a GPU.
        padding: of a speech encoder without a mask, as in extraction; None is the usual one.
        speech_dtype: what speech probabilities are stored as in the cache.
        provenance: what goes into the model's config.json, JSON values.

    Raises:
        ConfigError: an encoder cannot be loaded, or has not the layer or the width the head reads.
    """
    modalities = head.config.modalities
    usual: ComputeDtype = "bf16" if torch.device(device).type == "cuda" else "fp32"
    audio = text = None
    if "audio" in modalities:
        audio = load_audio_encoder(
            directories["audio"], compute_dtype=compute_dtype or usual, padding=padding
        )
        _check(head, "audio", audio, layers["audio"])
        audio = without_upper_layers(audio, layer_numbers(layers["audio"])[-1]).to(device)
    if "text" in modalities:
        text = load_text_encoder(directories["text"])
        _check(head, "text", text, layers["text"])
        text = without_upper_layers(text, layer_numbers(layers["text"])[-1]).to(device)
    parts = Parts(
        head=head.to(device),
        audio_encoder=audio,
        text_encoder=text,
        detector=load_detector(device) if head.config.needs_speech else None,
        layers={name: layers[name] for name in modalities},
        front_ends={name: front_end_files(directories[name], name) for name in modalities},
        speech_dtype=speech_dtype,
        provenance=dict(provenance or {}),
    )
    return EmotionModel(parts).requires_grad_(False)


def without_upper_layers(encoder: Encoder, layer: int) -> Encoder:
    """An encoder without the layers that hidden state `layer` does not need.

    Some encoders end in a layer norm that only their last hidden state passes through. There one
    unused layer has to stay, so that the state asked for is not taken for the last: whether it is
    so is found by comparing the outputs.

    Args:
        encoder: on the CPU; it loses its layers too.
        layer: a hidden state number.

    Returns:
        The same model in a new wrapper.
    """
    stack = encoder.stack
    keep = max(layer, 1)
    if stack is None or keep >= encoder.layers:
        return encoder
    before = _probe(encoder, layer)
    removed = list(stack)[keep:]
    del stack[keep:]
    shorter = _wrapped(encoder, keep)
    if not torch.equal(_probe(shorter, layer), before):
        stack.append(removed[0])
        shorter = _wrapped(encoder, keep + 1)
    return shorter


def _wrapped(encoder: Encoder, layers: int) -> Encoder:
    """A wrapper that knows the model's new number of layers."""
    model: Any = encoder.model
    model.config.num_hidden_layers = layers
    if isinstance(encoder, AudioEncoder):
        return AudioEncoder(model, encoder.front_end, encoder.grid, encoder.compute_dtype)
    return TextEncoder(model, encoder.tokenizer, encoder.maximum_tokens)


def _probe(encoder: AudioEncoder | TextEncoder, layer: int) -> Tensor:
    """`[T, D]`, a hidden state for half a second of noise, or for a word."""
    with torch.no_grad():
        if isinstance(encoder, AudioEncoder):
            noise = torch.rand(8_000, generator=torch.Generator().manual_seed(0)) - 0.5
            frames: Frames = encoder([noise], [layer])[layer]
        else:
            frames = encoder(["word"], [layer])[layer]
    return frames.values


def _check(
    head: Head, modality: str, encoder: AudioEncoder | TextEncoder, read: LayersRead
) -> None:
    numbers = layer_numbers(read)
    for layer in numbers:
        if not 0 <= layer <= encoder.layers:
            raise ConfigError(
                f"the head reads layer {layer} of its {modality} encoder; this one has layers 0 to "
                f"{encoder.layers}."
            )
    if len(numbers) != head.config.layers(modality):
        raise ConfigError(
            f"the head weighs {head.config.layers(modality)} {modality} layers, and "
            f"{len(numbers)} are named ({', '.join(map(str, numbers))})."
        )
    width = head.config.dims[modality] // len(numbers)
    if encoder.dim != width:
        raise ConfigError(
            f"the head reads {modality} frames of {width} values; this encoder gives "
            f"{encoder.dim}. Run `extract` and `search` with it first."
        )
