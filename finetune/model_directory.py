"""A model as a directory: what lies in it, how it is written, what is refused.

    config.json                     format, labels, head, encoders, provenance, SHA-256 of each file
    README.md                       the model card, which a person may edit
    head.safetensors                the head
    speech_detector.safetensors     the voice activity detector, where the head needs one
    audio_encoder/                  config.json, preprocessor_config.json, model.safetensors
    text_encoder/                   config.json, tokenizer files, model.safetensors
    audio_adapter/, text_adapter/   adapter_config.json, adapter_model.safetensors: what LoRA added
                                    to the encoders, where it was not merged into them
    training.csv                    losses and scores by step

The two encoder folders are plain transformers directories: `AutoModel.from_pretrained` reads them,
and so does `extract --audio-encoder`; the adapter folders are
plain peft ones. Nothing in the directory is code or a pickle. The entries
`model_type`, `architectures` and `id2label` of config.json are what hubs and their tools look for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from cache.encoders.audio_encoder import AudioEncoder, load_audio_encoder
from cache.encoders.device import usual_dtype
from cache.encoders.files import tokenizer_files
from cache.encoders.front_ends import WhisperMels
from cache.encoders.grid import PREPROCESSOR, PROCESSOR, Padding, read_config
from cache.encoders.names import hub_directory
from cache.encoders.text_encoder import TextEncoder, load_text_encoder
from cache.encoders.vad import SpeechDetector
from cache.recipe import LayersRead, layers_from_json
from corpora.base.codec import parse, plain
from corpora.base.errors import ConfigError, EmopoolError, MissingStepError
from corpora.base.files import read_json, write_json, write_text
from finetune.adapters import base_tensors, has_adapters, read_adapter, write_adapter
from finetune.model_card import card_text
from finetune.model_files import (
    CARD,
    CONFIG,
    HEAD,
    KINDS,
    check_files,
    digests,
    fsync,
    has_model,
    replacing,
    save_tensors,
)
from heads.head import Head, HeadConfig
from heads.records import layer_weights

# What is fetched from a hub: what a model consists of, in any of its folders, and never code.
_HUB_FILES = [CARD, *(f"*{suffix}" for suffix in sorted(KINDS))]


def resolve_model(name: str | Path, *, revision: str | None = None) -> Path:
    """The directory of a model.

    Args:
        name: a directory; as text also a hub id, which is looked up on this machine and then
            downloaded.
        revision: branch, tag or commit of a hub id.

    Raises:
        MissingStepError: there is no such directory, and it is no hub id.
        EmopoolError: the hub id is not on this machine and could not be downloaded.
    """
    path = Path(name).expanduser()
    if path.is_dir() or isinstance(name, Path):
        return path
    directory = hub_directory(
        name,
        "model",
        _is_complete,
        ", or make one with `python cli.py finetune --best`",
        files=_HUB_FILES,
        ignored=(),
        revision=revision,
    )
    if directory is None:
        raise MissingStepError(
            f"no model in {name}: there is no such directory, and it is no hub id. Make one with "
            "`python cli.py finetune --best`, or name another."
        )
    return directory


def _is_complete(directory: Path) -> bool:
    """Whether a snapshot holds all files that its config.json lists."""
    try:
        files = read_model_config(directory)["files"]
    except EmopoolError:
        return False
    return all((directory / file).is_file() for file in files)


FORMAT, VERSION = "emopool-model", 1
# Of a model with adapters: what does not know of them would answer without them.
ADAPTED = 2
WEIGHTS, DETECTOR = "model.safetensors", "speech_detector.safetensors"
FOLDERS = {"audio": "audio_encoder", "text": "text_encoder"}
ADAPTERS = {"audio": "audio_adapter", "text": "text_adapter"}


@dataclass(frozen=True, eq=False)
class Parts:
    """What a model is made of.

    Attributes:
        head: the head.
        audio_encoder: None where the head does not listen.
        text_encoder: None where the head does not read.
        detector: None where the head does not ask which frames are speech.
        layers: the hidden state read, or those weighed, for each modality of the head.
        front_ends: by modality the files beside an encoder's weights and config (front end,
            tokenizer), name to bytes, as they came.
        speech_dtype: what speech probabilities are rounded to, as in the cache.
        provenance: what it was made from, JSON values.
    """

    head: Head
    audio_encoder: AudioEncoder | None
    text_encoder: TextEncoder | None
    detector: SpeechDetector | None
    layers: Mapping[str, LayersRead]
    front_ends: Mapping[str, Mapping[str, bytes]]
    speech_dtype: str
    provenance: Mapping[str, Any]

    @property
    def encoders(self) -> dict[str, AudioEncoder | TextEncoder]:
        """The encoders by modality."""
        both = {"audio": self.audio_encoder, "text": self.text_encoder}
        return {name: encoder for name, encoder in both.items() if encoder is not None}


def front_end_files(directory: Path, modality: str) -> dict[str, bytes]:
    """The files of an encoder directory that turn recordings or texts into its input."""
    if modality == "audio":
        named = (directory / name for name in (PREPROCESSOR, PROCESSOR))
        paths = tuple(path for path in named if path.is_file())
    else:
        paths = tokenizer_files(directory)
    return {path.name: path.read_bytes() for path in paths}


def write_model(directory: Path, parts: Parts, extra: Mapping[str, str] | None = None) -> None:
    """Write a model at once or not at all.

    Args:
        directory: new, empty, or an earlier model.
        parts: the model.
        extra: further text files by name.

    Raises:
        ConfigError: the directory holds something else.
    """
    with replacing(directory) as site:
        save_tensors(parts.head.state_dict(), site / HEAD)
        if parts.detector is not None:
            save_tensors(parts.detector.state_dict(), site / DETECTOR)
        for modality, encoder in parts.encoders.items():
            _write_encoder(site / FOLDERS[modality], encoder, parts.front_ends[modality])
            if has_adapters(encoder):
                write_adapter(site / ADAPTERS[modality], encoder)
        for name, text in (extra or {}).items():
            write_text(site / name, text)
        described = {**describe(parts), "files": digests(site)}
        write_json(site / CONFIG, described)
        write_text(site / CARD, card_text(described))


def describe(parts: Parts) -> dict[str, Any]:
    """What config.json says about a model, but for its files."""
    labels = parts.head.config.labels
    return {
        "format": FORMAT,
        "version": ADAPTED if any(map(has_adapters, parts.encoders.values())) else VERSION,
        "model_type": "emopool",
        "architectures": ["EmotionModel"],
        **_label_entries(labels),
        "head": parts.head.config.to_json(),
        "layers": plain(parts.layers),
        "layer_weights": plain(layer_weights(parts.head)),
        "encoders": {
            name: {
                "folder": FOLDERS[name],
                **({"adapter": ADAPTERS[name]} if has_adapters(encoder) else {}),
                **_encoder_summary(encoder),
            }
            for name, encoder in parts.encoders.items()
        },
        "speech_dtype": parts.speech_dtype,
        "provenance": dict(parts.provenance),
    }


def read_model(directory: Path, *, device: torch.device | str = "cpu") -> Parts:
    """Read what `write_model` wrote.

    Args:
        directory: the model.
        device: where it goes; its speech encoder computes there in what extraction does.

    Raises:
        MissingStepError: there is no model.
        FormatVersionError: config.json is of another version or format.
        ConfigError: it is something else's directory, or files are missing, altered or foreign.
    """
    config = read_model_config(directory)
    check_files(directory, config["files"])
    try:
        shape = HeadConfig.from_json(config["head"])
        layers = {name: layers_from_json(config["layers"][name]) for name in shape.modalities}
        provenance, speech_dtype = dict(config["provenance"]), str(config["speech_dtype"])
        _check_labels(config, shape.labels)
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(
            f"{directory / CONFIG} does not describe a model ({error}). Restore the file."
        ) from error
    try:
        head = Head.from_state(shape, load_file(directory / HEAD))
    except (SafetensorError, ConfigError) as error:
        raise _misfit(directory / HEAD, error) from error
    detector = None
    if head.config.needs_speech:
        detector = SpeechDetector().requires_grad_(False).eval()
        _load_tensors(detector, directory / DETECTOR)
        detector.to(device)
    folders = {name: directory / FOLDERS[name] for name in head.config.modalities}
    audio = text = None
    if "audio" in folders:
        audio = load_audio_encoder(
            folders["audio"],
            device=device,
            compute_dtype=usual_dtype(device),
            padding=parse(Padding | None, config["encoders"]["audio"].get("padding")),
        )
    if "text" in folders:
        text = load_text_encoder(folders["text"], device=device)
    for name, encoder in (("audio", audio), ("text", text)):
        if encoder is not None and "adapter" in config["encoders"][name]:
            read_adapter(directory / ADAPTERS[name], encoder)
    return Parts(
        head=head.to(device).requires_grad_(False),
        audio_encoder=audio,
        text_encoder=text,
        detector=detector,
        layers=layers,
        front_ends={name: front_end_files(folder, name) for name, folder in folders.items()},
        speech_dtype=speech_dtype,
        provenance=provenance,
    )


def read_model_config(directory: Path) -> dict[str, Any]:
    """A model's config.json, without loading anything else.

    Raises:
        MissingStepError: there is no model.
        FormatVersionError: the file is of another version or format.
        ConfigError: it is not of Emopool at all, or not readable.
    """
    path = directory / CONFIG
    if not has_model(directory):
        raise MissingStepError(
            f"no model in {directory} ({CONFIG} is missing). Make one with "
            "`python cli.py finetune --best`, or name another directory."
        )
    found = read_config(directory, CONFIG)
    if "format" not in found:
        other = found.get("model_type", "something else")
        raise ConfigError(
            f"{directory} is no model of Emopool: its {CONFIG} is that of {other}. Name a "
            "directory that `finetune` wrote; an encoder is named when features are extracted."
        )
    version = ADAPTED if found.get("version") == ADAPTED else VERSION
    config = read_json(path, kind=FORMAT, version=version)
    if not isinstance(config.get("files"), dict):
        raise ConfigError(f"{path} lists no files. Restore it, or fine-tune again.")
    return config


def _label_entries(labels: Sequence[str]) -> dict[str, Any]:
    """The order of the classes as Emopool and hubs read it."""
    return {
        "labels": list(labels),
        "id2label": {str(number): label for number, label in enumerate(labels)},
        "label2id": {label: number for number, label in enumerate(labels)},
    }


def _check_labels(config: Mapping[str, Any], labels: Sequence[str]) -> None:
    """Compare the copies of the label order with the head's."""
    for name, expected in _label_entries(labels).items():
        if config[name] != expected:
            raise ValueError(f"its {name} is {config[name]}, but its head's {list(labels)}")


def _write_encoder(
    folder: Path, encoder: AudioEncoder | TextEncoder, front_end: Mapping[str, bytes]
) -> None:
    folder.mkdir()
    model: Any = encoder.model
    model.config.save_pretrained(folder)
    save_tensors(base_tensors(model), folder / WEIGHTS)
    for name, data in front_end.items():
        (folder / name).write_bytes(data)
        fsync(folder / name)
    fsync(folder / CONFIG)


def _encoder_summary(encoder: AudioEncoder | TextEncoder) -> dict[str, Any]:
    """What of an encoder a reader of config.json wants to know; the rest is in its folder."""
    model: Any = encoder.model
    summary = {
        "model_type": model.config.model_type,
        "layers": encoder.layers,
        "dim": encoder.dim,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
    }
    if isinstance(encoder, AudioEncoder) and isinstance(encoder.front_end, WhisperMels):
        summary["padding"] = encoder.front_end.padding.to_json()
    return summary


def _load_tensors(module: nn.Module, path: Path) -> None:
    """Fill a module, every tensor of it and no other."""
    try:
        module.load_state_dict(load_file(path), strict=True)
    except (SafetensorError, RuntimeError) as error:
        raise _misfit(path, error) from error


def _misfit(path: Path, error: Exception) -> ConfigError:
    return ConfigError(f"{path} does not fit {CONFIG} beside it ({error}). Restore the model.")
