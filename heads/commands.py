"""The command of this floor."""

from __future__ import annotations

from pathlib import Path

import click

from corpora.command_options import (
    device_option,
    json_option,
    manifest_option,
    say_defaults,
    show,
    work_option,
)
from corpora.work import Work


@click.command()
@click.option("--trials", default=100, show_default=True, help="Trials in all, resumed ones too.")
@click.option("--seed", default=0, show_default=True, help="Of the study.")
@click.option("--epochs", type=int, help="Of a full trial.  [default: 9, more on small corpora]")
@click.option("--batch-size", default=64, show_default=True, help="Utterances a step.")
@click.option("--cohort", default=25, show_default=True, help="Trials trained side by side.")
@click.option(
    "--modalities",
    type=click.Choice(["audio", "text", "audio,text"]),
    help="What heads may read.  [default: all that was extracted]",
)
@click.option("--untied", is_flag=True, help="Let audio and text be pooled in different ways.")
@click.option(
    "--space",
    type=click.Path(dir_okay=False, path_type=Path),
    help='TOML file that narrows or fixes axes, e.g. pooling = ["statistics", "attentive"].',
)
@click.option(
    "--sampler",
    type=click.Choice(["tpe", "random"]),
    default="tpe",
    show_default=True,
    help="How trials are drawn: learning from earlier ones, or by chance, as a control.",
)
@click.option(
    "--folds",
    default="auto",
    show_default=True,
    metavar="auto|off|speaker|session|K",
    help="Compare heads by cross-validation over train and dev: one fold a speaker or session, or "
    "K groups of speakers. A trial then trains one head a fold, which takes so many times longer. "
    "auto: where dev has fewer than 20 speakers and the corpus fewer than 3,000 utterances.",
)
@click.option(
    "--ensemble",
    default=0,
    show_default=True,
    metavar="K",
    help="Also score the averaged probabilities of the K best trials (2 to 10; 0: none).",
)
@click.option(
    "--storage",
    default="",
    metavar="URL",
    help="Database of a study that several machines work on, such as postgresql://user@host/db or "
    "sqlite:////shared/study.db.  [default: WORK/search/study.db]",
)
@click.option("--study-name", default="heads", show_default=True, help="Of the study in --storage.")
@click.option(
    "--precision",
    type=click.Choice(["auto", "fp32", "bf16"]),
    default="auto",
    show_default=True,
    help="Of frames and their products; statistics and weights are fp32. auto: bf16 for large "
    "batches on processors made for it.",
)
@device_option
@click.option("--plots", is_flag=True, help="Also draw the study, into WORK/search/plots.")
@click.option("--fresh", is_flag=True, help="Remove an earlier search first.")
@manifest_option
@json_option
@work_option
def search(
    trials: int,
    seed: int,
    epochs: int | None,
    batch_size: int,
    cohort: int,
    modalities: str | None,
    untied: bool,
    space: Path | None,
    sampler: str,
    folds: str,
    ensemble: int,
    storage: str,
    study_name: str,
    precision: str,
    device: str,
    plots: bool,
    fresh: bool,
    manifest_path: Path | None,
    as_json: bool,
    root: Path,
) -> None:
    """Search pooling heads on the cached frames with Optuna, into WORK/search."""
    from corpora.manifest import read_manifest
    from corpora.protocol import defaults
    from heads.search.config import SearchConfig
    from heads.search.run import run_search

    work = Work(root)
    manifest = read_manifest(manifest_path or work.manifest)
    protocol = f"Protocol {manifest.protocol}"
    fixed = defaults(manifest, "search")
    say_defaults(protocol, fixed)
    config = SearchConfig(
        trials=trials,
        seed=seed,
        batch_size=batch_size,
        epochs=epochs,
        cohort=cohort,
        modalities=modalities.split(",") if modalities else None,
        tied=not untied,
        space=space,
        fixed=fixed,
        fixed_by=protocol,
        sampler=sampler,
        folds=folds,
        ensemble=ensemble,
        storage=storage,
        study_name=study_name,
        precision=precision,
        device=device,
        plots=plots,
    )
    report = run_search(
        work,
        manifest,
        config,
        fresh=fresh,
        show_progress=not as_json,
    )
    show(report.to_json(), report.to_text(), as_json)
