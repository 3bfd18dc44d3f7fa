"""The commands of this floor: extraction, whose layers labelled data chooses, and the search."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click

from cache.config import ExtractConfig
from corpora.base.command_options import (
    json_option,
    manifest_option,
    options,
    say_defaults,
    show,
    with_defaults,
    work_option,
)
from corpora.base.work import Work
from heads.config import SearchConfig


@click.command()
@options(ExtractConfig)
@click.option(
    "--check",
    type=click.IntRange(min=1),
    metavar="N",
    help="Then compare N random utterances with transformers' own pipeline, one by one.",
)
@manifest_option
@json_option
@work_option
def extract(
    config: ExtractConfig,
    check: int | None,
    manifest_path: Path | None,
    as_json: bool,
    work: Work,
) -> None:
    """Run the encoders over what the cache lacks, into WORK/features.zarr.

    Stop it and start it as you like: it goes on with what is missing. Several processes share the
    work, started one by one or by torchrun (docs/scale.md).
    """
    from corpora.manifest import read_manifest
    from corpora.protocol import defaults
    from heads.extraction import extract as run

    manifest = read_manifest(manifest_path or work.manifest)
    extracted = run(
        work,
        manifest,
        with_defaults(config, f"Protocol {manifest.protocol}", defaults(manifest, "extract")),
        foreign=manifest_path is not None and manifest_path.resolve() != work.manifest.resolve(),
        check=check or 0,
        tell=None if as_json else lambda line: click.echo(line, err=True),
        show_progress=not as_json,
    )
    if extracted.outcome.leads:
        show(extracted.to_json(), extracted.to_text(manifest_path), as_json)
    if extracted.checked is not None:
        extracted.checked.raise_if_beyond()


@click.command()
@options(SearchConfig)
@click.option("--fresh", is_flag=True, help="Remove an earlier search first.")
@manifest_option
@json_option
@work_option
def search(
    config: SearchConfig, fresh: bool, manifest_path: Path | None, as_json: bool, work: Work
) -> None:
    """Search pooling heads on the cached frames with Optuna, into WORK/search."""
    from corpora.manifest import read_manifest
    from corpora.protocol import allows_refit, defaults, targets
    from heads.search.outer_folds import search_test_folds
    from heads.search.search import run_search

    manifest = read_manifest(manifest_path or work.manifest)
    protocol, fixed = f"Protocol {manifest.protocol}", defaults(manifest, "search")
    say_defaults(protocol, fixed)
    config = with_defaults(config, protocol, targets(manifest))
    refit = config.refit and allows_refit(manifest)
    config = replace(config, fixed=fixed, fixed_by=protocol, refit=refit)
    run = search_test_folds if config.test_folds else run_search
    found = run(work, manifest, config, fresh=fresh, show_progress=not as_json)
    show(found.to_json(), found.to_text(manifest_path), as_json)
