"""The command `compare`: heads on frozen frames, and of named rows the phases after them.

It stands on this floor because of `--finetune`; the comparison itself is `heads.comparing`.
"""

from __future__ import annotations

from pathlib import Path

import click

from corpora.base.command_options import (
    device_option,
    json_option,
    manifest_option,
    plots_option,
    say_defaults,
    show,
    with_defaults,
    work_option,
)
from corpora.base.work import Work


@click.command()
@click.option(
    "--tables",
    default="poolings,modalities",
    show_default=True,
    help="Which of poolings, modalities, grid (every Q and H with scorers of one and two layers: "
    "18 rows, the two-layer ones take longest).",
)
@click.option(
    "--poolings",
    default="",
    metavar="NAMES",
    help="Rows of the table of poolings to keep, such as 'statistics,AS,MQMHA 2/2'.  "
    "[default: all]",
)
@click.option("--seeds", default=5, show_default=True, help="Runs of each row.")
@click.option(
    "--learning-rates",
    default="1e-3,3e-3,1e-2",
    show_default=True,
    help="Tried for every row alike, with the first seed; the best on dev is taken.",
)
@click.option(
    "--scorer-rates",
    default="0.05,0.3",
    show_default=True,
    help="Likewise: learning rates of attention's scorers, relative to the head's.",
)
@click.option(
    "--input-norms",
    default="none,standardise",
    show_default=True,
    help="Likewise: normalisation of the frames, of none, layernorm, "
    "standardise and speaker (by each speaker's own recordings; heads only).",
)
@click.option("--epochs", type=int, help="Of each run.  [default: 9, or more: 200 steps]")
@click.option("--batch-size", default=64, show_default=True, help="Utterances a step.")
@click.option(
    "--precision",
    type=click.Choice(["auto", "fp32", "bf16"]),
    default="auto",
    show_default=True,
    help="Of frames and their products; auto: bf16 for large batches on processors made for it.",
)
@click.option(
    "--folds/--no-folds",
    default=True,
    show_default=True,
    help="Go by the folds of the manifest where it has such, or by its splits in any case.",
)
@click.option(
    "--layers",
    is_flag=True,
    help="Instead, sweep over all cached layers (also those with moments only): statistics "
    "pooling and logistic regression on each.",
)
@click.option(
    "--finetune",
    "finetune_names",
    default="",
    metavar="NAMES",
    help="Take these rows on with their encoders: their heads are phase 1, then phases 2 and 3.",
)
@plots_option("Draw the picture (matplotlib).", default=True)
@click.option("--fresh", is_flag=True, help="Remove an earlier comparison first.")
@device_option
@manifest_option
@json_option
@work_option
def compare(
    tables: str,
    poolings: str,
    seeds: int,
    learning_rates: str,
    scorer_rates: str,
    input_norms: str,
    epochs: int | None,
    batch_size: int,
    precision: str,
    folds: bool,
    layers: bool,
    finetune_names: str,
    plots: bool,
    fresh: bool,
    device: str,
    manifest_path: Path | None,
    as_json: bool,
    root: Path,
) -> None:
    """Train the published poolings side by side on the cached frames, into WORK/compare.

    Every row has the same tuning and the whole schedule. A
    stopped comparison goes on where it was; asking for more rows or seeds adds to it.
    Where the manifest has a column `fold`, every fold is scored by heads trained without it.
    """
    if layers and finetune_names:
        raise click.UsageError("--layers and --finetune exclude one another")
    from corpora.manifest import read_manifest
    from corpora.protocol import defaults
    from heads.compare.config import FIXABLE, CompareConfig, parse_names, parse_rates
    from heads.compare.rendering import terminal_text

    work = Work(root)
    manifest = read_manifest(manifest_path or work.manifest)
    protocol = f"Protocol {manifest.protocol}"
    searched = defaults(manifest, "search")
    fixed = {n: v for n, v in searched.items() if n in FIXABLE}
    say_defaults(protocol, fixed)
    norms = {"input_norms": searched["input_norm"]} if "input_norm" in searched else {}
    input_norms = with_defaults({"input_norms": input_norms}, protocol, norms)["input_norms"]
    config = CompareConfig(
        seeds=seeds,
        learning_rates=parse_rates(learning_rates, "--learning-rates"),
        scorer_rates=parse_rates(scorer_rates, "--scorer-rates"),
        input_norms=parse_names(input_norms),
        epochs=epochs,
        batch_size=batch_size,
        tables=parse_names(tables),
        poolings=parse_names(poolings),
        precision=precision,
        folds=folds,
        plot=plots,
        device=device,
        fixed=fixed,
    )
    if layers:
        from heads.compare.layer_sweep import run_layers

        report = run_layers(work, manifest, config, fresh=fresh, show_progress=not as_json)
    else:
        from finetune.compare_rows import check_names, finetune_rows
        from heads.compare.compare import run_compare

        names = parse_names(finetune_names)
        check_names(names, manifest, config)
        report = run_compare(work, manifest, config, fresh=fresh, show_progress=not as_json)
        if names:
            report = finetune_rows(
                work,
                manifest,
                report,
                names,
                device=device,
                plot=plots,
                tell=None if as_json else click.echo,
                show_progress=not as_json,
            )
    show(report.to_json(), terminal_text(report, manifest_path), as_json)
