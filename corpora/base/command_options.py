"""Options: each is said once, beside its config's field, and made into click's option from there.

A field with `setting` is an option of a command, whose help, default, choices and bounds stand
there alone; `options` makes what click needs, and hands the command one config. Configs made in
Python are checked by the same words. Nothing heavy is imported: every `--help` passes here.
"""

from __future__ import annotations

import json
import math
import operator
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import Field, dataclass, field, fields, replace
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar, get_args, get_type_hints

import click
from click.core import ParameterSource

from corpora.base.errors import ConfigError, EmopoolError, did_you_mean
from corpora.base.work import Work
from corpora.utterance import ALL, SPLITS

PRECISIONS = ("auto", "fp32", "bf16")
TRACKERS = ("tensorboard", "trackio", "mlflow", "wandb")
Function = TypeVar("Function", bound=Callable[..., Any])
Asked = TypeVar("Asked", bound="Config")
_SETTING = "setting"
_LIMITS: Mapping[str, Callable[[Any, Any], bool]] = {
    "at least": operator.ge,
    "more than": operator.gt,
    "at most": operator.le,
    "less than": operator.lt,
}


@dataclass(frozen=True)
class Setting:
    """How a field of a config is typed, and what it takes; see `setting`."""

    help: str
    flag: str
    typed: Any
    choices: Sequence[Any]
    limits: tuple[float | None, ...]
    metavar: str | None
    parse: Callable[[str], Any] | None


def setting(
    default: Any = None,  # noqa: ANN401 - of any field
    help: str = "",
    *,
    flag: str = "",
    typed: Any = None,  # noqa: ANN401 - likewise
    choices: Sequence[Any] = (),
    least: float | None = None,
    above: float | None = None,
    most: float | None = None,
    below: float | None = None,
    metavar: str | None = None,
    parse: Callable[[str], Any] | None = None,
) -> Any:  # noqa: ANN401 - stands where a field's value would
    """A field of a `Config` that is an option of a command, too.

    Args:
        default: of the field.
        help: what it does; says what None or an empty default means.
        flag: on the command line; made from the field's name by default. One flag for a field that
            is True by default turns it off.
        typed: the default on the command line, where that is another or is parsed.
        choices: what the value, or each of several, may be.
        least: the smallest number.
        above: what a number must exceed.
        most: the largest number.
        below: what a number must stay below.
        metavar: what stands for the value in the help.
        parse: makes the value of what was typed; its ValueError says what was expected.
    """
    limits = (least, above, most, below)
    made = Setting(help, flag, typed, choices, limits, metavar, parse)
    if parse is not None and typed is not None and default is None:
        default = parse(typed)
    return field(default=default, metadata={_SETTING: made})


def device_setting() -> Any:  # noqa: ANN401 - as `setting`
    """`--device`, of what runs encoders or trains."""
    help = "Where encoders and heads run; auto takes a GPU where there is one."
    return setting("auto", help, metavar="[auto|cpu|cuda[:N]]")


def plots_setting(help: str, default: bool, **more: Any) -> Any:  # noqa: ANN401 - as `setting`
    """`--plots/--no-plots`, of what draws with matplotlib."""
    return setting(default, help, flag="--plots/--no-plots", **more)


def log_setting(folder: str) -> Any:  # noqa: ANN401 - as `setting`
    """`--log`, of what a tracker can follow."""
    help = (
        f"Let a tracker follow it, which writes below {folder} and sends nothing, unless "
        "WANDB_MODE, MLFLOW_TRACKING_URI, TRACKIO_SPACE_ID or TRACKIO_SERVER_URL say where to."
    )
    return setting("", help, choices=TRACKERS)


def graphs_setting() -> Any:  # noqa: ANN401 - as `setting`
    """`--cuda-graphs/--no-cuda-graphs`, of what trains many heads on a GPU."""
    help = (
        "On a GPU, record the kernels of a training step once and replay them with one launch: "
        "many small heads train 4 times as fast, with more memory."
    )
    return setting(True, help, flag="--cuda-graphs/--no-cuda-graphs")


def precision_setting(help: str) -> Any:  # noqa: ANN401 - as `setting`
    """`--precision`, of what computes in bfloat16 where that is faster."""
    return setting("auto", help, choices=PRECISIONS)


@dataclass(frozen=True)
class Config:
    """A dataclass of what the user asks: each value is checked against its `setting`.

    Raises:
        ConfigError: a value that is none of the choices, or out of bounds.
    """

    def __post_init__(self) -> None:
        for name, (one, made) in _settings(type(self)).items():
            value = getattr(self, name)
            if value != one.default:
                several = isinstance(value, tuple | list)
                name = name.replace("_", " ").removesuffix("s" * several)
                for part in value if several else (value,):
                    _check(name, made, part)


def options(
    config: type[Any], *, without: Collection[str] = ()
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Make the options of a config, in the order of its fields; the command gets it as `config`.

    Args:
        config: a `Config`.
        without: fields that keep their defaults.
    """
    asked = {name: own for name, own in _settings(config).items() if name not in without}
    hints = get_type_hints(config)

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def command(*args: Any, **values: Any) -> Any:  # noqa: ANN401 - the command's own
            read = {name: _read(*own, values.pop(name)) for name, own in asked.items()}
            return function(*args, config=config(**read), **values)

        for name, own in reversed(asked.items()):
            command = _option(*own, hints[name])(command)
        return command

    return decorate


def with_defaults(config: Asked, source: str, given: Mapping[str, Any]) -> Asked:
    """Put defaults from elsewhere where the user gave no option, and say so on standard error.

    Args:
        config: what `options` made of the running command's.
        source: where the defaults come from, such as `Protocol leygue2025`.
        given: defaults for some of its fields, as they would be typed.

    Returns:
        The config; what the user typed, or set in the environment, stays.
    """
    context = click.get_current_context()
    usual = (None, ParameterSource.DEFAULT, ParameterSource.DEFAULT_MAP)
    own = _settings(type(config))
    taken = {
        name: value
        for name, value in given.items()
        if name in own and context.get_parameter_source(name) in usual
    }
    say_defaults(source, taken)
    return replace(config, **{name: _read(*own[name], value) for name, value in taken.items()})


def say_defaults(source: str, values: Mapping[str, Any]) -> None:
    """Name defaults that come from elsewhere, in one line on standard error."""
    if values:
        told = ", ".join(
            f"{name.replace('_', ' ')} {_told(value)}" for name, value in values.items()
        )
        click.echo(f"{source} sets: {told} (your own options win).", err=True)


def names(text: str) -> tuple[str, ...]:
    """Read comma-separated names; white space around them does not count."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


class WorkFolder(click.Path):
    """A work folder on the command line."""

    def __init__(self) -> None:
        super().__init__(file_okay=False)

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:  # noqa: ANN401 - click's own
        """The folder as `Work`."""
        return Work(Path(os.fsdecode(super().convert(value, param, ctx))))


#: A file on the command line.
File = click.Path(dir_okay=False, path_type=Path)


def work_option(function: Function) -> Function:
    """`--work`, the same for every command."""
    return click.option(
        "--work",
        type=WorkFolder(),
        default="work",
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
        "--manifest", "manifest_path", type=File, help="Another manifest than WORK/manifest.csv."
    )(function)


def map_option(help: str) -> Callable[[Function], Function]:
    """`--map`, for commands that take other labels than a manifest's."""
    return click.option("--map", "maps", multiple=True, metavar="[CORPUS:]OLD=NEW", help=help)


def head_options(verb: str, trial: str) -> Callable[[Function], Function]:
    """`--trial` and `--head`, for commands that start from another head than the search's best."""

    def decorate(function: Function) -> Function:
        help = f"{verb} this head (a JSON file that search wrote)."
        function = click.option("--head", type=File, help=help)(function)
        return click.option("--trial", type=int, help=f"{verb} the head of this trial{trial}")(
            function
        )

    return decorate


def replace_option(function: Function) -> Function:
    """`--replace`, for commands that write a manifest of other recordings than those read."""
    return click.option(
        "--replace", is_flag=True, help="Write over the manifest of another corpus."
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


def show(value: Any, text: str, as_json: bool) -> None:  # noqa: ANN401 - any JSON
    """Print a result for a person or for a program."""
    click.echo(json.dumps(value, ensure_ascii=False, indent=2) if as_json else text)


def _settings(config: type[Any]) -> dict[str, tuple[Field[Any], Setting]]:
    """Fields that are options, by name."""
    every = fields(config)
    return {one.name: (one, one.metadata[_SETTING]) for one in every if _SETTING in one.metadata}


def _flag(one: Field[Any], made: Setting) -> str:
    name = one.name.replace("_", "-")
    return made.flag or (f"--{name}/--no-{name}" if one.default is True else f"--{name}")


def _option(one: Field[Any], made: Setting, hint: Any) -> Callable[[Function], Function]:  # noqa: ANN401
    flag = _flag(one, made)
    usual = one.default if made.typed is None else made.typed
    more: dict[str, Any] = {"default": None if usual in ("", ()) else usual}
    if isinstance(one.default, bool):
        more = {"default": usual} if "/" in flag else {"is_flag": True}
    elif made.parse is not None:
        more["type"] = str
    elif made.choices:
        more["type"] = click.Choice(made.choices)
    elif isinstance(one.default, tuple):
        more = {"multiple": True}
    else:
        kind = next(kind for kind in get_args(hint) or (hint,) if kind is not type(None))
        more["type"] = File if kind is Path else kind
    return click.option(
        flag,
        one.name,
        show_default=more.get("default") is not None,
        metavar=made.metavar,
        help=made.help,
        **more,
    )


def _read(one: Field[Any], made: Setting, value: Any) -> Any:  # noqa: ANN401 - of any field
    """The value of a field from what was typed."""
    if value is None or value == ():
        return one.default
    if made.parse is not None:
        try:
            return made.parse(value)
        except EmopoolError:
            raise
        except ValueError as error:
            raise ConfigError(f"{_flag(one, made)} {value}: {error}") from error
    turned_off = one.default is True and "/" not in _flag(one, made)
    return not value if turned_off else value


def _check(name: str, made: Setting, value: Any) -> None:  # noqa: ANN401 - of any field
    if value is None:
        return
    if made.choices and value not in made.choices:
        known = [str(choice) for choice in made.choices]
        raise ConfigError(
            f"Unknown {name} {value!r}, expected {', '.join(known[:-1])} or {known[-1]}."
            f"{did_you_mean(str(value), known)}"
        )
    given = zip(_LIMITS.items(), made.limits, strict=True)
    limits = [(words, holds, limit) for (words, holds), limit in given if limit is not None]
    if not all(holds(value, limit) and abs(value) < math.inf for _, holds, limit in limits):
        expected = " and ".join(f"{words} {limit:g}" for words, _, limit in limits)
        raise ConfigError(f"{name} must be {expected}, got {value}")


def _told(value: object) -> str:
    return " or ".join(map(str, value)) if isinstance(value, list) else str(value)
