"""Recipe: all that decides a stream's numbers but the layer. Its fingerprint names the folder."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, TypeAlias, get_args

#: Of encoders without a mask (Whisper): the silence behind a recording.
PaddingName = Literal["short", "full"]
PADDINGS: tuple[PaddingName, ...] = get_args(PaddingName)

#: A hidden-state number; or several, ascending, whose frames lie beside one another in this order.
LayersRead = int | tuple[int, ...]


def layer_numbers(read: int | Sequence[int]) -> tuple[int, ...]:
    """The numbers, ascending."""
    return (read,) if isinstance(read, int) else tuple(sorted(read))


def layers_from_json(value: Any) -> LayersRead:  # noqa: ANN401 - a number or a list of such
    """What JSON holds: a number, or a list of at least two.

    Raises:
        ValueError, TypeError: something else.
    """
    if not isinstance(value, list):
        return int(value)
    numbers = tuple(int(number) for number in value)
    if len(numbers) < 2 or numbers != tuple(sorted(set(numbers))):
        raise ValueError(f"layers {value}: expected one number, or several that ascend")
    return numbers


def layers_text(read: LayersRead) -> str:
    """Such as `layer 24`, or `layers 8, 16 and 24`."""
    numbers = layer_numbers(read)
    if len(numbers) == 1:
        return f"layer {numbers[0]}"
    return f"layers {', '.join(map(str, numbers[:-1]))} and {numbers[-1]}"


JSON: TypeAlias = "bool | int | float | str | Sequence[JSON] | Mapping[str, JSON] | None"

# 64 bits: with a thousand recipes in a folder two meet by chance once in 10^13 folders.
FINGERPRINT_DIGITS = 16
#: The field of streams that hold more than a recording's own frames.
KEPT = "kept"
#: The field of text streams whose encoder reads descriptions of utterances, too.
DESCRIBED = "describe"


@dataclass(frozen=True, eq=False)
class Recipe:
    """What made a stream: weights, configurations, front end, versions, dtypes.

    Two recipes are equal when their canonical JSON is, so 1 and 1.0 are different fields.

    Attributes:
        kind: "audio", "text", "energy", "speech", …: lower case letters, digits, underscores.
        fields: JSON values only; kept as a copy, tuples as lists.

    Raises:
        ValueError: the kind cannot name a folder, or a number is not finite.
        TypeError: a field is not JSON.
    """

    kind: str
    fields: Mapping[str, JSON]

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z][a-z0-9_]*", self.kind):
            raise ValueError(
                f"a recipe's kind names a folder: expected lower case letters, digits and "
                f"underscores, got {self.kind!r}"
            )
        object.__setattr__(self, "fields", json.loads(canonical_json(self.fields)))

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits of the SHA-256 of kind and fields as canonical JSON."""
        return hashlib.sha256(self._canonical.encode("ascii")).hexdigest()[:FINGERPRINT_DIGITS]

    @property
    def folder(self) -> str:
        """The recipe's folder inside `features.zarr`: `<kind>-<fingerprint>`."""
        return f"{self.kind}-{self.fingerprint}"

    @property
    def imported(self) -> bool:
        """Whether `cache import` brought the frames: nothing here can make more of them."""
        return "imported" in self.fields

    @property
    def describe(self) -> str:
        """How its text encoder reads descriptions: `append`, `only`, or "" not at all."""
        return str(self.fields.get(DESCRIBED, ""))

    @cached_property
    def _canonical(self) -> str:
        """Made once: recipes are compared and hashed for every utterance of a plan."""
        return canonical_json({"kind": self.kind, "fields": self.fields})

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Recipe):
            return NotImplemented
        return self._canonical == other._canonical

    def __hash__(self) -> int:
        return hash(self._canonical)


# Made once: `json.dumps` makes one a call, and every key of a corpus is such a call.
_ENCODER = json.JSONEncoder(
    sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False
)


def canonical_json(value: JSON) -> str:
    """One text for one value: sorted keys, no spaces, ASCII, floats by their shortest repr.

    Raises:
        ValueError: a number is NaN or infinite.
        TypeError: something is not JSON, or a mapping's key is not a string.
    """
    return _ENCODER.encode(_plain(value))


def difference(a: Recipe, b: Recipe) -> list[str]:
    """What changed from `a` to `b`, one readable line a field: `front_end.version: "1" -> "2"`."""
    old = _flatten({"kind": a.kind, **a.fields})
    new = _flatten({"kind": b.kind, **b.fields})
    return [
        f"{name}: {old.get(name, 'absent')} -> {new.get(name, 'absent')}"
        for name in dict.fromkeys([*old, *new])
        if old.get(name) != new.get(name)
    ]


def _plain(value: JSON) -> JSON:
    """Refuse what `json.dumps` would quietly turn into something else: keys that are no strings."""
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise TypeError(f"a recipe's field names are strings, got {key!r}")
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def _flatten(fields: Mapping[str, JSON], prefix: str = "") -> dict[str, str]:
    """Nested mappings as dotted names to JSON texts."""
    flat: dict[str, str] = {}
    for key, value in fields.items():
        if isinstance(value, Mapping) and value:
            flat.update(_flatten(value, f"{prefix}{key}."))
        else:
            flat[prefix + key] = json.dumps(value, ensure_ascii=False, sort_keys=True)
    return flat
