"""Dataclasses as JSON and back, by their fields: the one way that records are written and shown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from operator import attrgetter
from pathlib import Path, PurePath
from types import NoneType, UnionType
from typing import Any, ClassVar, Self, Union, get_args, get_origin, get_type_hints


class Jsonable:
    """A dataclass that is JSON by its fields.

    Attributes:
        json_entries: what the JSON holds, in order, with spaces between: `*` for all fields, names
            of fields, of properties and of what those have (`config.seeds`), `entry=name` where it
            is called otherwise there, `**name` for all entries of a value, `-name` to leave a field
            out.
        json_optional: entries that are left out where they are empty, or 0.
    """

    json_entries: ClassVar[str] = "*"
    json_optional: ClassVar[str] = ""

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        found: dict[str, Any] = {}
        optional = self.json_optional.split()
        for entry, name in _entries(type(self)).items():
            value = plain(attrgetter(name)(self))
            if entry in optional and not value:
                continue
            found |= value if entry.startswith("**") else {entry: value}
        return found

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """The inverse of `to_json`; entries of other names are left alone.

        Raises:
            KeyError: an entry without a default is missing.
            TypeError, ValueError: one is of another form.
        """
        return cls(**_read(cls, value))


def plain(value: Any) -> Any:  # noqa: ANN401 - any value, any JSON
    """A value as JSON has it; keys of mappings stay as they are."""
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, Jsonable):
        return value.to_json()
    if is_dataclass(value):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {key: plain(entry) for key, entry in value.items()}
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    return value.item()  # a scalar of numpy or torch


def parse(kind: Any, value: Any) -> Any:  # noqa: ANN401 - any type, any JSON
    """A value of an annotated type from JSON; numbers and texts are taken as they are."""
    outer, inner = get_origin(kind), get_args(kind)
    if outer in (Union, UnionType):
        if value is None and NoneType in inner:
            return None
        several = isinstance(value, list)
        fitting = [one for one in inner if (get_origin(one) is tuple) is several]
        return parse((fitting or inner)[0], value)
    if outer is tuple:
        if inner[-1] is Ellipsis:
            return tuple(parse(inner[0], entry) for entry in value)
        return tuple(parse(one, entry) for one, entry in zip(inner, value, strict=True))
    if outer is not None and issubclass(outer, Mapping):
        return {key: parse(inner[1], entry) for key, entry in dict(value).items()}
    if kind is Any or not isinstance(kind, type) or isinstance(value, kind):
        return value
    if issubclass(kind, Jsonable):
        return kind.from_json(value)
    if is_dataclass(kind):
        return kind(**_read(kind, value))
    if issubclass(kind, tuple):  # a named one
        return kind(*value)
    return Path(value) if issubclass(kind, PurePath) else value


def _read(kind: type, value: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a dataclass from JSON; those that have a default may be missing."""
    hints, found = _hints(kind), {}
    for field in fields(kind):
        needed = field.default is MISSING and field.default_factory is MISSING
        if needed or field.name in value:
            found[field.name] = parse(hints[field.name], value[field.name])
    return found


@cache
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)


def _entries(kind: type[Any]) -> dict[str, str]:
    """By entry of the JSON, the attribute that it holds."""
    found: dict[str, str] = {}
    for text in kind.json_entries.split():
        entry, _, name = text.partition("=")
        if entry == "*":
            found |= {field.name: field.name for field in fields(kind)}
        elif entry.startswith("-"):
            del found[entry[1:]]
        else:
            found[entry] = name or entry.removeprefix("**")
    return found
