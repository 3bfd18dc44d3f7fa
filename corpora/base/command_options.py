"""Options and output that the commands of all floors share."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from corpora.utterance import ALL, SPLITS

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


def split_option(
    help: str, *, default: str | None, more: Sequence[str] = ()
) -> Callable[[Function], Function]:
    """`--split`, for commands that take utterances of a manifest.

    Args:
        help: which utterances they are; without `default` it says what is taken then.
        default: the split taken where none is named.
        more: values beside a manifest's own splits and `all`.
    """
    return click.option(
        "--split",
        type=click.Choice([*SPLITS, ALL, *more]),
        default=default,
        show_default=default is not None,
        help=help,
    )


def plots_option(help: str, *, default: bool) -> Callable[[Function], Function]:
    """`--plots/--no-plots`, for commands that draw with matplotlib."""
    return click.option("--plots/--no-plots", default=default, show_default=True, help=help)


def seed_option(function: Function) -> Function:
    """`--seed`, for commands that divide or draw rows."""
    return click.option(
        "--seed",
        default=0,
        show_default=True,
        help="For splits, folds and rows left out, where chance decides.",
    )(function)


def replace_option(function: Function) -> Function:
    """`--replace`, for commands that write a manifest of other recordings than those read."""
    return click.option(
        "--replace", is_flag=True, help="Write over the manifest of another corpus."
    )(function)


def device_option(function: Function) -> Function:
    """`--device`, for commands that run encoders or train."""
    return click.option(
        "--device",
        type=click.Choice(["auto", "cpu", "cuda"]),
        default="auto",
        show_default=True,
        help="Where encoders and heads run; auto takes a GPU where there is one.",
    )(function)


def with_defaults(
    values: Mapping[str, Any], source: str, given: Mapping[str, Any]
) -> dict[str, Any]:
    """Put defaults from elsewhere where the user gave no option, and say so on standard error.

    Args:
        values: of the running command's options, by their names.
        source: where the defaults come from, such as `Protocol leygue2025`.
        given: defaults for some of them.

    Returns:
        All values; those that the user typed, or set in the environment, stay.
    """
    context = click.get_current_context()
    usual = (None, ParameterSource.DEFAULT, ParameterSource.DEFAULT_MAP)
    replaced = {
        name: value
        for name, value in given.items()
        if name in values and context.get_parameter_source(name) in usual
    }
    say_defaults(source, replaced)
    return {**values, **replaced}


def say_defaults(source: str, values: Mapping[str, Any]) -> None:
    """Name defaults that come from elsewhere, in one line on standard error."""
    if values:
        told = ", ".join(
            f"{name.replace('_', ' ')} {_told(value)}" for name, value in values.items()
        )
        click.echo(f"{source} sets: {told} (your own options win).", err=True)


def _told(value: object) -> str:
    return " or ".join(map(str, value)) if isinstance(value, list) else str(value)


def show(value: Any, text: str, as_json: bool) -> None:  # noqa: ANN401 - any JSON
    """Print a result for a person or for a program."""
    click.echo(json.dumps(value, ensure_ascii=False, indent=2) if as_json else text)
