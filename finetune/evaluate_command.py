"""The command `evaluate`."""

from __future__ import annotations

from pathlib import Path

import click

from corpora.base.command_options import (
    device_option,
    json_option,
    manifest_option,
    plots_option,
    show,
    split_option,
    work_option,
)
from corpora.base.work import Work


@click.command()
@split_option("Which utterances; all: every labelled one.", default="test")
@click.option(
    "--subject",
    type=click.Choice(["head", "model"]),
    help="The searched head or the fine-tuned model.  [default: the model where there is one]",
)
@click.option(
    "--model",
    "models",
    multiple=True,
    metavar="DIR|ID",
    help="Another model (directory or hub id) or head (JSON file, folder of a search); given "
    "several times, their mean probabilities: an ensemble.",
)
@click.option(
    "--against",
    multiple=True,
    metavar="DIR|ID",
    help="Compare with this model or head on the same utterances; repeatable.",
)
@click.option(
    "--map",
    "maps",
    multiple=True,
    metavar="[CORPUS:]OLD=NEW",
    help="Rename a label of another corpus's manifest to one that was trained on; an empty NEW "
    "leaves it out; repeatable.",
)
@click.option(
    "--calibration/--no-calibration",
    default=True,
    show_default=True,
    help="Measure it, before and after a temperature fitted on the development set, which is "
    "scored for it.",
)
@plots_option("Draw confusion matrix and reliability (matplotlib).", default=False)
@device_option
@manifest_option
@json_option
@work_option
def evaluate(
    split: str,
    subject: str | None,
    models: tuple[str, ...],
    against: tuple[str, ...],
    maps: tuple[str, ...],
    calibration: bool,
    plots: bool,
    device: str,
    manifest_path: Path | None,
    as_json: bool,
    root: Path,
) -> None:
    """Score the fine-tuned model, or the searched head, on a split, into WORK/evaluation.

    Of another corpus too: --manifest OTHER.csv --map hap=happiness. A head needs its frames: run
    extract on that manifest first, in the same work folder. A model needs recordings only.
    """
    from cache.encoders.device import choose_device
    from corpora.label_map import map_manifest, parse_label_map
    from corpora.manifest import read_manifest
    from finetune.evaluate.evaluate import EvaluateConfig
    from finetune.evaluate.evaluate import evaluate as run

    work = Work(root)
    manifest = map_manifest(read_manifest(manifest_path or work.manifest), parse_label_map(maps))
    config = EvaluateConfig(
        subject=subject or "",
        models=models,
        against=against,
        calibration=calibration,
        plots=plots,
        device=choose_device(device),
    )
    evaluation = run(work, manifest, split, config, show_progress=not as_json)
    show(evaluation.to_json(), evaluation.to_text(), as_json)
