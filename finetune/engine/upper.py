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
from cache.encoders.front_ends import Samples, WhisperMels
from cache.encoders.text_encoder import TextEncoder, Tokens
from cache.frames import Frames
from cache.layers import LayersRead, layer_numbers
from finetune.engine.stand_ins import PassOn, StartFrom, standing_in

# Largest difference between both ways, relative to the largest value: what is rounded.
TOLERANCE = {"fp32": 1e-4, "bf16": 5e-2}


@dataclass(frozen=True, eq=False)
class Upper:
    """Layers of an encoder.

    Attributes:
        encoder: the encoder.
        start: the hidden state that they are run from.
        layers: the hidden states that are wanted, ascending, the last at least `start`.
        outputs: see `PassOn`.
    """

    encoder: AudioEncoder | TextEncoder
    start: int
    layers: tuple[int, ...]
    outputs: int

    @property
    def given(self) -> tuple[int, ...]:
        """The hidden states it has to be given: the wanted ones below `start`, and `start`."""
        return (*(layer for layer in self.layers if layer < self.start), self.start)

    @property
    def reads_silence(self) -> bool:
        """Whether states hold the silence behind a recording too: there is no mask to hide it."""
        audio = isinstance(self.encoder, AudioEncoder)
        return audio and isinstance(self.encoder.front_end, WhisperMels)

    def __call__(self, states: Frames, lengths: Tensor | None = None) -> Frames:
        """The wanted hidden states beside one another, float32 on the encoder's device.

        Args:
            states: those of `given`, beside one another.
            lengths: `[B]`, frames of each recording, where `states` hold the silence behind it;
                what is returned does not.
        """
        states = states.to(self.encoder.device, torch.float32)
        parts = states.values.unflatten(1, (len(self.given), -1)).unbind(dim=1)
        at_start = Frames(parts[-1], states.offsets, states.speech)
        found = {
            layer: Frames(part, states.offsets, states.speech)
            for layer, part in zip(self.given, parts, strict=True)
        }
        above = [layer for layer in self.layers if layer > self.start]
        if above:
            found |= self._from(at_start, above)
        together = Frames.beside([found[layer] for layer in self.layers])
        return together if lengths is None else _beginnings(together, lengths)

    def _from(self, states: Frames, layers: list[int]) -> dict[int, Frames]:
        """Hidden states above the first, those of one length together where there is no mask."""
        groups: dict[int, list[int]] = {}
        for number, length in enumerate(states.lengths.tolist()):
            groups.setdefault(length if self.reads_silence else 0, []).append(number)
        if len(groups) == 1:
            alone = self._together(states, layers)
            return {n: Frames(one.values, one.offsets, states.speech) for n, one in alone.items()}
        parts = [self._together(states.select(own), layers) for own in groups.values()]
        order = torch.tensor([number for own in groups.values() for number in own]).argsort()
        found = {}
        for layer in layers:
            rows = [
                row
                for part in parts
                for row in part[layer].values.split(part[layer].lengths.tolist())
            ]
            frames = Frames.from_list([rows[n] for n in order.tolist()])
            found[layer] = Frames(frames.values, frames.offsets, states.speech)
        return found

    def _together(self, states: Frames, layers: list[int]) -> dict[int, Frames]:
        stack = self.encoder.stack
        assert stack is not None, "upper layers are those of a list"
        padded, mask = _padded(states)
        substitutes: dict[int, nn.Module] = {n: PassOn(self.outputs) for n in range(self.start)}
        substitutes[self.start] = StartFrom(stack[self.start], padded)
        with standing_in(stack, substitutes):
            return self._run(states, mask, layers)

    def _run(self, states: Frames, mask: Tensor, layers: list[int]) -> dict[int, Frames]:
        """The encoder's own pass on an input of the right shape, which nothing depends on."""
        if isinstance(self.encoder, TextEncoder):
            blank = [_blank(length) for length in states.lengths.tolist()]
            read: dict[int, Frames] = self.encoder(blank, layers)
            return read
        config: Any = self.encoder.model.config
        if self.reads_silence:
            mels = torch.zeros(len(mask), int(config.num_mel_bins), 2 * mask.shape[1])
            inputs = {"input_features": mels.to(mask.device)}
        else:
            features = torch.zeros(*mask.shape, int(config.feature_projection_input_dim))
            inputs = {"input_features": features.to(mask.device), "attention_mask": mask.long()}
        return {
            layer: Frames.from_padded(values, mask).to(dtype=torch.float32)
            for layer, values in self.encoder.states(inputs, layers).items()
        }


def upper_layers(encoder: AudioEncoder | TextEncoder, start: int, read: LayersRead) -> Upper | str:
    """The layers from a hidden state on; or, in words, why they cannot be run by themselves.

    Args:
        encoder: in eval mode.
        start: the hidden state to start from.
        read: the hidden state wanted, or several.
    """
    layers = layer_numbers(read)
    if start == layers[-1]:
        return Upper(encoder, start, layers, 0)
    if encoder.stack is None:
        return "its layers are not a plain list"
    if isinstance(encoder, AudioEncoder) and isinstance(encoder.front_end, Samples):
        return "it reads waveforms through convolutions"
    found = Upper(encoder, start, layers, layer_outputs(encoder))
    with torch.no_grad():
        probes = _probes(encoder, sorted({start, *layers}))
        try:
            again = found(Frames.beside([probes[layer] for layer in found.given])).values
        except (AttributeError, IndexError, RuntimeError, TypeError, ValueError):
            return "its upper layers need more than hidden states"
    expected = Frames.beside([probes[layer] for layer in layers]).values
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
    if isinstance(encoder, TextEncoder):
        read: dict[int, Frames] = encoder(texts, layers)
        return read
    heard: dict[int, Frames] = encoder(noise, layers, whole=True)
    return heard


def _beginnings(states: Frames, lengths: Tensor) -> Frames:
    """The first frames of each utterance, so many."""
    within = torch.cat([torch.arange(length) for length in states.lengths.tolist()])
    kept = within < lengths.repeat_interleave(states.lengths)
    offsets = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
    there = kept.to(states.values.device)
    speech = None if states.speech is None else states.speech[there]
    return Frames(states.values[there], offsets, speech)


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
