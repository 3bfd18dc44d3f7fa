"""The emotion model: raw speech and text in, logits out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from cache.encoders.audio_encoder import AudioEncoder
from cache.encoders.signal import Signal, Waveform
from cache.encoders.text_encoder import TextEncoder
from cache.encoders.vad import speech
from cache.frames import Frames
from cache.keys import normalise_text
from cache.recipe import layer_numbers
from corpora.base.errors import AudioError, ConfigError
from corpora.utterance import Utterance
from finetune.adapters import has_adapters, merge_adapters
from finetune.config import PredictConfig
from finetune.model_directory import Parts, read_model, resolve_model, write_model
from finetune.predict.answering import predict
from finetune.predict.prediction import Prediction, Unusable
from heads.head import as_inputs, stack_logits


class EmotionModel(nn.Module):
    """Both encoders and the head that reads them.

    It computes what extraction and the head on cached frames compute, by the same code: front end,
    text normalisation, voice activity detector, poolings.

    Attributes:
        head: see `heads.head.Head`.
        audio_encoder: None for a head that reads text alone.
        text_encoder: None for a head that reads audio alone.
        detector: the voice activity detector, for a head whose pooling needs one.
        layers: the hidden state that the head reads, or those that it weighs, for each modality.
        provenance: what the model was made from, JSON values; saved with it.
    """

    def __init__(self, parts: Parts) -> None:
        super().__init__()
        self.head = parts.head
        self.audio_encoder = parts.audio_encoder
        self.text_encoder = parts.text_encoder
        self.detector = parts.detector
        self.layers = dict(parts.layers)
        self.provenance = dict(parts.provenance)
        self._parts = parts
        self.eval()

    @property
    def labels(self) -> tuple[str, ...]:
        """Class names, in the order of the logits."""
        return self.head.config.labels

    @property
    def encoders(self) -> dict[str, AudioEncoder | TextEncoder]:
        """The encoders by modality."""
        return self._parts.encoders

    @property
    def speech_dtype(self) -> str:
        """What probabilities of speech are rounded to, as in the cache."""
        return self._parts.speech_dtype

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.head.output.weight.device

    def train(self, mode: bool = True) -> EmotionModel:
        """Training mode for what is trainable alone; what is frozen stays in eval mode.

        A module goes to training mode when all of its parameters are trainable, a layer also when
        its adapters are: dropout then acts inside unfrozen layers and nowhere below them.
        """
        super().train(False)
        self.training = mode
        if mode:
            for child in self.children():
                _train_unfrozen(child)
            for encoder in self.encoders.values():
                for layer in (encoder.stack or ()) if has_adapters(encoder) else ():
                    layer.train(any(p.requires_grad for p in layer.parameters()))
        return self

    def merge_adapters(self) -> None:
        """Add what LoRA's adapters have learnt to the encoders' weights, and take them out."""
        for encoder in self.encoders.values():
            if has_adapters(encoder):
                merge_adapters(encoder)

    def encode(
        self, waveforms: Sequence[Waveform] | None, texts: Sequence[str] | None
    ) -> dict[str, Frames]:
        """Frames of each modality that the head reads.

        Args:
            waveforms: `[samples]` float32 at 16 kHz, one an utterance; ignored by a model that
                reads text alone.
            texts: as spoken, "" for none; ignored by a model that reads audio alone.

        Raises:
            ConfigError: the model needs an input that is not given, their numbers differ, or a
                waveform is not one row of floating-point samples.
            AudioError: a waveform is shorter than one frame, or not finite.
        """
        frames: dict[str, Frames] = {}
        if self.audio_encoder is not None:
            frames["audio"] = self.listen(waveforms)
        if self.text_encoder is not None:
            frames["text"] = self.read(texts)
        if len({len(batch) for batch in frames.values()}) != 1:
            counts = {name: len(batch) for name, batch in frames.items()}
            raise ConfigError(f"expected as many waveforms as texts, got {counts}.")
        return frames

    def listen(self, waveforms: Sequence[Waveform] | None) -> Frames:
        """The audio frames of `encode`, for a model that listens."""
        assert self.audio_encoder is not None
        if waveforms is None:
            raise ConfigError("this model listens: it needs waveforms, and none were given.")
        _check_waveforms(waveforms)
        numbers = layer_numbers(self.layers["audio"])
        signal = Signal.of(waveforms, self.device)
        states: dict[int, Frames] = self.audio_encoder(signal, numbers)
        frames = Frames.beside([states[number] for number in numbers])
        return frames if self.detector is None else frames.with_speech(self._speech(signal))

    def read(self, texts: Sequence[str] | None) -> Frames:
        """The text frames of `encode`, for a model that reads."""
        assert self.text_encoder is not None
        if texts is None:
            raise ConfigError("this model reads: it needs texts, '' for none, and got None.")
        numbers = layer_numbers(self.layers["text"])
        states: dict[int, Frames] = self.text_encoder([normalise_text(t) for t in texts], numbers)
        return Frames.beside([states[number] for number in numbers])

    def forward(
        self,
        waveforms: Sequence[Waveform] | None,
        texts: Sequence[str] | None,
        *,
        dropout_seed: int | None = None,
    ) -> Tensor:
        """Logits `[B, C]`.

        Args:
            waveforms: see `encode`.
            texts: see `encode`.
            dropout_seed: for the head's dropout, fresh at each step; None switches it off. Dropout
                inside the encoders follows the training mode and torch's random state.
        """
        inputs = as_inputs(self.encode(waveforms, texts))
        seeds = None if dropout_seed is None else [dropout_seed]
        return stack_logits([self.head], inputs, seeds)[0]

    def predict(
        self,
        recordings: Sequence[str | Path] | None,
        texts: Sequence[str] | None = None,
        *,
        top_frames: int = PredictConfig.top_frames,
    ) -> list[Prediction]:
        """What the model says about recordings, in their order.

            model = EmotionModel.from_pretrained("work/model")
            for prediction in model.predict(["a.wav", "b.wav"], texts=["Stop!", "I miss you."]):
                print(prediction.label, prediction.probability, prediction.top_frames)

        Args:
            recordings: files that libsndfile reads, up to a minute each; may be None for a model
                that reads text alone.
            texts: what is said, "" where it is not known; None is not known anywhere. A model that
                listens too then judges by sound and an empty text, which lowers its scores.
            top_frames: how many of the frames attended most are named.

        Raises:
            ConfigError: as many texts as recordings were expected, or recordings are needed.
            AudioError: a recording cannot be used. `finetune.predict.answering.predict` goes on.
        """
        names = [""] * len(texts or ()) if recordings is None else [str(r) for r in recordings]
        spoken = [""] * len(names) if texts is None else list(texts)
        if len(spoken) != len(names) or (recordings is None and self.audio_encoder is not None):
            given = "none" if recordings is None else len(names)
            raise ConfigError(
                f"got {given} recordings and {len(spoken)} texts; expected a recording for each "
                "text (None only for a model that reads text alone)."
            )
        utterances = [
            Utterance(id=name, audio=Path(name), label="", text=text)
            for name, text in zip(names, spoken, strict=True)
        ]
        found = []
        for answer in predict([self], utterances, top_frames=top_frames):
            if isinstance(answer, Unusable):
                raise AudioError(answer.error)
            found.append(answer)
        return found

    @classmethod
    def from_pretrained(
        cls,
        name: str | Path,
        *,
        device: torch.device | str = "cpu",
        revision: str | None = None,
    ) -> EmotionModel:
        """Load a model. No code of its directory is run.

        Args:
            name: a directory that `save_pretrained` wrote; as text also a hub id, which is
                downloaded where it is not on this machine.
            device: where it goes.
            revision: branch, tag or commit of a hub id.

        Raises:
            MissingStepError: there is no model in it.
            FormatVersionError: it is of another version.
            ConfigError: it is no model of Emopool, or files are missing, altered or foreign.
            EmopoolError: a hub id could not be downloaded.
        """
        return cls(read_model(resolve_model(name, revision=revision), device=device))

    def save_pretrained(self, directory: str | Path, **more: str) -> None:
        """Write the model as a directory with a model card, at once or not at all.

        Args:
            directory: new, empty, or an earlier model, which is replaced when all is written.
            more: further text files by stem, kept beside it as `<stem>.csv`.

        Raises:
            ConfigError: the directory holds something else.
        """
        extra = {f"{stem}.csv": text for stem, text in more.items()}
        write_model(Path(directory), replace(self._parts, provenance=self.provenance), extra)

    def _speech(self, signal: Signal) -> Tensor:
        """`[N]` probabilities of speech, rounded as they are in the cache."""
        assert self.audio_encoder is not None
        assert self.detector is not None
        rows = speech(signal, self.audio_encoder.grid, self.detector)
        stored = np.concatenate(rows).astype(self.speech_dtype)
        return torch.from_numpy(stored.astype(np.float32)).to(self.device)


def _check_waveforms(waveforms: Sequence[Waveform]) -> None:
    """Refuse what an encoder would take without a word and answer with nonsense."""
    for number, waveform in enumerate(waveforms):
        samples = torch.as_tensor(waveform)
        if samples.ndim != 1 or not samples.is_floating_point():
            raise ConfigError(
                f"waveform {number} is {samples.dtype} of shape {list(samples.shape)}; expected "
                "[samples] in floating point, -1 to 1. Divide 16-bit samples by 32768, and mix "
                "channels to one."
            )
        if not bool(torch.isfinite(samples).all()):
            raise AudioError(
                f"waveform {number} has samples that are not finite (NaN or infinite). "
                "Repair the recording, or leave it out."
            )


def _train_unfrozen(module: nn.Module) -> None:
    parameters = list(module.parameters())
    if parameters and all(parameter.requires_grad for parameter in parameters):
        module.train()
        return
    for child in module.children():
        _train_unfrozen(child)
