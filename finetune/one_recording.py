"""A head or a model on one utterance whose length is a symbol: what is traced for ONNX.

Batches of the house are laid out by lengths that the host knows. Here there is one utterance, and
nothing is looked up by length, so that one graph serves all. Everything else is the same code:
encoders, poolings and classifier are called as they are. The spectra alone are taken another way,
by one product with the Fourier transform instead of the FFT, in float64.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from cache.encoders.audio_encoder import AudioEncoder
from cache.encoders.files import CHUNK
from cache.encoders.front_ends import (
    FrontEnd,
    Samples,
    StackedMels,
    WhisperMels,
    log_mel_power,
    normalise_bins,
    to_spectra,
)
from cache.encoders.grid import FBANK_HOP, FBANK_WINDOW
from cache.encoders.signal import LEAD
from cache.encoders.text_encoder import TextEncoder
from cache.encoders.vad import SpeechDetector
from cache.recipe import layer_numbers
from corpora.base.errors import ConfigError
from finetune.model import EmotionModel
from heads.head import Head, Inputs, answers, layer_normalised_rows, stack_logits
from heads.pooling.view import View

#: Inputs of a model.
SAMPLES, TOKENS = "samples", "tokens"
#: Outputs.
LOGITS, PROBABILITIES, ATTRIBUTES = "logits", "probabilities", "attributes"


def speech_input(modality: str) -> str:
    """The input of a head beside a modality's frames: which of them are speech."""
    return f"{modality}_speech"


class OneUtterance(nn.Module):
    """A head on the frames of one utterance."""

    def __init__(self, head: Head) -> None:
        super().__init__()
        self.head = head
        labels, attributes = head.config.labels, head.config.attributes
        #: What comes out, in this order.
        self.outputs = (LOGITS, PROBABILITIES) * bool(labels) + (ATTRIBUTES,) * bool(attributes)

    def forward(self, inputs: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        """What the head says.

        Args:
            inputs: by modality `[T, D]`; beside it as `speech_input` names it `[T]`, the
                probability of speech of each frame, for a pooling that asks for it.

        Returns:
            As `outputs` names them: logits `[C]`, probabilities `[C]`, attributes `[A]` in the
            units of their scales.
        """
        config = self.head.config
        views = {}
        for name in config.modalities:
            key, values = config.view(name), inputs[name]
            if key[0] == "layernorm":
                values = layer_normalised_rows(values, key[1])
            views[name] = Inputs({key: View.of_one(values, inputs.get(speech_input(name)))})
        logits = stack_logits([self.head], views)[0, 0]
        said, classes = answers(config, logits), len(config.labels)
        every = {
            LOGITS: logits[:classes],
            PROBABILITIES: said[:classes],
            ATTRIBUTES: said[classes:],
        }
        return tuple(every[name] for name in self.outputs)


class OneRecording(nn.Module):
    """A model on the samples of one recording, and on the tokens of what is said.

    Args:
        model: on the CPU.

    Raises:
        ConfigError: the front end of its speech encoder is of a kind that is not known here.
    """

    def __init__(self, model: EmotionModel) -> None:
        super().__init__()
        self.one = OneUtterance(model.head)
        self.outputs = self.one.outputs
        self.listener = None if model.audio_encoder is None else _Listener(model)
        self.text_encoder = model.text_encoder
        self._text_layers = layer_numbers(model.layers.get("text", ()))

    def forward(self, inputs: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        """What the model says, see `OneUtterance`.

        Args:
            inputs: `samples` `[n]` float32 at 16 kHz, for a model that listens; `tokens` `[T]`
                int64 with the special ones, for a model that reads.
        """
        frames: dict[str, Tensor] = {}
        if self.listener is not None:
            frames |= self.listener(inputs[SAMPLES])
        if self.text_encoder is not None:
            frames["text"] = _read(self.text_encoder, inputs[TOKENS], self._text_layers)
        said: tuple[Tensor, ...] = self.one(frames)
        return said


def _read(encoder: TextEncoder, tokens: Tensor, layers: tuple[int, ...]) -> Tensor:
    """`[T, D]` of tokens `[T]`."""
    states = encoder.read_layers(
        lambda: encoder.model(input_ids=tokens[None], attention_mask=torch.ones_like(tokens)[None]),
        layers,
    )
    return torch.cat([states[layer][0] for layer in layers], dim=1)


class _Listener(nn.Module):
    """From samples to the frames of a speech encoder, and which of them are speech."""

    def __init__(self, model: EmotionModel) -> None:
        super().__init__()
        assert model.audio_encoder is not None
        self.encoder: AudioEncoder = model.audio_encoder
        self.detector = model.detector
        self._layers = layer_numbers(model.layers["audio"])
        self._speech_dtype = getattr(torch, model.speech_dtype)
        end = self.encoder.front_end
        self.front_end = _one_front_end(end)
        self.shortest, self.longest = self.encoder.grid.minimum_samples, end.limit
        # One element: another one is out of its bounds, where a runtime stops. Of other bits, for
        # what is alike is merged in a file.
        self.register_buffer("too_short", torch.zeros(1), persistent=False)
        self.register_buffer("too_long", -torch.zeros(1), persistent=False)

    def forward(self, samples: Tensor) -> dict[str, Tensor]:
        """Inputs of a head: `audio` `[T, D]`, and which are speech where there is a detector."""
        samples = self._checked(samples)
        states = self.encoder.states(self.front_end(samples), self._layers)
        frames = torch.cat([states[layer][0] for layer in self._layers], dim=1)
        if isinstance(self.encoder.front_end, WhisperMels):  # silence behind the recording
            hop = self.encoder.grid.hop
            frames = frames[: (samples.shape[0] + hop - 1) // hop]
        if self.detector is None:
            return {"audio": frames}
        speech = self._speech(self.detector, samples, frames.shape[0])
        return {"audio": frames, speech_input("audio"): speech}

    def _checked(self, samples: Tensor) -> Tensor:
        """The samples, of which there are neither too few nor too many."""
        count = torch.full((1,), samples.shape[0])
        wrong = [(self.get_buffer("too_short"), count < self.shortest)]
        if self.longest is not None:
            wrong.append((self.get_buffer("too_long"), count > self.longest))
        for zero, is_wrong in wrong:
            samples = samples + zero.index_select(0, is_wrong.long())
        return samples

    def _speech(self, detector: SpeechDetector, samples: Tensor, frames: int) -> Tensor:
        """`[T]`, see `cache.encoders.vad.speech`; rounded as in the cache."""
        chunks = (samples.shape[0] + CHUNK - 1) // CHUNK
        filled = functional.pad(samples, (LEAD, chunks * CHUNK - samples.shape[0]))
        found = detector.of_chunks(filled.unfold(0, LEAD + CHUNK, CHUNK))
        grid = self.encoder.grid
        centres = torch.arange(frames) * grid.hop + grid.first_centre
        return found.index_select(0, centres // CHUNK).to(self._speech_dtype).float()


def _one_front_end(front_end: FrontEnd) -> nn.Module:
    """What makes a model's inputs of the samples of one recording."""
    known: Mapping[type[Any], type[nn.Module]] = {
        Samples: _OneWaveform,
        StackedMels: _OneStackedMels,
        WhisperMels: _OneWhisperMels,
    }
    kind = known.get(type(front_end))
    if kind is None:
        raise ConfigError(
            f"the front end of this speech encoder ({type(front_end).__name__}) cannot be put into "
            "an ONNX file. Export the head alone: --frames."
        )
    return kind(front_end)


class _OneWaveform(nn.Module):
    """wav2vec 2.0 and its family: the samples, normalised where the settings say so."""

    def __init__(self, front_end: Samples) -> None:
        super().__init__()
        self._own = front_end

    def forward(self, samples: Tensor) -> dict[str, Tensor]:
        """Without a mask: one recording fills nothing up."""
        row = samples[None]
        return {"input_values": self._own.values(row, torch.ones_like(row, dtype=torch.bool))}


class _OneStackedMels(nn.Module):
    """W2V-BERT's."""

    def __init__(self, front_end: StackedMels) -> None:
        super().__init__()
        self._stride = front_end.settings.stride
        self.register_buffer("filters", front_end.settings.mel_filters)
        self.register_buffer("spectra", to_spectra(front_end.settings))

    def forward(self, samples: Tensor) -> dict[str, Tensor]:
        """Without a mask: one recording fills nothing up."""
        frames = samples.double().unfold(0, FBANK_WINDOW, FBANK_HOP)
        power = _power(frames, self.get_buffer("spectra"))
        # Rounded to float32 before they are normalised, as in extraction.
        bins = normalise_bins(log_mel_power(power, self.get_buffer("filters")).float())
        whole = bins.shape[0] // self._stride
        return {"input_features": bins[: whole * self._stride].reshape(1, whole, -1)}


class _OneWhisperMels(nn.Module):
    """Whisper's."""

    def __init__(self, front_end: WhisperMels) -> None:
        super().__init__()
        self._own = front_end
        self._hop = int(front_end.extractor.hop_length)
        self._points = int(front_end.extractor.n_fft)
        window = torch.hann_window(self._points, dtype=torch.float64)
        spectra = torch.fft.rfft(torch.diag(window))
        self.register_buffer("spectra", torch.cat([spectra.real, spectra.imag], dim=1))

    def forward(self, samples: Tensor) -> dict[str, Tensor]:
        """Log-mels of the recording and the silence behind it."""
        padding, count, points = self._own.padding, samples.shape[0], self._points
        whole = (count + padding.tail + padding.step - 1) // padding.step * padding.step
        whole = torch.sym_min(padding.limit, whole)
        row = functional.pad(samples, (0, whole - count)).double()[None]
        # A window lies around each hop: half of one before the first sample.
        row = functional.pad(row, (points // 2, points // 2), mode="reflect")[0]
        frames = row.unfold(0, points, self._hop)[:-1]
        power = _power(frames, self.get_buffer("spectra")).float()
        return {"input_features": self._own.features(power.T[None])}


def _power(frames: Tensor, spectra: Tensor) -> Tensor:
    """Spectral power `[frames, bins]` of samples `[frames, window]`."""
    real, imaginary = (frames @ spectra).square().chunk(2, dim=1)
    return real + imaginary
