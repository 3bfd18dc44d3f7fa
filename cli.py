"""Emopool's command line: options in, one call into a floor, its report out.

Nothing heavy is imported here: each command imports what it uses, so that `--help` is instant.
"""

from __future__ import annotations

import json
import os
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
                "Interrupted. What was finished is kept: extract and search go on from there, "
                "finetune begins again.",
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
    # Threads of torch that wait should sleep, not spin: beside any other busy program a spinning
    # pair of threads made small products 14 times slower (80 against 6 ms). Read at its import.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
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


@main.command()
@click.option("--trials", default=100, show_default=True, help="Trials in all, resumed ones too.")
@click.option("--seed", default=0, show_default=True, help="Of the study.")
@click.option("--epochs", type=int, help="Of a full trial.  [default: 9, more on small corpora]")
@click.option("--batch-size", default=64, show_default=True, help="Utterances a step.")
@click.option("--cohort", default=25, show_default=True, help="Trials trained side by side.")
@click.option(
    "--modalities",
    type=click.Choice(["audio", "text", "audio,text"]),
    help="What heads may read.  [default: all that was extracted]",
)
@click.option("--untied", is_flag=True, help="Let audio and text be pooled in different ways.")
@click.option("--fresh", is_flag=True, help="Remove an earlier search first.")
@manifest_option
@json_option
@work_option
def search(
    trials: int,
    seed: int,
    epochs: int | None,
    batch_size: int,
    cohort: int,
    modalities: str | None,
    untied: bool,
    fresh: bool,
    manifest_path: Path | None,
    as_json: bool,
    root: Path,
) -> None:
    """Search pooling heads on the cached frames with Optuna, into WORK/search."""
    from corpora.manifest import read_manifest
    from heads.search import run_search

    work = Work(root)
    report = run_search(
        work,
        read_manifest(manifest_path or work.manifest),
        trials=trials,
        seed=seed,
        batch_size=batch_size,
        epochs=epochs,
        cohort=cohort,
        modalities=modalities.split(",") if modalities else None,
        tied=not untied,
        fresh=fresh,
        show_progress=not as_json,
    )
    show(report.to_json(), report.to_text(), as_json)


@main.command()
@click.option("--best", is_flag=True, help="Start from the search's best head (the default).")
@click.option("--trial", type=int, help="Start from the head of this trial, where it was kept.")
@click.option(
    "--head",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Start from this head (a JSON file that search wrote).",
)
@click.option("--phases", default="2,3", show_default=True, help="Which phases, in order.")
@click.option("--lr2", type=float, help="Learning rate of phase 2.  [default: 3e-6; tiny: 1e-4]")
@click.option("--lr3", type=float, help="Learning rate of phase 3.  [default: 1e-6; tiny: 3e-5]")
@click.option("--epochs", default=10, show_default=True, help="Most passes of a phase.")
@click.option(
    "--patience", default=5, show_default=True, help="Passes without a better one that end a phase."
)
@click.option(
    "--unfreeze-layers",
    type=int,
    help="Upper layers of each encoder trained in phase 2.  [default: a quarter of those read]",
)
@click.option("--seed", default=0, show_default=True, help="For batches and dropout.")
@click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda"]),
    default="auto",
    show_default=True,
    help="Where the model is trained.",
)
@manifest_option
@json_option
@work_option
def finetune(
    best: bool,
    trial: int | None,
    head: Path | None,
    phases: str,
    lr2: float | None,
    lr3: float | None,
    epochs: int,
    patience: int,
    unfreeze_layers: int | None,
    seed: int,
    device: str,
    manifest_path: Path | None,
    as_json: bool,
    root: Path,
) -> None:
    """Fine-tune a searched head and both encoders (phases 2 and 3), into WORK/model."""
    if sum((best, trial is not None, head is not None)) > 1:
        raise click.UsageError("--best, --trial and --head exclude one another")
    from corpora.manifest import read_manifest
    from finetune.run import FinetuneConfig, parse_phases, run_finetune
    from heads.results import trial_file

    work = Work(root)
    config = FinetuneConfig(
        phases=parse_phases(phases),
        learning_rates={n: rate for n, rate in ((2, lr2), (3, lr3)) if rate is not None},
        epochs=epochs,
        patience=patience,
        unfreeze_layers=unfreeze_layers,
        seed=seed,
        device=device,
    )
    report = run_finetune(
        work,
        read_manifest(manifest_path or work.manifest),
        config,
        head=head if trial is None else trial_file(work.search, trial),
        tell=None if as_json else click.echo,
        show_progress=not as_json,
    )
    show(report.to_json(), report.to_text(), as_json)


@main.command()
@click.option(
    "--split",
    type=click.Choice(["train", "dev", "test"]),
    default="test",
    show_default=True,
    help="Which utterances.",
)
@click.option(
    "--subject",
    type=click.Choice(["head", "model"]),
    help="The searched head or the fine-tuned model.  [default: the model where there is one]",
)
@click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda"]),
    default="auto",
    show_default=True,
    help="Where the model runs.",
)
@manifest_option
@json_option
@work_option
def evaluate(
    split: str,
    subject: str | None,
    device: str,
    manifest_path: Path | None,
    as_json: bool,
    root: Path,
) -> None:
    """Score the fine-tuned model, or the searched head, on a split."""
    from cache.device import choose_device
    from corpora.manifest import read_manifest
    from finetune.evaluate import evaluate as run

    work = Work(root)
    evaluation = run(
        work,
        read_manifest(manifest_path or work.manifest),
        split,
        subject=subject or "",
        device=choose_device(device),
        show_progress=not as_json,
    )
    show(evaluation.to_json(), evaluation.to_text(), as_json)


@main.command()
@click.option("--trials", default=30, show_default=True, help="Trials of the search.")
@click.option("--utterances", default=400, show_default=True, help="Of the sample corpus.")
@click.option("--seed", default=0, show_default=True, help="Of corpus, search and fine-tuning.")
@work_option
@click.pass_context
def demo(ctx: click.Context, trials: int, utterances: int, seed: int, root: Path) -> None:
    """Do all of it on the embedded sample corpus of synthetic speech, with tiny encoders."""
    from corpora.speech_synth import write_sample_corpus
    from finetune.results import results_text

    corpus = root / "sample-corpus"

    def step(command: click.Command, words: str, **options: Any) -> None:  # noqa: ANN401 - options
        click.secho(f"\n$ python cli.py {words} --work {root}", bold=True)
        ctx.invoke(command, root=root, **options)

    click.echo(f"Making {utterances} utterances of SYNTHETIC speech in {corpus} ...")
    write_sample_corpus(corpus, utterances=utterances, seed=seed)
    step(prepare, f"prepare sample {corpus}", corpus="sample", folder=corpus, seed=seed)
    step(
        extract,
        "extract --audio-encoder tiny --text-encoder tiny",
        audio_encoder="tiny",
        text_encoder="tiny",
    )
    step(search, f"search --trials {trials}", trials=trials, seed=seed)
    step(finetune, "finetune --best", best=True, seed=seed)
    step(evaluate, "evaluate")
    click.echo(results_text(Work(root)))


def show(value: Any, text: str, as_json: bool) -> None:  # noqa: ANN401 - any JSON
    """Print a result for a person or for a program."""
    click.echo(json.dumps(value, ensure_ascii=False, indent=2) if as_json else text)


if __name__ == "__main__":
    sys.exit(main())
