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

from corpora.errors import EmopoolError

# In the order of use.
COMMANDS = {
    "prepare": "corpora.commands",
    "transcribe": "cache.transcribing.commands",
    "extract": "heads.commands",
    "search": "heads.commands",
    "compare": "finetune.compare_command",
    "finetune": "finetune.commands",
    "evaluate": "finetune.evaluate_command",
    "predict": "finetune.predict_command",
    "explain": "explain.commands",
    "cache": "cache.commands",
    "demo": "finetune.commands",
}
# Commands inside those, where another floor than the outer command's brings them.
SUBCOMMANDS = {"prepare": {"check": "cache.corpus_check.command"}}
# The exit status of shells for a program ended by an interrupt.
INTERRUPTED = 130


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
        if isinstance(command, click.Group):
            for name, module in SUBCOMMANDS.get(cmd_name, {}).items():
                command.add_command(getattr(import_module(module), name))
        return command

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401 - whatever the command returns
        """Run a command and turn what the user can cause into a message."""
        try:
            return super().invoke(ctx)
        except EmopoolError as error:
            click.echo(f"Error: {error}", err=True)
            ctx.exit(1)
        except KeyboardInterrupt as interrupt:
            click.echo(
                str(interrupt)
                or "Interrupted. What was finished is kept: transcribe, extract, search, compare "
                "and finetune go on from there.",
                err=True,
            )
            ctx.exit(INTERRUPTED)
        except OSError as error:
            where = f" ({error.filename})" if error.filename else ""
            click.echo(
                f"Error: {error.strerror or error}{where}. What was finished is kept; "
                "mend the cause and run the command again.",
                err=True,
            )
            ctx.exit(1)


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(package_name="emopool")
def main() -> None:
    """Emotion from speech: cache encoder frames once, search pooling heads, fine-tune the best.

    In this order: prepare, extract, search, finetune, evaluate, explain. Or all at once: demo.
    """
    # Threads of torch that wait should sleep, not spin: beside any other busy program a spinning
    # pair of threads made small products 14 times slower (80 against 6 ms). Read at its import.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # A terminated run commits what it has, as an interrupted one does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)


if __name__ == "__main__":
    sys.exit(main())
