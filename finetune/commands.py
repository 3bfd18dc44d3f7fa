"""The commands of this floor: `finetune` and what is done with models, and `compare`.

`compare` stands on this floor because of `--finetune`; the comparison itself is `heads.comparing`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import click

from corpora.base.command_options import (
    File,
    head_options,
    json_option,
    manifest_option,
    map_option,
    names,
    options,
    say_defaults,
    show,
    split_option,
    with_defaults,
    work_option,
)
from corpora.base.work import Work
from corpora.utterance import ALL
from finetune.config import EvaluateConfig, ExportConfig, FinetuneConfig, PredictConfig
from heads.config import FIXABLE, CompareConfig

if TYPE_CHECKING:
    from corpora.utterance import Utterance
    from finetune.predict.prediction import Unusable


def _tell(line: str) -> None:
    """Say something beside the results, which are on standard output."""
    click.echo(line, err=True)


@click.command()
@options(CompareConfig)
@click.option(
    "--layers",
    is_flag=True,
    help="Instead, sweep over all cached layers (also those with moments only): statistics "
    "pooling and logistic regression on each.",
)
@click.option(
    "--finetune",
    "rows",
    default="",
    metavar="NAMES",
    help="Take these rows on with their encoders: their heads are phase 1, then phases 2 and 3. "
    "NAME:lora[:RANK[:TARGET+TARGET]] trains adapters in place of the encoders (peft).",
)
@click.option("--fresh", is_flag=True, help="Remove an earlier comparison first.")
@manifest_option
@json_option
@work_option
def compare(
    config: CompareConfig,
    layers: bool,
    rows: str,
    fresh: bool,
    manifest_path: Path | None,
    as_json: bool,
    work: Work,
) -> None:
    """Train the published poolings side by side on the cached frames, into WORK/compare.

    Every row has the same tuning and the whole schedule. A
    stopped comparison goes on where it was; asking for more rows or seeds adds to it.
    Where the manifest has a column `fold`, every fold is scored by heads trained without it.
    """
    if layers and rows:
        raise click.UsageError("--layers and --finetune exclude one another")
    from corpora.manifest import read_manifest
    from corpora.protocol import defaults, targets
    from heads.compare.rendering import terminal_text

    manifest = read_manifest(manifest_path or work.manifest)
    protocol, searched = f"Protocol {manifest.protocol}", defaults(manifest, "search")
    fixed = {name: value for name, value in searched.items() if name in FIXABLE}
    say_defaults(protocol, fixed)
    own = dict(targets(manifest))
    if "input_norm" in searched:
        own["input_norms"] = searched["input_norm"]
    config = replace(with_defaults(config, protocol, own), fixed=fixed)
    if layers:
        from heads.compare.layer_sweep import run_layers

        report = run_layers(work, manifest, config, fresh=fresh, show_progress=not as_json)
    else:
        from finetune.compare_rows import compare_rows

        report = compare_rows(
            work,
            manifest,
            config,
            names(rows),
            fresh=fresh,
            tell=None if as_json else click.echo,
            show_progress=not as_json,
        )
    show(report.to_json(), terminal_text(report, manifest_path), as_json)


@click.command()
@click.option("--best", is_flag=True, help="Start from the search's best head (the default).")
@head_options("Start from", "; trained again where it was not kept.")
@options(FinetuneConfig)
@manifest_option
@json_option
@work_option
def finetune(
    best: bool,
    trial: int | None,
    head: Path | None,
    config: FinetuneConfig,
    manifest_path: Path | None,
    as_json: bool,
    work: Work,
) -> None:
    """Fine-tune a searched head and both encoders (phases 2 and 3), into WORK/model.

    A run that was stopped goes on with the same command. Several GPUs: accelerate launch cli.py
    finetune --best, or torchrun --nproc-per-node N cli.py finetune --best.
    """
    if sum((best, trial is not None, head is not None)) > 1:
        raise click.UsageError("--best, --trial and --head exclude one another")
    from corpora.base.work import current_rank
    from corpora.manifest import read_manifest
    from corpora.protocol import defaults
    from finetune.finetune import run_finetune
    from heads.records import trial_file

    manifest = read_manifest(manifest_path or work.manifest)
    report = run_finetune(
        work,
        manifest,
        with_defaults(config, f"Protocol {manifest.protocol}", defaults(manifest, "finetune")),
        head=head if trial is None else trial_file(work.search, trial),
        tell=None if as_json else click.echo,
        show_progress=not as_json,
    )
    if current_rank().leads:
        show(report.to_json(), report.to_text(manifest_path), as_json)


@click.command()
@split_option("Which utterances; all: every labelled one.", default="test")
@options(EvaluateConfig)
@map_option(
    "Rename a label of another corpus's manifest to one that was trained on; an empty NEW "
    "leaves it out; repeatable."
)
@manifest_option
@json_option
@work_option
def evaluate(
    split: str,
    config: EvaluateConfig,
    maps: tuple[str, ...],
    manifest_path: Path | None,
    as_json: bool,
    work: Work,
) -> None:
    """Score the fine-tuned model, or the searched head, on a split, into WORK/evaluation.

    Of another corpus too: --manifest OTHER.csv --map hap=happiness. A head needs its frames: run
    extract on that manifest first, in the same work folder. A model needs recordings only.
    """
    from corpora.label_map import map_manifest, parse_label_map
    from corpora.manifest import read_manifest
    from finetune.evaluate.evaluate import evaluate as run

    manifest = map_manifest(read_manifest(manifest_path or work.manifest), parse_label_map(maps))
    evaluation = run(work, manifest, split, config, show_progress=not as_json)
    show(evaluation.to_json(), evaluation.to_text(), as_json)


@click.command()
@click.argument("audio", nargs=-1, metavar="AUDIO…")
@click.option(
    "--text", "texts", multiple=True, help="What is said; one for each AUDIO, in their order."
)
@options(PredictConfig)
@click.option(
    "--manifest",
    "manifest_path",
    type=File,
    help="Predict utterances of a manifest, with their texts, labelled or not.",
)
@split_option(
    "Which of them; test3: MSP-Podcast's recordings without labels.  [default: all]",
    default=None,
    more=["test3"],
)
@json_option
@work_option
def predict(
    audio: tuple[str, ...],
    texts: tuple[str, ...],
    config: PredictConfig,
    manifest_path: Path | None,
    split: str | None,
    as_json: bool,
    work: Work,
) -> None:
    """Say which emotion is heard in recordings.

    AUDIO is files, folders, or - for a list on standard input (a file a line; its text may follow
    behind a tab). Or name a --manifest. With --json each answer is one line, as soon as it is
    there; a recording that cannot be used is a line with "error", and ends in status 1.

    Over time: --every 1, or --segments vad, with --out emotion.csv. With --json each segment is a
    line.

    In Python: EmotionModel.from_pretrained("work/model").predict(["a.wav"], texts=["Stop!"])
    """
    wanted = manifest_path is not None or split is not None
    if wanted == bool(audio) or (wanted and texts):
        raise click.UsageError(
            "name recordings (AUDIO…), or --manifest and --split with its own texts, and not both"
        )
    if texts and config.over_time:
        raise click.UsageError("--text is of whole recordings, not of their segments")
    from corpora.base.terminal import progress_bar
    from corpora.manifest import read_manifest
    from finetune.predict.conclude import conclude
    from finetune.predict.predict import rows_of, run_predict, utterances_of
    from finetune.predict.prediction import Answer, Prediction, table

    unusable: list[Unusable] = []
    if wanted:
        utterances = rows_of(read_manifest(manifest_path or work.manifest), split or ALL)
    else:
        utterances, unusable = utterances_of(audio, texts, sys.stdin)
    if config.over_time:
        _predict_over_time(work, utterances, unusable, config, as_json)
        return
    answers: list[Answer] = []
    found = run_predict(work, utterances, config, _tell)
    with progress_bar("predicting", len(utterances), "recording", show=not as_json) as bar:
        for answer in chain(unusable, found):
            answers.append(answer)
            bar.update(1)
            if as_json:
                click.echo(json.dumps(answer.to_json(), ensure_ascii=False))
    predictions = [one for one in answers if isinstance(one, Prediction)]
    if not as_json and predictions:
        click.echo("\n".join(table(predictions)))
    for line in conclude(answers, config):
        _tell(line)
    if len(predictions) < len(answers):
        raise click.exceptions.Exit(1)


def _predict_over_time(
    work: Work,
    utterances: Sequence[Utterance],
    unusable: Sequence[Unusable],
    config: PredictConfig,
    as_json: bool,
) -> None:
    """`predict --every` and `--segments`: say and write each recording over time."""
    from corpora.base.terminal import progress_bar
    from finetune.predict.predict import run_over_time
    from finetune.predict.timeline import Timeline, timeline_lines, write_timelines

    timelines: list[Timeline] = []
    with progress_bar("predicting", len(utterances), "recording", show=not as_json) as bar:
        found = run_over_time(work, utterances, config, _tell, bar.update)
        for one in chain(unusable, found):
            if isinstance(one, Timeline):
                timelines.append(one)
                lines = [json.dumps(m.to_json(), ensure_ascii=False) for m in one.moments]
                click.echo("\n".join(lines if as_json else timeline_lines(one)))
            else:
                _tell(one.error)
                if as_json:
                    click.echo(json.dumps(one.to_json(), ensure_ascii=False))
    written = write_timelines(config.outs, timelines) if timelines else []
    if written:
        _tell(f"Wrote {', '.join(map(str, written))}.")
    if len(timelines) < len(utterances) + len(unusable):
        raise click.exceptions.Exit(1)


@click.group()
def export() -> None:
    """Write a head or a model for programs without Emopool."""


@export.command("onnx")
@options(ExportConfig)
@split_option("The file is compared on recordings of this one.", default="test")
@manifest_option
@json_option
@work_option
def export_onnx_command(
    config: ExportConfig, split: str, manifest_path: Path | None, as_json: bool, work: Work
) -> None:
    """Write the fine-tuned model, or the searched head on its encoders, as one ONNX file.

    Samples at 16 kHz go in (and tokens, where it reads), probabilities come out; labels and the
    tokenizer are in the file. examples/run_onnx.py runs it without torch. Nothing is written unless
    onnxruntime says what torch says.
    """
    from corpora.manifest import read_manifest
    from finetune.export_onnx import export_onnx

    path = manifest_path or (work.manifest if work.manifest.is_file() else None)
    report = export_onnx(work, read_manifest(path) if path else None, split, config, _tell)
    show(report.data, report.to_text(), as_json)


@click.command()
@click.argument("model", metavar="MODEL")
@click.argument("repository", metavar="HUB-ID")
@click.option("--private/--public", default=True, show_default=True, help="Who may see it.")
@click.option("--dry-run", is_flag=True, help="Only say what would be sent; nothing is.")
@json_option
def push(model: str, repository: str, private: bool, dry_run: bool, as_json: bool) -> None:
    """Send a fine-tuned model with its card to the Hugging Face hub.

    MODEL is a directory that finetune wrote; HUB-ID is owner/name. The token is that of `hf auth
    login`, or HF_TOKEN. A repository that is there keeps who may see it.
    """
    from finetune.push import push as run

    report = run(Path(model), repository, private=private, dry_run=dry_run)
    show(report.data, report.to_text(), as_json)
