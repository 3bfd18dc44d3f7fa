"""The end of a search: the best head is scored and compared, and everything is written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

from optuna.trial import FrozenTrial, TrialState
from torch import Tensor

from corpora.base.files import write_text
from corpora.base.report import csv_text
from heads.attributes import AttributeScores
from heads.bootstrap import Difference
from heads.config import KEPT
from heads.folds import Selection
from heads.gold import Gold
from heads.metrics import Scores
from heads.predict import predict
from heads.records import (
    BEST,
    ENSEMBLE,
    ENSEMBLE_PREDICTIONS,
    FOLD_PREDICTIONS,
    PLOTS_FOLDER,
    PREDICTIONS,
    REFERENCE,
    RIDGE,
    SELECTION_FOLDER,
    STUDY_FILE,
    TRIALS,
    TRIALS_FOLDER,
    WEIGHTS,
    load_head,
    save_head,
    trial_file,
    write_predictions,
)
from heads.reference import Reference, device_notes, logistic_reference
from heads.ridge import Ridge, ridge_reference
from heads.search.choice import answers, choose
from heads.search.report import SearchReport, TrialLine
from heads.search.rounds import SearchContext, train_missing
from heads.search.score_tables import Ensemble, References, average, write_ensemble
from heads.search.study import HeadStudy
from heads.search.trials import SECONDS, SEED, START, final_value
from heads.vector_store import VectorStore

R = TypeVar("R", Reference, Ridge)

# Axes whose draws the report counts, and the fewest sampled trials that it does so for.
SHOWN_AXES = ("pooling", "input_norm", "mlp_width", "loss", "audio_layer", "text_layer")
FEWEST_DRAWS = 20


def trials_file(setting: SearchContext, trials: Sequence[FrozenTrial]) -> None:
    """Write the table of trials: state, value (of a halved one the last), epochs, seed, all axes.

    `dev_macro_f1` is the score of selection: with folds, their pooled macro-F1; with attributes it
    is called `dev_score`. `seconds` is its share of the time that its cohort was trained for.
    """
    score = "dev_score" if setting.space.attributes else "dev_macro_f1"
    axes = list(dict.fromkeys(axis for trial in trials for axis in trial.params))
    columns = ["number", "start", "state", score, "epochs", "seconds", "seed", *axes]
    rows = []
    for trial in trials:
        rows.append(
            {
                "number": trial.number,
                "start": trial.user_attrs.get(START, ""),
                "state": trial.state.name.lower(),
                score: trial.value,
                "epochs": trial.last_step,
                "seconds": trial.user_attrs.get(SECONDS),
                "seed": trial.user_attrs.get(SEED, ""),
                **trial.params,
            }
        )
    write_text(setting.folder / TRIALS, csv_text(columns, rows))


def drawn_shares(trials: Sequence[FrozenTrial]) -> list[str]:
    """A note on how often each listed value was drawn, by whoever drew; none for too few trials."""
    sampled = [trial.params for trial in trials if START not in trial.user_attrs]
    if len(sampled) < FEWEST_DRAWS:
        return []
    parts = []
    for axis in SHOWN_AXES:
        counts = Counter(str(params[axis]) for params in sampled if axis in params)
        if len(counts) > 1:
            own = ", ".join(f"{v} {n / counts.total():.0%}" for v, n in counts.most_common())
            parts.append(f"{axis}: {own}")
    return [f"Drawn in {len(sampled)} sampled trials: {'; '.join(parts)}."] if parts else []


# By split, the rows and what was said about them, [n] and [n, C + A].
Answers = Mapping[str, tuple[Tensor, Tensor]]


def conclude(
    setting: SearchContext,
    study: HeadStudy,
    *,
    added: int,
    ensemble: int,
    plots: bool,
    notes: Sequence[str],
) -> SearchReport:
    """Score the best trial, write its files and the tables, sum up.

    Args:
        setting: the search.
        study: with a completed trial.
        added: trials that this run finished.
        ensemble: how many of the best are averaged; 0 for none.
        plots: whether to draw the study.
        notes: for the report.

    Raises:
        MissingStepError: the best trial's weights are not there.
        CacheError: they are not those that were written.
    """
    store, folder = setting.store, setting.folder
    trials, ranked = study.trials, study.ranked
    choice = choose(setting, ranked)
    members = [trial.number for trial in ranked[:ensemble]]
    missing = train_missing(setting, study, [choice.trial.number, *members])
    said = answers(setting, trials)
    head, record = load_head(trial_file(folder, choice.trial.number))
    found = _answers(setting, choice.trial.number, said)
    scores, attribute_scores = _scores(setting, found)
    record = replace(record, scores=scores, attribute_scores=attribute_scores)
    trials_file(setting, trials)
    reference = _references(setting)
    names = [BEST, WEIGHTS, TRIALS, PREDICTIONS, *reference.files]
    names += [TRIALS_FOLDER, SELECTION_FOLDER]
    names += [] if study.shared else [STUDY_FILE]
    names += _write_answers(setting, found, PREDICTIONS)
    team = None
    if ensemble:
        team, averaged = _ensemble(setting, members, said)
        write_ensemble(folder / ENSEMBLE, team)
        write_predictions(folder / ENSEMBLE_PREDICTIONS, store.dataset, _split(averaged))
        names += [ENSEMBLE, ENSEMBLE_PREDICTIONS]
    save_head(folder / BEST, folder / WEIGHTS, head, record)
    if plots:
        from heads.search.plots import write_plots

        names += write_plots(folder / PLOTS_FOLDER, trials, setting.objective)
    differences, reason = _against_best(setting, [t.number for t in ranked[:KEPT]], said)
    other_notes = [*device_notes(store.device)]
    if study.shared and missing:
        other_notes.append(
            f"Trained again here, because another machine has them: trials "
            f"{', '.join(str(number) for number in missing)}."
        )
    ended = (TrialState.COMPLETE, TrialState.PRUNED)
    absent = sum(trial.state in ended and trial.number not in said for trial in trials)
    if absent and not study.shared:
        other_notes.append(
            f"What {absent} trials said is not in {folder / SELECTION_FOLDER} any more: they are "
            "left out where trials are compared."
        )
    sentence = choice.to_text()
    return SearchReport(
        folder=folder,
        completed=len(ranked),
        halved=sum(trial.state == TrialState.PRUNED for trial in trials),
        added=added,
        epochs=record.schedule.epochs,
        best=record,
        top=tuple(
            TrialLine(
                trial.number,
                trial.user_attrs.get(START, ""),
                trial.params,
                final_value(trial),
                differences.get(trial.number),
            )
            for trial in ranked[:KEPT]
        ),
        logistic=reference.classes,
        ridge=reference.attributes,
        notes=(*notes, *other_notes, *drawn_shares(trials), *([sentence] if sentence else [])),
        files=tuple(folder / name for name in dict.fromkeys(names)),
        selected_on=setting.selection.name,
        not_compared=reason,
        ahead=_ahead_of_reference(setting, found, reference),
        # Of the best of all trials that were compared, halved ones included.
        optimism=setting.gold.optimism([said[number].numpy() for number in sorted(said)])
        if choice.trial.number in said
        else None,
        fold_scores=_fold_scores(setting, found),
        ensemble=team,
        objective=setting.objective if setting.space.attributes else "",
    )


def keep_chosen(setting: SearchContext, study: HeadStudy) -> None:
    """Write the head that would be taken now, without scores: a stopped search leaves it."""
    number = choose(setting, study.ranked).trial.number
    if (setting.folder / BEST).is_file():
        kept = load_head(setting.folder)[1]
        if (kept.trial, kept.trained_on) == (number, setting.selection.trained_on):
            return
    train_missing(setting, study, [number])
    head, record = load_head(trial_file(setting.folder, number))
    save_head(setting.folder / BEST, setting.folder / WEIGHTS, head, record)


def _answers(setting: SearchContext, number: int, said: Mapping[int, Tensor]) -> Answers:
    """What a trial says: its head about dev and test, and with folds those about rows held out."""
    dataset = setting.store.dataset
    head = load_head(trial_file(setting.folder, number))[0].to(setting.store.device)
    answers = {}
    if setting.selection.folds is not None and number in said:
        answers["folds"] = (setting.selection.scored, said[number])
    for split in setting.selection.unseen:
        rows = dataset.rows(split)
        if len(rows):
            answers[split] = (rows, predict([head], setting.store, rows)[0])
    return answers


def _scores(
    setting: SearchContext, answers: Answers
) -> tuple[dict[str, Scores], dict[str, AttributeScores]]:
    """Reports by split on classes, and on attributes, as far as there are."""
    classes, attributes = {}, {}
    for split, (rows, said) in answers.items():
        gold = Gold.of(setting.store.dataset, rows)
        if (own := gold.class_scores(said.numpy())) is not None:
            classes[split] = own
        if (rated := gold.attribute_scores(said.numpy())) is not None:
            attributes[split] = rated
    return classes, attributes


def _split(answers: Answers) -> Answers:
    """What is said about dev and test."""
    return {split: answer for split, answer in answers.items() if split != "folds"}


def _write_answers(setting: SearchContext, answers: Answers, name: str) -> list[str]:
    """Write the best head's predictions; return the names of the files."""
    dataset = setting.store.dataset
    write_predictions(setting.folder / name, dataset, _split(answers))
    if "folds" not in answers:
        return [name]
    path = setting.folder / FOLD_PREDICTIONS
    write_predictions(path, dataset, {"folds": answers["folds"]})
    return [name, FOLD_PREDICTIONS]


def _ensemble(
    setting: SearchContext, numbers: Sequence[int], said: Mapping[int, Tensor]
) -> tuple[Ensemble, Answers]:
    """Average trials, and score the average like a head."""
    each = [_answers(setting, number, said) for number in numbers]
    averaged = {
        split: (rows, average([answers[split][1] for answers in each]))
        for split, (rows, _) in each[0].items()
        if all(split in answers for answers in each)
    }
    return Ensemble(tuple(numbers), *_scores(setting, averaged)), averaged


def _against_best(
    setting: SearchContext, top: Sequence[int], said: Mapping[int, Tensor]
) -> tuple[dict[int, Difference], str]:
    """The best trials against the best one, by number; and why there is no comparison, if so."""
    others = [number for number in top[1:] if number in said]
    if top[0] not in said or not others:
        return {}, ""
    found, reason = setting.gold.differences(
        [said[number].numpy() for number in others], said[top[0]].numpy()
    )
    return dict(zip(others, found, strict=True)) if found else {}, "" if found else reason


def _ahead_of_reference(
    setting: SearchContext, answers: Answers, references: References
) -> dict[str, Difference]:
    """By split, how far the best head is ahead of the reference, where a bootstrap can say."""
    ahead = {}
    for split, (rows, said) in answers.items():
        gold = Gold.of(setting.store.dataset, rows)
        found, _ = gold.differences([said.numpy()], references.said(split, len(gold.labels)))
        if found:
            ahead[split] = found[0]
    return ahead


def _fold_scores(setting: SearchContext, answers: Answers) -> tuple[Scores, ...]:
    """The classes of the best trial on each fold by itself, as the field reports it.

    Empty without folds.
    """
    folds = setting.selection.folds
    if folds is None or "folds" not in answers:
        return ()
    rows, said = answers["folds"]
    parts = {
        str(fold): (rows[folds.numbers == fold], said[folds.numbers == fold])
        for fold in range(folds.count)
    }
    return tuple(_scores(setting, parts)[0].values())


def _references(setting: SearchContext) -> References:
    """The regressions beside the best head; fitted once for a study."""
    space, selection = setting.space, setting.selection

    def fitted(file: str, kind: type[R], fit: Callable[[VectorStore, Selection], R]) -> R:
        path = setting.folder / file
        kept = kind.read(path, setting.origin)
        if (
            kept is None
            or kept.trained_on != selection.trained_on
            or selection.name not in kept.scores
        ):
            kept = fit(setting.store, selection)
            kept.write(path, setting.origin)
        return kept

    return References(
        fitted(REFERENCE, Reference, logistic_reference) if space.labels else None,
        fitted(RIDGE, Ridge, ridge_reference) if space.attributes else None,
    )
