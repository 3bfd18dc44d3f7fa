"""`finetune` as one call: from the searched head to a model directory and its scores."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from cache.encoders.device import choose_device
from cache.lookup import FrameCache
from corpora.base.codec import Jsonable
from corpora.base.errors import MissingStepError
from corpora.base.report import Part, Report, Table
from corpora.base.work import Work, command_line, current_rank, exclusive_lock
from corpora.manifest import Manifest, require_splits
from finetune.adapters import require_peft
from finetune.assembly import FOLDER, check_labels, check_streams, refuse_imported
from finetune.config import EvaluateConfig, FinetuneConfig
from finetune.curves import CSV, PICTURE
from finetune.evaluate.evaluate import evaluate
from finetune.evaluate.evaluation import PREDICTIONS, REPORT, Evaluation, caveats, encoders_text
from finetune.model_files import check_replaceable
from finetune.session import train_model
from finetune.starting_head import SEEDS, starting_head
from finetune.training import PhaseResult, Tell
from heads.attributes import attributes_table, check_scales
from heads.dataset import Dataset
from heads.gold import objective_name
from heads.metrics import scores_table
from heads.records import (
    BEST,
    HeadRecord,
    as_learnt,
    layer_weights_text,
    load_head,
    manifest_digest,
)
from heads.tracking import Tracker


@dataclass(frozen=True)
class FinetuneReport(Jsonable):
    """The summary of one `finetune`.

    Attributes:
        directory: where the model is.
        record: the searched head it started from.
        synthetic: the recordings are not human speech.
        shared_speakers: the splits share speakers, by declaration.
        phases: what each phase did.
        head: the searched head on the test split; None where there is no such split.
        model: the fine-tuned model on it.
        notes: what the user should know.
        curves: losses and scores by step, and their picture.
    """

    json_entries = (
        "directory trial=record.trial synthetic shared_speakers phases head model notes files"
    )

    directory: Path
    record: HeadRecord
    synthetic: bool
    phases: tuple[PhaseResult, ...]
    head: Evaluation | None
    model: Evaluation | None
    notes: tuple[str, ...]
    shared_speakers: bool = False
    curves: tuple[Path, ...] = ()

    @property
    def files(self) -> tuple[Path, ...]:
        """What was written."""
        scored = [evaluation for evaluation in (self.head, self.model) if evaluation is not None]
        return (
            self.directory,
            *self.curves,
            *(evaluation.folder / name for evaluation in scored for name in (REPORT, PREDICTIONS)),
        )

    def to_text(self, manifest: Path | None = None) -> str:
        """For a terminal; the next command gets a manifest named in place of the folder's own."""
        origin, modalities = self.record.origin, self.record.head.modalities
        encoders = {name: origin.encoders[name] for name in modalities}
        split = "" if self.model is not None else " --split dev"
        after = self.model
        weights = "" if after is None else layer_weights_text(after.layer_weights, after.layers)
        parts: tuple[Part, ...] = (
            f"Fine-tuned the head of trial {self.record.trial} with its encoders on "
            f"{origin.corpus or 'the manifest'}.",
            f"Encoders: {encoders_text(encoders, origin.layers)}.",
            *[f"Layer weights: {weights}."] * bool(weights),
            *caveats(encoders, synthetic=self.synthetic, shared_speakers=self.shared_speakers),
            *(f"Note: {note}" for note in self.notes),
            *self.tables.values(),
            *["There is no labelled test split, so there is no result to report."]
            * (self.model is None),
        )
        steps = (command_line(f"evaluate{split}", self.directory.parent, manifest),)
        return Report("", parts, self.files, steps).to_text()

    @property
    def tables(self) -> dict[str, Table]:
        """The phases; head and model beside one another on test, on classes and on attributes."""
        shape = self.record.head
        score = objective_name(shape.labels, shape.attributes)
        found = {"phases": phase_table(self.phases, score)}
        if self.head is None or self.model is None:
            return found
        scored = {"searched head": self.head, "fine-tuned model": self.model}
        classes = {title: one.classes for title, one in scored.items() if one.classes}
        rated = {title: one.attributes for title, one in scored.items() if one.attributes}
        for last in [*classes.values()][-1:]:
            found["scores"] = scores_table("test", classes, notes=last.interval_notes)
        for own in [*rated.values()][-1:]:
            found["attributes"] = attributes_table("test", rated, own.interval_notes)
        return found


def phase_table(phases: Sequence[PhaseResult], score: str) -> Table:
    """What each phase trained, and whether it was kept.

    Args:
        phases: their results.
        score: what they were chosen by, in words.
    """
    columns = ("phase", "rate", "trained", "epochs", f"dev {score} at start", "kept", "of epoch")
    rows = []
    for result in phases:
        rows.append(
            (
                str(result.config.phase),
                f"{result.config.learning_rate:g}",
                f"{sum(row.parameters for row in result.table):,}",
                str(result.epochs),
                f"{result.start.value:.3f}",
                f"{result.best.value:.3f}",
                str(result.best_epoch) if result.best_epoch else "0 (its start)",
                *("-" if own is None else f"{own:.3f}" for own in (result.crosswise, result.bar)),
            )
        )
    crosswise = (
        "Crosswise: half of the dev speakers choose an epoch, the other half score it. A phase is "
        "kept where that is above what it has to beat: the phase before, or the mean of heads like "
        f"the searched one from {SEEDS} other seeds."
    )
    notes = [crosswise] if any(result.crosswise is not None for result in phases) else []
    return Table("", (*columns, "crosswise", "to beat"), rows, notes=notes)


def run_finetune(
    work: Work,
    manifest: Manifest,
    config: FinetuneConfig | None = None,
    *,
    head: Path | None = None,
    tell: Tell | None = None,
    show_progress: bool = False,
) -> FinetuneReport:
    """Fine-tune a searched head with its encoders; the model goes to `WORK/model`.

    A run that was killed is taken up where its last checkpoint stands. Under `accelerate launch`
    or `torchrun` every process calls this; the first writes, speaks and scores.

    Args:
        work: the work folder of the extraction and the search.
        manifest: the utterances, with their splits.
        config: the options.
        head: the JSON file of the head to start from; the search's best by default.
        tell: called with a few lines of text at the start of each phase.
        show_progress: whether to draw progress bars.

    Raises:
        MissingStepError: nothing was extracted or searched, or there is no such trial.
        ManifestError: no labelled utterance in train or dev, or ratings on another scale.
        ConfigError: an option out of range, or the head was searched on other labels, streams or
            encoders than those at hand, or on other splits of the corpus while there is a test
            split, or `WORK/model` holds something else than a model, or nothing can be used, or
            an unfinished run had other settings.
        TrainingError: a loss is not finite, or a batch does not fit the memory.
        AudioError: a recording that extraction could read cannot be read any more.
        CacheError: another fine-tuning is running in this folder.
    """
    config = config or FinetuneConfig()
    leads = current_rank().leads
    tell, show_progress = (tell, show_progress) if leads else (None, False)
    device = choose_device(config.device)
    if config.adapter:
        require_peft()
    check_replaceable(work.model)
    work.finetune.mkdir(parents=True, exist_ok=True)
    follows = Tracker(config.tracker if leads else "", work.finetune, "emopool-finetune")
    with exclusive_lock(work.finetune) if leads else nullcontext(), follows as tracker:
        source = starting_head(work, manifest, head, device=device, show_progress=show_progress)
        record = load_head(source)[1]
        refuse_imported(FrameCache(work), record)
        if not record.head.attributes:
            require_splits(manifest, ("train", "dev"))
        learnt = as_learnt(manifest, record.head.labels)
        searched = _searched(work.search / BEST if head is None else head, source)
        again = _trained_again(load_head(searched)[1])
        check_labels(record, learnt)
        check_scales(manifest, record.head.attributes)
        check_streams(FrameCache(work), record)
        asked = Dataset((), record.head.labels, {}, attributes=record.head.attributes)
        scored = any(map(asked.is_annotated, manifest.in_split("test")))
        before: Evaluation | None = None
        if scored and leads:
            before = evaluate(work, manifest, config=EvaluateConfig(models=(searched,)))
        trained = train_model(
            work,
            learnt,
            config,
            source,
            device,
            searched=searched if again else None,
            tracker=tracker,
            tell=tell,
            show_progress=show_progress,
        )
        after: Evaluation | None = None
        if scored and leads:
            own = EvaluateConfig(subject="model", device=device)
            after = evaluate(work, manifest, config=own, show_progress=show_progress)
        if leads:
            trained.checkpoints.clear()
            shutil.rmtree(work.finetune / FOLDER, ignore_errors=True)
        report = FinetuneReport(
            directory=work.model,
            record=record,
            synthetic=manifest.synthetic,
            phases=tuple(trained.results),
            head=before,
            model=after,
            notes=(*_manifest_notes(record, learnt), *again, *trained.notes),
            shared_speakers=manifest.shared_speakers,
            curves=tuple(path for n in (CSV, PICTURE) if (path := work.finetune / n).is_file()),
        )
        for name, table in report.tables.items():
            tracker.table(name, table)
    return report


def _searched(path: Path, source: Path) -> Path:
    """The head that the model is compared with: the one that was searched, where it was kept."""
    try:
        load_head(path)
    except MissingStepError:
        return source
    return path


def _trained_again(searched: HeadRecord) -> list[str]:
    if searched.trained_on == "train":
        return []
    return [
        f"The searched head learnt from {searched.trained_on}. Phases are chosen by dev, so they "
        "start from the same head trained on train alone; the model is compared with the searched "
        "one."
    ]


def _manifest_notes(record: HeadRecord, manifest: Manifest) -> list[str]:
    if record.origin.manifest_sha256 == manifest_digest(manifest, record.head.attributes):
        return []
    return [
        "The manifest has changed since the search: if utterances changed their split, the scores "
        "flatter the model. Search again to be sure."
    ]
