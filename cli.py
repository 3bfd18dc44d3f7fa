"""Emopool's command line: options in, one call into a floor, its report out.

Nothing heavy is imported here: each command imports what it uses, so that `--help` is instant.
"""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from corpora.errors import EmopoolError
from corpora.work import Work

Function = TypeVar("Function", bound=Callable[..., Any])
# The exit status of shells for a program ended by an interrupt.
INTERRUPTED = 130


class Commands(click.Group):
    """The group, in the order of use; a user's mistake is one message and exit status 1."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order they were written, which is the order of use."""
        return list(self.commands)

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401 - whatever the command returns
        """Run a command and turn what the user can cause into a message."""
        try:
            return super().invoke(ctx)
        except EmopoolError as error:
            click.echo(f"Error: {error}", err=True)
            ctx.exit(1)
        except KeyboardInterrupt:
            click.echo(
                "Interrupted. What was finished is kept; the same command goes on from there.",
                err=True,
            )
            ctx.exit(INTERRUPTED)
        except OSError as error:
            where = f" ({error.filename})" if error.filename else ""
            click.echo(
                f"Error: {error.strerror or error}{where}. What was finished is kept; "
                "the same command goes on from there.",
                err=True,
            )
            ctx.exit(1)


def work_option(function: Function) -> Function:
    """`--work`, the same for every command."""
    return click.option(
        "--work",
        "root",
        type=click.Path(file_okay=False, path_type=Path),
        default=Path("work"),
        show_default=True,
        envvar="EMOPOOL_WORK",
        show_envvar=True,
        help="Folder for the manifest, features, study and model.",
    )(function)


def json_option(function: Function) -> Function:
    """`--json`, for commands that print a result."""
    return click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")(
        function
    )


def manifest_option(function: Function) -> Function:
    """`--manifest`, for commands that read one."""
    return click.option(
        "--manifest",
        "manifest_path",
        type=click.Path(dir_okay=False, path_type=Path),
        help="Another manifest than WORK/manifest.csv.",
    )(function)


@click.group(
    cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(package_name="emopool")
def main() -> None:
    """Emotion from speech: cache encoder frames once, search pooling heads, fine-tune the best.

    In this order: prepare, extract, search, finetune, evaluate. Or see it all at once: demo.
    """
    # A terminated run commits what it has, as an interrupted one does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)


@main.command()
@click.argument("corpus", required=False)
@click.argument("folder", metavar="ROOT", type=click.Path(path_type=Path), required=False)
@click.option("--labels", help="Comma-separated labels to keep, in the order of the classes.")
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="NAME=VALUE",
    help="An option of the corpus (see --list); repeatable.",
)
@click.option("--seed", default=0, show_default=True, help="For splits, where the corpus has none.")
@click.option("--list", "list_corpora", is_flag=True, help="Show the known corpora and leave.")
@json_option
@work_option
def prepare(
    corpus: str | None,
    folder: Path | None,
    labels: str | None,
    settings: tuple[str, ...],
    seed: int,
    list_corpora: bool,
    as_json: bool,
    root: Path,
) -> None:
    """Read CORPUS at ROOT into WORK/manifest.csv, with speaker-disjoint splits.

    CORPUS is emodb, ravdess, csv (any table with `audio` and `label` columns) or sample.
    """
    from corpora.prepare import prepare as run
    from corpora.registry import corpora_text, parse_options

    if list_corpora:
        click.echo(corpora_text())
        return
    if corpus is None or folder is None:
        raise click.UsageError("name a CORPUS and its ROOT folder, or use --list")
    names = [label.strip() for label in labels.split(",")] if labels else ()
    report = run(
        corpus,
        folder,
        Work(root).manifest,
        labels=names,
        options=parse_options(corpus, settings),
        seed=seed,
    )
    show(report.to_json(), report.to_text(), as_json)


@main.command()
@click.option(
    "--audio-encoder",
    default="facebook/w2v-bert-2.0",
    show_default=True,
    metavar="ID|DIR|tiny",
    help="Speech encoder: hub id, directory, or `tiny`; '' leaves audio out.",
)
@click.option(
    "--text-encoder",
    default="microsoft/deberta-v3-base",
    show_default=True,
    metavar="ID|DIR|tiny",
    help="Text encoder: hub id, directory, or `tiny`; '' leaves text out.",
)
@click.option("--audio-layers", help="Hidden states to keep, such as 12,18,24.  [default: last]")
@click.option("--text-layers", help="Hidden states to keep, such as 6,12.  [default: last]")
@click.option(
    "--store",
    type=click.Choice(["float16", "float32"]),
    default="float16",
    show_default=True,
    help="Precision on disk.",
)
@click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda"]),
    default="auto",
    show_default=True,
    help="Where the encoders run.",
)
@click.option(
    "--max-seconds",
    default=60.0,
    show_default=True,
    help="Longer recordings are refused by name, in seconds.",
)
@manifest_option
@json_option
@work_option
def extract(
    audio_encoder: str,
    text_encoder: str,
    audio_layers: str | None,
    text_layers: str | None,
    store: str,
    device: str,
    max_seconds: float,
    manifest_path: Path | None,
    as_json: bool,
    root: Path,
) -> None:
    """Run the encoders over what the cache lacks, into WORK/features.zarr."""
    from cache.plan import ExtractConfig, parse_layers
    from cache.run import extract as run
    from cache.summary import report_json, report_text
    from corpora.manifest import read_manifest

    work = Work(root)
    manifest = read_manifest(manifest_path or work.manifest)
    config = ExtractConfig(
        audio_encoder=audio_encoder,
        text_encoder=text_encoder,
        audio_layers=parse_layers(audio_layers),
        text_layers=parse_layers(text_layers),
        stored_dtype=store,
        device=device,
        max_seconds=max_seconds,
    )
    outcome = run(work, manifest, config, show_progress=not as_json)
    show(
        report_json(outcome.plan, outcome.report),
        report_text(work, manifest, outcome.plan, outcome.report),
        as_json,
    )


def show(value: Any, text: str, as_json: bool) -> None:  # noqa: ANN401 - any JSON
    """Print a result for a person or for a program."""
    click.echo(json.dumps(value, ensure_ascii=False, indent=2) if as_json else text)


if __name__ == "__main__":
    sys.exit(main())
