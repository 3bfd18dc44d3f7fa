"""The commands of this floor."""

from __future__ import annotations

import shlex
import sys
from contextlib import nullcontext, redirect_stdout
from pathlib import Path
from typing import Any

import click

from corpora.base.command_options import (
    json_option,
    show,
)
from corpora.base.errors import EmopoolError
from corpora.base.work import Work
from corpora.commands import read_command
from finetune.evaluate_command import evaluate
from finetune.finetune_command import finetune
from heads.commands import extract, search


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
@json_option
@click.pass_context
def demo(
    ctx: click.Context, trials: int, utterances: int, seed: int, root: Path, as_json: bool
) -> None:
    """Do all of it on the embedded sample corpus of synthetic speech, with small encoders.

    These are whisper-tiny.en and minilm; random ones (tiny) where those cannot be had.

    With --json the results alone go to standard output, and what the steps say to standard error.
    """
    from finetune.demo import check_demo_folder, read_results

    work = Work(root)
    check_demo_folder(work)
    with redirect_stdout(sys.stderr) if as_json else nullcontext():
        _demo_steps(ctx, work, trials, utterances, seed)
    results = read_results(work)
    show(results.to_json(), results.to_text(), as_json)


def _demo_steps(ctx: click.Context, work: Work, trials: int, utterances: int, seed: int) -> None:
    """Every command in the order of use, each said before it runs."""
    from corpora.speech_synth import write_sample_corpus

    root = work.root
    corpus = root / "sample-corpus"

    def step(command: click.Command, words: str, **options: Any) -> None:  # noqa: ANN401 - options
        click.secho(f"\n$ python cli.py {words} --work {shlex.quote(str(root))}", bold=True)
        ctx.invoke(command, root=root, **options)

    click.echo(f"Making {utterances} utterances of SYNTHETIC speech in {corpus} ...")
    write_sample_corpus(corpus, utterances=utterances, seed=seed)
    step(
        read_command,
        f"prepare sample {shlex.quote(str(corpus))} --seed {seed}",
        corpus="sample",
        folder=corpus,
        seed=seed,
    )
    audio, text = _demo_encoders(work)
    step(
        extract,
        f"extract --audio-encoder {audio} --text-encoder {text}",
        audio_encoder=audio,
        text_encoder=text,
    )
    step(
        search,
        f"search --trials {trials} --seed {seed} --fresh",
        trials=trials,
        seed=seed,
        fresh=True,
    )
    # Three passes a phase: the demo shows the way, and more take minutes.
    step(finetune, f"finetune --best --epochs 3 --seed {seed}", best=True, epochs=3, seed=seed)
    step(evaluate, "evaluate")


def _demo_encoders(work: Work) -> tuple[str, str]:
    """The small pretrained pair; where it cannot be had the random one, with the reason."""
    from cache.encoders.names import resolve_encoder

    pair = ("whisper-tiny.en", "minilm")
    try:
        resolve_encoder(pair[0], "audio", work.root)
        resolve_encoder(pair[1], "text", work.root)
    except EmopoolError as error:
        reason = str(error).partition(". ")[0]
        click.echo(f"Random encoders are used, for small pretrained ones cannot be had: {reason}.")
        return "tiny", "tiny"
    return pair
