"""Small pretrained encoders from packages, and the format that Whisper lies in there."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from tokenizers import Tokenizer
from transformers import WhisperConfig, WhisperForConditionalGeneration

from cache.encoders import names
from cache.encoders.audio_encoder import load_audio_encoder
from cache.encoders.ctranslate2 import convert_whisper, read_arrays
from cache.encoders.names import SMALL, Packaged, Small, is_packaged, resolve_encoder, small_folder
from corpora.base.errors import ConfigError, EmopoolError
from tests.cache.whispers import save_whisper

TYPES = {"float32": 0, "int8": 1, "int16": 2, "int32": 3, "float16": 4}
Arrays = Mapping[str, NDArray[Any]]


def text(value: str) -> bytes:
    return struct.pack("<H", len(value) + 1) + value.encode() + b"\0"


def written(
    arrays: Arrays,
    aliases: Mapping[str, str] | None = None,
    *,
    version: int = 6,
    specification: str = "WhisperSpec",
) -> bytes:
    """A `model.bin`, from the description of the format."""
    parts = [struct.pack("<I", version), text(specification), struct.pack("<II", 3, len(arrays))]
    for name, array in arrays.items():
        shape = struct.pack(f"<B{array.ndim}I", array.ndim, *array.shape)
        kind = struct.pack("<BI", TYPES[array.dtype.name], array.nbytes)
        parts += [text(name), shape, kind, array.tobytes()]
    parts.append(struct.pack("<I", len(aliases or {})))
    parts += [text(alias) + text(name) for alias, name in (aliases or {}).items()]
    return b"".join(parts)


SMALLEST: Arrays = {
    "encoder/conv1/weight": np.arange(6, dtype=np.float16).reshape(1, 2, 3),
    "encoder/activation": np.array(2, dtype=np.int8),
}


def test_names_shapes_types_and_aliases_are_read() -> None:
    found = read_arrays(written(SMALLEST, {"other": "encoder/conv1/weight"}), "here")
    assert set(found) == {*SMALLEST, "other"}
    for name, array in SMALLEST.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)
    np.testing.assert_array_equal(found["other"], SMALLEST["encoder/conv1/weight"])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (written(SMALLEST, version=5), "version 5"),
        (written(SMALLEST, specification="TransformerSpec"), "TransformerSpec; expected"),
        (written(SMALLEST) + b"\0", "1 bytes more"),
        (b"", "damaged at byte 0 of 0"),
        (b"PK\x03\x04" * 9, "version 67324752"),
        (written({"a/weight": np.zeros((2, 2), np.int8)}), "quantised: its array a/weight is int8"),
        (written({}, {"one": "of nothing"}), "damaged.*of nothing"),
    ],
)
def test_what_is_not_the_format_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_arrays(data, "here")


@given(length=st.integers(0, len(written(SMALLEST, {"a": "encoder/activation"})) - 1))
def test_half_a_file_is_refused(length: int) -> None:
    whole = written(SMALLEST, {"a": "encoder/activation"})
    with pytest.raises(ConfigError, match=r"damaged|version|more than"):
        read_arrays(whole[:length], "here")


@given(at=st.integers(0, len(written(SMALLEST)) - 1), value=st.integers(0, 255))
def test_a_changed_byte_is_read_as_numbers_or_refused(at: int, value: int) -> None:
    data = bytearray(written(SMALLEST))
    data[at] = value
    with suppress(ConfigError):
        read_arrays(bytes(data), "here")


# Of a transformers Whisper: (name there, name in the format).
_NORM = {"weight": "gamma", "bias": "beta"}
_LINEAR = {"weight": "weight", "bias": "bias"}


def arrays_of(model: WhisperForConditionalGeneration) -> dict[str, NDArray[Any]]:
    """A Whisper's weights as the format names them: the converter's inverse, written apart."""
    state = {n: v.half().numpy() for n, v in model.state_dict().items()}
    found: dict[str, NDArray[Any]] = {
        "decoder/embeddings/weight": state["model.decoder.embed_tokens.weight"]
    }

    def put(target: str, source: str, names: Mapping[str, str]) -> None:
        for theirs, ours in names.items():
            found[f"{target}/{ours}"] = state[f"model.{source}.{theirs}"]

    def joined(target: str, source: str, parts: str) -> None:
        width = state[f"model.{source}.q_proj.weight"].shape[0]
        zero = np.zeros(width, np.float16)
        found[f"{target}/weight"] = np.concatenate(
            [state[f"model.{source}.{part}_proj.weight"] for part in parts]
        )
        found[f"{target}/bias"] = np.concatenate(
            [zero if p == "k" else state[f"model.{source}.{p}_proj.bias"] for p in parts]
        )

    for convolution in ("conv1", "conv2"):
        put(f"encoder/{convolution}", f"encoder.{convolution}", _LINEAR)
    for side in ("encoder", "decoder"):
        found[f"{side}/position_encodings/encodings"] = state[
            f"model.{side}.embed_positions.weight"
        ]
        put(f"{side}/layer_norm", f"{side}.layer_norm", _NORM)
        for number in range(getattr(model.config, f"{side}_layers")):
            ours, theirs = f"{side}/layer_{number}", f"{side}.layers.{number}"
            put(f"{ours}/self_attention/layer_norm", f"{theirs}.self_attn_layer_norm", _NORM)
            joined(f"{ours}/self_attention/linear_0", f"{theirs}.self_attn", "qkv")
            put(f"{ours}/self_attention/linear_1", f"{theirs}.self_attn.out_proj", _LINEAR)
            put(f"{ours}/ffn/layer_norm", f"{theirs}.final_layer_norm", _NORM)
            put(f"{ours}/ffn/linear_0", f"{theirs}.fc1", _LINEAR)
            put(f"{ours}/ffn/linear_1", f"{theirs}.fc2", _LINEAR)
            if side == "decoder":
                put(f"{ours}/attention/layer_norm", f"{theirs}.encoder_attn_layer_norm", _NORM)
                put(f"{ours}/attention/linear_0", f"{theirs}.encoder_attn.q_proj", _LINEAR)
                joined(f"{ours}/attention/linear_1", f"{theirs}.encoder_attn", "kv")
                put(f"{ours}/attention/linear_2", f"{theirs}.encoder_attn.out_proj", _LINEAR)
    return found


OPTIONS = {
    "lang_ids": [],
    "suppress_ids": [1],
    "suppress_ids_begin": [2],
    "alignment_heads": [[0, 0]],
}


@pytest.fixture(scope="module")
def spoken(tmp_path_factory: pytest.TempPathFactory) -> tuple[WhisperForConditionalGeneration, str]:
    """A small random Whisper in half precision, and its tokenizer's file."""
    folder = save_whisper(tmp_path_factory.mktemp("spoken") / "it", multilingual=False)
    tokens = (folder / "tokenizer.json").read_text()
    config = WhisperConfig(
        vocab_size=Tokenizer.from_str(tokens).get_vocab_size(),
        d_model=64,
        encoder_layers=2,
        decoder_layers=1,
        encoder_attention_heads=1,
        decoder_attention_heads=1,
        encoder_ffn_dim=256,
        decoder_ffn_dim=256,
        pad_token_id=0,
        suppress_tokens=[],
        begin_suppress_tokens=[],
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = WhisperForConditionalGeneration(config)
        for parameter in model.parameters():
            parameter.data.normal_(0, 0.1)
    return model, tokens


def converted(folder: Path, arrays: Arrays, tokens: str) -> Path:
    options = json.dumps(OPTIONS).encode()
    convert_whisper(
        folder, written(arrays), options, tokens.encode(), multilingual=False, where="here"
    )
    return folder


def test_a_converted_whisper_is_the_original_in_half_precision(
    spoken: tuple[WhisperForConditionalGeneration, str], tmp_path: Path
) -> None:
    model, tokens = spoken
    folder = converted(tmp_path / "out", arrays_of(model), tokens)
    again = WhisperForConditionalGeneration.from_pretrained(folder, dtype=torch.float16)
    expected = {n: v.half() for n, v in model.state_dict().items()}
    found = again.state_dict()
    assert set(found) == set(expected)
    for name, value in expected.items():
        assert torch.equal(found[name], value), name
    encoder = load_audio_encoder(folder)
    with torch.inference_mode():
        frames = encoder([torch.randn(8_000) * 0.1], [1])[1]
    assert frames.values.shape == (25, 64)
    assert torch.isfinite(frames.values).all()


def test_a_whisper_with_an_array_missing_is_refused(
    spoken: tuple[WhisperForConditionalGeneration, str], tmp_path: Path
) -> None:
    model, tokens = spoken
    arrays = arrays_of(model)
    del arrays["encoder/layer_1/self_attention/linear_0/bias"]
    with pytest.raises(ConfigError, match="no whole Whisper"):
        converted(tmp_path / "out", arrays, tokens)


Packages = Callable[[dict[str, bytes]], None]


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Packages:
    """Installs a package, `carrier`, with files of these contents, that carries `minilm`."""

    def install(contents: dict[str, bytes]) -> None:
        site = tmp_path / "site"
        files = []
        for name, data in contents.items():
            (site / "carrier").mkdir(parents=True, exist_ok=True)
            (site / "carrier" / name).write_bytes(data)
            digest = hashlib.sha256(data).hexdigest()
            files.append(Packaged("carrier", f"carrier/{name}", digest))
        monkeypatch.setitem(SMALL, "minilm", Small("text", "no/where", tuple(files)))
        located = SimpleNamespace(locate_file=lambda path: site / path)
        monkeypatch.setattr(names, "distribution", lambda name: located)

    return install


def test_a_packaged_encoder_is_made_once(packages: Packages, tmp_path: Path) -> None:
    weights = safetensors.torch.save({})
    packages({"config.json": b"{}", "model.safetensors": weights, "vocab.txt": b"a"})
    folder = resolve_encoder("minilm", "text", tmp_path)
    assert folder == small_folder(tmp_path, "minilm")
    assert (folder / "model.safetensors").read_bytes() == weights
    (tmp_path / "site" / "carrier" / "model.safetensors").unlink()
    assert resolve_encoder("minilm", "text", tmp_path) == folder


def test_a_file_that_is_not_the_one_that_was_checked_is_refused(
    packages: Packages, tmp_path: Path
) -> None:
    packages({"config.json": b"{}", "model.safetensors": b"weights"})
    (tmp_path / "site" / "carrier" / "model.safetensors").write_bytes(b"weightS")
    with pytest.raises(ConfigError, match=r"SHA-256 differs.*\.\[small\]"):
        resolve_encoder("minilm", "text", tmp_path)
    assert not list((tmp_path / "encoders").glob("*"))
    assert not list((tmp_path / "encoders").glob(".*"))


def test_without_hub_and_packages_the_message_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = replace(SMALL["minilm"], hub="no/where")
    monkeypatch.setitem(SMALL, "minilm", gone)
    monkeypatch.setattr("cache.encoders.names.is_packaged", lambda name: False)

    def fail(*args: object, **kwargs: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr("huggingface_hub.snapshot_download", fail)
    with pytest.raises(EmopoolError, match=r"no network.*\.\[small\].*tiny"):
        resolve_encoder("minilm", "text", tmp_path)


def test_an_encoder_of_the_other_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"whisper-base encodes audio.*minilm"):
        resolve_encoder("whisper-base", "text", tmp_path)


@pytest.mark.parametrize("name", SMALL)
def test_every_file_of_a_small_encoder_has_a_digest(name: str) -> None:
    assert all(len(piece.sha256) == 64 for piece in SMALL[name].files)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, one in SMALL.items() if is_packaged(name)])
def test_the_installed_packages_carry_what_was_checked(name: str, tmp_path: Path) -> None:
    resolve_encoder(name, SMALL[name].kind, tmp_path)
