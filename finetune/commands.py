"""The commands of this floor."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import click

from cache.commands import extract
from corpora.command_options import (
    device_option,
    json_option,
    manifest_option,
    show,
    work_option,
)
from corpora.commands import prepare
from corpora.work import Work
from heads.commands import search


@click.command()
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
@device_option
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


@click.command()
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
@device_option
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
    from cache.encoders.device import choose_device
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


@click.command()
@click.option("--trials", default=30, show_default=True, help="Trials of the search.")
@click.option("--utterances", default=400, show_default=True, help="Of the sample corpus.")
@click.option("--seed", default=0, show_default=True, help="Of corpus, search and fine-tuning.")
@click.option(
    "--work",
    "root",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("demo-work"),
    show_default=True,
    help="A folder of its own, so that no work of yours is replaced.",
)
@click.pass_context
def demo(ctx: click.Context, trials: int, utterances: int, seed: int, root: Path) -> None:
    """Do all of it on the embedded sample corpus of synthetic speech, with tiny encoders."""
    from corpora.speech_synth import write_sample_corpus
    from finetune.results import check_demo_folder, results_text

    work = Work(root)
    check_demo_folder(work)
    corpus = root / "sample-corpus"

    def step(command: click.Command, words: str, **options: Any) -> None:  # noqa: ANN401 - options
        click.secho(f"\n$ python cli.py {words} --work {shlex.quote(str(root))}", bold=True)
        ctx.invoke(command, root=root, **options)

    click.echo(f"Making {utterances} utterances of SYNTHETIC speech in {corpus} ...")
    write_sample_corpus(corpus, utterances=utterances, seed=seed)
    step(
        prepare,
        f"prepare sample {shlex.quote(str(corpus))} --seed {seed}",
        corpus="sample",
        folder=corpus,
        seed=seed,
    )
    step(
        extract,
        "extract --audio-encoder tiny --text-encoder tiny",
        audio_encoder="tiny",
        text_encoder="tiny",
    )
    # Folds cost as many heads a trial as there are speakers; the demo shows the way in minutes.
    step(
        search,
        f"search --trials {trials} --seed {seed} --folds off --fresh",
        trials=trials,
        seed=seed,
        folds="off",
        fresh=True,
    )
    step(finetune, f"finetune --best --seed {seed}", best=True, seed=seed)
    step(evaluate, "evaluate")
    click.echo(results_text(work))
