"""`compare` as one call: the published rows on the cached frames, into `WORK/compare`."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from cache.encoders.device import choose_device
from cache.lookup import FrameCache
from corpora.base.errors import ManifestError
from corpora.base.terminal import progress_bar
from corpora.base.work import Work, exclusive_lock
from corpora.manifest import Manifest
from heads.compare.comparison import CompareReport
from heads.compare.division import Division, refuse_torn_speakers
from heads.compare.lines import (
    Line,
    chosen_line,
    chosen_tuning,
    make_table,
    reference_line,
    save_heads,
)
from heads.compare.outcomes import Said, Scorer
from heads.compare.passes import (
    KeptRuns,
    RowGroup,
    RunKey,
    fit_reference,
    kept_reference,
    train_missing,
)
from heads.compare.rendering import clear_reports, write_report
from heads.compare.rows import Plan, comparison_plan, shared_values
from heads.config import CompareConfig, Tuning
from heads.dataset import Dataset, speaker_notes
from heads.folds import refuse_shared_recordings
from heads.load import aimed, choose_precision, load_dataset, read_origin, suitable_threads
from heads.records import Origin
from heads.reference import device_notes
from heads.runs import learns_weights
from heads.search.rounds import default_epochs
from heads.search.search import check_rows
from heads.search.space import Space
from heads.step import MASKS
from heads.vector_store import VectorStore


@dataclass(frozen=True, eq=False)
class Comparison:
    """What is compared, on what, and where it is kept.

    Attributes:
        name: of the report, `compare` or `layers`.
        folder: of the reports.
        kept: the finished runs.
        dataset: utterances and labels (its frames may be elsewhere).
        jobs: rows and references with their data.
        plan: the tables.
        origin: corpus and encoders.
        config: how to compare.
        identity: what makes runs comparable, besides what all comparisons have.
        keep_heads: whether the first seed's head of each row is written as one to fine-tune.
        notes: for the report.
    """

    name: str
    folder: Path
    kept: KeptRuns
    dataset: Dataset
    jobs: tuple[RowGroup, ...]
    plan: Plan
    origin: Origin
    config: CompareConfig
    identity: Mapping[str, Any]
    keep_heads: bool
    notes: tuple[str, ...] = ()


def carry_out(comparison: Comparison, *, fresh: bool, show_progress: bool) -> CompareReport:
    """Train, score and write a comparison."""
    config, kept = comparison.config, comparison.kept
    if config.plot:
        from corpora.base.report import require_matplotlib

        require_matplotlib("compare with --no-plots")
    division = Division.of(comparison.dataset, folds=config.folds)
    found = _check(comparison.dataset, division)
    steps = math.ceil(min(len(part.rows["train"]) for part in division.parts) / config.batch_size)
    epochs = config.epochs or default_epochs(steps)
    comparison.folder.mkdir(parents=True, exist_ok=True)
    threads = suitable_threads(comparison.dataset, config.batch_size)
    with exclusive_lock(comparison.folder), threads:
        if fresh:
            kept.clear()
            clear_reports(comparison.folder, comparison.name)
        kept.claim(_identity(comparison, division, epochs))
        scorer = Scorer(comparison.dataset, division)
        _train(comparison, scorer, epochs, show_progress=show_progress)
        said = _said(comparison, scorer)
        tables = tuple(make_table(plan, said, scorer) for plan in comparison.plan.tables)
        lines = {key: line for key, (line, _) in said.items()}
        heads: dict[str, Path] = {}
        if comparison.keep_heads and not division.folded:
            heads = save_heads(
                comparison.plan, kept, comparison.origin, config, scorer, lines, epochs
            )
        report = CompareReport(
            folder=comparison.folder,
            name=comparison.name,
            origin=comparison.origin,
            tables=tables,
            division=str(division),
            folded=division.folded,
            config=config,
            epochs=epochs,
            sizes={s: (len(division.scored(s)), scorer.speakers(s)) for s in division.splits},
            reasons={split: scorer.reason(split) for split in division.splits},
            heads=heads,
            notes=(*comparison.notes, *found),
            attributes=comparison.dataset.attributes,
        )
        return write_report(report, plot=config.plot)


def _check(dataset: Dataset, division: Division) -> list[str]:
    """Refuse rows that cannot be compared on; return what is worth a note."""
    if not division.folded:
        return check_rows(dataset)
    held = {u.label for u in dataset.utterances if u.fold}
    absent = [label for label in dataset.labels if label not in held]
    if absent:
        raise ManifestError(
            f"No utterance in any fold has the label {' or '.join(absent)}. Leave it out of the "
            "labels, or give its utterances a fold."
        )
    if not division.left_out:
        return []
    what = "annotated" if dataset.attributes else "labelled"
    return [f"Left out, in no fold of the manifest: {division.left_out:,} {what} utterances."]


def _identity(comparison: Comparison, division: Division, epochs: int) -> dict[str, Any]:
    """All that makes two runs comparable; rows, rates and seeds may grow."""
    config, origin = comparison.config, comparison.origin
    tuned = [field.name for field in fields(Tuning)]
    shared = {name: value for name, value in shared_values(config).items() if name not in tuned}
    return {
        "labels": list(origin.labels),
        "manifest_sha256": origin.manifest_sha256,
        "rows_sha256": division.digest(),
        "epochs": epochs,
        "batch_size": config.batch_size,
        "dropout_masks": MASKS,
        **shared,
        **({"attributes": dict(learnt)} if (learnt := comparison.dataset.attributes) else {}),
        **comparison.identity,
    }


def _train(comparison: Comparison, scorer: Scorer, epochs: int, *, show_progress: bool) -> None:
    """The first seed with every tuning, then the others with the best of each part."""
    config, kept, division = comparison.config, comparison.kept, scorer.division
    parts = range(len(division.parts))
    first = {
        number: [
            RunKey(key, tuning, 0, part)
            for part in parts
            for key, row in job.rows.items()
            for tuning in config.tunings(attentive=learns_weights(row.head))
        ]
        for number, job in enumerate(comparison.jobs)
    }
    missing = sum(unit not in kept for own in first.values() for unit in own)
    rows = sum(len(job.rows) for job in comparison.jobs)
    total = missing + rows * len(parts) * (config.seeds - 1)
    with progress_bar("Compare", total * epochs, "head-epoch", show=show_progress) as bar:
        for number, job in enumerate(comparison.jobs):
            own = replace(job, load=functools.cache(job.load))
            train_missing(own, first[number], kept, division, epochs, config.batch_size, bar)
            rest = [
                RunKey(key, chosen_tuning(row, kept, scorer, config, part), seed, part)
                for part in parts
                for key, row in job.rows.items()
                for seed in range(1, config.seeds)
            ]
            bar.update(sum(unit in kept for unit in rest) * epochs)
            train_missing(own, rest, kept, division, epochs, config.batch_size, bar)
            for key, modalities in job.references.items():
                if kept_reference(kept, key) is None:
                    bar.set_postfix_str("logistic regression")
                    fit_reference(kept, key, own.load(), modalities, division)
                    bar.set_postfix_str("", refresh=False)


def _said(comparison: Comparison, scorer: Scorer) -> dict[str, tuple[Line, Mapping[str, Said]]]:
    config, kept = comparison.config, comparison.kept
    said: dict[str, tuple[Line, Mapping[str, Said]]] = {
        key: chosen_line(row, kept, scorer, config) for key, row in comparison.plan.rows.items()
    }
    for key in comparison.plan.references:
        answered = kept_reference(kept, key)
        assert answered is not None  # fitted by now
        said[key] = reference_line(key, answered, len(scorer.labels))
    return said


#: Where the runs are kept, below the folder of the comparison.
ROWS = "rows"


def run_compare(
    work: Work,
    manifest: Manifest,
    config: CompareConfig | None = None,
    *,
    fresh: bool = False,
    show_progress: bool = False,
) -> CompareReport:
    """Compare the published heads on the frames of the last extraction, into `WORK/compare`.

    Args:
        work: the work folder that `extract` filled.
        manifest: the utterances, with their splits or folds.
        config: how to compare.
        fresh: remove an earlier comparison first.
        show_progress: whether to draw a progress bar.

    Raises:
        MissingStepError: nothing was extracted, or not these utterances.
        ManifestError: no labelled utterance in train or dev, or leakage between splits or folds.
        ConfigError: an option out of range, or the folder holds runs over something else.
        CacheError: another comparison is running in this folder, or a file is damaged.
        MissingExtraError: a picture was asked for and matplotlib is missing.
    """
    cache = FrameCache(work)
    config = config or CompareConfig()
    manifest, attributes = aimed(manifest, config.targets)
    refuse_leakage(cache, manifest, attributes)
    device = choose_device(config.device)
    dataset = load_dataset(cache, manifest, device=device, attributes=attributes)
    missing = len(manifest.utterances) - len(dataset)
    notes = [dataset.residence]
    notes += [f"Left out, without frames: {missing} (see {work.failures})."] if missing else []
    if manifest.shared_speakers:
        notes.append("The splits share speakers, by the manifest's declaration.")
    return compare_heads(
        dataset,
        work.compare,
        read_origin(cache, manifest, dataset.frames, attributes),
        config,
        fresh=fresh,
        notes=notes,
        show_progress=show_progress,
    )


def compare_heads(
    dataset: Dataset,
    folder: Path,
    origin: Origin,
    config: CompareConfig,
    *,
    fresh: bool = False,
    notes: Sequence[str] = (),
    show_progress: bool = False,
) -> CompareReport:
    """Compare heads on a data set in memory: `run_compare` without the cache.

    Args:
        dataset: the frames.
        folder: where results go.
        origin: where the data set comes from, for the records.
        config: how to compare.
        fresh: remove an earlier comparison first.
        notes: for the report.
        show_progress: whether to draw a progress bar.
    """
    plan = comparison_plan(Space.of(dataset), config)
    device = choose_device(config.device)
    precision = choose_precision(config.precision, dataset, config.batch_size, device)
    store = VectorStore(dataset, precision, device, config.cuda_graphs)
    comparison = Comparison(
        name="compare",
        folder=folder,
        kept=KeptRuns(folder / ROWS),
        dataset=dataset,
        jobs=(RowGroup(plan.rows, lambda: store, plan.references),),
        plan=plan,
        origin=origin,
        config=config,
        identity={
            "streams": origin.streams,
            "dims": dataset.dims,
            "frames": origin.frames,
            "precision": precision,
        },
        keep_heads=True,
        notes=(
            *notes,
            *plan.notes,
            *speaker_notes(dataset, config.input_norms),
            *(device_notes(store.device) if plan.references else ()),
        ),
    )
    return carry_out(comparison, fresh=fresh, show_progress=show_progress)


def refuse_leakage(
    cache: FrameCache,
    manifest: Manifest,
    attributes: Mapping[str, tuple[float, float]] | None = None,
) -> None:
    """Refuse a recording in two splits or folds, and a speaker in two folds unless declared."""
    keys = cache.keys(manifest.utterances)
    refuse_shared_recordings(manifest.utterances, keys)
    folded = [replace(u, split=u.fold) for u in manifest.utterances]
    refuse_shared_recordings(folded, keys)
    if not manifest.shared_speakers:
        learnt = attributes or {}
        refuse_torn_speakers(Dataset(manifest.utterances, manifest.labels, {}, attributes=learnt))
