"""The files of a model directory: put in place whole, compared with their digests before use."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from cache.encoders.files import hash_files
from cache.store.layout import publish
from corpora.base.errors import ConfigError
from corpora.base.files import left_under_way, new_stamp, remove, sweep, under_way, writing

CONFIG, HEAD, CARD = "config.json", "head.safetensors", "README.md"
# config.json holds the digests; a person may edit the model card.
UNCHECKED = frozenset({CONFIG, CARD})
# The kinds of files that a model consists of. A directory that lists anything else as its own
# (code, pickled weights) was not written by Emopool, whatever its digests say.
KINDS = frozenset({".codes", ".csv", ".json", ".model", ".safetensors", ".txt"})


@contextmanager
def replacing(directory: Path) -> Iterator[Path]:
    """Yield a folder to build in; on success it becomes `directory`, else it is removed.

    An earlier model stays until the new one is complete on disk.

    Args:
        directory: new, empty, or an earlier model.

    Raises:
        ConfigError: the directory holds something else.
    """
    directory = directory.absolute()
    has_model(directory)
    check_replaceable(directory)
    stamp = new_stamp()
    site = under_way(directory, stamp)
    site.mkdir(parents=True)
    try:
        with writing(directory):
            yield site
        _put_in_place(site, directory, under_way(directory, stamp, "old"))
    finally:
        shutil.rmtree(site, ignore_errors=True)  # gone already when it was put in place


def has_model(directory: Path) -> bool:
    """Whether there is a model, once what a killed process left of one is put right.

    Killed between its two renames it left two hidden directories: the new model, which was complete
    then, and the earlier one.
    """
    directory = directory.absolute()
    for stamp in left_under_way(directory, "old"):
        new, earlier = (under_way(directory, stamp, kind) for kind in ("tmp", "old"))
        if not directory.exists():
            os.rename(new if new.is_dir() else earlier, directory)
        for path in (new, earlier):
            remove(path)
    sweep(directory.parent)
    return (directory / CONFIG).is_file()


def check_replaceable(directory: Path) -> None:
    """Refuse to replace what is not a model.

    Raises:
        ConfigError: the directory holds something else.
    """
    if not directory.exists():
        return
    is_model = (directory / CONFIG).is_file() and (directory / HEAD).is_file()
    if not directory.is_dir() or (any(directory.iterdir()) and not is_model):
        raise ConfigError(
            f"{directory} holds something that is not a model of Emopool; it is not replaced. "
            "Name a new directory, or move it away."
        )


def digests(directory: Path) -> dict[str, str]:
    """SHA-256 of every file that a model consists of, by its name inside the directory."""
    found = _files(directory)
    hashes = hash_files(list(found.values()))
    return {name: hashes[path] for name, path in found.items()}


def check_files(directory: Path, expected: Mapping[str, str]) -> None:
    """Compare the files of a model with the list in its config.json.

    Raises:
        ConfigError: files are missing, altered, or not of the model.
    """
    names = set(_files(directory))
    foreign = sorted(name for name in expected if Path(name).suffix not in KINDS)
    if foreign:
        raise ConfigError(
            f"{directory} lists {', '.join(foreign)} as part of the model. A model of Emopool is "
            "safetensors, JSON and text; code and pickled files are never read. Do not use it."
        )
    problems = [f"{name} is missing" for name in sorted(set(expected) - names)]
    problems += [f"{name} does not belong to it" for name in sorted(names - set(expected))]
    if not problems:
        found = digests(directory)
        problems = [
            f"{name} was altered (its SHA-256 differs)"
            for name in found
            if found[name] != expected[name]
        ]
    if problems:
        raise ConfigError(
            f"{directory} is not the model that was saved: {'; '.join(problems)}. "
            "Copy it again from its source, or fine-tune again."
        )


def fsync(path: Path) -> None:
    """Make a file's bytes durable."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def save_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Write tensors, wherever they are, and make them durable."""
    own = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    # transformers refuses files that do not say what framework they are from.
    save_file(own, path, metadata={"format": "pt"})
    fsync(path)


def _files(directory: Path) -> dict[str, Path]:
    """The files that count; version control and editors leave hidden ones, which nothing reads."""
    found = {
        path.relative_to(directory).as_posix(): path
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }
    return {
        name: path
        for name, path in found.items()
        if name not in UNCHECKED and not any(part.startswith(".") for part in name.split("/"))
    }


def _put_in_place(site: Path, directory: Path, earlier: Path) -> None:
    """Rename the finished model into place; an earlier one steps aside first and is then removed.

    A directory cannot be renamed onto a full one, so for a moment only the two hidden ones exist:
    `has_model` puts that right.
    """
    if directory.exists():
        os.rename(directory, earlier)
    try:
        publish(site, directory)
    except BaseException:
        if earlier.exists() and not directory.exists():
            os.rename(earlier, directory)
        raise
    shutil.rmtree(earlier, ignore_errors=True)
