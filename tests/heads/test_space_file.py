"""A file that narrows the search space: what it fixes holds, what it misspells is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest

from corpora.base.errors import ConfigError, MissingStepError
from corpora.protocol import all_protocols
from heads.axes import Choice, Range
from heads.search.space import PROBES, Space, start_params, trial_configs
from heads.search.space_file import narrow, narrowed
from tests.heads.searches import BEGINNINGS
from tests.heads.synthetic import LABELS

SPACE = Space(LABELS, {"audio": 32, "text": 24}, speech=True)


def drawn(space: Space, count: int = 40) -> list[dict[str, Any]]:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    params = []
    for _ in range(count):
        trial = study.ask()
        trial_configs(trial, space, seed=0)
        params.append(trial.params)
    return params


def test_a_file_narrows_and_fixes_axes(tmp_path: Path) -> None:
    path = tmp_path / "space.toml"
    path.write_text(
        """
        pooling = ["attentive", "statistics"]
        queries = 2
        hidden = { low = 100, high = 256 }
        modalities = "audio"
        learning_rate = { low = 1e-4, high = 1e-3 }
        dropout = 0.1
        """
    )
    space = narrowed(SPACE, path, {}, "")
    assert space.axes["hidden"] == Choice((128, 256))
    assert space.axes["learning_rate"] == Range(1e-4, 1e-3, log=True)
    for params in drawn(space):
        assert params["pooling"] in ("attentive", "statistics")
        assert params.get("queries", 2) == 2
        assert params["modalities"] == "audio"
        assert 1e-4 <= params["learning_rate"] <= 1e-3
        assert params["dropout"] == 0.1
    assert {params["input_norm"] for params in drawn(space)} > {"none"}


def test_an_empty_file_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "space.toml").write_text("# nothing\n")
    assert narrowed(SPACE, tmp_path / "space.toml", {}, "").axes == SPACE.axes


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"poling": "max"}, "Did you mean 'pooling'"),
        ({"pooling": "statistic"}, "Did you mean 'statistics'.*Values: average, max"),
        ({"loss": ["focal", "crossentropy"]}, "Did you mean 'cross_entropy'"),
        ({"queries": 3}, "queries cannot be 3.*Values: 1, 2, 4"),
        ({"queries": True}, "queries cannot be True"),
        ({"queries": []}, "empty list"),
        ({"queries": {"low": 5, "high": 9}}, "expected a part of 1 to 4"),
        ({"pooling": {"low": 1}}, "is a word"),
        ({"dropout": 0.9}, "expected a part of 0 to 0.5"),
        ({"dropout": [0.1, 0.2]}, "expected a number or"),
        ({"dropout": "low"}, "expected a number or"),
        ({"learning_rate": {"low": 1e-3, "hgih": 1e-4}}, "low = 1e-06, high = 1"),
        ({"learning_rate": {"low": 1e-3, "high": 1e-4}}, "expected a part of"),
        ({"audio_pooling": "max"}, "there is no axis"),
        ({"loss": "votes"}, "Values: focal"),
    ],
)
def test_what_the_space_does_not_have_is_refused(table: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        narrow(SPACE, table, "my.toml")
    assert str(caught.value).startswith("my.toml")


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingStepError, match="No space file"):
        narrowed(SPACE, tmp_path / "no.toml", {}, "")


def test_a_file_that_is_not_toml_is_refused(tmp_path: Path) -> None:
    (tmp_path / "space.toml").write_text("pooling: max")
    with pytest.raises(ConfigError, match="not a TOML file"):
        narrowed(SPACE, tmp_path / "space.toml", {}, "")


def test_pooling_axes_of_untied_modalities_are_narrowed_together_or_one_by_one() -> None:
    untied = replace(SPACE, tied=False)
    both = narrow(untied, {"pooling": "statistics"}, "")
    assert both.axes["audio_pooling"] == both.axes["text_pooling"] == Choice(("statistics",))
    one = narrow(untied, {"audio_pooling": "max"}, "")
    assert one.axes["audio_pooling"] == Choice(("max",))
    assert one.axes["text_pooling"] == untied.axes["text_pooling"]


def test_losses_from_votes_are_there_where_votes_are() -> None:
    assert not {"votes", "smoothed_votes"} & {*vars(SPACE.axes["loss"])["values"]}
    voted = narrow(replace(SPACE, votes=True), {"loss": "votes"}, "")
    assert voted.axes["loss"] == Choice(("votes",))


def test_starts_outside_the_file_are_left_out_with_a_note() -> None:
    chosen, notes = start_params(narrow(SPACE, {"pooling": ["max", "statistics"]}, ""))
    probes = [name for name, start in PROBES.items() if start["pooling"] == "statistics"]
    assert list(chosen) == [*probes, "max", "statistics"]
    assert len(notes) == 1
    assert all(name in notes[0] for name in BEGINNINGS if name not in chosen)


def test_starts_take_what_the_file_fixes_beside_the_pooling() -> None:
    chosen, notes = start_params(narrow(SPACE, {"learning_rate": 1e-4, "dropout": 0.1}, ""))
    # With one rate probes of one pooling and decay differ in their normalisation alone.
    assert list(chosen) == list(BEGINNINGS)
    assert {params["learning_rate"] for params in chosen.values()} == {1e-4}
    assert notes == (
        "Published poolings take learning_rate = 0.0001 from the narrowed space, instead of 0.003.",
    )


def test_probes_that_a_file_makes_the_same_are_tried_once() -> None:
    fixed = {"weight_decay": 0.01, "input_norm": "none"}
    chosen, _ = start_params(narrow(SPACE, fixed, ""), PROBES)
    assert [params["pooling"] for params in chosen.values()] == ["average", "statistics"]
    assert {params["input_norm"] for params in chosen.values()} == {"none"}


def test_a_file_without_linear_classifiers_leaves_the_probes_out() -> None:
    chosen, notes = start_params(narrow(SPACE, {"mlp_width": [64, 256]}, ""))
    assert list(chosen) == [name for name in BEGINNINGS if name not in PROBES]
    assert len(notes) == 1
    assert all(name in notes[0] for name in PROBES)


@pytest.mark.parametrize(
    ("axis", "value"),
    [
        ("learning_rate", 1e-5),
        ("learning_rate", 0.1),
        ("weight_decay", 0.0),
        ("scorer_rate", 2.0),
        ("scorer_rate", 0.0),
    ],
)
def test_a_number_may_be_fixed_beyond_the_range_that_is_drawn(axis: str, value: float) -> None:
    plain = SPACE.axes[axis]
    assert isinstance(plain, Range)
    assert not plain.low <= value <= plain.high
    space = narrow(SPACE, {axis: value}, "")
    for params in drawn(space):
        assert params.get(axis, value) == value
    starts, _ = start_params(space)
    assert {params[axis] for params in starts.values()} == {value}


def test_a_range_may_reach_beyond_what_is_drawn() -> None:
    space = narrow(SPACE, {"learning_rate": {"low": 1e-6, "high": 1e-4}}, "")
    assert space.axes["learning_rate"] == Range(1e-6, 1e-4, log=True)
    assert all(1e-6 <= params["learning_rate"] <= 1e-4 for params in drawn(space))


@pytest.mark.parametrize(
    ("axis", "value"), [("learning_rate", 1e-7), ("weight_decay", 101), ("dropout", 0.6)]
)
def test_what_lies_beyond_the_limits_is_refused(axis: str, value: float) -> None:
    with pytest.raises(ConfigError, match="expected a part of"):
        narrow(SPACE, {axis: value}, "")


def test_somebody_elses_settings_hold_where_the_file_says_nothing(tmp_path: Path) -> None:
    path = tmp_path / "space.toml"
    path.write_text('loss = "cross_entropy"\n')
    space = narrowed(SPACE, path, {"loss": "focal", "input_norm": "none"}, "protocol p")
    assert space.axes["loss"] == Choice(("cross_entropy",))
    assert space.axes["input_norm"] == Choice(("none",))
    assert narrowed(SPACE, None, {"loss": "focal"}, "protocol p").axes["loss"] == Choice(("focal",))
    assert narrowed(SPACE, None, {}, "") == SPACE


def test_settings_that_the_data_does_not_allow_name_whose_they_are() -> None:
    with pytest.raises(ConfigError, match=r"protocol p .name the axis in --space.*smoothed_votes"):
        narrowed(SPACE, None, {"loss": "smoothed_votes"}, "protocol p")


@pytest.mark.parametrize("name", all_protocols())
def test_every_protocols_settings_of_a_search_are_axes_and_values(name: str) -> None:
    voted = replace(SPACE, votes=True, speech=True)
    narrowed(voted, None, all_protocols()[name].defaults.get("search", {}), name)
