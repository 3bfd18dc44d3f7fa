"""`finetune` as one call: from the searched head to a model directory and its scores."""

from __future__ import annotations

import shutil
from contextlib import nullcontext
from pathlib import Path

from cache.encoders.device import choose_device
from cache.extraction import read_extraction
from corpora.base.errors import MissingStepError
from corpora.base.locks import exclusive_lock
from corpora.base.ranks import current_rank
from corpora.base.work import Work
from corpora.manifest import Manifest, require_splits
from finetune.building import FOLDER
from finetune.config import FinetuneConfig
from finetune.curves import CSV, PICTURE
from finetune.evaluate import evaluate_head, evaluate_model
from finetune.evaluation import Evaluation
from finetune.fitting import check_labels, check_streams
from finetune.model_files import check_replaceable
from finetune.report import FinetuneReport
from finetune.session import train_model
from finetune.starting_head import starting_head
from finetune.training import Tell
from heads.origin import manifest_digest
from heads.results import BEST, HeadRecord, load_head


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
        ManifestError: no labelled utterance in train or dev.
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
    check_replaceable(work.model)
    require_splits(manifest, ("train", "dev"))
    work.finetune.mkdir(parents=True, exist_ok=True)
    with exclusive_lock(work.finetune) if leads else nullcontext():
        source = starting_head(work, manifest, head, show_progress=show_progress)
        record = load_head(source)[1]
        searched = _searched(work, head, source)
        again = _trained_again(load_head(searched)[1])
        check_labels(record, manifest)
        check_streams(work, record, read_extraction(work))
        scored = bool([u for u in manifest.in_split("test") if u.label])
        before: Evaluation | None = None
        if scored and leads:
            before = evaluate_head(work, manifest, head=searched)
        trained = train_model(
            work,
            manifest,
            config,
            source,
            device,
            searched=searched if again else None,
            tell=tell,
            show_progress=show_progress,
        )
        after: Evaluation | None = None
        if scored and leads:
            after = evaluate_model(work, manifest, device=device, show_progress=show_progress)
        if leads:
            trained.checkpoints.clear()
            shutil.rmtree(work.finetune / FOLDER, ignore_errors=True)
    return FinetuneReport(
        directory=work.model,
        record=record,
        synthetic=manifest.synthetic,
        phases=tuple(trained.results),
        head=before,
        model=after,
        notes=(*_manifest_notes(record, manifest), *again, *trained.notes),
        shared_speakers=manifest.shared_speakers,
        curves=tuple(path for n in (CSV, PICTURE) if (path := work.finetune / n).is_file()),
    )


def _searched(work: Work, head: Path | None, source: Path) -> Path:
    """The head that the model is compared with: the one that was searched, where it was kept."""
    path = work.search / BEST if head is None else head
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
    if record.origin.manifest_sha256 == manifest_digest(manifest):
        return []
    return [
        "The manifest has changed since the search: if utterances changed their split, the scores "
        "flatter the model. Search again to be sure."
    ]
