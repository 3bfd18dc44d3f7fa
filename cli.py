"""Emopool's command line. Each floor brings its own commands; here they are put in order.

Nothing heavy is imported: a command imports what it uses when it runs, so that `--help` is instant.
"""

from __future__ import annotations

import os
import signal
import sys
from importlib import import_module
from typing import Any

import click

from corpora.base.errors import EmopoolError
from corpora.base.files import disk_error

# In the order of use.
COMMANDS = {
    "prepare": "corpora.commands",
    "transcribe": "cache.commands",
    "extract": "heads.commands",
    "search": "heads.commands",
    "compare": "finetune.commands",
    "finetune": "finetune.commands",
    "evaluate": "finetune.commands",
    "predict": "finetune.commands",
    "explain": "explain.commands",
    "report": "explain.commands",
    "export": "finetune.commands",
    "push": "finetune.commands",
    "cache": "cache.commands",
    "demo": "explain.commands",
}
# No option is meant to be larger. Seeds are 64 bits, as torch draws from them.
MOST, MOST_SEED, MOST_FLOAT = 10**9, 2**63 - 1, 1e30
# The exit status of shells for a program ended by an interrupt, and of `sysexits.h` for a fault of
# the program's own.
INTERRUPTED, UNFORESEEN = 130, 70


class Commands(click.Group):
    """The commands of all floors; a user's mistake is one message and exit status 1."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order of use."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of a name, from its floor."""
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = getattr(import_module(COMMANDS[cmd_name]), cmd_name)
        if cmd_name == "prepare" and isinstance(command, click.Group):
            # They read contents, streams and cues, so the floors of these bring them.
            command.add_command(import_module("cache.commands").check)
            command.add_command(import_module("explain.commands").describe)
        _bound(command)
        return command

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401 - whatever the command returns
        """Run a command and turn what the user can cause into a message."""
        try:
            return super().invoke(ctx)
        except EmopoolError as error:
            click.echo(f"Error: {error}", err=True)
            ctx.exit(1)
        except KeyboardInterrupt as interrupt:
            # All is said and done: a second one ends what the interpreter still does.
            signal.signal(signal.SIGINT, lambda *_: os._exit(INTERRUPTED))
            click.echo(
                str(interrupt)
                or "Interrupted. What was finished is kept: transcribe, extract, search, compare "
                "and finetune go on from there.",
                err=True,
            )
            ctx.exit(INTERRUPTED)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except Exception as error:  # noqa: BLE001 - the last resort
            found = disk_error(error) or (error if isinstance(error, OSError) else None)
            if found is None:
                click.echo(f"Error: {_unforeseen(error)}", err=True)
                ctx.exit(UNFORESEEN)
            where = f" ({found.filename})" if found.filename else ""
            click.echo(
                f"Error: {found.strerror or found}{where}. What was finished is kept; "
                "mend the cause and run the command again.",
                err=True,
            )
            ctx.exit(1)


class _Integer(click.types.IntParamType):
    """Integers that libraries can take."""

    def __init__(self, lowest: int, highest: int) -> None:
        self._bounds = lowest, highest

    def convert(
        self,
        value: Any,  # noqa: ANN401 - click's own signature
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> int:
        """Refuse what is out of bounds."""
        number: int = super().convert(value, param, ctx)
        lowest, highest = self._bounds
        if not lowest <= number <= highest:
            self.fail(f"{number} is not between {lowest:,} and {highest:,}.", param, ctx)
        return number


class _Float(click.types.FloatParamType):
    """Numbers that arithmetic survives."""

    def convert(
        self,
        value: Any,  # noqa: ANN401 - click's own signature
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> float:
        """Refuse what is out of bounds, infinite or no number."""
        number: float = super().convert(value, param, ctx)
        if not abs(number) <= MOST_FLOAT:
            self.fail(f"{number:g} is not between -{MOST_FLOAT:g} and {MOST_FLOAT:g}.", param, ctx)
        return number


def _bound(command: click.Command) -> None:
    """Give the numbers of a command, and of those inside it, bounds where they have none."""
    for parameter in command.params:
        if type(parameter.type) is click.types.IntParamType:
            seed = parameter.name == "seed"
            parameter.type = _Integer(0, MOST_SEED) if seed else _Integer(-MOST, MOST)
        elif type(parameter.type) is click.types.FloatParamType:
            parameter.type = _Float()
    if isinstance(command, click.Group):
        for inner in command.commands.values():
            _bound(inner)


def _unforeseen(error: Exception) -> str:
    """One line on a fault that nobody foresaw; the traceback goes into a file."""
    import tempfile
    import traceback

    what = " ".join(f"{type(error).__name__}: {error}".split())[:200]
    try:
        with tempfile.NamedTemporaryFile(
            "w", prefix="emopool-", suffix=".log", delete=False, encoding="utf-8"
        ) as file:
            file.write("".join(traceback.format_exception(error)))
        where = f"{file.name} says where"
    except OSError as full:
        where = f"the traceback could not be written ({full})"
    return (
        f"this was not foreseen: {what}. What was finished is kept; {where}. A damaged file in the "
        "work folder may be the cause (`cache verify` checks the features); else report it with "
        "that file."
    )


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(package_name="emopool")
def main() -> None:
    """Emotion from speech: cache encoder frames once, search pooling heads, fine-tune the best.

    In this order: prepare, extract, search, finetune, evaluate, explain; report shows all of it on
    one page. Or all at once: demo.
    """
    # Threads of torch that wait should sleep, not spin: beside any other busy program a spinning
    # pair of threads made small products 14 times slower (80 against 6 ms). Read at its import.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # oneDNN keeps what it compiled for 1,024 shapes, and nearly every batch is a new one; between
    # these small pieces the heap falls apart. A batch needs some 40 of them.
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "64")
    # A terminated run commits what it has, as an interrupted one does; so does one whose terminal
    # is closed, unless it was started to outlive it (nohup).
    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)  # not every system has both
        if number is not None and signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler)


if __name__ == "__main__":
    sys.exit(main())
