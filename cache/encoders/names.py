"""From an encoder's name to its directory: a folder, a hub id, a small encoder, or `tiny`.

Nothing here imports torch unless an encoder has to be made, and huggingface_hub only when a hub id
is named.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

from cache.encoders.files import (
    Kind,
    named_tokenizer_files,
    named_weight_files,
    tiny_folder,
    weight_files,
)
from cache.encoders.grid import PREPROCESSOR, PROCESSOR, read_config
from cache.encoders.small import INSTALL, SMALL, is_packaged, make_small_encoder, small_folder
from corpora.base.errors import ConfigError, EmopoolError
from corpora.base.files import check_folder

# What is fetched from a hub. Pickled weights only where there are no others (as in
# microsoft/deberta-v3-base); transformers reads them with torch's tensors-only unpickler.
_HUB_FILES = ["*.json", "*.txt", "*.model", "*.codes", "*.safetensors"]
_HUB_PICKLED = ["pytorch_model*.bin", "pytorch_model*.json"]
# Nothing from subfolders; and no second copy of the same weights (openai/whisper-large-v3 has one).
_HUB_IGNORED = ["*/*", "*.fp32*"]
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")


def resolve_encoder(name: str, kind: Kind, work: Path) -> Path:
    """The directory of an encoder.

    Args:
        name: a directory, a hub id, one of `cache.encoders.small`, or `tiny` (made under `work` on
            first use).
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
        check_folder(directory)
    elif path.is_dir():
        directory = path.resolve()
    elif name in SMALL:
        if SMALL[name].kind != kind:
            raise ConfigError(
                f"{name} encodes {SMALL[name].kind}; expected an encoder for {kind}: "
                f"{', '.join(n for n, one in SMALL.items() if one.kind == kind)}."
            )
        directory = small_directory(name, work, lambda folder: _is_complete(folder, kind))
    else:
        found = hub_directory(
            name, f"{kind} encoder", lambda folder: _is_complete(folder, kind), ", or use tiny"
        )
        if found is None:
            what = "a file" if path.is_file() else "no such directory, and not a hub id"
            raise ConfigError(
                f"{kind} encoder {name}: {what}. Expected a "
                "directory, an id such as facebook/w2v-bert-2.0, "
                f"{', '.join(n for n, one in SMALL.items() if one.kind == kind)}, or tiny."
            )
        directory = found
    read_config(directory, "config.json")
    weight_files(directory)
    return directory


def small_directory(name: str, work: Path, complete: Callable[[Path], bool]) -> Path:
    """The directory of a small pretrained encoder: the hub's, or made from installed packages.

    What is on this machine is preferred to what would have to be downloaded.

    Args:
        name: of `cache.encoders.small.SMALL`.
        work: the work folder.
        complete: see `hub_directory`.

    Raises:
        EmopoolError: it is not on this machine and could not be downloaded.
        ConfigError: an installed package holds other files than those that were checked.
    """
    if small_folder(work, name).is_dir():
        check_folder(small_folder(work, name))
        return small_folder(work, name)
    from huggingface_hub import try_to_load_from_cache

    hub = SMALL[name].hub
    cached = try_to_load_from_cache(hub, "config.json")
    if isinstance(cached, str) and complete(Path(cached).parent):
        return Path(cached).parent
    if is_packaged(name):
        return make_small_encoder(work, name)
    otherwise = f", install the packages that carry it ({INSTALL}), or use tiny"
    found = hub_directory(hub, name, complete, otherwise)
    assert found is not None, "its id is one"
    return found


def hub_directory(
    name: str,
    what: str,
    complete: Callable[[Path], bool],
    otherwise: str = "",
    *,
    files: Sequence[str] = _HUB_FILES,
    ignored: Sequence[str] = _HUB_IGNORED,
    revision: str | None = None,
) -> Path | None:
    """The local snapshot of a hub id; downloaded if it is not on this machine.

    Args:
        name: perhaps a hub id.
        what: it is, for messages.
        complete: whether a folder holds all that loading needs.
        otherwise: what else the user can do, for messages.
        files: patterns of what is fetched.
        ignored: patterns of what is not, though it is among those.
        revision: branch, tag or commit; None is the default one.

    Returns:
        None if the name cannot be a hub id.

    Raises:
        EmopoolError: it is not on this machine and could not be downloaded.
    """
    if not _HUB_ID.fullmatch(name):
        return None
    from huggingface_hub import snapshot_download, try_to_load_from_cache

    cached = try_to_load_from_cache(name, "config.json", None, revision)
    if isinstance(cached, str) and complete(Path(cached).parent):
        return Path(cached).parent
    try:
        directory = Path(
            snapshot_download(
                name,
                allow_patterns=list(files),
                ignore_patterns=list(ignored),
                revision=revision,
            )
        )
        if files is _HUB_FILES and not any(directory.glob("*.safetensors")):
            snapshot_download(name, allow_patterns=_HUB_PICKLED, ignore_patterns=_HUB_IGNORED)
    except (OSError, ValueError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise EmopoolError(
            f"{what} {name} is not on this machine and could not be downloaded "
            f"({reason}). Connect to a network and check the id, or name a local "
            f"directory{otherwise}."
        ) from error
    return directory


def _is_complete(directory: Path, kind: Kind) -> bool:
    """Whether a snapshot holds all that loading needs; loading says what is damaged."""
    try:
        named_weight_files(directory)
        if kind == "text":
            named_tokenizer_files(directory)
    except ConfigError:
        return False
    return kind == "text" or any((directory / name).is_file() for name in (PREPROCESSOR, PROCESSOR))
