"""From an encoder's name to its directory: a folder, a hub id, or `tiny`.

Nothing here imports torch unless `tiny` has to be made, and huggingface_hub only when a hub id is
named.
"""

from __future__ import annotations

import re
from pathlib import Path

from cache.encoders.files import Kind, tiny_folder, tokenizer_files, weight_files
from cache.encoders.grid import read_config
from corpora.errors import ConfigError, EmopoolError

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
            from cache.encoders.tiny import make_tiny_encoder  # imports torch

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
