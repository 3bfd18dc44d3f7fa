"""The upper layers of an encoder, run from a hidden state that was computed before.

`hidden_states[L]` is what layer L (counted from 0) receives, so what follows from it is all that
the lower layers have a part in. Whether an architecture keeps to that (some hand a position bias
from their first layer to the others) is not guessed from its name: both ways are run and compared.

Layers that stand in for others during one forward pass.

An encoder's list of layers keeps its length and its own forward pass its course, so masks, position
embeddings and a norm behind the last layer are what they are in any pass. The layers themselves are
put back afterwards: parameters keep their names and their place.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from cache.encoders.audio_encoder import AudioEncoder
from cache.encoders.device import is_out_of_memory, to_device
from cache.encoders.front_ends import Samples, WhisperMels
from cache.encoders.text_encoder import TextEncoder, Tokens
from cache.frames import Frames
from cache.recipe import LayersRead, layer_numbers
from cache.stream import FrameStream
from corpora.utterance import Utterance


class PassOn(nn.Module):
    """A layer that does nothing.

    Args:
        outputs: how many values the encoder expects of a layer; 0 for the hidden states as such,
            else a tuple that begins with them.
    """

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self._outputs = outputs

    def forward(self, *inputs: Any, **named: Any) -> Any:  # noqa: ANN401 - as each architecture has it
        """What the layer received."""
        hidden = inputs[0] if inputs else named["hidden_states"]
        return (hidden, *[None] * (self._outputs - 1)) if self._outputs else hidden


class StartFrom(nn.Module):
    """A layer that takes given hidden states instead of what it receives.

    Args:
        layer: the layer.
        states: `[B, T, D]`.
    """

    def __init__(self, layer: nn.Module, states: Tensor) -> None:
        super().__init__()
        # In a tuple: the layer is a module of the encoder, not of this one.
        self._layer = (layer,)
        self._states = states

    def forward(self, *inputs: Any, **named: Any) -> Any:  # noqa: ANN401 - as each architecture has it
        """What the layer makes of the given states."""
        if inputs:
            return self._layer[0](self._states, *inputs[1:], **named)
        return self._layer[0](**{**named, "hidden_states": self._states})


@contextmanager
def standing_in(stack: nn.ModuleList, substitutes: Mapping[int, nn.Module]) -> Iterator[None]:
    """Put modules into a list of layers by their positions, and the layers back at the end."""
    before = {position: stack[position] for position in substitutes}
    try:
        for position, module in substitutes.items():
            stack[position] = module
        yield
    finally:
        for position, module in before.items():
            stack[position] = module


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
        # As they are stored: what is converted behind the copy is sent in half the bytes.
        values = to_device(states.values, self.encoder.device).float()
        speech = None if states.speech is None else to_device(states.speech, values.device)
        states = Frames(values, states.offsets, speech)
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
            shape = (len(mask), int(config.num_mel_bins), 2 * mask.shape[1])
            inputs = {"input_features": torch.zeros(shape, device=states.device)}
        else:
            shape = (*mask.shape, int(config.feature_projection_input_dim))
            inputs = {
                "input_features": torch.zeros(shape, device=states.device),
                "attention_mask": to_device(mask.long(), states.device),
            }
        return {
            layer: Frames.from_padded(values, mask).to(dtype=torch.float32)
            for layer, values in self.encoder.states(inputs, layers).items()
        }


@dataclass(frozen=True, eq=False)
class Boundary:
    """Cached hidden states of some modalities, and the layers that are run from them.

    Attributes:
        uppers: by modality.
        streams: of the hidden states, by modality, in the order of `Upper.given`.
        speech: of the voice activity detector's output, where the head needs it.
        keys: of each utterance by id, as `FrameCache.keys` gives them.
        recordings: a stream of what the head reads, where the hidden states hold the silence behind
            recordings too: it knows how long these are.
    """

    uppers: Mapping[str, Upper]
    streams: Mapping[str, tuple[FrameStream, ...]]
    speech: FrameStream | None
    keys: Mapping[str, Mapping[str, str]]
    recordings: FrameStream | None = None

    def lengths(self, utterances: Sequence[Utterance]) -> dict[str, Tensor]:
        """`[B]`, frames of each recording, for modalities whose states hold more than these."""
        if self.recordings is None:
            return {}
        found = self.recordings.lengths(self._keys("audio", utterances))
        return {"audio": torch.as_tensor(found, dtype=torch.int64)}

    def states(self, utterances: Sequence[Utterance]) -> dict[str, Frames]:
        """The hidden states of a batch, by modality, beside one another, on the CPU."""
        found = {
            name: Frames.beside([one.load(self._keys(name, utterances)) for one in streams])
            for name, streams in self.streams.items()
        }
        if self.speech is not None and "audio" in found:
            speech = self.speech.load(self._keys("audio", utterances))
            rows = speech.values[:, 0].float().split(speech.lengths.tolist())
            # Where the states go on behind the recording there is none.
            filled = [
                functional.pad(row, (0, length - len(row)))
                for row, length in zip(rows, found["audio"].lengths.tolist(), strict=True)
            ]
            found["audio"] = found["audio"].with_speech(torch.cat(filled))
        return found

    def _keys(self, modality: str, utterances: Sequence[Utterance]) -> list[str]:
        return [self.keys[utterance.id][modality] for utterance in utterances]


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
        states = probes(encoder, sorted({start, *layers}))
        try:
            again = found(Frames.beside([states[layer] for layer in found.given])).values
        except (AttributeError, IndexError, RuntimeError, TypeError, ValueError) as error:
            if is_out_of_memory(error):
                raise
            return "its upper layers need more than hidden states"
    expected = Frames.beside([states[layer] for layer in layers]).values
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
            probes(encoder, [encoder.layers])
    finally:
        handle.remove()
    return outputs[0]


def probes(encoder: AudioEncoder | TextEncoder, layers: list[int]) -> dict[int, Frames]:
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
    """`[B, T, D]` with zeros behind each utterance, and its mask `[B, T]` on the CPU."""
    mask = torch.arange(int(states.lengths.max())) < states.lengths[:, None]
    rows = to_device(mask.flatten().nonzero()[:, 0], states.device)
    padded = states.values.new_zeros(mask.numel(), states.dim).index_copy(0, rows, states.values)
    return padded.unflatten(0, mask.shape), mask


def _blank(length: int) -> Tokens:
    """A text of so many tokens."""
    return Tokens(
        ids=np.zeros(length, np.int64),
        kinds=np.zeros(length, np.uint8),
        pieces=("",) * length,
        spans=np.zeros((length, 2), np.int64),
        truncated=False,
    )
