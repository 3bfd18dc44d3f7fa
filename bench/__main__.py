"""`python -m bench cache`: options in, a table out."""

from __future__ import annotations

import signal
from pathlib import Path

import click

from corpora.errors import EmopoolError

README = Path(__file__).with_name("README.md")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Benchmarks. Run them on a machine that does nothing else."""
    # A terminated run removes its temporary data, as an interrupted one does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)


@main.command("cache")
@click.option("--rows", help="Which, separated by commas.  [default: all; see bench/cache.py]")
@click.option("--size", default=1.0, show_default=True, help="Of the data; less is only a trial.")
@click.option("--repeats", type=int, help="Of every row.  [default: 3 to 9]")
@click.option("--write", is_flag=True, help="Put the table into bench/README.md.")
def cache_command(rows: str | None, size: float, repeats: int | None, write: bool) -> None:
    """The frame cache against other ways of doing the same; takes about 10 minutes."""
    from bench.cache import ROWS, choose, run
    from bench.table import lines, machine, markdown, write_section

    try:
        chosen = choose(rows.split(",") if rows else ())
        if write and (chosen != ROWS or size != 1):
            raise click.UsageError("--write takes all rows at full size")

        def tell(name: str) -> None:
            click.echo(f"measuring {name} ...", err=True)

        results = list(run(chosen, size=size, repeats=repeats, tell=tell))
    except EmopoolError as error:
        raise click.ClickException(str(error)) from error
    click.echo("\n".join(lines(results)))
    click.echo(f"\nMeasured on {machine()}.")
    if write:
        write_section(README, "cache", markdown(results))
        click.echo(f"Written to {README.parent.name}/{README.name}.")
    if not all(outcome.passed for _, outcome in results):
        raise click.exceptions.Exit(1)


if __name__ == "__main__":
    main()
