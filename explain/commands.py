"""The commands of this floor: `explain`, and `prepare describe`, which needs cues."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click

from corpora.base.command_options import (
    File,
    head_options,
    json_option,
    manifest_option,
    options,
    show,
    work_option,
)
from corpora.base.work import Work
from explain.config import ExplainConfig


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
