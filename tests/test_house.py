"""The house: floors import downwards, nothing imports in a circle, doors and help stay as they are.

Doors and help are texts in `tests/golden`; `python -m tests.test_house` writes them anew, so that
a change of either is one that somebody meant.
"""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from importlib import import_module
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from cli import COMMANDS, main

ROOT = Path(__file__).parents[1]
GOLDEN = ROOT / "tests" / "golden"
# Each may import those before it, and itself.
FLOORS = ("corpora", "cache", "heads", "finetune", "explain", "bench")
# What users import, and what each name has to keep.
DOORS = {
    "corpora.errors": ("AudioError", "EmopoolError", "ManifestError"),
    "corpora.work": ("Work",),
    "corpora.manifest": ("Manifest", "Utterance", "read_manifest", "write_manifest"),
    "cache.frames": ("Frames",),
    "cache.stream": ("FrameStream", "PartWriter"),
    "heads.pooling": (
        *("AttentionPooling", "Pooling", "PoolingConfig", "build_pooling", "pooling_config"),
        *("pooling_kinds", "register"),
    ),
    "heads.losses": ("focal_loss",),
    "heads.metrics": ("classification_report",),
    "finetune.model": ("EmotionModel",),
}


def modules() -> dict[str, Path]:
    """The product's modules by name."""
    found = {"cli": ROOT / "cli.py"}
    for floor in FLOORS:
        for path in sorted((ROOT / floor).rglob("*.py")):
            name = path.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".")
            found[name.removesuffix(".__init__")] = path
    return found


def imported(path: Path, known: dict[str, Path]) -> set[str]:
    """Modules of the product that a file imports anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module in known:
            inside = {f"{node.module}.{alias.name}" for alias in node.names} & set(known)
            found |= inside or {node.module}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names} & set(known)
    return found


MODULES = modules()
IMPORTS = {name: imported(path, MODULES) for name, path in MODULES.items()}


def test_floors_import_downwards() -> None:
    wrong = [
        f"{name} imports {other}"
        for name, others in IMPORTS.items()
        for other in others
        if name != "cli" and FLOORS.index(other.split(".")[0]) > FLOORS.index(name.split(".")[0])
    ]
    assert not wrong


@pytest.mark.parametrize("door", ["finetune.evaluate.evaluate", "explain.explain"])
def test_scoring_and_explaining_do_not_reach_extraction(door: str) -> None:
    reached, ahead = {door}, [door]
    while ahead:
        found = IMPORTS[ahead.pop()] - reached
        reached |= found
        ahead += found
    assert not [name for name in reached if name.startswith("cache.extract.")]


def test_nothing_imports_in_a_circle() -> None:
    circles: list[str] = []
    ended: set[str] = set()

    def visit(name: str, way: list[str]) -> None:
        if name in way:
            circles.append(" → ".join([*way[way.index(name) :], name]))
        elif name not in ended:
            for other in sorted(IMPORTS[name]):
                visit(other, [*way, name])
            ended.add(name)

    for name in IMPORTS:
        visit(name, [])
    assert not circles


def test_no_two_files_of_a_floor_share_a_name() -> None:
    for floor in FLOORS:
        names = [name.rpartition(".")[2] for name in MODULES if name.startswith(f"{floor}.")]
        doors = {name.rpartition(".")[2] for name in DOORS if name.startswith(f"{floor}.")}
        packages = {path.name for path in (ROOT / floor).rglob("*") if path.is_dir()}
        twice = {name for name in names if names.count(name) > 1}
        # `corpora.errors` and `corpora.work` are doors to files of `corpora/base`; a package may
        # hold the file of its name.
        assert not twice - doors - packages


@pytest.mark.parametrize(
    ("module", "unwanted"),
    [
        ("finetune.evaluate.evaluate", {"optuna", "sqlalchemy"}),
        ("finetune.predict.predict", {"optuna", "sqlalchemy"}),
        ("explain.explain", {"optuna", "sqlalchemy"}),
        ("cache.stream", {"torch", "zarr", "optuna"}),
        ("cache.extract.plan", {"torch", "transformers", "optuna"}),
        ("cli", {"torch", "numpy", "optuna", "zarr"}),
    ],
)
def test_what_a_command_does_not_need_is_not_imported(module: str, unwanted: set[str]) -> None:
    code = f"import sys, {module}; print(*({unwanted} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, cwd=ROOT, capture_output=True, text=True
    )
    assert not done.stdout.split()


def doors() -> Iterator[str]:
    """A line for each name, attribute and method that users rely on."""
    for module, names in DOORS.items():
        for name in names:
            value = getattr(import_module(module), name)
            yield f"{module}.{name}{signature(value)}"
            if inspect.isclass(value):
                if is_dataclass(value):
                    yield from (f"{module}.{name}.{field.name}" for field in fields(value))
                for method, own in sorted(vars(value).items()):
                    if not method.startswith("_"):
                        plain = own.__func__ if isinstance(own, classmethod | staticmethod) else own
                        yield f"{module}.{name}.{method}{signature(plain)}"


def signature(value: object) -> str:
    """The names of the parameters and which have defaults; "" of what is not called."""
    if not callable(value) or (inspect.isclass(value) and issubclass(value, Exception)):
        return ""
    parts = [
        f"{'*' * (one.kind == one.KEYWORD_ONLY)}{name}{'=' * (one.default is not one.empty)}"
        for name, one in inspect.signature(value).parameters.items()
    ]
    return f"({', '.join(parts)})"


def helps() -> Iterator[str]:
    """The help of every command and subcommand."""
    for name in COMMANDS:
        command = main.get_command(click.Context(main), name)
        chains = [[name]]
        if isinstance(command, click.Group):
            context = click.Context(command)
            chains += [[name, sub] for sub in command.list_commands(context)]
        for chain in chains:
            done = CliRunner().invoke(main, [*chain, "--help"], terminal_width=100)
            yield f"$ cli.py {' '.join(chain)} --help\n{done.output}"


@pytest.mark.parametrize(("name", "made"), [("doors.txt", doors), ("help.txt", helps)])
def test_doors_and_help_are_as_they_were(name: str, made: object) -> None:
    assert callable(made)
    kept = (GOLDEN / name).read_text(encoding="utf-8")
    assert "\n".join(made()) + "\n" == kept, "python -m tests.test_house writes it anew"


def test_the_map_names_what_is_there() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    named = re.findall(r"`([a-z_/]+\.py)(?::(\w+))?`", text)
    assert len(named) > 50
    for path, name in named:
        assert (ROOT / path).is_file(), path
        if name:
            tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
            held = [
                node.name for node in tree.body if isinstance(node, ast.ClassDef | ast.FunctionDef)
            ]
            assert name in held, f"{path}:{name}"


def test_methods_name_files_that_are_there() -> None:
    text = (ROOT / "docs" / "methods.md").read_text(encoding="utf-8")
    files = re.findall(r"`([a-z_]+/[a-z_/]+\.(?:py|toml))`|`(test_\w+\.py)`", text)
    assert len(files) > 40
    for product, test in files:
        folder = product.partition("/test_")[1] or test
        assert (ROOT / ("tests" if folder else "") / (product or test)).is_file(), product or test


@pytest.mark.parametrize("name", ["README.md", "docs/guide.md", "docs/methods.md"])
def test_options_that_are_told_of_are_there(name: str) -> None:
    told = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", (ROOT / name).read_text(encoding="utf-8")))
    helped = (GOLDEN / "help.txt").read_text(encoding="utf-8")
    assert len(told) > 10
    assert not told - set(re.findall(r"--[a-z][a-z-]+", helped))


def test_names_without_a_file_in_the_map_are_there_too() -> None:
    """`SearchContext`, `search_heads`: a class or function of the product, of that very name."""
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`([A-Z]\w*[a-z]\w*|[a-z]+(?:_[a-z]+)+)`", text))
    words = {
        name
        for line in text.split("## Words")[1].split("##")[0].splitlines()
        for name in re.findall(r"`([A-Z]\w+)`", line.split("|")[1] if "|" in line else "")
    }
    assert len(words) > 6
    assert words <= named
    held = {
        node.name
        for path in MODULES.values()
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.ClassDef | ast.FunctionDef)
    }
    assert not named - held


if __name__ == "__main__":
    for file, lines in (("doors.txt", doors), ("help.txt", helps)):
        (GOLDEN / file).write_text("\n".join(lines()) + "\n", encoding="utf-8")
