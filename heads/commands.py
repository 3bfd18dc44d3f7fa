"""The commands of this floor: extraction, whose layers labelled data chooses, and the search."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

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
    "--audio-encoder",
    default="facebook/w2v-bert-2.0",
    show_default=True,
    metavar="ID|DIR|NAME",
    help="Speech encoder: hub id, directory, `whisper-tiny.en`, `whisper-base`, or `tiny` (random "
    "weights); '' leaves audio out.",
)
@click.option(
    "--text-encoder",
    default="microsoft/deberta-v3-base",
    show_default=True,
    metavar="ID|DIR|NAME",
    help="Text encoder: hub id, directory, `minilm`, or `tiny` (random weights); '' leaves text "
    "out.",
)
@click.option(
    "--audio-layers",
    default="auto",
    show_default=True,
    metavar="auto[:N]|last|all|L,L,…",
    help="Layers whose frames are kept. auto: the best one (auto:3: three), as a regression on "
    "training utterances ranks them.",
)
@click.option(
    "--text-layers",
    default="auto",
    show_default=True,
    metavar="auto[:N]|last|all|L,L,…",
    help="The same for text.",
)
@click.option(
    "--moments-only",
    is_flag=True,
    help="Of these layers keep each utterance's mean and deviation, not its frames.",
)
@click.option(
    "--store",
    type=click.Choice(["float16", "float32"]),
    default="float16",
    show_default=True,
    help="Precision on disk.",
)
@device_option
@click.option(
    "--max-seconds",
    default=60.0,
    show_default=True,
    help="Longest recording that is encoded whole, in seconds.",
)
@click.option(
    "--long",
    type=click.Choice(["refuse", "window"]),
    default="refuse",
    show_default=True,
    help="Longer ones: refuse them by name, or encode them in overlapping windows.",
)
@click.option(
    "--batch-seconds",
    type=float,
    help="Seconds of audio encoded at once.  [default: 40 on a CPU, 600 on a GPU]",
)
@click.option(
    "--padding",
    type=click.Choice(["short", "full"]),
    default="short",
    show_default=True,
    help="Of Whisper: the silence behind a recording. short: a second or a little more; full: up "
    "to the 30 s it was trained on, several times slower.",
)
@click.option(
    "--check",
    "check_count",
    type=click.IntRange(min=1),
    metavar="N",
    help="Then compare N random utterances with transformers' own pipeline, one by one.",
)
@manifest_option
@json_option
@work_option
def extract(
    audio_encoder: str,
    text_encoder: str,
    audio_layers: str,
    text_layers: str,
    moments_only: bool,
    store: str,
    device: str,
    max_seconds: float,
    long: str,
    batch_seconds: float | None,
    padding: Literal["short", "full"],
    check_count: int | None,
    manifest_path: Path | None,
    as_json: bool,
    root: Path,
) -> None:
    """Run the encoders over what the cache lacks, into WORK/features.zarr.

    Stop it and start it as you like: it goes on with what is missing. Several processes share the
    work, started one by one or by torchrun (docs/scale.md).
    """
    from cache.extract.config import ExtractConfig, parse_layers
    from cache.extract.summary import report_json, report_text
    from corpora.manifest import read_manifest
    from corpora.protocol import defaults
    from heads.extraction import extract as run
    from heads.records import BEST

    work = Work(root)
    manifest = read_manifest(manifest_path or work.manifest)
    layers = with_defaults(
        {"audio_layers": audio_layers, "text_layers": text_layers},
        f"Protocol {manifest.protocol}",
        defaults(manifest, "extract"),
    )
    config = ExtractConfig(
        audio_encoder=audio_encoder,
        text_encoder=text_encoder,
        audio_layers=parse_layers(layers["audio_layers"]),
        text_layers=parse_layers(layers["text_layers"]),
        moments_only=moments_only,
        stored_dtype=store,
        device=device,
        max_seconds=max_seconds,
        long=long,
        batch_seconds=batch_seconds,
        padding=padding,
    )
    foreign = manifest_path is not None and manifest_path.resolve() != work.manifest.resolve()
    extracted = run(
        work,
        manifest,
        config,
        foreign=foreign,
        tell=None if as_json else lambda line: click.echo(line, err=True),
        show_progress=not as_json,
    )
    outcome = extracted.outcome
    if not outcome.leads:
        return
    # Another corpus is extracted for what is there already, to be scored on it.
    trained = (work.search / BEST).is_file() or work.model.is_dir()
    checked = None
    if check_count:
        from cache.extract.compare_with_transformers import check

        checked = check(work, manifest, outcome.plan, check_count, show_progress=not as_json)
    show(
        {
            **report_json(outcome.plan, outcome.report, checked),
            "layer_choices": {name: one.to_json() for name, one in extracted.choices.items()},
        },
        "\n\n".join(
            block
            for block in (
                extracted.to_text(),
                report_text(
                    work,
                    manifest,
                    outcome.plan,
                    outcome.report,
                    checked,
                    path=manifest_path,
                    then="evaluate" if foreign and trained else "search --trials 100",
                ),
            )
            if block
        ),
        as_json,
    )
    if checked is not None:
        checked.raise_if_beyond()


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
    "--test-folds",
    default="",
    metavar="speaker|session|protocol|K",
    help="Repeat the whole search with every fold as the test set, and score all predictions "
    "together.",
)
@click.option(
    "--no-refit",
    is_flag=True,
    help="Chosen by folds, train the head on train alone and not on train and dev.",
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
@plots_option("Also draw the study, into WORK/search/plots (matplotlib).", default=False)
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
    test_folds: str,
    no_refit: bool,
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
    from corpora.protocol import allows_refit, defaults
    from heads.search.config import SearchConfig
    from heads.search.report import SearchReport
    from heads.search.search import run_search
    from heads.search.test_folds import TestFoldsReport, search_test_folds

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
        refit=not no_refit and allows_refit(manifest),
        ensemble=ensemble,
        storage=storage,
        study_name=study_name,
        precision=precision,
        device=device,
        plots=plots,
    )
    found: SearchReport | TestFoldsReport
    if test_folds:
        found = search_test_folds(
            work, manifest, test_folds, config, fresh=fresh, show_progress=not as_json
        )
    else:
        found = run_search(work, manifest, config, fresh=fresh, show_progress=not as_json)
    show(found.to_json(), found.to_text(manifest_path), as_json)
