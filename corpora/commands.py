"""The commands of this floor: `prepare`, which reads corpora, and its tools for manifests."""

from __future__ import annotations

from pathlib import Path

import click

from corpora.base.command_options import (
    File,
    json_option,
    map_option,
    options,
    replace_option,
    show,
    work_option,
)
from corpora.base.work import Work
from corpora.protocol import SplitConfig
from corpora.readers.options import cells_of, joined
from corpora.utterance import plain_name

# What `prepare` does where no tool is named: read the corpus that is.
READ = "read"


class Prepare(click.Group):
    """A group of tools (`merge`, `split`, `check`, `describe`); any other first word is a corpus.

    So `prepare emodb ROOT` reads a corpus, options standing before or after.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put the name of the reading command in front, where no tool is named."""
        own = {*self.list_commands(ctx), *ctx.help_option_names}
        if args and args[0] not in own:
            args = [READ, *args]
        return super().parse_args(ctx, args)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The reading command goes by no name of its own in usage lines."""
        name, command, rest = super().resolve_command(ctx, args)
        return "" if name == READ else name, command, rest


@click.group(
    cls=Prepare,
    subcommand_metavar="CORPUS ROOT [OPTIONS]... | TOOL [ARGS]...",
    epilog="prepare CORPUS --help shows the options of reading, prepare --list the corpora.",
)
def prepare() -> None:
    """Read CORPUS at ROOT into WORK/manifest.csv, or work on manifests with a tool."""


@prepare.command(name=READ, hidden=True)
@click.argument("corpus", required=False)
@click.argument("folder", metavar="ROOT", type=click.Path(path_type=Path), required=False)
@options(SplitConfig)
@click.option(
    "--labels",
    multiple=True,
    help="Comma-separated labels to keep, in the order of the classes; repeatable. One that holds "
    "a comma stands in double quotes.",
)
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="NAME=VALUE",
    help="An option of the corpus (see --list); repeatable.",
)
@click.option(
    "--column",
    "columns",
    multiple=True,
    metavar="COLUMN=NAME",
    help="Of a table: take its column NAME as COLUMN, such as audio=path; repeatable.",
)
@click.option("--partition", default="", help="Which of EmoBox's corpora (emobox).")
@click.option(
    "--corpus", "corpus_name", default="", help="The name of the corpus (csv, folders, …)."
)
@click.option("--language", default="", help="A tag such as en or de (csv, folders, …).")
@replace_option
@click.option(
    "--list", "list_corpora", is_flag=True, help="Show the corpora and protocols, and leave."
)
@json_option
@work_option
def read_command(
    corpus: str | None,
    folder: Path | None,
    config: SplitConfig,
    labels: tuple[str, ...],
    settings: tuple[str, ...],
    columns: tuple[str, ...],
    partition: str,
    corpus_name: str,
    language: str,
    replace: bool,
    list_corpora: bool,
    as_json: bool,
    work: Work,
) -> None:
    """Read CORPUS at ROOT into WORK/manifest.csv, with speaker-disjoint splits.

    CORPUS is emodb, iemocap, csv (any table with `audio` and `label` columns), audformat, hf,
    kaldi, lhotse, …: see --list.
    """
    from corpora.prepare import prepare as run
    from corpora.protocol import protocols_json, protocols_text
    from corpora.readers.registry import corpora_json, corpora_text, parse_options

    if list_corpora:
        show(
            {"corpora": corpora_json(), "protocols": protocols_json()},
            f"CORPORA\n\n{corpora_text()}\n\nPROTOCOLS\n\n{protocols_text()}",
            as_json,
        )
        return
    if corpus is None or folder is None:
        raise click.UsageError("name a CORPUS and its ROOT folder, or use --list")
    given = {
        "column": joined(columns),
        "partition": partition,
        "corpus": corpus_name,
        "language": language,
    }
    settings += tuple(f"{name}={value}" for name, value in given.items() if value)
    report = run(
        corpus,
        folder,
        work.manifest,
        labels=label_names(labels),
        options=parse_options(corpus, settings),
        config=config,
        replace_other=replace,
    )
    show(report.to_json(), report.to_text(), as_json)


@prepare.command()
@click.argument("manifests", metavar="A.csv B.csv ...", nargs=-1, required=True, type=File)
@click.option("--out", type=File, help="The manifest to write.  [default: WORK/manifest.csv]")
@map_option("Rename a label, of one corpus or of all; an empty NEW leaves it out; repeatable.")
@replace_option
@json_option
@work_option
def merge(
    manifests: tuple[Path, ...],
    out: Path | None,
    maps: tuple[str, ...],
    replace: bool,
    as_json: bool,
    work: Work,
) -> None:
    """Merge manifests; speakers of different corpora are different people."""
    from corpora.label_map import parse_label_map
    from corpora.manifest_tools import merge as run

    target = out or work.manifest
    report = run(manifests, target, parse_label_map(maps), replace_other=replace)
    show(report.to_json(), report.to_text(), as_json)


@prepare.command()
@click.argument("manifest", type=File, required=False)
@click.option("--out", type=File, help="The manifest to write.  [default: the same; it is kept]")
@click.option(
    "--folds",
    default="",
    metavar="loso|session|K",
    help="Make folds: one a speaker (leave one speaker out), one a session, or K of speakers.",
)
@options(SplitConfig, without=("protocol",))
@replace_option
@json_option
@work_option
def split(
    manifest: Path | None,
    out: Path | None,
    folds: str,
    config: SplitConfig,
    replace: bool,
    as_json: bool,
    work: Work,
) -> None:
    """Give MANIFEST (default: WORK/manifest.csv) new splits, no speaker in two of them."""
    from corpora.manifest_tools import split as run

    path = manifest or work.manifest
    report = run(path, out or path, config=config, folds=folds, replace_other=replace)
    show(report.to_json(), report.to_text(), as_json)


def label_names(values: tuple[str, ...]) -> tuple[str, ...]:
    """Read `--labels`: each value a row of comma-separated cells, quoted where they hold a comma.

    Raises:
        ConfigError: quotation marks that do not pair up.
    """
    return tuple(map(plain_name, cells_of(values, "--labels")))
