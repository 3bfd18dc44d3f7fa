"""Recipes: the fingerprint is the content, and differences can be read."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache.recipe import JSON, Recipe, canonical_json, difference

FIELDS: dict[str, JSON] = {
    "weights": "ab12",
    "front_end": {"mels": 80, "versions": {"transformers": "5.22", "soxr": "0.5"}},
    "tf32": False,
    "layers": [1, 2],
}

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def test_fingerprint_is_the_start_of_the_sha256_of_canonical_json() -> None:
    text = '{"fields":{"a":[1,2.5],"b":null},"kind":"audio"}'
    expected = hashlib.sha256(text.encode()).hexdigest()[:16]
    assert Recipe("audio", {"b": None, "a": [1, 2.5]}).fingerprint == expected


def test_folder_is_kind_and_fingerprint() -> None:
    recipe = Recipe("text", FIELDS)
    assert recipe.folder == f"text-{recipe.fingerprint}"


@given(st.dictionaries(st.text(), values, max_size=4))
def test_canonical_json_is_ascii_and_gives_the_value_back(fields: dict[str, JSON]) -> None:
    text = canonical_json(fields)
    assert text.isascii()
    assert json.loads(text) == fields


@given(st.dictionaries(st.text(), values, max_size=4), st.randoms())
def test_order_of_fields_does_not_matter(fields: dict[str, JSON], random: object) -> None:
    assert Recipe("audio", dict(reversed(fields.items()))) == Recipe("audio", fields)


def test_recipes_of_one_content_are_one_key_of_a_dict() -> None:
    assert {Recipe("audio", FIELDS): 1}[Recipe("audio", dict(FIELDS))] == 1


@pytest.mark.parametrize(
    "other",
    [
        Recipe("text", FIELDS),
        Recipe("audio", {**FIELDS, "tf32": True}),
        Recipe("audio", {**FIELDS, "tf32": 0}),
        Recipe("audio", {**FIELDS, "more": None}),
    ],
)
def test_any_difference_changes_the_fingerprint(other: Recipe) -> None:
    assert other != Recipe("audio", FIELDS)
    assert other.fingerprint != Recipe("audio", FIELDS).fingerprint
    assert difference(Recipe("audio", FIELDS), other)


def test_difference_names_nested_fields_and_both_values() -> None:
    new: dict[str, JSON] = {
        **FIELDS,
        "front_end": {"mels": 80, "versions": {"transformers": "5.23", "soxr": "0.5"}},
        "decoder": "soundfile",
    }
    del new["tf32"]
    assert difference(Recipe("audio", FIELDS), Recipe("audio", new)) == [
        'front_end.versions.transformers: "5.22" -> "5.23"',
        "tf32: false -> absent",
        'decoder: absent -> "soundfile"',
    ]


def test_equal_recipes_have_no_difference() -> None:
    assert difference(Recipe("audio", FIELDS), Recipe("audio", dict(FIELDS))) == []


def test_later_changes_to_the_given_mapping_do_not_reach_the_recipe() -> None:
    inner: list[JSON] = [1]
    recipe = Recipe("audio", {"layers": inner})
    inner.append(2)
    assert recipe == Recipe("audio", {"layers": (1,)})


def test_what_is_not_json_is_refused() -> None:
    with pytest.raises(TypeError):
        Recipe("audio", {"path": Path("a")})  # type: ignore[dict-item]
    with pytest.raises(TypeError, match="strings"):
        Recipe("audio", {"nested": {1: 2}})  # type: ignore[dict-item]
    with pytest.raises(ValueError, match="JSON"):
        Recipe("audio", {"level": float("nan")})
    with pytest.raises(ValueError, match="kind"):
        Recipe("../audio", {})


def test_planning_rooms_do_not_import_torch() -> None:
    rooms = "cache.recipe, cache.keys, cache.sources, cache.stream"
    code = f"import {rooms}, sys; sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], check=False)
    assert done.returncode == 0
