"""Encoder folders that are damaged, half there or saved in another way: loaded, or one sentence."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file
from transformers import (
    SeamlessM4TFeatureExtractor,
    Wav2Vec2BertProcessor,
    Wav2Vec2Config,
    Wav2Vec2CTCTokenizer,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2Model,
    Wav2Vec2Processor,
)

from cache.encoders.audio_encoder import load_audio_encoder
from cache.encoders.files import Kind, encoder_fields
from cache.encoders.grid import encoder_shape
from cache.encoders.hidden_states import quiet
from cache.encoders.names import resolve_encoder
from cache.encoders.text_encoder import load_text_encoder
from cache.encoders.tiny import make_tiny_encoder
from cache.recipe import Recipe
from cache.transcribe.model_files import find_whisper
from cache.transcribe.whisper import Piece, load_whisper
from cli import main
from corpora.base.errors import ConfigError
from corpora.manifest import write_manifest
from tests.cache.recordings import make_manifest
from tests.cache.whispers import save_whisper
from tests.corpora.odd_sounds import POINTER

Damage = Callable[[Path], object]
WEIGHTS = "model.safetensors"


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    work = tmp_path_factory.mktemp("whole")
    return {
        "audio": make_tiny_encoder(work, "audio"),
        "text": make_tiny_encoder(work, "text"),
        "whisper": save_whisper(work / "whisper"),
    }


def load(kind: str, folder: Path) -> None:
    """All that a command does with an encoder before it encodes; a Whisper hears a second."""
    if kind == "whisper":
        whisper = load_whisper(find_whisper(str(folder)).directory)
        whisper([Piece(np.zeros(16_000, np.float32))])
        return
    modality: Kind = "audio" if kind == "audio" else "text"
    found = resolve_encoder(str(folder), modality, folder.parent)
    assert Recipe(modality, encoder_fields(found, modality)).fingerprint
    encoder_shape(found)
    (load_audio_encoder if kind == "audio" else load_text_encoder)(found)


def edit(name: str, **fields: Any) -> Damage:
    """Other values in a JSON file; a field is left out by `...`."""

    def change(folder: Path) -> None:
        path = folder / name
        value = json.loads(path.read_text()) | fields
        path.write_text(json.dumps({k: v for k, v in value.items() if v is not ...}))

    return change


def put(name: str, content: bytes) -> Damage:
    return lambda folder: (folder / name).write_bytes(content)


def cut(name: str, share: float) -> Damage:
    def change(folder: Path) -> None:
        data = (folder / name).read_bytes()
        (folder / name).write_bytes(data[: round(len(data) * share)])

    return change


def pickled(change: Callable[[bytes], bytes] = bytes) -> Damage:
    """The weights as PyTorch pickles them, in place of safetensors."""

    def save(folder: Path) -> None:
        path = folder / "pytorch_model.bin"
        torch.save(load_file(folder / WEIGHTS), path)
        (folder / WEIGHTS).unlink()
        path.write_bytes(change(path.read_bytes()))

    return save


def flip_header(folder: Path) -> None:
    data = bytearray((folder / WEIGHTS).read_bytes())
    data[20] ^= 0xFF
    (folder / WEIGHTS).write_bytes(bytes(data))


def longer(folder: Path) -> None:
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes() + b"x")


class Hostile:
    """What a pickle could run."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path("never-written").touch, ())


def hostile(folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Hostile()))


def sharded(index: object) -> Damage:
    def save(folder: Path) -> None:
        (folder / WEIGHTS).rename(folder / "model-1.safetensors")
        (folder / f"{WEIGHTS}.index.json").write_text(json.dumps(index))

    return save


IN_PLACE = "is a Git LFS pointer.*git lfs pull"
HALF = "cut short or damaged"
#: Damage that every kind of encoder can have, and words of the sentence.
COMMON: list[tuple[str, Damage, str]] = [
    ("weights are a pointer", put(WEIGHTS, POINTER), IN_PLACE),
    ("weights are empty", put(WEIGHTS, b""), "is empty"),
    ("half of the weights", cut(WEIGHTS, 0.5), f"{HALF}: its header says"),
    ("a header of weights", cut(WEIGHTS, 0.001), f"{HALF}: its header is not whole"),
    ("a flipped header", flip_header, HALF),
    ("weights with more behind", longer, HALF),
    ("weights are text", put(WEIGHTS, b"<html>404</html>" * 9), HALF),
    ("pickled: a pointer", pickled(lambda _: POINTER), IN_PLACE),
    ("pickled: empty", pickled(lambda _: b""), "is empty"),
    ("pickled: half", pickled(lambda data: data[: len(data) // 2]), "has no end"),
    ("pickled: text", pickled(lambda _: b"no weights"), "no file of PyTorch"),
    ("pickled: flipped", pickled(lambda d: d[:99] + b"\0" + d[100:]), "loaded|random"),
    ("a pickle that would run", hostile, "damaged, or hold more than tensors"),
    ("a config that is a pointer", put("config.json", POINTER), IN_PLACE),
    ("half a config", cut("config.json", 0.5), "not readable as JSON"),
    ("a config that is a list", put("config.json", b"[]"), "expected a JSON object"),
    ("a config of another encoding", put("config.json", b"\xff\xfe{}"), "not readable as"),
    ("a deep config", put("config.json", b"[" * 10**5), "not readable as JSON"),
    ("a type that is a list", edit("config.json", model_type=[]), "expected text"),
    ("no config", lambda f: (f / "config.json").unlink(), "config.json is missing"),
    ("no weights", lambda f: (f / WEIGHTS).unlink(), "holds no weights"),
    ("an index without a map", sharded({}), "has no weight_map"),
    ("an index of numbers", sharded({"weight_map": {"a": 1}}), "has no weight_map"),
    ("a missing shard", sharded({"weight_map": {"a": "model-2.safetensors"}}), "lacks mod"),
]
#: Case, kind, damage, and words of the sentence.
REFUSED: list[tuple[str, str, Damage, str]] = [
    *(
        (f"{kind}: {name}", kind, damage, why)
        for kind, some in (("audio", COMMON), ("text", COMMON[:9]), ("whisper", COMMON))
        for name, damage, why in some
    ),
    *(
        (f"audio: {name}", "audio", damage, why)
        for name, damage, why in (
            ("no width", edit("config.json", hidden_size=...), "names no"),
            ("a width of text", edit("config.json", hidden_size="128"), "names no"),
            ("a width of nothing", edit("config.json", hidden_size=0), "names no"),
            ("a width that is true", edit("config.json", hidden_size=True), "names no"),
            ("another width", edit("config.json", hidden_size=64), "cannot be loaded"),
            ("heads of text", edit("config.json", num_attention_heads="x"), "cannot be loaded"),
            ("not a number", edit("config.json", layer_norm_eps=float("nan")), "no number of JSON"),
            ("an infinity", put("config.json", b'{"a": 1e999}'), "1e999 is no number of JSON"),
            ("endless layers", edit("config.json", num_hidden_layers=10**20), "1,000 at most"),
            (
                "a padding of text",
                edit("preprocessor_config.json", padding_value="x"),
                "cannot be built",
            ),
            ("no such activation", edit("config.json", hidden_act="no"), "cannot be loaded"),
            ("more layers", edit("config.json", num_hidden_layers=5), "they would be random"),
            ("a stride of text", edit("preprocessor_config.json", stride="x"), "has the stride"),
            ("a stride of 0", edit("preprocessor_config.json", stride=0), "has the stride 0"),
            ("another rate", edit("preprocessor_config.json", sampling_rate=8000), "wants audio"),
            (
                "mels of text",
                edit("preprocessor_config.json", num_mel_bins="x"),
                "front end .* cannot be built",
            ),
            (
                "another front end",
                edit("preprocessor_config.json", feature_extractor_type="Wav2Vec2FeatureExtractor"),
                "expected a SeamlessM4TFeatureExtractor",
            ),
            (
                "a front end that is unknown",
                edit("preprocessor_config.json", feature_extractor_type="No"),
                "cannot be built",
            ),
            ("no front end", lambda f: (f / "preprocessor_config.json").unlink(), "is missing"),
            ("no mels", edit("preprocessor_config.json", num_mel_bins=0), "run with its front"),
            ("fewer mels", edit("preprocessor_config.json", num_mel_bins=40), "run with its front"),
            ("a pointer for it", put("preprocessor_config.json", POINTER), IN_PLACE),
        )
    ),
    *(
        (f"text: {name}", "text", damage, why)
        for name, damage, why in (
            ("no tokenizer", lambda f: _without(f, "tokenizer*"), "holds no tokenizer"),
            ("an empty tokenizer", put("tokenizer.json", b""), "is empty"),
            ("a pointer for it", put("tokenizer.json", POINTER), IN_PLACE),
            ("half a tokenizer", cut("tokenizer.json", 0.5), "tokenizer .* cannot be loaded"),
            ("a tokenizer that is {}", put("tokenizer.json", b"{}"), "cannot be loaded"),
            (
                "a length of text",
                edit("tokenizer_config.json", model_max_length="long"),
                "cannot be loaded",
            ),
        )
    ),
    *(
        (f"whisper: {name}", "whisper", damage, why)
        for name, damage, why in (
            ("half a tokenizer", cut("tokenizer.json", 0.5), "cannot be loaded as a Whisper"),
            ("no generation", lambda f: (f / "generation_config.json").unlink(), "is missing"),
            (
                "languages that are a list",
                edit("generation_config.json", lang_to_id=[1]),
                "has no lang_to_id",
            ),
            (
                "a start of text",
                edit("generation_config.json", decoder_start_token_id=""),
                "one cannot be used as a Whisper model",
            ),
            (
                "a length of text",
                edit("generation_config.json", max_length="x"),
                "one cannot be used as a Whisper model",
            ),
            ("endless layers", edit("config.json", decoder_layers=10**20), "1,000 at most"),
            (
                "positions of text",
                edit("config.json", max_source_positions="x"),
                "cannot be loaded",
            ),
        )
    ),
]


def _without(folder: Path, pattern: str) -> None:
    for path in folder.glob(pattern):
        path.unlink()


@pytest.mark.parametrize(
    ("kind", "damage", "why"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED]
)
def test_every_damaged_folder_is_refused_by_name(
    folders: dict[str, Path], tmp_path: Path, kind: str, damage: Damage, why: str
) -> None:
    folder = tmp_path / "one"
    shutil.copytree(folders[kind], folder)
    damage(folder)
    with pytest.raises(ConfigError, match=why) as refused:
        load(kind, folder)
    assert "weights_only" not in str(refused.value)
    assert not Path("never-written").exists()


@pytest.mark.parametrize("kind", ["audio", "text", "whisper"])
@pytest.mark.parametrize(
    "change", [lambda _: None, pickled(), put("notes.txt", b""), put(".gitattributes", POINTER)]
)
def test_every_whole_folder_is_loaded(
    folders: dict[str, Path], tmp_path: Path, kind: str, change: Damage
) -> None:
    folder = tmp_path / "one"
    shutil.copytree(folders[kind], folder)
    change(folder)
    load(kind, folder)


@pytest.mark.parametrize("kind", ["wav2vec2-bert", "wav2vec2"])
def test_a_processor_saved_alone_has_the_front_end(
    folders: dict[str, Path], tmp_path: Path, kind: str
) -> None:
    """transformers 5 writes front end and tokenizer into `processor_config.json` alone."""
    (tmp_path / "vocab.json").write_text(json.dumps({"a": 0, "[PAD]": 1, "[UNK]": 2, "|": 3}))
    tokenizer = Wav2Vec2CTCTokenizer(
        str(tmp_path / "vocab.json"), unk_token="[UNK]", pad_token="[PAD]"
    )
    folder = tmp_path / "one"
    with quiet():
        if kind == "wav2vec2":
            torch.manual_seed(0)
            small = Wav2Vec2Config(
                hidden_size=32,
                num_hidden_layers=2,
                num_attention_heads=2,
                intermediate_size=64,
                conv_dim=[32] * 7,
                num_conv_pos_embeddings=16,
                num_conv_pos_embedding_groups=2,
            )
            Wav2Vec2Model(small).save_pretrained(folder)
            Wav2Vec2Processor(Wav2Vec2FeatureExtractor(), tokenizer).save_pretrained(folder)
        else:
            shutil.copytree(folders["audio"], folder)
            (folder / "preprocessor_config.json").unlink()
            extractor = SeamlessM4TFeatureExtractor()
            Wav2Vec2BertProcessor(extractor, tokenizer).save_pretrained(folder)
    assert not (folder / "preprocessor_config.json").exists()
    load("audio", folder)


@pytest.mark.parametrize("kind", ["audio", "text"])
def test_extract_says_so_in_one_message(
    folders: dict[str, Path], tmp_path: Path, kind: str
) -> None:
    folder = tmp_path / "one"
    shutil.copytree(folders[kind], folder)
    (folder / WEIGHTS).write_bytes(POINTER)
    write_manifest(make_manifest(tmp_path), tmp_path / "work" / "manifest.csv")
    other = "text" if kind == "audio" else "audio"
    result = CliRunner().invoke(
        main,
        [
            *("extract", f"--{kind}-encoder", str(folder), f"--{other}-encoder", "tiny"),
            *("--work", str(tmp_path / "work")),
        ],
    )
    assert result.exit_code == 1
    assert "git lfs pull" in result.output
    assert isinstance(result.exception, SystemExit)
