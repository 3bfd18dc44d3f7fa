"""The end of a search: the best head is scored, and everything is written."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from optuna.trial import TrialState

from heads.dataset import VectorStore
from heads.metrics import classification_report
from heads.reference import Reference, logistic_reference, read_reference, write_reference
from heads.results import (
    BEST,
    KEPT,
    PREDICTIONS,
    REFERENCE,
    STUDY_FILE,
    TRIALS,
    TRIALS_FOLDER,
    WEIGHTS,
    load_head,
    save_head,
    trial_file,
)
from heads.study import PUBLISHED, HeadStudy, final_value
from heads.summary import SearchReport, TrialLine
from heads.tables import write_predictions, write_trials
from heads.training import predict


def conclude(
    store: VectorStore, folder: Path, study: HeadStudy, *, added: int, notes: Sequence[str]
) -> SearchReport:
    """Score the best trial on dev and test, write its files and the tables, sum up.

    Args:
        store: the data.
        folder: the search's.
        study: with a completed trial.
        added: trials that this run finished.
        notes: for the report.

    Raises:
        MissingStepError: the best trial's weights are not there.
        CacheError: they are not those that were written.
    """
    dataset = store.dataset
    trials, ranked = study.trials, study.ranked
    head, record = load_head(trial_file(folder, ranked[0].number))
    rows = {split: dataset.rows(split) for split in ("dev", "test")}
    predicted = {
        split: (numbers, predict([head], store, numbers)[0])
        for split, numbers in rows.items()
        if len(numbers)
    }
    record = record.with_scores(
        {
            split: classification_report(
                dataset.targets(numbers).numpy(),
                probabilities.numpy(),
                dataset.labels,
                dataset.speakers(numbers),
            )
            for split, (numbers, probabilities) in predicted.items()
        }
    )
    write_trials(folder / TRIALS, trials)
    write_predictions(folder / PREDICTIONS, dataset, predicted)
    reference = _reference(
        folder / REFERENCE, store, record.head.modalities, record.head.input_norm
    )
    save_head(folder / BEST, folder / WEIGHTS, head, record)
    names = [STUDY_FILE, BEST, WEIGHTS, TRIALS, PREDICTIONS, REFERENCE, TRIALS_FOLDER]
    return SearchReport(
        folder=folder,
        completed=len(ranked),
        halved=sum(trial.state == TrialState.PRUNED for trial in trials),
        added=added,
        epochs=record.schedule.epochs,
        best=record,
        top=tuple(
            TrialLine(
                trial.number, trial.user_attrs.get(PUBLISHED, ""), trial.params, final_value(trial)
            )
            for trial in ranked[:KEPT]
        ),
        reference=reference,
        notes=tuple(notes),
        files=tuple(folder / name for name in names),
    )


def _reference(
    path: Path, store: VectorStore, modalities: Sequence[str], input_norm: str
) -> Reference:
    """The logistic regression beside the best head; fitted anew only if another one is needed."""
    kept = read_reference(path)
    if kept and (kept.modalities, kept.input_norm) == (tuple(modalities), input_norm):
        return kept
    reference = logistic_reference(store, modalities, input_norm)
    write_reference(path, reference)
    return reference
