"""The command of this floor."""

from __future__ import annotations

from pathlib import Path

import click

from corpora.base.command_options import (
    device_option,
    json_option,
    manifest_option,
    plots_option,
    show,
    split_option,
    work_option,
)
from corpora.base.work import Work


@click.command()
@click.argument(
    "recordings",
    nargs=-1,
    metavar="[AUDIO]...",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
)
@click.option("--utterance", "ids", multiple=True, help="Explain this utterance; repeatable.")
@split_option("Whose utterances.", default="test")
@click.option(
    "--limit",
    type=int,
    help="Most utterances, drawn at random.  [default: all; of a fine-tuned model 200]",
)
@click.option(
    "--subject",
    type=click.Choice(["head", "model"]),
    help="The searched head, on cached frames, or the fine-tuned model, on recordings.  "
    "[default: the head where there is one]",
)
@click.option("--trial", type=int, help="Explain the head of this trial, where it was kept.")
@click.option(
    "--head",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Explain this head (a JSON file that search wrote).",
)
@click.option(
    "--attended",
    default="0.5",
    show_default=True,
    metavar="SHARE|top",
    help="Attended is the smallest set of frames with this share of the attention, or of "
    "what stands for it, or the top frame of each utterance.",
)
@click.option("--text", default="", help="With AUDIO: what is said in it, for a head that reads.")
@click.option(
    "--sounds",
    default=200,
    show_default=True,
    help="Utterances whose sound goes into the page; the others are linked.",
)
@click.option(
    "--cues",
    type=click.Choice(["default", "egemaps"]),
    default="default",
    show_default=True,
    help="Acoustic cues: five of Emopool's own, or openSMILE's eGeMAPS (extra cues; free for "
    "research).",
)
@click.option(
    "--occlusion",
    default=0,
    show_default=True,
    metavar="N",
    help="Also occlude the audio of N utterances piece by piece: hundreds of passes through the "
    "encoders each.",
)
@plots_option("Draw pictures (matplotlib).", default=True)
@click.option("--seed", default=0, show_default=True, help="Wherever chance decides.")
@device_option
@manifest_option
@json_option
@work_option
def explain(
    recordings: tuple[Path, ...],
    ids: tuple[str, ...],
    split: str,
    limit: int | None,
    subject: str | None,
    trial: int | None,
    head: Path | None,
    attended: str,
    text: str,
    sounds: int,
    cues: str,
    occlusion: int,
    plots: bool,
    seed: int,
    device: str,
    manifest_path: Path | None,
    as_json: bool,
    root: Path,
) -> None:
    """Show where a head or model hears emotion, in WORK/explain/report.html.

    Of a split, of single utterances (--utterance ID), or of any recordings (AUDIO...).
    """
    if recordings and ids:
        raise click.UsageError("AUDIO and --utterance exclude one another")
    if (trial is not None) + (head is not None) + (subject == "model") > 1:
        raise click.UsageError("--trial, --head and --subject model exclude one another")
    if text and not recordings:
        raise click.UsageError("--text goes with AUDIO; utterances have their own text")
    from corpora.manifest import read_manifest
    from explain.config import ExplainConfig, parse_attended
    from explain.explain import explain_recordings, explain_split
    from heads.records import trial_file

    work = Work(root)
    config = ExplainConfig(
        subject=subject or "",
        head=head if trial is None else trial_file(work.search, trial),
        split=split,
        limit=limit,
        ids=ids,
        attended=parse_attended(attended),
        embedded=sounds,
        figures=plots,
        seed=seed,
        cues=cues,
        occlusion=occlusion,
        device=device,
    )
    if recordings:
        found = explain_recordings(work, recordings, config, text=text, show_progress=not as_json)
    else:
        manifest = read_manifest(manifest_path or work.manifest)
        found = explain_split(work, manifest, config, show_progress=not as_json)
    show(found.to_json(), found.to_text(), as_json)
