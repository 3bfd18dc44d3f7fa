"""The command `predict`."""

from __future__ import annotations

import json
import sys
from itertools import chain
from pathlib import Path

import click

from corpora.base.command_options import device_option, json_option, split_option, work_option
from corpora.base.work import Work
from corpora.utterance import ALL

WHISPER = "openai/whisper-large-v3"
SHOWN_FAILURES = 10


@click.command()
@click.argument("audio", nargs=-1, metavar="AUDIO…")
@click.option(
    "--text", "texts", multiple=True, help="What is said; one for each AUDIO, in their order."
)
@click.option("--transcribe", is_flag=True, help="Let Whisper write down what comes without text.")
@click.option(
    "--whisper",
    metavar="ID|DIR",
    help=f"Which Whisper; implies --transcribe.  [default: {WHISPER}]",
)
@click.option(
    "--language",
    default="",
    metavar="CODE",
    help="Of all recordings, such as de, for Whisper.  [default: detected]",
)
@click.option(
    "--model",
    "models",
    multiple=True,
    metavar="DIR|ID",
    help="Model (directory or hub id), or head of a search in --work; several are an ensemble.  "
    "[default: WORK/model, else the search's best head]",
)
@click.option(
    "--top-frames",
    type=click.IntRange(min=0),
    default=5,
    show_default=True,
    help="How many of the frames attended most are named, where the head has attention.",
)
@click.option(
    "--max-seconds",
    type=click.FloatRange(min=0, min_open=True),
    default=60.0,
    show_default=True,
    help="Longer recordings are refused: attention costs memory by the square of the length.",
)
@click.option(
    "--manifest",
    "manifest_path",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Predict utterances of a manifest, with their texts, labelled or not.",
)
@split_option(
    "Which of them; test3: MSP-Podcast's recordings without labels.  [default: all]",
    default=None,
    more=["test3"],
)
@click.option(
    "--submission",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the file that MSP-Podcast's challenges take (FileName,EmoClass).",
)
@device_option
@json_option
@work_option
def predict(
    audio: tuple[str, ...],
    texts: tuple[str, ...],
    transcribe: bool,
    whisper: str | None,
    language: str,
    models: tuple[str, ...],
    top_frames: int,
    max_seconds: float,
    manifest_path: Path | None,
    split: str | None,
    submission: Path | None,
    device: str,
    as_json: bool,
    root: Path,
) -> None:
    """Say which emotion is heard in recordings.

    AUDIO is files, folders, or - for a list on standard input (a file a line; its text may follow
    behind a tab). Or name a --manifest. With --json each answer is one line, as soon as it is
    there; a recording that cannot be used is a line with "error", and ends in status 1.

    In Python: EmotionModel.from_pretrained("work/model").predict(["a.wav"], texts=["Stop!"])
    """
    wanted = manifest_path is not None or split is not None
    if wanted == bool(audio) or (wanted and texts):
        raise click.UsageError(
            "name recordings (AUDIO…), or --manifest and --split with its own texts, and not both"
        )
    from cache.encoders.device import choose_device
    from corpora.base.terminal import progress_bar
    from corpora.manifest import read_manifest
    from finetune.predict.answers import Answer, Prediction, Unusable, table
    from finetune.predict.predict import (
        PredictConfig,
        counts_text,
        rows_of,
        run_predict,
        submit,
        utterances_of,
    )

    work = Work(root)

    def tell(line: str) -> None:
        click.echo(line, err=True)

    unusable: list[Unusable] = []
    if wanted:
        utterances = rows_of(read_manifest(manifest_path or work.manifest), split or ALL)
    else:
        utterances, unusable = utterances_of(audio, texts, sys.stdin)
    config = PredictConfig(
        models=models,
        whisper=whisper or (WHISPER if transcribe else ""),
        language=language.strip().lower(),
        top_frames=top_frames,
        max_seconds=max_seconds,
        for_submission=submission is not None,
        device=choose_device(device),
    )
    answers: list[Answer] = []
    found = run_predict(work, utterances, config, tell)
    with progress_bar("predicting", len(utterances), "recording", show=not as_json) as bar:
        for answer in chain(unusable, found):
            answers.append(answer)
            bar.update(1)
            if as_json:
                click.echo(json.dumps(answer.to_json(), ensure_ascii=False))
    predictions = [one for one in answers if isinstance(one, Prediction)]
    failed = [one for one in answers if isinstance(one, Unusable)]
    if not as_json and predictions:
        click.echo("\n".join(table(predictions)))
    if len(predictions) > 1:
        tell(f"{len(predictions):,} recordings: {counts_text(predictions)}.")
    if submission is not None:
        tell(f"Wrote {submission}: {submit(submission, answers):,} recordings.")
    if failed:
        tell(f"{len(failed):,} of {len(answers):,} recordings could not be used:")
        for one in failed[:SHOWN_FAILURES]:
            tell(f"  {one.error}")
        if len(failed) > SHOWN_FAILURES:
            tell(f"  and {len(failed) - SHOWN_FAILURES:,} more (--json has them all)")
        raise click.exceptions.Exit(1)
