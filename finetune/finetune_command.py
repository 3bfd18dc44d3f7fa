"""The command `finetune`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from corpora.base.command_options import (
    device_option,
    json_option,
    manifest_option,
    show,
    with_defaults,
    work_option,
)
from corpora.base.work import Work

Function = Callable[..., Any]


def _training_options(function: Function) -> Function:
    """How the phases are trained."""
    for option in (
        click.option("--lr1", type=float, help="Of phase 1.  [default: that of the search]"),
        click.option("--lr2", type=float, help="Of phase 2.  [default: 3e-6; tiny: 1e-4]"),
        click.option("--lr3", type=float, help="Of phase 3.  [default: 1e-6; tiny: 3e-5]"),
        click.option(
            "--layer-decay",
            default=1.0,
            show_default=True,
            help="Factor on the learning rate from a layer to the one below.",
        ),
        click.option("--epochs", default=10, show_default=True, help="Most passes of a phase."),
        click.option(
            "--patience",
            default=5,
            show_default=True,
            help="Passes without a better one that end phase 2 or 3.",
        ),
        click.option(
            "--head-patience",
            default=0,
            show_default=True,
            help="The same for phase 1; 0: it makes as many passes as the search did.",
        ),
        click.option(
            "--unfreeze-layers",
            type=int,
            help="Upper layers of each encoder trained in phase 2.  "
            "[default: a quarter of those read]",
        ),
        click.option(
            "--spec-augment",
            default=0.0,
            show_default=True,
            help="Share of frames and mel bands masked while the speech encoder is trained.",
        ),
        click.option(
            "--layerdrop",
            default=0.0,
            show_default=True,
            help="Probability that a layer that is trained is passed over.",
        ),
        click.option("--seed", default=0, show_default=True, help="For batches and dropout."),
    )[::-1]:
        function = option(function)
    return function


def _machine_options(function: Function) -> Function:
    """How much is computed at once, where, and what is kept."""
    for option in (
        click.option(
            "--frame-budget",
            default=2_400,
            show_default=True,
            help="Frames of 20 ms that are encoded together, padding included.",
        ),
        click.option(
            "--accumulate",
            default=1,
            show_default=True,
            help="Batches of a step, in each process.",
        ),
        click.option(
            "--gradient-checkpointing",
            is_flag=True,
            help="Compute activations again instead of keeping them: less memory, more time.",
        ),
        click.option(
            "--precision",
            type=click.Choice(["auto", "fp32", "bf16"]),
            default="auto",
            show_default=True,
            help="Of the speech encoder; auto is bf16 on a GPU.",
        ),
        click.option(
            "--boundary-cache/--no-boundary-cache",
            default=True,
            show_default=True,
            help="Train phase 2 from cached hidden states of the highest frozen layer.",
        ),
        click.option(
            "--boundary-dtype",
            type=click.Choice(["float16", "float32"]),
            default="float16",
            show_default=True,
            help="As what these are stored.",
        ),
        click.option(
            "--checkpoint-every",
            default=1_000,
            show_default=True,
            help="Steps between two checkpoints; a killed run goes on from the last.",
        ),
        click.option("--fresh", is_flag=True, help="Forget an unfinished run."),
        click.option("--tensorboard", is_flag=True, help="Write curves for TensorBoard too."),
    )[::-1]:
        function = option(function)
    return function


@click.command()
@click.option("--best", is_flag=True, help="Start from the search's best head (the default).")
@click.option(
    "--trial",
    type=int,
    help="Start from the head of this trial; trained again where it was not kept.",
)
@click.option(
    "--head",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Start from this head (a JSON file that search wrote).",
)
@click.option(
    "--phases",
    default="2,3",
    show_default=True,
    help="Which, in order: 1 the head from scratch, 2 upper layers too, 3 everything.",
)
@_training_options
@_machine_options
@device_option
@manifest_option
@json_option
@work_option
def finetune(
    best: bool,
    trial: int | None,
    head: Path | None,
    phases: str,
    lr1: float | None,
    lr2: float | None,
    lr3: float | None,
    boundary_cache: bool,
    boundary_dtype: str,
    manifest_path: Path | None,
    as_json: bool,
    root: Path,
    **options: Any,  # noqa: ANN401 - of FinetuneConfig, by name
) -> None:
    """Fine-tune a searched head and both encoders (phases 2 and 3), into WORK/model.

    A run that was stopped goes on with the same command. Several GPUs: accelerate launch cli.py
    finetune --best, or torchrun --nproc-per-node N cli.py finetune --best.
    """
    if sum((best, trial is not None, head is not None)) > 1:
        raise click.UsageError("--best, --trial and --head exclude one another")
    from corpora.base.locks import current_rank
    from corpora.manifest import read_manifest
    from corpora.protocol import defaults
    from finetune.config import FinetuneConfig, parse_phases
    from finetune.finetune import run_finetune
    from heads.records import trial_file

    work = Work(root)
    manifest = read_manifest(manifest_path or work.manifest)
    chosen = with_defaults(
        {**options, "phases": phases, "lr1": lr1, "lr2": lr2, "lr3": lr3},
        f"Protocol {manifest.protocol}",
        defaults(manifest, "finetune"),
    )
    config = FinetuneConfig(
        phases=parse_phases(chosen["phases"]),
        learning_rates={n: chosen[f"lr{n}"] for n in (1, 2, 3) if chosen[f"lr{n}"] is not None},
        boundary=boundary_dtype if boundary_cache else "off",
        **{name: chosen[name] for name in options},
    )
    report = run_finetune(
        work,
        manifest,
        config,
        head=head if trial is None else trial_file(work.search, trial),
        tell=None if as_json else click.echo,
        show_progress=not as_json,
    )
    if current_rank().leads:
        show(report.to_json(), report.to_text(manifest_path), as_json)
