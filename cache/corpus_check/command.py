"""`prepare check`: it needs contents and streams, so it lives on the cache's floor."""

from __future__ import annotations

from pathlib import Path

import click

from corpora.base.command_options import json_option, show, work_option
from corpora.base.work import Work


@click.command()
@click.argument("manifest", type=click.Path(dir_okay=False, path_type=Path), required=False)
@click.option(
    "--no-audio",
    is_flag=True,
    help="Open no recording: tell only what manifest and cache know already.",
)
@json_option
@work_option
@click.pass_context
def check(
    ctx: click.Context, manifest: Path | None, no_audio: bool, as_json: bool, root: Path
) -> None:
    """Look at MANIFEST (default: WORK/manifest.csv): lengths, clipping, duplicates, leakage.

    Exits with 1 where something has to be mended.
    """
    from cache.upkeep.check_corpus import check_corpus
    from corpora.manifest import read_manifest

    work = Work(root)
    path = manifest or work.manifest
    found = check_corpus(
        work, read_manifest(path), path, audio=not no_audio, show_progress=not as_json
    )
    show(found.to_json(), found.to_text(), as_json)
    if not found.ok:
        ctx.exit(1)
