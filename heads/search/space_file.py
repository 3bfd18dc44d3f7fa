"""A TOML file that narrows the search space or fixes parts of it.

    pooling = ["statistics", "attentive"]        # some of the values
    queries = 2                                  # one of them
    learning_rate = { low = 1e-4, high = 1e-3 }  # part of a range
    dropout = 0.1                                # one number

Axes that it does not name stay as they are.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from cache.keys import MODALITIES
from corpora.base.errors import ConfigError, MissingStepError, did_you_mean
from corpora.base.terminal import bytes_text
from heads.axes import Axis, Choice, Range
from heads.search.layer_axes import MOST_BYTES, layer_axis
from heads.search.space import Space, pooling_axes

# Of the axes of poolings only `layers` can be absent; so can `audio_layer` and `text_layer`.
_ONE_LAYER = " It needs several cached layers of an encoder: extract them with --audio-layers."
_TOO_LARGE = (
    " The layers cached here are too large to be weighed: vectors of every utterance would take "
    f"more than {bytes_text(MOST_BYTES)}. Extract fewer."
)


def narrowed(space: Space, path: Path | None, fixed: Mapping[str, Any], fixed_by: str) -> Space:
    """The space, narrowed by a file, and where that names no axis by somebody else's settings.

    Args:
        space: as the data allows it.
        path: of the file; None is none.
        fixed: values of axes, as in a file.
        fixed_by: whose settings they are, for messages.

    Raises:
        MissingStepError: there is no such file.
        ConfigError: as in `narrow`.
    """
    table = {} if path is None else read_table(path)
    rest = {name: value for name, value in fixed.items() if name not in table}
    where = f"{fixed_by} (name the axis in --space to choose otherwise)"
    return narrow(narrow(space, rest, where), table, str(path))


def read_table(path: Path) -> dict[str, Any]:
    """What a file says of axes.

    Raises:
        MissingStepError: there is no such file.
        ConfigError: it is not TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise MissingStepError(f"No space file at {path}.") from error
    except ValueError as error:  # not UTF-8, or not TOML
        raise ConfigError(f"{path} is not a TOML file: {error}") from error


def narrow(space: Space, table: Mapping[str, Any], where: str) -> Space:
    """The space, narrowed by a table of axes; `where` names it in messages.

    An axis that was narrowed before is narrowed anew from what the data allows. With each
    modality's own axes, `pooling` and the like hold for all.

    Raises:
        ConfigError: an axis or a value that there is not; close matches are named.
    """
    allowed = space.allowed
    axes: dict[str, Axis] = dict(space.narrowed)
    for name, value in table.items():
        shared = name in pooling_axes() and not space.tied
        names = [f"{modality}_{name}" for modality in MODALITIES] if shared else [name]
        known = [axis for axis in names if axis in allowed]
        if not known:
            why = did_you_mean(name, allowed)
            if name in (layer_axis(modality) for modality in MODALITIES):
                why = _ONE_LAYER
            if name in pooling_axes():
                why = _TOO_LARGE if space.layers and not space.weighable else _ONE_LAYER
            raise ConfigError(
                f"{where}: there is no axis {name!r}.{why} Axes: {', '.join(allowed)}."
            )
        for axis in known:
            axes[axis] = _narrowed(allowed[axis], value, f"{where}: {axis}")
    return replace(space, narrowed=axes)


def _narrowed(axis: Axis, value: Any, where: str) -> Axis:  # noqa: ANN401 - what TOML holds
    if isinstance(axis, Range):
        low, high = _bounds(value, *axis.limits, where)
        return Range(low, high, axis.log)
    numeric = all(isinstance(entry, int) for entry in axis.values)
    if isinstance(value, dict):
        if not numeric:
            raise ConfigError(f"{where} is a word, not a range. {_listed(axis)}")
        low, high = _bounds(value, min(axis.values), max(axis.values), where)
        kept = tuple(entry for entry in axis.values if low <= entry <= high)
        if not kept:
            raise ConfigError(f"{where} has no value between {low:g} and {high:g}. {_listed(axis)}")
        return Choice(kept)
    chosen = value if isinstance(value, list) else [value]
    for entry in chosen:
        if not any(entry == known and type(entry) is type(known) for known in axis.known):
            words = [str(known) for known in axis.known]
            raise ConfigError(
                f"{where} cannot be {entry!r}.{did_you_mean(str(entry), words)} {_listed(axis)}"
            )
    if not chosen:
        raise ConfigError(f"{where} is an empty list. {_listed(axis)}")
    return Choice(tuple(known for known in axis.known if known in chosen))


def _bounds(value: Any, low: float, high: float, where: str) -> tuple[float, float]:  # noqa: ANN401
    """The ends of a range given as a number, or as a table of `low` and `high`."""
    ends = value if isinstance(value, dict) else {"low": value, "high": value}
    unknown = set(ends) - {"low", "high"}
    numbers = [ends.get("low", low), ends.get("high", high)]
    if unknown or any(isinstance(n, bool) or not isinstance(n, int | float) for n in numbers):
        raise ConfigError(
            f"{where} is {value!r}, expected a number or {{ low = {low:g}, high = {high:g} }}."
        )
    first, last = numbers
    if not low <= first <= last <= high:
        raise ConfigError(
            f"{where} is {first:g} to {last:g}, expected a part of {low:g} to {high:g}."
        )
    return float(first), float(last)


def _listed(axis: Choice) -> str:
    return f"Values: {', '.join(str(value) for value in axis.known)}."
