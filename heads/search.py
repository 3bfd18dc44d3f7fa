"""The search: pooling heads on the frames of a corpus, in an Optuna study that resumes.

Published configurations come first and are trained to the end. Each cohort is drawn from what all
earlier ones gave. The test set has no part in it until the best head is chosen.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cache.locks import exclusive_lock
from corpora.errors import ConfigError, ManifestError
from corpora.manifest import Manifest, require_splits
from corpora.progress import progress_bar
from corpora.work import Work
from heads.conclusion import conclude
from heads.dataset import Dataset, VectorStore
from heads.halving import default_epochs, head_epochs
from heads.load import load_dataset, read_origin
from heads.origin import Origin
from heads.results import clear
from heads.rounds import Setting, run_cohort
from heads.space import Space, published_params
from heads.study import HeadStudy, final_value
from heads.summary import SearchReport
from heads.threads import suitable_threads
from heads.training import Schedule

# Trials of a cohort: of 100, three quarters are drawn knowing what came before. Larger cohorts
# share more of their work on frames.
COHORT = 25


def run_search(
    work: Work,
    manifest: Manifest,
    *,
    trials: int = 100,
    seed: int = 0,
    batch_size: int = 64,
    epochs: int | None = None,
    cohort: int = COHORT,
    modalities: Sequence[str] | None = None,
    tied: bool = True,
    fresh: bool = False,
    show_progress: bool = False,
) -> SearchReport:
    """Search pooling heads on the frames of the last extraction; results go to `WORK/search`.

    A search goes on where an earlier one stopped, until there are `trials` in all.

    Args:
        work: the work folder that `extract` filled.
        manifest: the utterances, with their splits.
        trials: completed and halved ones, in all.
        seed: of the study: equal seeds give equal trials on one machine.
        batch_size: utterances a step.
        epochs: of a completed trial; by default 9, or more on a small corpus (`heads.halving`).
        cohort: trials trained side by side.
        modalities: `audio` and/or `text`; all extracted ones by default.
        tied: both modalities are pooled in the same way; else each has axes of its own.
        fresh: remove an earlier search first.
        show_progress: whether to draw a progress bar.

    Raises:
        MissingStepError: nothing was extracted, or not these utterances.
        ManifestError: no labelled utterance in train or dev, or a label in neither.
        ConfigError: an option out of range, or a study made from something else.
        CacheError: another search is running in this folder, or a file is damaged.
    """
    dataset = load_dataset(work, manifest, modalities)
    missing = len(manifest.utterances) - len(dataset)
    notes = [f"Left out, without frames: {missing} (see {work.failures})."] if missing else []
    if manifest.shared_speakers:
        notes.append("The splits share speakers, by the manifest's declaration.")
    return search_heads(
        dataset,
        work.search,
        read_origin(work, manifest, dataset.frames),
        trials=trials,
        seed=seed,
        batch_size=batch_size,
        epochs=epochs,
        cohort=cohort,
        tied=tied,
        fresh=fresh,
        notes=notes,
        show_progress=show_progress,
    )


def search_heads(
    dataset: Dataset,
    folder: Path,
    origin: Origin,
    *,
    trials: int = 100,
    seed: int = 0,
    batch_size: int = 64,
    epochs: int | None = None,
    cohort: int = COHORT,
    tied: bool = True,
    fresh: bool = False,
    notes: Sequence[str] = (),
    show_progress: bool = False,
) -> SearchReport:
    """Search pooling heads on a data set in memory: `run_search` without the cache.

    Args:
        dataset: the frames.
        folder: where results go.
        origin: where the data set comes from, for the records.
        trials: see `run_search`, as for all that follows.
        seed: of the study.
        batch_size: utterances a step.
        epochs: of a completed trial.
        cohort: trials trained side by side.
        tied: one pooling for both modalities.
        fresh: remove an earlier search first.
        notes: for the report.
        show_progress: whether to draw a progress bar.
    """
    for name, value in (("trials", trials), ("batch_size", batch_size), ("cohort", cohort)):
        if value < 1:
            raise ConfigError(f"{name} must be at least 1, got {value}")
    if seed < 0 or (epochs is not None and epochs < 1):
        raise ConfigError(f"seed must be 0 or more and epochs 1 or more, got {seed} and {epochs}")
    unlearnt = _check_rows(dataset)
    steps = math.ceil(len(dataset.rows("train")) / batch_size)
    schedule = Schedule(epochs or default_epochs(steps), batch_size, data_seed=seed)
    space = Space.of(dataset, tied=tied)
    setting = Setting(VectorStore(dataset), space, schedule, origin, folder, seed)
    published, skipped = published_params(space)
    folder.mkdir(parents=True, exist_ok=True)
    with exclusive_lock(folder), suitable_threads(dataset, batch_size):
        if fresh:
            clear(folder)
        with HeadStudy(folder, _identity(setting), seed) as study:
            study.enqueue(published)
            before = study.finished
            _run_cohorts(setting, study, trials, cohort, show_progress=show_progress)
            return conclude(
                setting.store,
                folder,
                study,
                added=study.finished - before,
                notes=(*notes, *unlearnt, *skipped),
            )


def _check_rows(dataset: Dataset) -> list[str]:
    """Refuse data that cannot be searched on; return what is worth a note."""
    require_splits(Manifest(dataset.utterances, dataset.labels, corpus=""), ("train", "dev"))
    held = {
        split: {dataset.utterances[i].label for i in dataset.rows(split).tolist()}
        for split in ("train", "dev")
    }
    absent = [label for label in dataset.labels if label not in held["train"] | held["dev"]]
    if absent:
        raise ManifestError(
            f"No utterance in train or dev has the label {' or '.join(absent)}, so no head can "
            "learn it or be chosen by it. Leave it out of the labels, or split the corpus anew."
        )
    notes = []
    for split, what in (("train", "cannot be learnt"), ("dev", "does not count in the choice")):
        lacking = [label for label in dataset.labels if label not in held[split]]
        if lacking:
            notes.append(f"No utterance in {split} has the label {', '.join(lacking)}: it {what}.")
    return notes


def _identity(setting: Setting) -> dict[str, Any]:
    """All that makes the values of two trials comparable."""
    origin = setting.origin
    return {
        "labels": origin.labels,
        "streams": origin.streams,
        "dims": setting.space.dims,
        "frames": origin.frames,
        "manifest_sha256": origin.manifest_sha256,
        "tied": setting.space.tied,
        "epochs": setting.schedule.epochs,
        "batch_size": setting.schedule.batch_size,
        "seed": setting.seed,
    }


def _run_cohorts(
    setting: Setting, study: HeadStudy, trials: int, cohort: int, *, show_progress: bool
) -> None:
    """Train cohorts until there are enough trials, and one of them completed."""
    epochs = setting.schedule.epochs
    left, waiting, total = trials - study.finished, study.queued_published, 0
    while left > 0:
        size = min(cohort, left)
        total += head_epochs(size, min(size, waiting), epochs)
        left, waiting = left - size, max(0, waiting - size)
    with progress_bar("Search", total, "head-epoch", show=show_progress) as bar:
        while study.finished < trials or not study.ranked:
            run_cohort(setting, study, min(cohort, max(1, trials - study.finished)), bar)
            best = final_value(study.ranked[0])
            bar.set_postfix_str(f"{study.finished}/{trials} trials, best dev macro-F1 {best:.3f}")
