"""`python -m bench cache`, `search`, `finetune`, `explain`, and those of real recordings."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from corpora.base.errors import EmopoolError

if TYPE_CHECKING:
    from bench.table import Row

README = Path(__file__).with_name("README.md")
RESULTS = README.parents[1] / "docs" / "results.md"


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Benchmarks. Run them on a machine that does nothing else."""
    # As cli.py does, and for the same reason.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # A terminated run removes its temporary data, as an interrupted one does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)


def _options(function: Callable[..., None]) -> Callable[..., None]:
    for option in (
        click.option("--write", is_flag=True, help="Put the table into bench/README.md."),
        click.option("--repeats", type=int, help="Of every row.  [default: 3 to 9]"),
        click.option(
            "--size", default=1.0, show_default=True, help="Of the data; less is only a trial."
        ),
        click.option("--rows", help="Which, separated by commas.  [default: all]"),
    ):
        function = option(function)
    return function


def _work_option(holds: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """`--work`, for benchmarks on real recordings."""
    folder = click.Path(exists=True, file_okay=False, path_type=Path)
    return click.option("--work", "root", type=folder, required=True, help=holds)


@contextmanager
def _plain_errors() -> Iterator[None]:
    """What a user can cause is said without a traceback."""
    try:
        yield
    except EmopoolError as error:
        raise click.ClickException(str(error)) from error


@main.command("cache")
@_options
def cache_command(rows: str | None, size: float, repeats: int | None, write: bool) -> None:
    """The frame cache against other ways of doing the same; takes about 20 minutes."""
    from bench.cache import ROWS

    _measure("cache", ROWS, rows, size, repeats, write)


@main.command("search")
@_options
def search_command(rows: str | None, size: float, repeats: int | None, write: bool) -> None:
    """Heads trained side by side against one after the other; takes about 50 minutes."""
    from bench.search import ROWS

    _measure("search", ROWS, rows, size, repeats, write)


@main.command("finetune")
@_options
def finetune_command(rows: str | None, size: float, repeats: int | None, write: bool) -> None:
    """Steps of fine-tuning: from the cache, padding, time in encoders; takes about 5 minutes."""
    from bench.finetune import ROWS

    _measure("finetune", ROWS, rows, size, repeats, write)


@main.command("explain")
@_options
def explain_command(rows: str | None, size: float, repeats: int | None, write: bool) -> None:
    """The statistics of 2,600 utterances from the cache, and all of `explain`; 3 minutes."""
    from bench.explain import ROWS

    _measure("explain", ROWS, rows, size, repeats, write)


@main.command("layers")
@_work_option("A work folder whose extraction has moments of all layers.")
@click.option("--seeds", default=5, show_default=True, help="Of the folds inside.")
def layers_command(root: Path, seeds: int) -> None:
    """What each audio layer knows of emotion, one speaker held out at a time; up to 10 minutes."""
    from bench.layers import curve_text, layer_curve
    from cache.lookup import FrameCache
    from corpora.base.work import Work
    from corpora.manifest import read_manifest

    work = Work(root)
    with _plain_errors():
        click.echo(
            curve_text(layer_curve(FrameCache(work), read_manifest(work.manifest), range(seeds)))
        )


@main.command("results")
@click.option("--emodb", type=Path, help="The folder of EMO-DB.")
@click.option("--ravdess", type=Path, help="The folder of RAVDESS.")
@click.option(
    "--work", "root", type=Path, default=Path("results-work"), show_default=True, help="Kept."
)
@click.option("--out", type=Path, default=RESULTS, help="The page.  [default: docs/results.md]")
def results_command(emodb: Path | None, ravdess: Path | None, root: Path, out: Path) -> None:
    """Make docs/results.md: of both corpora, of one, or without any of the sample corpus."""
    from bench.results import make_results
    from bench.results_page import results_page
    from corpora.base.files import write_text

    with _plain_errors():
        found, simulated = make_results(emodb, ravdess, root, lambda line: click.echo(line))
        write_text(out, results_page(found, simulated))
    click.echo(f"Written: {out}")


@main.command("over-time")
@_work_option("A work folder with a searched head, and a test split.")
@click.option("--minutes", default=60.0, show_default=True, help="Of the joined recording.")
def over_time_command(root: Path, minutes: float) -> None:
    """Emotion over time in an hour joined from test recordings: changes, speed, memory."""
    from tempfile import TemporaryDirectory

    from bench.over_time import over_time_lines
    from corpora.base.work import Work
    from corpora.manifest import read_manifest

    with _plain_errors(), TemporaryDirectory() as folder:
        manifest = read_manifest(Work(root).manifest)
        click.echo("\n".join(over_time_lines(root, manifest, Path(folder), minutes)))


@main.command("strength")
@_work_option("A work folder with audio frames of RAVDESS.")
@click.option("--seeds", default=3, show_default=True, help="Of the heads.")
def strength_command(root: Path, seeds: int) -> None:
    """Whether strength tells strong recordings from normal ones, of unseen actors; minutes."""
    from bench.strength import ask, strength_lines
    from cache.lookup import FrameCache
    from corpora.base.work import Work
    from corpora.manifest import read_manifest
    from heads.load import load_dataset

    work = Work(root)
    with _plain_errors():
        dataset = load_dataset(FrameCache(work), read_manifest(work.manifest), ["audio"])
        click.echo("\n".join(strength_lines(ask(dataset, range(seeds)))))


@main.command("planted")
@_work_option("A work folder with audio frames.")
@click.option("--label", default="neutral", show_default=True, help="Of the speech planted in.")
@click.option("--seeds", default=5, show_default=True, help="Of what is planted, and of heads.")
def planted_command(root: Path, label: str, seeds: int) -> None:
    """Whether attention finds a class that a tenth of real frames carries; a few minutes."""
    from bench.planted import planted_lines, planted_text
    from cache.lookup import FrameCache
    from corpora.base.work import Work
    from corpora.manifest import read_manifest

    work = Work(root)
    with _plain_errors():
        lines = planted_lines(FrameCache(work), read_manifest(work.manifest), label, range(seeds))
        click.echo(planted_text(lines))


@main.command("planted-attributes")
@_work_option("A work folder with audio frames.")
@click.option("--seeds", default=3, show_default=True, help="Of what is planted, and of heads.")
def planted_attributes_command(root: Path, seeds: int) -> None:
    """Whether heads find a rating that a tenth of real frames carries; a few minutes."""
    from bench.planted_attributes import attribute_lines, attribute_text
    from cache.lookup import FrameCache
    from corpora.base.work import Work
    from corpora.manifest import read_manifest

    work = Work(root)
    with _plain_errors():
        lines = attribute_lines(FrameCache(work), read_manifest(work.manifest), range(seeds))
        click.echo(attribute_text(lines))


@main.command("words")
@_work_option("A work folder with audio frames, surprisal, and TextGrids in its manifest.")
@click.option("--seeds", default=3, show_default=True, help="Of what is planted, and of heads.")
def words_command(root: Path, seeds: int) -> None:
    """Whether a class in the most surprising word is found there alone; a few minutes."""
    from bench.words import word_lines
    from cache.lookup import FrameCache
    from corpora.base.work import Work
    from corpora.manifest import read_manifest

    work = Work(root)
    with _plain_errors():
        lines = word_lines(FrameCache(work), read_manifest(work.manifest), range(seeds))
        click.echo("\n".join(lines))


@main.command("word-times")
@_work_option("A work folder whose manifest has texts and a person's TextGrids.")
@click.option("--whisper", type=click.Path(path_type=Path), required=True, help="Its directory.")
@click.option("--every", default=1, show_default=True, help="Of the recordings each N-th.")
def word_times_command(root: Path, whisper: Path, every: int) -> None:
    """How far Whisper's word times are from a person's; minutes."""
    from bench.words import time_lines
    from corpora.base.work import Work
    from corpora.manifest import read_manifest

    with _plain_errors():
        click.echo("\n".join(time_lines(read_manifest(Work(root).manifest), whisper, every)))


@main.command("pretraining")
@_work_option("A work folder with audio frames, and speakers in its manifest.")
@click.option("--labels", default="0,2", show_default=True, help="Of each in a fold; 0: all.")
@click.option("--seeds", default=5, show_default=True, help="Of the heads and the labels shown.")
def pretraining_command(root: Path, labels: str, seeds: int) -> None:
    """What pre-training on clusters brings, held-out speakers; a minute a seed and kind."""
    from bench.pretraining import compare, pretraining_lines
    from cache.lookup import FrameCache
    from corpora.base.work import Work
    from corpora.manifest import read_manifest
    from heads.load import load_dataset

    work = Work(root)
    with _plain_errors():
        dataset = load_dataset(FrameCache(work), read_manifest(work.manifest), ["audio"])
        counts = [int(count) for count in labels.split(",")]
        found = [compare(dataset, count, seed) for count in counts for seed in range(seeds)]
        click.echo("\n".join(pretraining_lines(found)))


@main.command("descriptions")
@_work_option("A work folder with audio frames, and descriptions in its manifest.")
@click.option("--text-encoder", default="minilm", show_default=True, help="That reads them.")
@click.option("--seeds", default=5, show_default=True, help="Of the control.")
def descriptions_command(root: Path, text_encoder: str, seeds: int) -> None:
    """What descriptions of cues bring beside text and audio, held-out speakers; a minute."""
    from bench.descriptions import description_scores, score_lines
    from cache.lookup import FrameCache
    from corpora.base.work import Work
    from corpora.manifest import read_manifest

    work = Work(root)
    with _plain_errors():
        manifest = read_manifest(work.manifest)
        found = description_scores(FrameCache(work), manifest, text_encoder, range(seeds))
        click.echo("\n".join(score_lines(found)))


@main.command("thinned")
@_work_option("A work folder with frames, and a test split.")
@click.option("--trials", default=100, show_default=True, help="Of each search.")
@click.option("--seeds", default=5, show_default=True, help="Searches of each kind.")
def thinned_command(root: Path, trials: int, seeds: int) -> None:
    """A search that reads some frames a step, against all: same ranking? Up to 40 minutes."""
    from bench.thinned import thinned_lines, thinned_text
    from cache.lookup import FrameCache
    from corpora.base.work import Work
    from corpora.manifest import read_manifest
    from heads.load import load_dataset, read_origin

    work = Work(root)
    with _plain_errors():
        cache, manifest = FrameCache(work), read_manifest(work.manifest)
        dataset = load_dataset(cache, manifest)
        origin = read_origin(cache, manifest, dataset.frames)
        click.echo(thinned_text(thinned_lines(dataset, origin, trials, range(seeds))))


def _measure(
    name: str,
    known: Sequence[Row],
    rows: str | None,
    size: float,
    repeats: int | None,
    write: bool,
) -> None:
    """Measure, print, write if asked to; exit status 1 where a row misses what is required."""
    from bench.table import choose, lines, machine, markdown, run, write_section

    try:
        chosen = choose(known, rows.split(",") if rows else ())
        if write and (len(chosen) < len(known) or size != 1):
            raise click.UsageError("--write takes all rows at full size")

        def tell(row: str) -> None:
            click.echo(f"measuring {row} ...", err=True)

        results = []
        for row, outcome in run(chosen, size=size, repeats=repeats, tell=tell):
            results.append((row, outcome))
            click.echo("  " + ", ".join((outcome.here, outcome.there, outcome.ratio)), err=True)
    except EmopoolError as error:
        raise click.ClickException(str(error)) from error
    click.echo("\n".join(lines(results)))
    click.echo(f"\nMeasured on {machine()}.")
    if write:
        write_section(README, name, markdown(results))
        click.echo(f"Written to {README.parent.name}/{README.name}.")
    if not all(outcome.passed for _, outcome in results):
        raise click.exceptions.Exit(1)


if __name__ == "__main__":
    main()
