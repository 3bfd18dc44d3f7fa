"""The command line: instant help, messages instead of tracebacks, and a README that is true."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from cli import COMMANDS, main
from corpora.base.errors import EmopoolError
from corpora.base.work import Work
from explain.commands import _demo_encoders

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str) -> None:
    result = CliRunner().invoke(main, [command, "--help"])
    assert result.exit_code == 0
    assert "Usage:" in result.output


def test_onednn_keeps_little_unless_the_user_says_otherwise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With its 1,024 shapes `predict --segments vad` takes more memory, the longer a recording."""
    name = "ONEDNN_PRIMITIVE_CACHE_CAPACITY"
    monkeypatch.setenv(name, "7")
    CliRunner().invoke(main, ["predict", "--help"])
    assert os.environ[name] == "7"
    monkeypatch.delenv(name)
    CliRunner().invoke(main, ["predict", "--help"])
    assert os.environ[name] == "64"


def options(command: str) -> dict[str, click.Option]:
    """Options of a command by each of their names."""
    found = main.get_command(click.Context(main), command)
    assert found is not None
    return {
        name: one
        for one in found.params
        if isinstance(one, click.Option)
        for name in (*one.opts, *one.secondary_opts)
    }


def test_one_thing_has_one_name_in_all_commands() -> None:
    every = {command: options(command) for command in COMMANDS}
    names = {command: set(own) for command, own in every.items()}
    drawing = {command for command, own in names.items() if "--plots" in own}
    assert drawing == {"search", "compare", "evaluate", "explain"}
    assert all("--no-plots" in names[command] for command in drawing)
    assert not {"--plot", "--figures", "--no-figures"} & {
        one for own in names.values() for one in own
    }
    assert {command for command, own in names.items() if "--whisper" in own} == {
        "transcribe",
        "predict",
    }
    assert {command for command, own in names.items() if "--model" in own} == {
        "evaluate",
        "predict",
    }
    splits = {command: own["--split"].type for command, own in every.items() if "--split" in own}
    assert set(splits) == {"transcribe", "evaluate", "predict", "explain"}
    for kind in splits.values():
        assert isinstance(kind, click.Choice)
        assert kind.choices[:4] == ("train", "dev", "test", "all")


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from click.testing import CliRunner; from cli import main; "
        "CliRunner().invoke(main, ['--help']); "
        "sys.exit(bool({'torch', 'numpy', 'optuna', 'zarr'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, cwd=ROOT)
    assert done.returncode == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["search"], "No manifest at"),
        (["extract"], "No manifest at"),
        (["finetune", "--best"], "No manifest at"),
        (["evaluate"], "No manifest at"),
        (["prepare", "emodb", "nowhere"], "nowhere"),
    ],
)
def test_a_mistake_is_one_message_and_status_1(
    words: list[str], message: str, tmp_path: Path
) -> None:
    result = CliRunner().invoke(main, [*words, "--work", str(tmp_path / "work")])
    assert result.exit_code == 1
    assert message in result.output
    assert "Traceback" not in result.output


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (KeyError("dev"), 70, r"Error: this was not foreseen: KeyError: 'dev'.*emopool-.*\.log"),
        (OSError(28, "No space left on device", "a.bin"), 1, r"No space left on device \(a\.bin\)"),
        (OSError("no number"), 1, "Error: no number"),
        (RuntimeError("I/O error (os error 28)"), 1, "No space left on device"),
        (KeyboardInterrupt(), 130, "Interrupted. What was finished is kept"),
    ],
)
def test_no_error_is_a_traceback(
    error: BaseException,
    status: int,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr("corpora.manifest.read_manifest", fail)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    before = signal.getsignal(signal.SIGINT)
    try:
        result = CliRunner().invoke(main, ["prepare", "check", "--work", str(tmp_path)])
    finally:
        signal.signal(signal.SIGINT, before)
    assert result.exit_code == status
    assert re.search(said, result.output)
    assert result.output.count("\n") == 1
    logs = [path.read_text() for path in tmp_path.glob("emopool-*.log")]
    assert ["Traceback" in log for log in logs] == [True] * (status == 70)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (f"search --seed {10**20}", "is not between 0 and 9,223,372,036,854,775,807"),
        (f"prepare split --seed {10**20}", "is not between 0 and"),
        ("prepare split --seed=-1", "-1 is not between 0 and"),
        (f"search --trials {10**20}", "is not between -1,000,000,000 and 1,000,000,000"),
        (f"search --batch-size {10**20}", "is not between"),
        ("finetune --best --lr2 1e300", "1e+300 is not between -1e+30 and 1e+30"),
        ("finetune --best --lr2 nan", "nan is not between"),
        ("extract --batch-seconds inf", "inf is not between"),
    ],
)
def test_numbers_that_no_library_takes_are_refused(words: str, said: str, tmp_path: Path) -> None:
    result = CliRunner().invoke(main, [*words.split(), "--work", str(tmp_path)])
    assert result.exit_code == 2
    assert said in " ".join(result.output.split())


HANGING = """
import signal, sys, time
# Under nohup and & they are ignored, and stay so.
signal.signal(signal.SIGHUP, signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)
import cli, corpora.manifest
def hang(path):
    print("ready", flush=True)
    try:
        time.sleep(60)
    finally:
        print("unwinding", flush=True)
        time.sleep(float(sys.argv.pop()))
corpora.manifest.read_manifest = hang
cli.main()
"""


@pytest.mark.parametrize(
    ("signals", "seconds"), [(["SIGHUP"], "0"), (["SIGTERM"], "0"), (["SIGINT", "SIGINT"], "60")]
)
def test_signals_end_a_run_with_a_sentence(
    signals: list[str], seconds: str, tmp_path: Path
) -> None:
    words = ["prepare", "check", "--work", str(tmp_path)]
    with subprocess.Popen(
        [sys.executable, "-c", HANGING.replace("sys.argv.pop()", seconds), *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    ) as process:
        assert process.stdout is not None
        for name in signals:
            process.stdout.readline()
            process.send_signal(getattr(signal, name))
        said = process.communicate(timeout=90)[1]
    assert process.returncode == 130
    assert said.startswith("Interrupted. ")
    assert "Traceback" not in said


def test_the_readme_names_only_commands_and_files_that_exist() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    commands = set(re.findall(r"cli\.py (\w+)", text)) | set(re.findall(r"^\| `(\w+)", text, re.M))
    files = {"manifest", "layers", "failures", "search", "model", "evaluation", "features"}
    known = {*COMMANDS, *files}
    assert commands <= known
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        assert (ROOT / target).exists(), target


def test_the_demo_does_not_replace_a_manifest_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "manifest.csv").write_text("id,audio,label\na,a.wav,joy\nb,b.wav,anger\n")
    result = CliRunner().invoke(main, ["demo", "--work", str(tmp_path)])
    assert result.exit_code == 1
    assert "which the demo would replace" in result.output


def test_the_demo_takes_random_encoders_where_small_ones_cannot_be_had(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(name: str, kind: str, work: Path) -> Path:
        raise EmopoolError(f"{name} could not be downloaded (no network). Connect to one.")

    monkeypatch.setattr("cache.encoders.names.resolve_encoder", refuse)
    assert _demo_encoders(Work(tmp_path)) == ("tiny", "tiny")
    said = capsys.readouterr().out
    assert said.count("\n") == 1
    assert "whisper-tiny.en could not be downloaded (no network)." in said
