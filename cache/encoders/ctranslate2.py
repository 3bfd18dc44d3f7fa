"""Whisper from CTranslate2's `model.bin` to a folder that transformers loads.

The package index carries Whispers converted for faster-whisper, in this format (version 6, all
numbers little-endian; a text is a uint16 length and so many bytes, the last of them 0):

    uint32  version                         6
    text    specification                   WhisperSpec
    uint32  revision of the specification
    uint32  number of arrays; for each
        text    name                        encoder/layer_0/self_attention/linear_0/weight
        uint8   rank, and as many uint32    its shape
        uint8   type                        0 to 5: float32, int8, int16, int32, float16, bfloat16
        uint32  bytes, and as many bytes
    uint32  number of aliases; for each
        text    name, and text of the array that it names too

It is read as data: names and numbers, nothing that could be run. Weights that were quantised are
refused: what they lost is not in the file.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor
from transformers import (
    GenerationConfig,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
)

from cache.encoders.hidden_states import quiet
from corpora.base.errors import ConfigError

VERSION, SPECIFICATION = 6, "WhisperSpec"
_TYPES = {0: "float32", 1: "int8", 2: "int16", 3: "int32", 4: "float16", 5: "bfloat16"}
_QUANTISED = ("int8", "int16", "bfloat16")
# Of attention, in the order in which the format keeps their rows in one matrix.
_SELF, _KEY_VALUE = ("q_proj", "k_proj", "v_proj"), ("k_proj", "v_proj")

Array = NDArray[Any]


def read_arrays(data: bytes, where: str) -> dict[str, Array]:
    """The arrays of a `model.bin` by name.

    Args:
        data: the whole file.
        where: it comes from, for messages.

    Raises:
        ConfigError: another version or specification, quantised weights, or bytes that are missing
            or left over.
    """
    reader = _Reader(data)
    try:
        version = reader.number("I")
        specification = reader.text() if version == VERSION else ""
        if (version, specification) != (VERSION, SPECIFICATION):
            raise ConfigError(
                f"{where} is of version {version} {specification or '(unread)'}; expected "
                f"CTranslate2's version {VERSION} of {SPECIFICATION}. Take another file."
            )
        reader.number("I")  # the revision changes options of decoding, and no array
        arrays = {}
        for _ in range(reader.number("I")):
            name = reader.text()
            arrays[name] = reader.array(name, where)
        for _ in range(reader.number("I")):
            alias, name = reader.text(), reader.text()
            arrays[alias] = arrays[name]
    except ConfigError:
        raise
    except (struct.error, ValueError, KeyError) as error:
        raise ConfigError(
            f"{where} is damaged at byte {reader.at:,} of {len(data):,} ({error}). Take it from "
            "its source again."
        ) from error
    if reader.at != len(data):
        raise ConfigError(
            f"{where} has {len(data) - reader.at:,} bytes more than its format explains. Take it "
            "from its source again."
        )
    return arrays


class _Reader:
    """Numbers, texts and arrays, one after the other."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def number(self, form: str) -> int:
        value: int = struct.unpack_from(f"<{form}", self.data, self.at)[0]
        self.at += struct.calcsize(f"<{form}")
        return value

    def text(self) -> str:
        size = self.number("H")
        value = self._take(size)
        if not value.endswith(b"\0"):
            raise ValueError("a text without its end")
        return value[:-1].decode()

    def array(self, name: str, where: str) -> Array:
        shape = [self.number("I") for _ in range(self.number("B"))]
        kind = _TYPES[self.number("B")]
        if kind in _QUANTISED and name.endswith(("weight", "encodings")):
            raise ConfigError(
                f"{where} is quantised: its array {name} is {kind}, expected float32 or float16. "
                "What the original said cannot be had from it; take another file."
            )
        dtype = np.dtype("uint16" if kind == "bfloat16" else kind).newbyteorder("<")
        value = self._take(self.number("I"))
        return np.frombuffer(value, dtype).reshape(shape)

    def _take(self, size: int) -> bytes:
        if self.at + size > len(self.data):
            raise ValueError(f"{size:,} bytes wanted")
        value = self.data[self.at : self.at + size]
        self.at += size
        return value


def whisper_state(arrays: dict[str, Array]) -> tuple[dict[str, Tensor], dict[str, int]]:
    """The arrays under the names that transformers gives them, and how many layers there are.

    Raises:
        KeyError: an array is missing.
    """
    state: dict[str, Tensor] = {}

    def put(name: str, array: Array) -> None:
        state[f"model.{name}"] = torch.from_numpy(np.array(array))

    def norm(source: str, target: str) -> None:
        put(f"{target}.weight", arrays[f"{source}/gamma"])
        put(f"{target}.bias", arrays[f"{source}/beta"])

    def linear(source: str, target: str) -> None:
        put(f"{target}.weight", arrays[f"{source}/weight"])
        put(f"{target}.bias", arrays[f"{source}/bias"])

    def split(source: str, names: tuple[str, ...], target: str) -> None:
        weights = np.split(arrays[f"{source}/weight"], len(names))
        biases = np.split(arrays[f"{source}/bias"], len(names))
        for name, weight, bias in zip(names, weights, biases, strict=True):
            put(f"{target}.{name}.weight", weight)
            if name != "k_proj":  # Whisper's keys have no bias: the format fills in zeros
                put(f"{target}.{name}.bias", bias)

    def layer(source: str, target: str, *, decodes: bool) -> None:
        norm(f"{source}/self_attention/layer_norm", f"{target}.self_attn_layer_norm")
        split(f"{source}/self_attention/linear_0", _SELF, f"{target}.self_attn")
        linear(f"{source}/self_attention/linear_1", f"{target}.self_attn.out_proj")
        if decodes:
            norm(f"{source}/attention/layer_norm", f"{target}.encoder_attn_layer_norm")
            linear(f"{source}/attention/linear_0", f"{target}.encoder_attn.q_proj")
            split(f"{source}/attention/linear_1", _KEY_VALUE, f"{target}.encoder_attn")
            linear(f"{source}/attention/linear_2", f"{target}.encoder_attn.out_proj")
        norm(f"{source}/ffn/layer_norm", f"{target}.final_layer_norm")
        linear(f"{source}/ffn/linear_0", f"{target}.fc1")
        linear(f"{source}/ffn/linear_1", f"{target}.fc2")

    linear("encoder/conv1", "encoder.conv1")
    linear("encoder/conv2", "encoder.conv2")
    put("decoder.embed_tokens.weight", arrays["decoder/embeddings/weight"])
    layers = {}
    for side in ("encoder", "decoder"):
        positions = arrays[f"{side}/position_encodings/encodings"]
        put(f"{side}.embed_positions.weight", positions)
        norm(f"{side}/layer_norm", f"{side}.layer_norm")
        count = 0
        while f"{side}/layer_{count}/ffn/linear_0/weight" in arrays:
            layer(f"{side}/layer_{count}", f"{side}.layers.{count}", decodes=side == "decoder")
            count += 1
        layers[side] = count
    return state, layers


def convert_whisper(
    folder: Path, data: bytes, options: bytes, tokenizer: bytes, *, multilingual: bool, where: str
) -> None:
    """Write a Whisper as transformers would, in the precision of the file.

    Args:
        folder: is made.
        data: `model.bin`.
        options: `config.json` beside it: suppressed tokens, alignment heads, tokens of languages.
        tokenizer: `tokenizer.json`.
        multilingual: whether it knows more than English.
        where: the file comes from, for messages.

    Raises:
        ConfigError: the file is not what it should be.
    """
    arrays = read_arrays(data, where)
    try:
        state, layers = whisper_state(arrays)
    except (KeyError, ValueError) as error:
        raise ConfigError(f"{where} is no whole Whisper ({error}). Take another file.") from error
    width, mels = state["model.encoder.conv1.weight"].shape[:2]
    mark = "<|endoftext|>"
    tokens = Tokenizer.from_str(tokenizer.decode())
    # Whisper ends, begins and fills up with one token.
    special = {
        "pad_token_id": tokens.token_to_id(mark),
        "bos_token_id": tokens.token_to_id(mark),
        "eos_token_id": tokens.token_to_id(mark),
        "decoder_start_token_id": tokens.token_to_id("<|startoftranscript|>"),
    }
    config = WhisperConfig(
        vocab_size=len(state["model.decoder.embed_tokens.weight"]),
        num_mel_bins=mels,
        d_model=width,
        encoder_layers=layers["encoder"],
        decoder_layers=layers["decoder"],
        encoder_attention_heads=width // 64,  # as in every Whisper
        decoder_attention_heads=width // 64,
        encoder_ffn_dim=4 * width,
        decoder_ffn_dim=4 * width,
        dtype=state["model.encoder.conv1.weight"].dtype,
        **special,
    )
    folder.mkdir(parents=True)
    (folder / "tokenizer.json").write_bytes(tokenizer)
    words = dict.fromkeys(("bos_token", "eos_token", "unk_token", "pad_token"), mark)
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "WhisperTokenizer", "model_max_length": 1024, **words})
    )
    with quiet():
        model: Any = WhisperForConditionalGeneration(config).to(config.dtype)
        lost = model.load_state_dict(state, strict=False)
        # The output layer is the embedding of the tokens.
        if lost.unexpected_keys or set(lost.missing_keys) - {"proj_out.weight"}:
            raise ConfigError(
                f"{where} lacks {lost.missing_keys[:3]} of a Whisper, or has more "
                f"({lost.unexpected_keys[:3]}). Take another file."
            )
        model.generation_config = _generation(json.loads(options), tokens, special, multilingual)
        model.save_pretrained(folder)
        WhisperFeatureExtractor(feature_size=mels).save_pretrained(folder)


def _generation(
    options: dict[str, Any], tokens: Tokenizer, special: dict[str, int | None], multilingual: bool
) -> GenerationConfig:
    more: dict[str, Any] = {}
    if multilingual:
        more["lang_to_id"] = {tokens.id_to_token(n): n for n in options["lang_ids"]}
        more["task_to_id"] = {
            task: tokens.token_to_id(f"<|{task}|>") for task in ("transcribe", "translate")
        }
    return GenerationConfig(
        is_multilingual=multilingual,
        no_timestamps_token_id=tokens.token_to_id("<|notimestamps|>"),
        prev_sot_token_id=tokens.token_to_id("<|startofprev|>"),
        suppress_tokens=options["suppress_ids"],
        begin_suppress_tokens=options["suppress_ids_begin"],
        alignment_heads=options["alignment_heads"],
        max_length=448,
        max_initial_timestamp_index=50,
        return_timestamps=False,
        **more,
        **special,
    )
