"""An encoder on disk: from its name to a directory, and from the directory to recipe fields.

Nothing here imports torch, and huggingface_hub only when a hub id is named, so that an extraction
with nothing to do is planned at once.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Literal

from cache.grid import FBANK_MODELS, read_config, read_grid
from cache.recipe import JSON
from corpora.errors import ConfigError, EmopoolError

Kind = Literal["audio", "text"]
#: From files to the SHA-256 of their bytes, in hexadecimal.
Hashes = Callable[[Sequence[Path]], Mapping[Path, str]]

#: Tokens kept of one text, special ones included. Encoders with longer contexts are cut here too:
#: DeBERTa-v3's tokenizer names no limit of its own, and an utterance is a sentence or a few.
MAXIMUM_TOKENS = 512
#: The code of `cache/fbank.py`, counted up when its numbers change.
FBANK_VERSION = 1

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
# What is fetched from a hub. Pickled weights only where there are no others (as in
# microsoft/deberta-v3-base); transformers reads them with torch's tensors-only unpickler.
_HUB_FILES = ["*.json", "*.txt", "*.model", "*.codes", "*.safetensors"]
_HUB_PICKLED = ["pytorch_model*.bin", "pytorch_model*.json"]
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")


def resolve_encoder(name: str, kind: Kind, work: Path) -> Path:
    """The directory of an encoder.

    Args:
        name: a directory, a hub id, or `tiny` (made under `work` on first use).
        kind: whether a speech or a text encoder is wanted.
        work: the work folder.

    Returns:
        A directory with config.json and weights.

    Raises:
        ConfigError: the name is none of these, or the directory is not an encoder's.
        EmopoolError: the hub id is not on this machine and could not be downloaded.
    """
    path = Path(name).expanduser()
    if name == "tiny":
        directory = tiny_folder(work, kind)
        if not directory.is_dir():
            from cache.tiny import make_tiny_encoder  # imports torch

            make_tiny_encoder(work, kind)
    elif path.is_dir():
        directory = path.resolve()
    elif _HUB_ID.fullmatch(name):
        directory = _from_hub(name, kind)
    else:
        raise ConfigError(
            f"{kind} encoder {name}: no such directory, and not a hub id. Expected a directory, "
            "an id such as facebook/w2v-bert-2.0, or tiny."
        )
    read_config(directory, "config.json")
    weight_files(directory)
    return directory


def tiny_folder(work: Path, kind: Kind) -> Path:
    """Where the `tiny` encoder of a kind lies; it is there complete or not at all."""
    return work / "encoders" / f"tiny-{kind}"


def weight_files(directory: Path) -> tuple[Path, ...]:
    """The files transformers loads weights from: safetensors, or pickled where there are none.

    Raises:
        ConfigError: there are none, or a listed shard is missing.
    """
    for single in ("model.safetensors", "pytorch_model.bin"):
        if (directory / single).is_file():
            return (directory / single,)
        index = f"{single}.index.json"
        if (directory / index).is_file():
            names = sorted(set(read_config(directory, index)["weight_map"].values()))
            shards = tuple(directory / name for name in names)
            missing = [shard.name for shard in shards if not shard.is_file()]
            if missing:
                raise ConfigError(
                    f"{directory} lacks {', '.join(missing)}, which {index} lists. "
                    "Copy the encoder again."
                )
            return shards
    raise ConfigError(
        f"{directory} holds no weights: expected model.safetensors (or pytorch_model.bin). "
        "Name a directory that save_pretrained wrote, or a hub id."
    )


def encoder_fields(directory: Path, kind: Kind, hashes: Hashes | None = None) -> dict[str, JSON]:
    """What of an encoder decides its numbers, for the recipe. Its name and place do not.

    Args:
        directory: see `resolve_encoder`.
        kind: "audio" or "text".
        hashes: how to hash the weight files; by default they are read every time.

    Raises:
        ConfigError: a file is missing or not readable, or no frame grid is known for it.
    """
    hashes = hash_files if hashes is None else hashes
    weights = weight_files(directory)
    digests = hashes(weights)
    config = _without_volatile(read_config(directory, "config.json"))
    fields: dict[str, JSON] = {
        "weights": [digests[path] for path in weights],
        "config": config,
        "transformers": version("transformers"),
    }
    if kind == "audio":
        grid = read_grid(directory)
        front_end = _without_volatile(read_config(directory, "preprocessor_config.json"))
        fields["front_end"] = front_end
        if config.get("model_type") in FBANK_MODELS:
            fields["fbank"] = FBANK_VERSION
        fields["grid"] = {"hop": grid.hop, "window": grid.window, "rule": grid.rule}
    else:
        files = tokenizer_files(directory)
        found = hash_files(files)
        fields["tokenizer"] = {path.name: found[path] for path in files}
        fields["tokenizers"] = version("tokenizers")
        fields["special_tokens"] = "kept"
        fields["maximum_tokens"] = maximum_tokens(config)
    return fields


def tokenizer_files(directory: Path) -> tuple[Path, ...]:
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


def maximum_tokens(config: Mapping[str, JSON]) -> int:
    """The most tokens of one text an encoder takes, special ones included (512 at most)."""
    positions = config.get("max_position_embeddings")
    if not isinstance(positions, int) or positions < 1:
        return MAXIMUM_TOKENS
    if config.get("model_type") in _OFFSET_POSITIONS:
        padding = config.get("pad_token_id")
        positions -= 1 + (padding if isinstance(padding, int) else 1)
    return min(MAXIMUM_TOKENS, positions)


def hash_files(paths: Sequence[Path]) -> dict[Path, str]:
    """SHA-256 of each file's bytes, in hexadecimal."""
    digests = {}
    for path in paths:
        with path.open("rb") as file:
            digests[path] = hashlib.file_digest(file, "sha256").hexdigest()
    return digests


def _without_volatile(config: Mapping[str, JSON]) -> dict[str, JSON]:
    return {key: value for key, value in config.items() if key not in _VOLATILE}


def _from_hub(name: str, kind: Kind) -> Path:
    """The local snapshot of a hub id; downloaded if it is not on this machine."""
    from huggingface_hub import snapshot_download, try_to_load_from_cache

    cached = try_to_load_from_cache(name, "config.json")
    if isinstance(cached, str) and _is_complete(Path(cached).parent, kind):
        return Path(cached).parent
    try:
        directory = Path(
            snapshot_download(name, allow_patterns=_HUB_FILES, ignore_patterns=["*/*"])
        )
        if not any(directory.glob("*.safetensors")):
            snapshot_download(name, allow_patterns=_HUB_PICKLED, ignore_patterns=["*/*"])
    except (OSError, ValueError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise EmopoolError(
            f"{kind} encoder {name} is not on this machine and could not be downloaded "
            f"({reason}). Connect to a network and check the id, or name a local directory, "
            "or use tiny."
        ) from error
    return directory


def _is_complete(directory: Path, kind: Kind) -> bool:
    """Whether a snapshot holds all that loading needs."""
    try:
        weight_files(directory)
        if kind == "text":
            tokenizer_files(directory)
    except ConfigError:
        return False
    return kind == "text" or (directory / "preprocessor_config.json").is_file()
