"""The commands of this floor: `explain`, `report`, `demo`, and `prepare describe` (for cues)."""

from __future__ import annotations

import shlex
import sys
from contextlib import nullcontext, redirect_stdout
from dataclasses import replace
from pathlib import Path

import click

from corpora.base.command_options import (
    File,
    WorkFolder,
    head_options,
    json_option,
    manifest_option,
    options,
    show,
    work_option,
)
from corpora.base.errors import EmopoolError
from corpora.base.work import Work
from corpora.commands import prepare
from explain.config import ExplainConfig
from finetune.commands import evaluate, finetune
from heads.commands import extract, search


@click.command()
@click.argument(
    "recordings",
    nargs=-1,
    metavar="[AUDIO]...",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
)
@options(ExplainConfig)
@head_options("Explain", ", where it was kept.")
@click.option("--text", default="", help="With AUDIO: what is said in it, for a head that reads.")
@manifest_option
@json_option
@work_option
def explain(
    recordings: tuple[Path, ...],
    config: ExplainConfig,
    trial: int | None,
    head: Path | None,
    text: str,
    manifest_path: Path | None,
    as_json: bool,
    work: Work,
) -> None:
    """Show where a head or model hears emotion, in WORK/explain/report.html.

    Of a split, of single utterances (--utterance ID), or of any recordings (AUDIO...).
    """
    if recordings and config.ids:
        raise click.UsageError("AUDIO and --utterance exclude one another")
    if (trial is not None) + (head is not None) + (config.subject == "model") > 1:
        raise click.UsageError("--trial, --head and --subject model exclude one another")
    if text and not recordings:
        raise click.UsageError("--text goes with AUDIO; utterances have their own text")
    from corpora.manifest import read_manifest
    from explain.explain import explain_recordings, explain_split
    from heads.records import trial_file

    config = replace(config, head=head if trial is None else trial_file(work.search, trial))
    if recordings:
        found = explain_recordings(work, recordings, config, text=text, show_progress=not as_json)
    else:
        manifest = read_manifest(manifest_path or work.manifest)
        found = explain_split(work, manifest, config, show_progress=not as_json)
    show(found.to_json(), found.to_text(), as_json)


@click.command()
@click.option("--out", type=File, help="The page to write.  [default: WORK/report.html]")
@json_option
@work_option
def report(out: Path | None, as_json: bool, work: Work) -> None:
    """Put all that the commands left in the work folder on one page, WORK/report.html.

    How good, ahead of what, what may be believed, what is missing or out of date; then a section a
    stage. Nothing is trained or encoded for it.
    """
    from explain.overview.overview import write_overview

    found = write_overview(work, out, show_progress=not as_json)
    show(found.data, found.to_text(), as_json)


@click.command()
@click.argument("manifest", type=File, required=False)
@click.option("--out", type=File, help="The manifest to write.  [default: the same; it is kept]")
@json_option
@work_option
def describe(manifest: Path | None, out: Path | None, as_json: bool, work: Work) -> None:
    """Say how each utterance of MANIFEST (default: WORK/manifest.csv) sounds, in words.

    Such as "high pitch, loud, fast, wide range", by terciles of its speaker's utterances, in the
    column `description`. `extract --describe` gives it to the text encoder.
    """
    from explain.cues.describe import describe as run

    path = manifest or work.manifest
    report = run(work, path, out or path, show_progress=not as_json)
    show(report.to_json(), report.to_text(), as_json)


@click.command()
@click.option("--trials", default=30, show_default=True, help="Trials of the search.")
@click.option("--utterances", default=400, show_default=True, help="Of the sample corpus.")
@click.option("--seed", default=0, show_default=True, help="Of corpus, search and fine-tuning.")
@click.option(
    "--work",
    type=WorkFolder(),
    default="demo-work",
    show_default=True,
    help="A folder of its own, so that no work of yours is replaced.",
)
@json_option
def demo(trials: int, utterances: int, seed: int, work: Work, as_json: bool) -> None:
    """Do all of it on the embedded sample corpus of synthetic speech, with small encoders.

    These are whisper-tiny.en and minilm; random ones (tiny) where those cannot be had.

    With --json the results alone go to standard output, and what the steps say to standard error.
    """
    from explain.report.write import PAGE
    from finetune.demo import check_demo_folder, read_results

    check_demo_folder(work)
    with redirect_stdout(sys.stderr) if as_json else nullcontext():
        _demo_steps(work, trials, utterances, seed)
    results = read_results(work)
    page = f"Open {work.root / PAGE} in a browser."
    show(results.to_json(), f"{results.to_text()}\n\n{page}", as_json)


def _demo_steps(work: Work, trials: int, utterances: int, seed: int) -> None:
    """Every command in the order of use, each said before it runs."""
    from corpora.speech_synth import write_sample_corpus

    corpus = work.root / "sample-corpus"

    def step(command: click.Command, words: str) -> None:
        line = f"{words} --work {shlex.quote(str(work.root))}"
        click.secho(f"\n$ python cli.py {line}", bold=True)
        command.main(shlex.split(line)[1:], standalone_mode=False)

    click.echo(f"Making {utterances} utterances of SYNTHETIC speech in {corpus} ...")
    write_sample_corpus(corpus, utterances=utterances, seed=seed)
    step(prepare, f"prepare sample {shlex.quote(str(corpus))} --seed {seed}")
    audio, text = _demo_encoders(work)
    step(extract, f"extract --audio-encoder {audio} --text-encoder {text}")
    step(search, f"search --trials {trials} --seed {seed} --fresh")
    # Three passes a phase: the demo shows the way, and more take minutes.
    step(finetune, f"finetune --best --epochs 3 --seed {seed}")
    step(evaluate, "evaluate")
    step(report, "report")


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
