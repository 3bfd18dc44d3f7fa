"""The upper layers of an encoder, run from a hidden state that was computed before.

`hidden_states[L]` is what layer L (counted from 0) receives, so what follows from it is all that
the lower layers have a part in. Whether an architecture keeps to that (some hand a position bias
from their first layer to the others) is not guessed from its name: both ways are run and compared.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cache.encoders.audio_encoder import AudioEncoder
from cache.encoders.grid import FBANK_MODELS
from cache.encoders.text_encoder import TextEncoder, Tokens
from cache.frames import Frames
from finetune.engine.stand_ins import PassOn, StartFrom, standing_in

# Largest difference between both ways, relative to the largest value: what is rounded.
TOLERANCE = {"fp32": 1e-4, "bf16": 5e-2}


@dataclass(frozen=True, eq=False)
class Upper:
    """Layers of an encoder.

    Attributes:
        encoder: the encoder.
        start: the hidden state that they are run from.
        layer: the hidden state that is wanted, at least `start`.
        outputs: see `PassOn`.
    """

    encoder: AudioEncoder | TextEncoder
    start: int
    layer: int
    outputs: int

    def __call__(self, states: Frames) -> Frames:
        """Frames of hidden state `layer` from those of `start`, float32 on the encoder's device."""
        states = states.to(self.encoder.device, torch.float32)
        if self.start == self.layer:
            return states
        stack = self.encoder.stack
        assert stack is not None, "upper layers are those of a list"
        padded, mask = _padded(states)
        substitutes: dict[int, nn.Module] = {n: PassOn(self.outputs) for n in range(self.start)}
        substitutes[self.start] = StartFrom(stack[self.start], padded)
        with standing_in(stack, substitutes):
            return self._run(states, mask)

    def _run(self, states: Frames, mask: Tensor) -> Frames:
        """The encoder's own pass on an input of the right shape, which nothing depends on."""
        if isinstance(self.encoder, TextEncoder):
            blank = [_blank(length) for length in states.lengths.tolist()]
            read: Frames = self.encoder(blank, [self.layer])[self.layer]
            return read
        config: Any = self.encoder.model.config
        features = torch.zeros(*mask.shape, int(config.feature_projection_input_dim))
        inputs = {"input_features": features.to(mask.device), "attention_mask": mask.long()}
        values = self.encoder.states(inputs, [self.layer])[self.layer]
        frames = Frames.from_padded(values, mask).to(dtype=torch.float32)
        return frames if states.speech is None else frames.with_speech(states.speech)


def upper_layers(encoder: AudioEncoder | TextEncoder, start: int, layer: int) -> Upper | str:
    """The layers from a hidden state on; or, in words, why they cannot be run by themselves.

    Args:
        encoder: in eval mode.
        start: the hidden state to start from.
        layer: the hidden state wanted.
    """
    if start == layer:
        return Upper(encoder, start, layer, 0)
    if encoder.stack is None:
        return "its layers are not a plain list"
    config: Any = encoder.model.config
    if isinstance(encoder, AudioEncoder) and config.model_type not in FBANK_MODELS:
        return "it reads waveforms through convolutions"
    found = Upper(encoder, start, layer, layer_outputs(encoder))
    with torch.no_grad():
        probes = _probes(encoder, [start, layer])
        try:
            again = found(probes[start]).values
        except (AttributeError, IndexError, RuntimeError, TypeError, ValueError):
            return "its upper layers need more than hidden states"
    expected = probes[layer].values
    precision = encoder.compute_dtype if isinstance(encoder, AudioEncoder) else "fp32"
    largest = TOLERANCE[precision] * float(expected.abs().max())
    if again.shape != expected.shape or float((again - expected).abs().max()) > largest:
        return "its upper layers depend on more than hidden states"
    return found


def layer_outputs(encoder: AudioEncoder | TextEncoder) -> int:
    """How many values a layer of an encoder returns; 0 for its hidden states as such."""
    assert encoder.stack is not None, "asked of encoders with a list of layers"
    outputs: list[int] = []

    def look(_: nn.Module, inputs: object, output: object) -> None:
        outputs.append(len(output) if isinstance(output, tuple) else 0)

    handle = encoder.stack[0].register_forward_hook(look)
    try:
        with torch.no_grad():
            _probes(encoder, [encoder.layers])
    finally:
        handle.remove()
    return outputs[0]


def _probes(encoder: AudioEncoder | TextEncoder, layers: list[int]) -> dict[int, Frames]:
    """Hidden states of two stretches of noise, or two texts, of different lengths."""
    generator = torch.Generator().manual_seed(0)
    noise = [torch.rand(length, generator=generator) - 0.5 for length in (8_000, 5_000)]
    texts = ["word", "a few more words"]
    found: dict[int, Frames] = encoder(texts if isinstance(encoder, TextEncoder) else noise, layers)
    return found


def _padded(states: Frames) -> tuple[Tensor, Tensor]:
    """`[B, T, D]` with zeros behind each utterance, and its mask `[B, T]`."""
    lengths = states.lengths.to(states.values.device)
    longest = int(states.lengths.max())
    mask = torch.arange(longest, device=lengths.device) < lengths[:, None]
    padded = states.values.new_zeros(len(states), longest, states.dim)
    padded[mask] = states.values
    return padded, mask


def _blank(length: int) -> Tokens:
    """A text of so many tokens."""
    return Tokens(
        ids=np.zeros(length, np.int64),
        kinds=np.zeros(length, np.uint8),
        pieces=("",) * length,
        spans=np.zeros((length, 2), np.int64),
        truncated=False,
    )
