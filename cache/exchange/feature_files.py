"""Features computed elsewhere: a folder of `.npy` and `.pt` files, one an utterance."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError  # the exception alone: torch raises it for what is no tensor
from tokenize import TokenError
from typing import Any

import numpy as np
import numpy.typing as npt

from corpora.base.errors import CacheError, ConfigError, MissingStepError
from corpora.names import plain_name

SUFFIXES = (".npy", ".pt")
# What the two readers are known to raise for files that are damaged or something else.
_UNREADABLE = (
    *(OSError, EOFError, RuntimeError, ValueError, TypeError, LookupError, OverflowError),
    *(AssertionError, AttributeError, SyntaxError, MemoryError),
    *(UnpicklingError, TokenError, struct.error),
)


def find_feature_files(folder: Path) -> dict[str, Path]:
    """Files by the utterance id that names them: the path inside the folder, less the suffix.

    Raises:
        MissingStepError: there is no such folder.
        ConfigError: two files have one id.
    """
    if not folder.is_dir():
        raise MissingStepError(f"{folder} is not a folder. Name one with .npy or .pt files.")
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix in SUFFIXES and path.is_file():
            name = plain_name(path.relative_to(folder).with_suffix("").as_posix())
            if name in found:
                raise ConfigError(
                    f"{found[name]} and {path} are both named by the utterance {name}. Remove one."
                )
            found[name] = path
    return found


def read_features(path: Path) -> npt.NDArray[Any]:
    """One file's frames, `[T, D]` of a float type. Nothing in the file is executed.

    Raises:
        CacheError: it cannot be read, holds something else, or a value that is not finite.
    """
    try:
        values = _read_pt(path) if path.suffix == ".pt" else np.load(path, allow_pickle=False)
    except UnpicklingError as error:  # whose advice is to run what is in the file
        raise CacheError(
            f"{path} cannot be read (it holds Python objects, which are never loaded: they could "
            "run any code). Expected one tensor [T, D]; save it anew, as torch.save(tensor, path)."
        ) from error
    except _UNREADABLE as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise CacheError(
            f"{path} cannot be read ({reason}). Expected one array or tensor [T, D], without "
            "Python objects."
        ) from error
    if not isinstance(values, np.ndarray) or values.dtype.kind != "f":
        raise CacheError(f"{path} holds {_kind_of(values)}, expected an array of floats [T, D].")
    if values.ndim != 2 or not values.size:
        raise CacheError(
            f"{path} has the shape {list(values.shape)}, expected frames [T, D], at least one."
        )
    finite = int(np.isfinite(values).sum())
    if finite < values.size:
        raise CacheError(f"{path}: {values.size - finite} of {values.size} values are not finite.")
    return values


def common_dim(shapes: Mapping[Path, tuple[int, ...]]) -> int:
    """The D of all files.

    Raises:
        ConfigError: they differ.
    """
    (first, (_, dim)), *others = shapes.items()
    for path, shape in others:
        if shape[1] != dim:
            raise ConfigError(
                f"{first} has {dim} values a frame and {path} {shape[1]}. One folder is one "
                "stream: expected the same number in all."
            )
    return dim


def _read_pt(path: Path) -> object:
    import torch  # here: .npy files need none

    value = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(value, torch.Tensor):
        return value
    # NumPy has no bfloat16; every one is a float32.
    return (value.float() if value.dtype == torch.bfloat16 else value).detach().numpy()


def _kind_of(value: object) -> str:
    return f"{value.dtype} values" if isinstance(value, np.ndarray) else f"a {type(value).__name__}"
