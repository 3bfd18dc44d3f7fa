"""Options made from a config's fields: what is typed is what the command gets, checked once."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from cache.config import ExtractConfig, TranscribeConfig
from corpora.base.command_options import Config, names, options, setting
from corpora.base.errors import ConfigError
from corpora.protocol import SplitConfig
from explain.config import ExplainConfig
from finetune.config import EvaluateConfig, FinetuneConfig, PredictConfig
from heads.config import CompareConfig, SearchConfig


def numbers(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise ValueError("expected numbers.") from error


@dataclass(frozen=True)
class Ask(Config):
    count: int = setting(3, "How many.", least=1, most=9)
    share: float | None = setting(None, "Of all.", above=0, below=1)
    tied: bool = setting(True, "Apart.", flag="--untied")
    folds: bool = setting(True, "By folds.")
    quick: bool = setting(False, "Soon.")
    measured: bool = setting(False, "With.", flag="--measured/--unmeasured", typed=True)
    sampler: str = setting("tpe", "How.", choices=("tpe", "random"))
    tables: tuple[str, ...] = setting(typed="a,b", choices=("a", "b", "c"), parse=names)
    rates: tuple[float, ...] = setting(typed="1,2", parse=numbers, above=0)
    models: tuple[str, ...] = setting((), "Which.", flag="--model")
    place: Path | None = setting(None, "Where.")
    inner: int = 7


def made(*words: str) -> dict[str, Any]:
    got: list[Ask] = []

    @click.command()
    @options(Ask, without=("inner",))
    def command(config: Ask) -> None:
        got.append(config)

    result = CliRunner().invoke(command, words, catch_exceptions=False)
    assert not result.exit_code, result.output
    return asdict(got[0])


def test_the_defaults_are_the_configs_but_where_others_are_typed() -> None:
    assert made() == {**asdict(Ask()), "measured": True}
    assert (Ask().tables, Ask().rates) == (("a", "b"), (1.0, 2.0))


@pytest.mark.parametrize(
    ("words", "name", "value"),
    [
        (["--count", "5"], "count", 5),
        (["--share", ".5"], "share", 0.5),
        (["--untied"], "tied", False),
        (["--no-folds"], "folds", False),
        (["--quick"], "quick", True),
        (["--unmeasured"], "measured", False),
        (["--sampler", "random"], "sampler", "random"),
        (["--tables", "c, a"], "tables", ("c", "a")),
        (["--rates", "3"], "rates", (3.0,)),
        (["--model", "x", "--model", "y"], "models", ("x", "y")),
        (["--place", "here"], "place", Path("here")),
    ],
)
def test_what_is_typed_is_what_the_command_gets(words: list[str], name: str, value: object) -> None:
    assert made(*words)[name] == value


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"count": 0}, "^count must be at least 1 and at most 9, got 0$"),
        ({"share": 1.0}, "^share must be more than 0 and less than 1, got 1.0$"),
        ({"share": float("nan")}, "got nan"),
        ({"sampler": "randm"}, "^Unknown sampler 'randm', expected tpe or random. Did you mean"),
        ({"tables": ("a", "d")}, "^Unknown table 'd', expected a, b or c"),
        ({"rates": (1.0, 0.0)}, "^rate must be more than 0, got 0.0$"),
    ],
    ids=str,
)
def test_a_config_made_in_python_is_checked_too(values: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Ask(**values)


def test_what_cannot_be_read_names_the_option() -> None:
    with pytest.raises(ConfigError, match=r"^--rates 1;2: expected numbers\.$"):
        made("--rates", "1;2")


@pytest.mark.parametrize(
    "config",
    [
        *(SplitConfig, ExtractConfig, TranscribeConfig, SearchConfig, CompareConfig),
        *(FinetuneConfig, EvaluateConfig, PredictConfig, ExplainConfig),
    ],
)
def test_nothing_typed_gives_the_config_of_its_defaults(config: type[Config]) -> None:
    made = []

    @click.command()
    @options(config)
    def command(config: Config) -> None:
        made.append(config)

    assert CliRunner().invoke(command, catch_exceptions=False).exit_code == 0
    others = {"audio_layers", "text_layers", "calibration"}  # the command line says them otherwise
    for one in fields(config):
        if one.name not in others:
            assert getattr(made[0], one.name) == getattr(config(), one.name), one.name
