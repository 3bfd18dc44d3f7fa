"""Carrying a comparison out: train what is missing, choose rates on dev, score, write."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cache.store.locks import exclusive_lock
from corpora.errors import ManifestError
from corpora.progress import progress_bar
from heads.comparing.config import CompareConfig
from heads.comparing.division import Division
from heads.comparing.grid import Plan
from heads.comparing.lines import Line, chosen_line, make_tables, reference_line
from heads.comparing.outcomes import Classes, Scorer
from heads.comparing.passes import Job, train_missing, units_of
from heads.comparing.references import fit_reference, kept_reference
from heads.comparing.report import CompareReport
from heads.comparing.saved_heads import save_heads
from heads.comparing.units import Kept
from heads.comparing.writing import clear_reports, write_report
from heads.dataset import Dataset, VectorStore
from heads.origin import Origin
from heads.search.halving import default_epochs
from heads.search.run import check_rows
from heads.threads import suitable_threads

# Half of a search's: nothing is halved early, and the rate is chosen for this number of steps.
# On EMO-DB with tiny encoders 200 and 400 steps gave the same dev scores, but for the noise of
# three seeds.
FEWEST_STEPS = 200


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
    kept: Kept
    dataset: Dataset
    jobs: tuple[Job, ...]
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
        from heads.search.plots import require_matplotlib

        require_matplotlib("compare with --no-plot")
    division = Division.of(comparison.dataset, folds=config.folds)
    found = _check(comparison.dataset, division)
    steps = math.ceil(min(len(part.rows["train"]) for part in division.parts) / config.batch_size)
    epochs = config.epochs or default_epochs(steps, FEWEST_STEPS)
    comparison.folder.mkdir(parents=True, exist_ok=True)
    threads = suitable_threads(comparison.dataset, config.batch_size)
    with exclusive_lock(comparison.folder), threads:
        if fresh:
            kept.clear()
            clear_reports(comparison.folder, comparison.name)
        kept.claim(_identity(comparison, division, epochs))
        _train(comparison, division, epochs, show_progress=show_progress)
        scorer = Scorer(comparison.dataset, division)
        said = _said(comparison, division, scorer)
        tables = make_tables(comparison.plan, said, scorer)
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
            seeds=config.seeds,
            rates=config.learning_rates,
            epochs=epochs,
            batch_size=config.batch_size,
            input_norm=config.input_norm,
            sizes={s: (len(scorer.gold[s]), scorer.speakers(s)) for s in division.splits},
            reasons={split: scorer.reason(split) for split in division.splits},
            heads=heads,
            notes=(*comparison.notes, *found),
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
    return [f"Left out, in no fold of the manifest: {division.left_out:,} labelled utterances."]


def _identity(comparison: Comparison, division: Division, epochs: int) -> dict[str, Any]:
    """All that makes two runs comparable; rows, rates and seeds may grow."""
    config, origin = comparison.config, comparison.origin
    shared = {name: value for name, value in config.shared.items() if name != "learning_rate"}
    return {
        "labels": list(origin.labels),
        "manifest_sha256": origin.manifest_sha256,
        "rows_sha256": division.digest(),
        "epochs": epochs,
        "batch_size": config.batch_size,
        **shared,
        **comparison.identity,
    }


def _train(comparison: Comparison, division: Division, epochs: int, *, show_progress: bool) -> None:
    config, kept = comparison.config, comparison.kept
    units = {
        number: units_of(list(job.rows), config.learning_rates, config.seeds)
        for number, job in enumerate(comparison.jobs)
    }
    missing = sum(unit not in kept for own in units.values() for unit in own)
    total = missing * epochs * len(division.parts)
    with progress_bar("Compare", total, "head-epoch", show=show_progress) as bar:
        for number, job in enumerate(comparison.jobs):
            load = _once(job.load)
            own = replace(job, load=load)
            train_missing(own, units[number], kept, division, epochs, config.batch_size, bar)
            for key, modalities in job.references.items():
                if kept_reference(kept, key) is None:
                    bar.set_postfix_str("logistic regression")
                    fit_reference(kept, key, load(), modalities, config.input_norm, division)
                    bar.set_postfix_str("", refresh=False)


def _once(load: Callable[[], VectorStore]) -> Callable[[], VectorStore]:
    """The same store at each call, loaded at the first and let go of with the function."""
    held: list[VectorStore] = []

    def loaded() -> VectorStore:
        if not held:
            held.append(load())
        return held[0]

    return loaded


def _said(
    comparison: Comparison, division: Division, scorer: Scorer
) -> dict[str, tuple[Line, Mapping[str, Classes]]]:
    config, kept = comparison.config, comparison.kept
    said: dict[str, tuple[Line, Mapping[str, Classes]]] = {
        key: chosen_line(row, kept, scorer, config.learning_rates, config.seeds)
        for key, row in comparison.plan.rows.items()
    }
    for key in comparison.plan.references:
        answered = kept_reference(kept, key)
        assert answered is not None  # fitted by now
        said[key] = reference_line(key, answered)
    return said
