import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from corpora.base.codec import Jsonable, parse, plain


class Pair(NamedTuple):
    low: float
    high: float


@dataclass(frozen=True)
class Inner:
    name: str
    pair: Pair | None = None


@dataclass(frozen=True)
class Outer(Jsonable):
    json_entries = "path of=inner.name * -inner **more double"

    inner: Inner
    path: Path
    numbers: tuple[int, ...]
    both: tuple[str, Inner]
    layers: Mapping[str, int | tuple[int, ...]]
    more: Mapping[str, Any] = field(default_factory=dict)

    @property
    def double(self) -> int:
        return 2 * len(self.numbers)


@dataclass(frozen=True)
class Whole(Jsonable):
    outer: Outer | None
    inners: Mapping[str, tuple[Inner, ...]]
    level: float = 0.5


INNER = Inner("a", Pair(1, 2))
OUTER = Outer(INNER, Path("x/y"), (1, 2), ("b", INNER), {"audio": (3, 4), "text": 5}, {"k": None})


def test_entries_stand_in_the_order_that_is_given() -> None:
    pair = {"name": "a", "pair": [1, 2]}
    assert list(OUTER.to_json().items()) == [
        ("path", "x/y"),
        ("of", "a"),
        ("numbers", [1, 2]),
        ("both", ["b", pair]),
        ("layers", {"audio": [3, 4], "text": 5}),
        ("more", {"k": None}),
        ("k", None),
        ("double", 4),
    ]


def test_what_was_written_is_read_back() -> None:
    value = json.loads(json.dumps({**OUTER.to_json(), "inner": plain(INNER)}))
    assert Outer.from_json(value) == OUTER
    whole = Whole(None, {"a": (INNER, Inner("b"))}, 0.25)
    assert Whole.from_json(json.loads(json.dumps(whole.to_json()))) == whole
    assert Whole.from_json({"outer": value, "inners": {}, "other": 3}) == Whole(OUTER, {})
    assert parse(Whole | None, None) is None


@pytest.mark.parametrize("value", [{}, [], 3, {"outer": 3, "inners": {}}, {"outer": None}])
def test_what_is_damaged_is_an_error_that_callers_know(value: Any) -> None:
    with pytest.raises((KeyError, TypeError, ValueError)):
        Whole.from_json(value)


def test_scalars_of_numpy_and_torch_are_numbers() -> None:
    assert plain([np.float32(0.5), np.int64(3), torch.tensor(2), np.bool_(True)]) == [
        0.5,
        3,
        2,
        True,
    ]
