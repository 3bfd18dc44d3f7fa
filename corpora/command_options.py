"""Options and output that the commands of all floors share."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

Function = TypeVar("Function", bound=Callable[..., Any])


def work_option(function: Function) -> Function:
    """`--work`, the same for every command."""
    return click.option(
        "--work",
        "root",
        type=click.Path(file_okay=False, path_type=Path),
        default=Path("work"),
        show_default=True,
        envvar="EMOPOOL_WORK",
        show_envvar=True,
        help="Folder for the manifest, features, study and model.",
    )(function)


def json_option(function: Function) -> Function:
    """`--json`, for commands that print a result."""
    return click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")(
        function
    )


def manifest_option(function: Function) -> Function:
    """`--manifest`, for commands that read one."""
    return click.option(
        "--manifest",
        "manifest_path",
        type=click.Path(dir_okay=False, path_type=Path),
        help="Another manifest than WORK/manifest.csv.",
    )(function)


def device_option(function: Function) -> Function:
    """`--device`, for commands that run encoders."""
    return click.option(
        "--device",
        type=click.Choice(["auto", "cpu", "cuda"]),
        default="auto",
        show_default=True,
        help="Where the encoders run.",
    )(function)


def show(value: Any, text: str, as_json: bool) -> None:  # noqa: ANN401 - any JSON
    """Print a result for a person or for a program."""
    click.echo(json.dumps(value, ensure_ascii=False, indent=2) if as_json else text)
