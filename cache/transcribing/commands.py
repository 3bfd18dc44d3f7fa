"""The command that fills in texts."""

from __future__ import annotations

from pathlib import Path

import click

from corpora.base.command_options import (
    device_option,
    json_option,
    manifest_option,
    show,
    split_option,
    work_option,
)
from corpora.base.work import Work
from corpora.utterance import ALL


@click.command()
@click.option(
    "--whisper",
    default="openai/whisper-large-v3",
    show_default=True,
    metavar="ID|DIR",
    help="Which Whisper: hub id or directory.",
)
@click.option(
    "--language",
    default="",
    metavar="CODE",
    help="Of all recordings, such as de; auto detects it.  "
    "[default: the manifest's language where it gives one, else detected]",
)
@device_option
@click.option(
    "--batch-size",
    type=click.IntRange(min=1),
    help="Pieces of up to 30 s decoded at once.  [default: 4 on a CPU, 16 on a GPU]",
)
@click.option(
    "--speech-threshold",
    type=click.FloatRange(0, 1, max_open=True),
    default=0.1,
    show_default=True,
    help="Recordings in which the probability of speech stays below this get no text; 0: off.",
)
@click.option("--overwrite", is_flag=True, help="Replace human texts, too.")
@click.option(
    "--reference",
    is_flag=True,
    help="Transcribe what has a human text, too, and print the word error rate; texts are kept.",
)
@split_option("Only its utterances.", default=ALL)
@click.option(
    "--limit", type=click.IntRange(min=1), metavar="N", help="Hear the first N of them only."
)
@manifest_option
@json_option
@work_option
def transcribe(
    whisper: str,
    language: str,
    device: str,
    batch_size: int | None,
    speech_threshold: float,
    overwrite: bool,
    reference: bool,
    split: str,
    limit: int | None,
    manifest_path: Path | None,
    as_json: bool,
    root: Path,
) -> None:
    """Fill in missing texts with Whisper; human texts stay.

    Texts go into the manifest that is read, with their text_source; the manifest before is kept
    beside it. Stop it and start it as you like: WORK/transcripts.sqlite has what was heard.
    """
    from cache.transcribe.texts import TranscribeConfig
    from cache.transcribe.transcribe import transcribe as run

    work = Work(root)
    config = TranscribeConfig(
        model=whisper,
        language=language.strip().lower(),
        device=device,
        batch_size=batch_size,
        speech_threshold=speech_threshold,
        overwrite=overwrite,
        reference=reference,
        split=split,
        limit=limit,
    )
    report = run(
        work,
        manifest_path or work.manifest,
        config,
        tell=None if as_json else lambda line: click.echo(line, err=True),
        show_progress=not as_json,
    )
    show(report.to_json(), report.to_text(), as_json)
