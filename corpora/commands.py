"""The command of this floor."""

from __future__ import annotations

from pathlib import Path

import click

from corpora.command_options import json_option, show, work_option
from corpora.work import Work


@click.command()
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
