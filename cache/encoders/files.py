"""An encoder on disk: its files, and what of them goes into a recipe.

Nothing here imports torch, so that an extraction with nothing to do is planned at once.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Literal
from zipfile import is_zipfile

from cache.encoders.grid import (
    FBANK_MODELS,
    Padding,
    read_config,
    read_front_end,
    read_grid,
    read_padding,
)
from cache.recipe import JSON
from corpora.base.errors import ConfigError, MissingExtraError
from corpora.base.files import LFS_SENTENCE, file_sha256, is_lfs_pointer

#: Samples of one chunk at 16 kHz (32 ms).
CHUNK = 512


def vad_fields() -> dict[str, JSON]:
    """What decides the probabilities of speech besides the samples and the grid.

    Raises:
        MissingExtraError: see `weights_file`.
    """
    weights = file_sha256(weights_file())
    return {"detector": "silero-vad", "weights": weights, "chunk": CHUNK, "frame": "centre"}


def weights_file() -> Path:
    """The weights inside the installed `silero-vad` package.

    Raises:
        MissingExtraError: the package or the file is not there.
    """
    found = importlib.util.find_spec("silero_vad")
    for folder in (found.submodule_search_locations if found else None) or ():
        path = Path(folder) / "data" / "silero_vad_16k.safetensors"
        if path.is_file():
            return path
    raise MissingExtraError(
        "the voice activity detector's weights are missing: expected the package silero-vad with "
        "data/silero_vad_16k.safetensors. Install it: pip install 'silero-vad>=6.2.3'."
    )


Kind = Literal["audio", "text"]
#: From files to the SHA-256 of their bytes, in hexadecimal.
Hashes = Callable[[Sequence[Path]], Mapping[Path, str]]


def hash_files(paths: Sequence[Path]) -> dict[Path, str]:
    """SHA-256 of each file's bytes, in hexadecimal."""
    return {path: file_sha256(path) for path in paths}


#: Tokens kept of one text, special ones included. Encoders with longer contexts are cut here too:
#: DeBERTa-v3's tokenizer names no limit of its own, and an utterance is a sentence or a few.
MAXIMUM_TOKENS = 512
#: The code of `cache/encoders/front_ends.py`, counted up when its numbers change.
FBANK_VERSION = 1

# Of a safetensors file, in bytes: the library's own bound.
_LARGEST_HEADER = 100_000_000
# Their position numbers start behind the padding index, so max_position_embeddings counts
# pad_token_id + 1 positions that no token can have.
_OFFSET_POSITIONS = frozenset(
    {
        "camembert",
        "data2vec-text",
        "longformer",
        "mpnet",
        "roberta",
        "xlm-roberta",
        "xlm-roberta-xl",
    }
)
# Bookkeeping in the JSON files that changes with the writer and never a number.
_VOLATILE = frozenset(
    {"_name_or_path", "name_or_path", "processor_class", "transformers_version"}
    # Weights are always loaded as float32; the stored dtype shows in the weights' hash.
    | {"dtype", "torch_dtype"}
)
_TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "spm.model",
    "sentencepiece.bpe.model",
    "spiece.model",
    "tokenizer.model",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "bpe.codes",
)


def tiny_folder(work: Path, kind: Kind) -> Path:
    """Where the `tiny` encoder of a kind lies; it is there complete or not at all."""
    return work / "encoders" / f"tiny-{kind}"


def weight_files(directory: Path) -> tuple[Path, ...]:
    """The files transformers loads weights from, whole ones.

    Raises:
        ConfigError: there are none, a listed shard is missing, or one is empty, cut short, or what
            Git LFS leaves in its place.
    """
    files = named_weight_files(directory)
    for path in files:
        _check_there(path)
        (_check_safetensors if path.suffix == ".safetensors" else _check_pickled)(path)
    return files


def named_weight_files(directory: Path) -> tuple[Path, ...]:
    """The files transformers loads weights from: safetensors, or pickled where there are none.

    Raises:
        ConfigError: there are none, or a listed shard is missing.
    """
    for single in ("model.safetensors", "pytorch_model.bin"):
        if (directory / single).is_file():
            return (directory / single,)
        index = f"{single}.index.json"
        if (directory / index).is_file():
            names = read_config(directory, index).get("weight_map")
            if not isinstance(names, dict) or not all(isinstance(n, str) for n in names.values()):
                raise ConfigError(
                    f"{directory}/{index} has no weight_map from parameters to files. "
                    "Copy the encoder again."
                )
            shards = tuple(directory / name for name in sorted(set(names.values())))
            missing = [shard.name for shard in shards if not shard.is_file()]
            if missing:
                raise ConfigError(
                    f"{directory} lacks {', '.join(missing)}, which {index} lists. "
                    "Copy the encoder again."
                )
            return shards
    if (directory / "model.bin").is_file():
        raise ConfigError(
            f"{directory}/model.bin is a converted model (CTranslate2, as faster-whisper uses it): "
            "it may be quantised, and cannot be trained. Name the original: a hub id such as "
            "openai/whisper-base, or a directory that save_pretrained wrote."
        )
    raise ConfigError(
        f"{directory} holds no weights: expected model.safetensors (or pytorch_model.bin). "
        "Name a directory that save_pretrained wrote, or a hub id."
    )


def encoder_fields(
    directory: Path,
    kind: Kind,
    hashes: Hashes = hash_files,
    padding: Padding | None = None,
) -> dict[str, JSON]:
    """What of an encoder decides its numbers, for the recipe. Its name and place do not.

    Args:
        directory: see `cache.encoders.names.resolve_encoder`.
        kind: "audio" or "text".
        hashes: how to hash the weight files; by default they are read every time.
        padding: of a speech encoder without a mask; None is the usual one.

    Raises:
        ConfigError: a file is missing or not readable, or no frame grid is known for it.
    """
    weights = weight_files(directory)
    digests = hashes(weights)
    config = without_volatile(read_config(directory, "config.json"))
    fields: dict[str, JSON] = {
        "weights": [digests[path] for path in weights],
        "config": config,
        "transformers": version("transformers"),
    }
    if kind == "audio":
        grid = read_grid(directory)
        front_end = without_volatile(read_front_end(directory))
        fields["front_end"] = front_end
        if config.get("model_type") in FBANK_MODELS:
            fields["fbank"] = FBANK_VERSION
        fields["grid"] = grid.to_json()
        padding = padding or read_padding(directory)
        if padding is not None:
            fields["padding"] = padding.to_json()
    else:
        files = tokenizer_files(directory)
        found = hash_files(files)
        fields["tokenizer"] = {path.name: found[path] for path in files}
        fields["tokenizers"] = version("tokenizers")
        fields["special_tokens"] = "kept"
        fields["maximum_tokens"] = maximum_tokens(config)
    return fields


def tokenizer_files(directory: Path) -> tuple[Path, ...]:
    """The tokenizer's files in an encoder directory, whole ones.

    Raises:
        ConfigError: there is none, or one is empty or what Git LFS leaves in its place.
    """
    files = named_tokenizer_files(directory)
    for path in files:
        _check_there(path)
    return files


def named_tokenizer_files(directory: Path) -> tuple[Path, ...]:
    """The tokenizer's files in an encoder directory.

    Raises:
        ConfigError: there is none.
    """
    files = tuple(directory / name for name in _TOKENIZER_FILES if (directory / name).is_file())
    if not files:
        raise ConfigError(
            f"{directory} holds no tokenizer: expected tokenizer.json or a file such as "
            "spm.model or vocab.txt. Save the tokenizer beside the encoder."
        )
    return files


def _check_there(path: Path) -> None:
    """Refuse a file of which only the name was copied."""
    if path.stat().st_size == 0:
        raise ConfigError(f"{path} is empty (0 bytes). Copy it again.")
    if is_lfs_pointer(path):
        raise ConfigError(f"{path} {LFS_SENTENCE}")


def _check_safetensors(path: Path) -> None:
    """Compare a file's length with what its header says: 8 bytes, JSON of so many, and tensors."""
    size = path.stat().st_size
    with path.open("rb") as file:
        header = int.from_bytes(file.read(8), "little")
        if header > min(size - 8, _LARGEST_HEADER):
            raise _damaged(path, "its header is not whole")
        text = file.read(header)
    try:
        tensors = json.loads(text)
        ends = [one["data_offsets"][1] for name, one in tensors.items() if name != "__metadata__"]
        said = 8 + header + max(ends, default=0)
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError) as error:
        raise _damaged(path, "its header is not readable") from error
    if said != size:
        raise _damaged(path, f"its header says {said:,} bytes, and it has {size:,}")


def _check_pickled(path: Path) -> None:
    """Refuse what is neither a whole zip archive nor a pickle, as earlier versions wrote them."""
    with path.open("rb") as file:
        begin = file.read(2)
    if begin == b"PK":
        if not is_zipfile(path):
            raise _damaged(path, "the archive has no end")
    elif begin[:1] != b"\x80":
        raise _damaged(path, "it is no file of PyTorch")


def _damaged(path: Path, what: str) -> ConfigError:
    return ConfigError(f"{path} is cut short or damaged: {what}. Copy it again.")


def maximum_tokens(config: Mapping[str, JSON]) -> int:
    """The most tokens of one text an encoder takes, special ones included (512 at most)."""
    positions = config.get("max_position_embeddings")
    if not isinstance(positions, int) or positions < 1:
        return MAXIMUM_TOKENS
    if config.get("model_type") in _OFFSET_POSITIONS:
        padding = config.get("pad_token_id")
        positions -= 1 + (padding if isinstance(padding, int) else 1)
    return min(MAXIMUM_TOKENS, positions)


def without_volatile(config: Mapping[str, JSON]) -> dict[str, JSON]:
    """A configuration without what changes with its writer and never a number."""
    return {key: value for key, value in config.items() if key not in _VOLATILE}
