"""Speech encoders: waveforms in, frames of chosen layers out.

Three families are known: W2V-BERT 2.0 on stacked log-mels, encoders that take the waveform
through unpadded convolutions (wav2vec 2.0, HuBERT, WavLM, data2vec-audio, UniSpeech-SAT), and
Whisper's encoder.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoFeatureExtractor
from transformers.modeling_outputs import BaseModelOutput
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from cache.encoders.device import ComputeDtype
from cache.encoders.front_ends import FbankSettings, FrontEnd, Samples, StackedMels, WhisperMels
from cache.encoders.grid import (
    FBANK_MODELS,
    WHISPER_MODELS,
    Grid,
    Padding,
    read_config,
    read_front_end,
    read_grid,
    read_padding,
)
from cache.encoders.hidden_states import Encoder, load_model, loading
from cache.encoders.signal import Signal, Waveform
from cache.frames import Frames
from corpora.base.errors import AudioError, ConfigError

#: Where the encoder's weights stand in a checkpoint: of the whole model, of the model with its
#: language head, or (as `finetune` writes them) of the encoder alone.
KEY_MAPPING = {r"^model\.encoder\.": "", r"^encoder\.": ""}


class ShortWhisperEncoder(WhisperEncoder):  # type: ignore[misc]  # untyped library
    """transformers' Whisper encoder, which insists on 30 s of input, for shorter input too.

    Positions are absolute, so a shorter input has the first of them. On 30 s the two agree to the
    bit. Dropout and layerdrop are left out: Whisper's configurations have none, and layers are
    dropped by `finetune.launch`.
    """

    def forward(self, input_features: Tensor, **_: Any) -> BaseModelOutput:  # noqa: ANN401
        """Last hidden state `[B, T, d]` of log-mels `[B, mels, 2 T]`."""
        states = F.gelu(self.conv1(input_features))
        states = F.gelu(self.conv2(states)).transpose(1, 2)
        # Sinusoids, which are not trained: detached, so that no phase of fine-tuning counts them.
        states = states + self.embed_positions.weight[: states.shape[1]].detach()
        for layer in self.layers:
            states = layer(states, None)
        return BaseModelOutput(last_hidden_state=self.layer_norm(states))


# Known to give each utterance of a padded batch what it gives it alone, if the convolutions
# normalise each frame ("layer"). With "group" they normalise over time, padding included. Any other
# encoder runs one length at a time: slower, never wrong.
_PADDING_SAFE = frozenset({"hubert", "unispeech", "unispeech-sat", "wav2vec2", "wavlm"})

# Half a second is enough for every front end.
_TRIAL_SAMPLES = 8_000
# Both would let chance decide which layers and frames exist: a dropped layer has no hidden state,
# and SpecAugment refuses utterances under .2 s. Off also where the encoder is fine-tuned.
_OVERRIDES: Mapping[str, object] = {"layerdrop": 0.0, "apply_spec_augment": False}


class AudioEncoder(Encoder):
    """A speech encoder of transformers behind one interface.

    Attributes:
        front_end: what makes its inputs.
        grid: which samples a frame sees.
        compute_dtype: "fp32", or "bf16" for autocast; frames come out as float32 either way.
    """

    def __init__(
        self,
        model: nn.Module,
        front_end: FrontEnd,
        grid: Grid,
        compute_dtype: ComputeDtype = "fp32",
    ) -> None:
        super().__init__(model)
        self.front_end = front_end
        self.grid = grid
        self.compute_dtype = compute_dtype

    def cast_weights(self) -> None:
        """Hold in bf16 what autocast would cast at every call, if that is computed in.

        No number changes. There is no training afterwards, which needs the digits that are lost.
        """
        if self.compute_dtype != "bf16":
            return
        for module in self.model.modules():
            if isinstance(module, nn.Linear | nn.Conv1d):
                for name, parameter in list(module.named_parameters(recurse=False)):
                    rounded = nn.Parameter(parameter.to(torch.bfloat16), requires_grad=False)
                    setattr(module, name, rounded)

    def compile_layers(self) -> None:
        """Have PyTorch join the small operations of each layer (`torch.compile`), at once.

        Numbers agree to rounding. It takes half a minute: what is compiled serves all layers, and
        any number and length of recordings. Only the layers' forward passes are compiled, for the
        hooks around them, which keep hidden states, are others in every call.

        Raises:
            ConfigError: the layers are not a plain list, or PyTorch cannot compile here.
        """
        if self.stack is None:
            raise ConfigError("this encoder's layers are not a plain list: leave --compile out.")
        for layer in self.stack:
            layer.forward = torch.compile(layer.forward, dynamic=True)
        # Two: a number of one would be compiled as a constant.
        trial = [torch.zeros(self._trial_samples), torch.zeros(2 * self._trial_samples)]
        with (
            loading(
                "PyTorch could not compile the encoder's layers",
                "It needs a C++ compiler, and on a GPU Triton; or leave --compile out.",
            ),
            torch.inference_mode(),
        ):
            self(trial, [self.layers])

    @property
    def _trial_samples(self) -> int:
        return max(self.grid.minimum_samples, _TRIAL_SAMPLES)

    def forward(
        self,
        waveforms: Sequence[Waveform] | Signal,
        layers: Sequence[int],
        *,
        whole: bool = False,
    ) -> dict[int, Frames]:
        """Frames of a batch.

        Args:
            waveforms: `[samples]` float32 at 16 kHz, one an utterance; or what `Signal.of` made of
                them on the encoder's device.
            layers: layer numbers, 0 to `self.layers`.
            whole: with the frames of the silence that the front end puts behind a recording, which
                all others were computed beside.

        Returns:
            Layer number to float32 frames `[grid.frames(samples), dim]` of each utterance, on the
            encoder's device.

        Raises:
            AudioError: an utterance is shorter than one frame, or longer than the encoder takes.
            ConfigError: a layer does not exist, or the encoder gives another number of frames
                than its configuration says.
        """
        signal = Signal.of(waveforms, self.device)
        counts = [self.grid.frames(samples) for samples in signal.lengths]
        if min(counts, default=0) < 1:
            raise AudioError(self._too_short(signal.lengths))
        if whole:
            counts = [self.grid.frames(self.front_end.padded(one)) for one in signal.lengths]
        parts: dict[int, list[Tensor]] = {layer: [signal.values] * len(signal) for layer in layers}
        groups: dict[int, list[int]] = {}  # numbers of the utterances that run together
        for index, samples in enumerate(signal.lengths):
            groups.setdefault(self.front_end.group(samples), []).append(index)
        for group in groups.values():
            together = signal.select(group)
            states = self.states(self.inputs(together), layers)
            self._check_frames(states, max(together.lengths))
            for layer, values in states.items():
                for row, index in enumerate(group):
                    parts[layer][index] = values[row, : counts[index]]
        return {
            layer: Frames.from_list(rows).to(dtype=torch.float32) for layer, rows in parts.items()
        }

    def states(self, inputs: Mapping[str, Tensor], layers: Sequence[int]) -> dict[int, Tensor]:
        """Hidden states of inputs that `inputs` made, or of pieces of such.

        Returns:
            Layer number to `[B, T, dim]`, as the encoder computes them.

        Raises:
            ConfigError: a layer does not exist.
        """
        return self.read_layers(partial(self._run, inputs), layers)

    def _run(self, inputs: Mapping[str, Tensor]) -> Any:  # noqa: ANN401 (untyped library)
        """The model's output."""
        bf16 = self.compute_dtype == "bf16"
        with (
            torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=bf16),
            warnings.catch_warnings(),
        ):
            # WavLM passes torch a boolean padding mask beside its float position bias: harmless.
            warnings.filterwarnings("ignore", message="Support for mismatched key_padding_mask")
            return self.model(**inputs)

    def inputs(self, waveforms: Sequence[Waveform] | Signal) -> dict[str, Tensor]:
        """What the model is called with: its front end's features of whole waveforms, padded.

        Args:
            waveforms: as in `forward`, of one group of the front end.
        """
        return self.front_end.inputs(Signal.of(waveforms, self.device))

    def _check_frames(self, states: Mapping[int, Tensor], longest: int) -> None:
        frames = self.grid.frames(self.front_end.padded(longest))
        expected = self.front_end.encoded(frames, self.device)
        for layer, values in states.items():
            if values.shape[1:] != (expected, self.dim):
                raise ConfigError(
                    f"layer {layer} of the encoder gave {tuple(values.shape[1:])} for a recording "
                    f"that its config.json promises ({expected}, {self.dim}) for. "
                    "This architecture is not supported; choose another encoder."
                )

    def _too_short(self, lengths: Sequence[int]) -> str:
        if not lengths:
            return "no waveform was given; expected at least one."
        shortest = min(range(len(lengths)), key=lambda index: lengths[index])
        return (
            f"waveform {shortest} of the batch has {lengths[shortest]} samples; one frame "
            f"needs {self.grid.minimum_samples}. Remove the utterance or widen its segment."
        )


def load_audio_encoder(
    directory: Path,
    *,
    device: torch.device | str = "cpu",
    compute_dtype: ComputeDtype = "fp32",
    padding: Padding | None = None,
) -> AudioEncoder:
    """Load a speech encoder from a directory that `resolve_encoder` gave.

    Args:
        directory: of the encoder.
        device: where it goes.
        compute_dtype: what it computes in.
        padding: of an encoder without a mask (Whisper); None is the usual one.

    Raises:
        ConfigError: it cannot be loaded, or is not a frame-level speech encoder that is supported.
    """
    if compute_dtype not in ("fp32", "bf16"):
        raise ConfigError(f"compute dtype {compute_dtype!r} is unknown; expected fp32 or bf16.")
    grid = read_grid(directory)
    extractor = _extractor(directory)
    if read_config(directory, "config.json").get("model_type") in WHISPER_MODELS:
        model = load_model(directory, {}, ShortWhisperEncoder, KEY_MAPPING)
        own = padding or read_padding(directory)
        assert own is not None, "Whisper is padded"
        front_end: FrontEnd = WhisperMels(extractor, own)
    else:
        model = load_model(directory, _OVERRIDES)
        if model.config.model_type in FBANK_MODELS:
            with loading(*_front_end_words(directory)):
                front_end = StackedMels(FbankSettings.from_extractor(extractor))
        else:
            front_end = Samples(extractor, grid, masked=_padding_safe(model.config))
    encoder = AudioEncoder(model, front_end, grid, compute_dtype).to(device)
    # A front end of wrong numbers is built without a word, and fails on the first recording.
    with (
        loading(
            f"the encoder in {directory} cannot be run with its front end",
            "Copy its JSON files from the encoder's source.",
        ),
        torch.inference_mode(),
    ):
        encoder([torch.zeros(encoder._trial_samples)], [encoder.layers])
    return encoder


def _extractor(directory: Path) -> Any:  # noqa: ANN401 (untyped library)
    """The encoder's feature extractor.

    Raises:
        ConfigError: it cannot be built.
    """
    # A folder with a whole processor's settings alone is read like one with the extractor's.
    read_front_end(directory)
    with loading(*_front_end_words(directory)):
        return AutoFeatureExtractor.from_pretrained(directory, local_files_only=True)


def _front_end_words(directory: Path) -> tuple[str, str]:
    return f"the front end in {directory} cannot be built", "Copy it from the encoder's source."


def _padding_safe(config: Any) -> bool:  # noqa: ANN401 (untyped library)
    return (
        config.model_type in _PADDING_SAFE
        and config.feat_extract_norm == "layer"
        # HuBERT's batch norm before the positional convolution turns padded zeros into values.
        and not getattr(config, "conv_pos_batch_norm", False)
    )
