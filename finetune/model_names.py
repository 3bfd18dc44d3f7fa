"""From a model's name to its directory: a folder, or a hub id."""

from __future__ import annotations

from pathlib import Path

from cache.encoders.names import hub_directory
from corpora.base.errors import EmopoolError, MissingStepError
from finetune.model_directory import read_model_config
from finetune.model_files import CARD, KINDS

# What is fetched from a hub: what a model consists of, in any of its folders, and never code.
_HUB_FILES = [CARD, *(f"*{suffix}" for suffix in sorted(KINDS))]


def resolve_model(name: str | Path, *, revision: str | None = None) -> Path:
    """The directory of a model.

    Args:
        name: a directory; as text also a hub id, which is looked up on this machine and then
            downloaded.
        revision: branch, tag or commit of a hub id.

    Raises:
        MissingStepError: there is no such directory, and it is no hub id.
        EmopoolError: the hub id is not on this machine and could not be downloaded.
    """
    path = Path(name).expanduser()
    if path.is_dir() or isinstance(name, Path):
        return path
    directory = hub_directory(
        name,
        "model",
        _is_complete,
        ", or make one with `python cli.py finetune --best`",
        files=_HUB_FILES,
        ignored=(),
        revision=revision,
    )
    if directory is None:
        raise MissingStepError(
            f"no model in {name}: there is no such directory, and it is no hub id. Make one with "
            "`python cli.py finetune --best`, or name another."
        )
    return directory


def _is_complete(directory: Path) -> bool:
    """Whether a snapshot holds all files that its config.json lists."""
    try:
        files = read_model_config(directory)["files"]
    except EmopoolError:
        return False
    return all((directory / file).is_file() for file in files)
