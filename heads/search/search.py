"""The search: pooling heads on the frames of a corpus, in an Optuna study that resumes.

Probes come first, then published poolings. Each cohort is drawn from what all earlier ones gave.
The test set has no part in it until the best head is chosen.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Any

from optuna.trial import TrialState

from cache.encoders.device import choose_device
from cache.keys import shared_sentences
from cache.lookup import FrameCache
from corpora.base.errors import CacheError, ManifestError
from corpora.base.terminal import progress_bar
from corpora.base.work import Work, exclusive_lock, shared_lock
from corpora.manifest import Manifest, require_splits
from corpora.protocol import protocol_sentence
from heads.axes import choices
from heads.config import SearchConfig
from heads.dataset import Dataset, speaker_notes
from heads.folds import Selection, make_folds, refuse_shared_recordings
from heads.load import (
    aimed,
    choose_precision,
    load_dataset,
    read_origin,
    suitable_threads,
    suitable_workers,
)
from heads.losses import vote_shares
from heads.pretraining import TEMPERATURE, Clustered
from heads.records import BEST, Origin, claim_folder, clear
from heads.search.conclusion import conclude, keep_chosen, trials_file
from heads.search.layer_axes import OTHERS, other_layers, weighing_notes
from heads.search.report import SearchReport
from heads.search.rounds import SearchContext, default_epochs, head_epochs, run_cohort
from heads.search.space import Space, start_params
from heads.search.space_file import narrowed
from heads.search.study import HeadStudy
from heads.search.trials import final_value
from heads.step import MASKS
from heads.tracking import Tracker
from heads.training import Schedule
from heads.vector_store import VectorStore

# How long to wait for another process that is writing its results.
CONCLUDING_SECONDS = 600.0


def run_search(
    work: Work,
    manifest: Manifest,
    config: SearchConfig | None = None,
    *,
    fresh: bool = False,
    show_progress: bool = False,
) -> SearchReport:
    """Search pooling heads on the frames of the last extraction; results go to `WORK/search`.

    A search goes on where an earlier one stopped, until there are `config.trials` in all.

    Args:
        work: the work folder that `extract` filled.
        manifest: the utterances, with their splits.
        config: how to search.
        fresh: remove an earlier search's files first (a shared study's trials stay).
        show_progress: whether to draw a progress bar.

    Raises:
        MissingStepError: nothing was extracted, or not these utterances; or no such space file.
        ManifestError: no labelled utterance in train or dev, a label in neither, or a recording
            in two splits.
        ConfigError: an option out of range, or a study made from something else.
        CacheError: another search is running in this folder, or a file is damaged.
    """
    config = config or SearchConfig()
    cache = FrameCache(work)
    manifest, attributes = aimed(manifest, config.targets)
    refuse_shared_recordings(manifest.utterances, cache.keys(manifest.utterances))
    device = choose_device(config.device)
    dataset = load_dataset(
        cache, manifest, config.modalities, device, others=True, attributes=attributes
    )
    missing = len(manifest.utterances) - len(dataset)
    notes = [dataset.residence]
    notes += [f"Left out, without frames: {missing} (see {work.failures})."] if missing else []
    if manifest.protocol:
        notes.append(protocol_sentence(manifest))
    if manifest.shared_speakers:
        notes.append("The splits share speakers, by the manifest's declaration.")
    return search_heads(
        dataset,
        work.search,
        read_origin(cache, manifest, dataset.frames, attributes),
        config,
        fresh=fresh,
        notes=notes,
        show_progress=show_progress,
    )


def search_heads(
    dataset: Dataset,
    folder: Path,
    origin: Origin,
    config: SearchConfig,
    *,
    fresh: bool = False,
    notes: Sequence[str] = (),
    show_progress: bool = False,
    title: str = "Search",
) -> SearchReport:
    """Search pooling heads on a data set in memory: `run_search` without the cache.

    Args:
        dataset: the frames.
        folder: where results go.
        origin: where the data set comes from, for the records.
        config: how to search.
        fresh: remove an earlier search's files first.
        notes: for the report.
        show_progress: whether to draw a progress bar.
        title: of the progress bar.
    """
    found = check_rows(dataset)
    follows = Tracker(config.log, folder, "emopool-search")
    if config.plots:
        from corpora.base.report import require_matplotlib

        require_matplotlib()
    space = narrowed(
        Space.of(dataset, tied=config.tied), config.space, config.fixed, config.fixed_by
    )
    device = choose_device(config.device)
    precision = choose_precision(config.precision, dataset, config.batch_size, device)
    selection = Selection.of(dataset, make_folds(dataset, config.folds), refit=config.refit)
    steps = math.ceil(len(selection.trained) / config.batch_size)
    epochs = config.epochs or default_epochs(steps)
    pretrain = "" if config.pretrain == "none" else config.pretrain
    setting = SearchContext(
        VectorStore(dataset, precision, device, config.cuda_graphs),
        space,
        Schedule(epochs, config.batch_size, data_seed=config.seed, pretrain=pretrain),
        selection,
        origin,
        folder,
        config.seed,
        suitable_workers(dataset, config.batch_size) if device == "cpu" else 1,
    )
    starts, skipped = start_params(space)
    clustered = _clustered(setting) if pretrain else []
    folder.mkdir(parents=True, exist_ok=True)
    # Processes of one study may share a folder: their files have different names.
    lock = shared_lock if config.shared else exclusive_lock
    with lock(folder), suitable_threads(dataset, config.batch_size), follows as tracker:
        if fresh:
            clear(folder)
        with HeadStudy(
            folder,
            _identity(setting, config, precision),
            config.seed,
            starts,
            sampler=config.sampler,
            shared=config.shared,
        ) as study:
            claim_folder(folder, study.id)
            tracker.start(config, device, study.finished)
            added = _run_cohorts(setting, study, config, tracker, title if show_progress else "")
            with _alone(folder / BEST) if config.shared else nullcontext():
                report = conclude(
                    setting,
                    study,
                    added=added,
                    ensemble=config.ensemble,
                    plots=config.plots,
                    notes=(
                        *notes,
                        *found,
                        *weighing_notes(dataset, origin.layers, space.axes),
                        *_votes_note(dataset, space, selection),
                        *clustered,
                        *speaker_notes(dataset, choices(space.axes["input_norm"])),
                        *skipped,
                    ),
                )
                for name, table in report.tables.items() if config.log else ():
                    tracker.table(name, table)
                return report


def check_rows(dataset: Dataset) -> list[str]:
    """Refuse data that cannot be searched on; return what is worth a note."""
    notes = _check_attributes(dataset) if dataset.attributes else []
    if not dataset.labels:
        return [*notes, *_sentences(dataset)]
    require_splits(Manifest(dataset.utterances, dataset.labels, corpus=""), ("train", "dev"))
    if len(dataset.labels) < 2:
        raise ManifestError(
            f"The manifest has one label, {dataset.labels[0]}: there is nothing to tell apart. "
            "Prepare the corpus with at least two (`prepare CORPUS ROOT`; `--labels` narrows them)."
        )
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
    known = held["train"] & set(dataset.labels)
    if len(known) < 2:
        raise ManifestError(
            f"All utterances of train have one label, {', '.join(known)}: there is nothing to "
            "learn from them. Split the corpus anew (`prepare split`), or fill in its labels."
        )
    for split, what in (("train", "cannot be learnt"), ("dev", "does not count in the choice")):
        lacking = [label for label in dataset.labels if label not in held[split]]
        if lacking:
            notes.append(f"No utterance in {split} has the label {', '.join(lacking)}: it {what}.")
    return [*notes, *_sentences(dataset)]


def _sentences(dataset: Dataset) -> list[str]:
    sentences = shared_sentences(dataset.utterances).to_text() if "text" in dataset.frames else ""
    return [sentences] if sentences else []


def _check_attributes(dataset: Dataset) -> list[str]:
    """Refuse ratings that nothing can be learnt of; return their scales and how many lack them."""
    notes = []
    for split in ("train", "dev", "test"):
        ratings = dataset.ratings(dataset.rows(split))
        for name, values in zip(dataset.attributes, ratings.unbind(1), strict=True):
            known = values[values.isfinite()]
            if split != "test" and not len(known):
                raise ManifestError(
                    f"No utterance in {split} was rated for {name}, so no head can be "
                    f"{'trained' if split == 'train' else 'chosen'} by it. Split the corpus anew "
                    "(`prepare split`), or leave the column empty everywhere."
                )
            if split == "train" and bool((known == known[0]).all()):
                raise ManifestError(
                    f"All ratings of {name} in train are {float(known[0]):g}: there is nothing to "
                    "learn from them. Fill them in, or leave the column empty everywhere."
                )
            if len(known) < len(values):
                notes.append(
                    f"{len(values) - len(known):,} of {len(values):,} utterances in {split} have "
                    f"no rating of {name}: they have no part in it, and one in all else."
                )
    ends = [f"{name} {low:g} to {high:g}" for name, (low, high) in dataset.attributes.items()]
    return [f"Scales: {', '.join(ends)}.", *notes]


def _votes_note(dataset: Dataset, space: Space, selection: Selection) -> list[str]:
    """How many rows have no votes, where heads learn from votes."""
    if not space.votes:
        return []
    labelled = selection.trained[dataset.targets(selection.trained) >= 0]
    voted = (vote_shares(dataset.utterances[i], dataset.labels) for i in labelled.tolist())
    without = sum(shares is None for shares in voted)
    if not without:
        return []
    return [
        f"{without:,} of {len(labelled):,} utterances trained on have no votes for the "
        "labels: where heads learn from votes, their label counts as all of them."
    ]


def _clustered(setting: SearchContext) -> list[str]:
    """A note on what heads are pre-trained on; refuses a fold without which nothing is left."""
    folds, trained = setting.selection.folds, setting.selection.trained
    found = Clustered.of(setting.store, trained, None if folds is None else folds.numbers)
    for fold in range(0 if folds is None else folds.count):
        found.kept(fold)
    return [found.to_text()]


def _identity(setting: SearchContext, config: SearchConfig, precision: str) -> dict[str, Any]:
    """All that makes the values of two trials comparable."""
    origin, folds, space = setting.origin, setting.selection.folds, setting.space
    pretrain = setting.schedule.pretrain
    return {
        "labels": origin.labels,
        "streams": origin.streams,
        "dims": space.dims,
        "frames": origin.frames,
        "manifest_sha256": origin.manifest_sha256,
        "tied": space.tied,
        "epochs": setting.schedule.epochs,
        "batch_size": setting.schedule.batch_size,
        "seed": setting.seed,
        "sampler": config.sampler,
        "precision": precision,
        "folds": "off" if folds is None else str(folds),
        "frames_a_step": setting.schedule.frames,
        "dropout_masks": MASKS,
        # None, as studies from before there was such a thing have it.
        "pretrain": f"{pretrain}, temperature {TEMPERATURE:g}" if pretrain else None,
        **({"attributes": dict(space.attributes)} if space.attributes else {}),
        **({OTHERS: other_layers(setting.store.dataset)} if space.layers else {}),
        **{f"axis {name}": values for name, values in space.to_json().items()},
    }


def _run_cohorts(
    setting: SearchContext, study: HeadStudy, config: SearchConfig, tracker: Tracker, title: str
) -> int:
    """Train cohorts until there are enough trials, and one of them completed; return how many.

    The first one is of probes alone, which take seconds: from then on there is a head to use.
    """
    trials, epochs, added = config.trials, setting.schedule.epochs, 0

    def size(left: int, probes: int) -> int:
        return min(probes or config.cohort, left)

    logged = {trial.number for trial in study.ended}
    waiting, left = study.queued_probes, max(0, trials - study.finished)
    first = size(left, waiting)
    whole, rest = divmod(left - first, config.cohort)
    total = head_epochs(first, min(first, waiting), epochs) + head_epochs(rest, 0, epochs)
    total = (total + whole * head_epochs(config.cohort, 0, epochs)) * setting.selection.heads
    with progress_bar(title, total, "head-epoch", show=bool(title)) as bar:
        while study.finished < trials or not study.ranked:
            most = trials
            if study.finished >= trials and study.taken == study.finished:
                most = study.finished + 1  # all that there are were halved
            try:
                count = size(most - study.finished, study.queued_probes)
                taken = run_cohort(setting, study, count, most, bar)
            finally:  # also when it was interrupted
                trials_file(setting, study.trials)
                _log_trials(study, tracker, logged)
            added += taken
            if taken and study.ranked and not study.shared:
                keep_chosen(setting, study)
            if not taken:
                bar.set_postfix_str("the rest is in other processes' hands")
                study.wait()
    return added


def _log_trials(study: HeadStudy, tracker: Tracker, logged: set[int]) -> None:
    """Hand on the trials that have ended since: a step each, in their order."""
    best = float("-inf")
    for trial in study.ended:
        best = max(best, final_value(trial) if trial.state == TrialState.COMPLETE else best)
        if trial.number in logged:
            continue
        values = {"trial/number": trial.number, "trial/epochs": trial.last_step or 0}
        curves = {"trial/score": final_value(trial), "best/score": best}
        finite = {name: value for name, value in curves.items() if math.isfinite(value)}
        tracker.log({**values, **finite}, len(logged))
        logged.add(trial.number)


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Wait until no other process of a shared study writes its results into the same folder."""
    end = time.monotonic() + CONCLUDING_SECONDS
    with ExitStack() as stack:
        while True:
            try:
                stack.enter_context(exclusive_lock(path))
                break
            except CacheError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.2)
        yield
