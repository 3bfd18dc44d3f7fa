"""`push`: a model directory on the Hugging Face hub, as it lies on disk, card and all."""

from __future__ import annotations

import re
from pathlib import Path

from corpora.base.errors import ConfigError, EmopoolError
from corpora.base.report import Report, Table
from finetune.model_directory import read_model_config
from finetune.model_files import CARD, CONFIG, check_files

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def push(
    directory: Path, repository: str, *, private: bool = True, dry_run: bool = False
) -> Report:
    """Send a model to the hub, in one commit.

    Sent is what its config.json lists, that file and the card; files that editors and version
    control left there are not. They are compared with their digests first.

    Args:
        directory: that `finetune` wrote.
        repository: owner/name; made where there is none.
        private: whether a new one is; one that is there stays as it is.
        dry_run: send nothing, and ask the network nothing.

    Raises:
        MissingStepError: there is no model.
        ConfigError: it is no model of Emopool, files were altered, or the id is none.
        EmopoolError: the hub refused or could not be reached.
    """
    if not _HUB_ID.fullmatch(repository):
        raise ConfigError(f"{repository!r} is no hub id; expected owner/name, such as anna/ser.")
    config = read_model_config(directory)
    check_files(directory, config["files"])
    names = [CONFIG, *[CARD] * (directory / CARD).is_file(), *config["files"]]
    sizes = [(directory / name).stat().st_size / 1e6 for name in names]
    where = f"https://huggingface.co/{repository}"
    if not dry_run:
        where = _send(directory, repository, names, private=private)
    kind = "private" if private else "public"
    table = Table("", ("file", "MB"), list(zip(names, sizes, strict=True)), right=(1,))
    said = f"{len(names)} files, {sum(sizes):,.1f} MB"
    said += f" would go to {where} ({kind})" if dry_run else f": {where} ({kind} if new)"
    licence = (
        "The weights are bound by the licences of their encoders and corpus: read the section "
        f"Licence of {CARD}, and name them in its header (`license: other`) before others see it."
    )
    data = {
        "repository": repository,
        "url": where,
        "private": private,
        "sent": not dry_run,
        "files": dict(zip(names, sizes, strict=True)),
    }
    after = [] if dry_run else [f"python cli.py predict hello.wav --model {repository}"]
    title = "Would be sent" if dry_run else "Sent"
    return Report(title, [f"{said}.", table, licence], next=after, data=data)


def _send(directory: Path, repository: str, names: list[str], *, private: bool) -> str:
    """Returns the address of the repository."""
    from huggingface_hub import HfApi

    api = HfApi(library_name="emopool")
    try:
        made = api.create_repo(repository, private=private, exist_ok=True)
        api.upload_folder(
            repo_id=repository,
            folder_path=directory,
            # Patterns, in which these have a meaning.
            allow_patterns=[re.sub(r"([*?\[])", r"[\1]", name) for name in names],
            commit_message="Emopool model",
        )
    except Exception as error:  # of the hub, of HTTP, of want of a token: no other common base
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise EmopoolError(
            f"{directory} was not sent to {repository} ({reason}). Log in with `hf auth login` (or "
            "set HF_TOKEN to a token that may write), check the owner's name, and push again: what "
            "has arrived is not sent twice."
        ) from error
    return str(made)
